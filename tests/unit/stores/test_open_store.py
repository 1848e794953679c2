"""Which backend a URL names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.stores import open_attribute_source, open_relation_store, open_store
from gateway.stores.attributes import FollowedSource


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


@pytest.mark.parametrize(
    ("url", "shared"),
    [
        ("", "machine"),
        ("sqlite:other.sqlite3", "machine"),
        ("memory:", "process"),
        ("unix:///run/redis.sock", "network"),
        ("postgresql://127.0.0.1:1/x", "network"),
        ("postgres://127.0.0.1:1/x", "network"),
    ],
)
def test_relations_and_attributes_have_the_same_backends(tmp_path: Path, url: str, shared: str) -> None:
    assert open_relation_store(url, tmp_path).shared == shared
    source = open_attribute_source(url, tmp_path, name="people")
    assert (source.shared, source.name, isinstance(source, FollowedSource)) == (shared, "people", True)
    assert list(tmp_path.iterdir()) == []


async def test_another_file_is_relative_to_the_run_directory(tmp_path: Path) -> None:
    source = open_attribute_source("sqlite:other.sqlite3", tmp_path, name="people")
    await source.read([])
    await source.close()
    assert (tmp_path / "other.sqlite3").exists()


@pytest.mark.parametrize("url", ["memory", "sqlite:", "mysql://x/", "/tmp/file", "redis"])
def test_any_other_url_of_relations_or_attributes_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="unknown kind of store"):
        open_relation_store(url, tmp_path)
    with pytest.raises(ValueError, match="unknown kind of store"):
        open_attribute_source(url, tmp_path, name="people")


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
