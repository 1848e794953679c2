"""What is wrong with `[directory]` is told before anything is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config, DirectoryConfig
from gateway.config.directory_checks import directory_complaints

KEY = {"KEY": "k" * 32, "URL": "postgresql://gate:secret@db.test/users?sslmode=verify-full"}


def problems(config: DirectoryConfig, base_dir: Path) -> list[str]:
    return [
        f"{'.'.join(map(str, each.path))}: {each.problem}"
        for each in directory_complaints(Config(directory=config), base_dir, KEY)
    ]


@pytest.mark.parametrize("url", ["", "embedded", "sqlite:users.sqlite3"])
def test_a_directory_on_one_machine_needs_no_key(url: str, tmp_path: Path) -> None:
    assert problems(DirectoryConfig(url=url), tmp_path) == []


@pytest.mark.parametrize("url", ["redis://127.0.0.1", "memory:", "mysql://x"])
def test_not_every_store_keeps_users(url: str, tmp_path: Path) -> None:
    assert problems(DirectoryConfig(url=url), tmp_path) == ["directory.url: no directory of users"]


def test_gateways_that_share_a_directory_share_its_key(tmp_path: Path) -> None:
    assert problems(DirectoryConfig(url="env:URL"), tmp_path) == ["directory.encryption_key: missing"]
    assert problems(DirectoryConfig(url="env:URL", encryption_key="env:KEY"), tmp_path) == []


def test_a_password_in_the_address_and_plain_text_are_refused(tmp_path: Path) -> None:
    config = DirectoryConfig(url="postgresql://gate:secret@db.test/users", encryption_key="env:KEY")
    assert problems(config, tmp_path) == [
        "directory.url: a password stands in the config",
        "directory.url: an unencrypted connection to another machine",
    ]


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short")
    (tmp_path / "key").chmod(0o600)
    config = DirectoryConfig(url="embedded", encryption_key="file:key")
    assert problems(config, tmp_path) == ["directory.encryption_key: shorter than 32 bytes"]
