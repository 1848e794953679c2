"""Which backend a URL names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.stores import open_store


@pytest.mark.parametrize(
    ("url", "shared"),
    [
        ("", "machine"),
        ("sqlite:other.sqlite3", "machine"),
        ("memory:", "process"),
        ("redis://127.0.0.1:1/0", "network"),
        ("rediss://:secret@redis.example.com:1/0", "network"),
        ("unix:///run/redis.sock", "network"),
    ],
)
def test_a_url_names_its_backend_and_connects_to_nothing(tmp_path: Path, url: str, shared: str) -> None:
    assert open_store(url, tmp_path).shared == shared
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["memory", "sqlite:", "postgres://x/", "/tmp/file", "redis"])
def test_any_other_url_is_refused_without_being_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="unknown kind of store"):
        open_store(url, tmp_path)


def test_a_driver_is_imported_only_when_its_store_is_used(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from gateway.stores import open_store\n"
        "open_store('redis://127.0.0.1:1/0', pathlib.Path('.'))\n"
        "assert not {'redis', 'sqlite3'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
