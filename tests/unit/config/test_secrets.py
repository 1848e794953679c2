"""Secrets by reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import resolve_secret, resolve_store_url
from gateway.config.secrets import SECRET_BYTES_MAX, SecretUnresolved, secret_file_mode


def test_a_variable_gives_its_bytes() -> None:
    assert resolve_secret("env:KEY", Path(), {"KEY": "größe"}).reveal() == "größe".encode()


def test_the_processs_environment_is_read_when_no_other_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "k")
    assert resolve_secret("env:KEY", Path()).reveal() == b"k"


@pytest.mark.parametrize(
    ("content", "secret"), [(b"k", b"k"), (b"k\n", b"k"), (b"k\r\n", b"k"), (b"k\n\n", b"k\n"), (b" k ", b" k ")]
)
def test_a_file_gives_its_bytes_without_the_last_newline(content: bytes, secret: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    assert resolve_secret("file:key", tmp_path, {}).reveal() == secret
    assert resolve_secret(f"file:{tmp_path}/key", Path("/"), {}).reveal() == secret


@pytest.mark.parametrize(
    "reference", ["", "hunter2", "env:", "file:", "ENV:KEY", "env:ABSENT", "env:EMPTY", "file:no", "file:."]
)
def test_what_gives_no_secret_is_refused(reference: str, tmp_path: Path) -> None:
    with pytest.raises(SecretUnresolved) as caught:
        resolve_secret(reference, tmp_path, {"EMPTY": "", "KEY": "k"})
    assert "hunter2" not in str(caught.value)


def test_a_file_may_be_as_long_as_the_limit_and_no_longer(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k" * SECRET_BYTES_MAX)
    assert len(resolve_secret("file:key", tmp_path).reveal()) == SECRET_BYTES_MAX
    (tmp_path / "key").write_bytes(b"k" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(SecretUnresolved, match="longer than"):
        resolve_secret("file:key", tmp_path)


def test_a_secret_is_blank_when_shown(tmp_path: Path) -> None:
    secret = resolve_secret("env:KEY", tmp_path, {"KEY": "hunter2"})
    assert "hunter2" not in f"{secret} {secret!r}"


def test_the_mode_of_a_file_is_known_and_of_a_variable_is_not(tmp_path: Path) -> None:
    (tmp_path / "key").touch(mode=0o640)
    assert secret_file_mode("file:key", tmp_path) == (tmp_path / "key").stat().st_mode & 0o777
    assert secret_file_mode("env:KEY", tmp_path) is None
    assert secret_file_mode("file:absent", tmp_path) is None


def test_a_stores_address_may_stand_for_itself_or_be_referred_to(tmp_path: Path) -> None:
    env = {"STORE": "redis://:pw@h/0"}
    assert resolve_store_url("redis://h/0", tmp_path, env).reveal() == b"redis://h/0"
    assert resolve_store_url("env:STORE", tmp_path, env).reveal() == b"redis://:pw@h/0"
