"""Which source a chapter of the config opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import SourceConfig
from gateway.config.secrets import SecretUnresolved
from gateway.front.attribute_sources import open_configured_source
from gateway.stores.attributes import FollowedSource
from gateway.stores.attributes_http import HTTPAttributeSource


def source_config(url: str, secret: str = "") -> SourceConfig:
    return SourceConfig(name="people", types=("User",), url=url, secret=secret, timeout_s=0.123)


def test_the_embedded_source_is_in_the_run_directory_and_followed(tmp_path: Path) -> None:
    source = open_configured_source(source_config("embedded"), base_dir=tmp_path, run_dir=tmp_path / "run")
    assert (source.name, source.shared, isinstance(source, FollowedSource)) == ("people", "machine", True)


def test_an_address_may_stand_elsewhere_since_it_may_hold_a_password(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:hunter2@127.0.0.1:1/0\n")
    source = open_configured_source(source_config("file:url"), base_dir=tmp_path, run_dir=tmp_path)
    assert source.shared == "network"


def test_a_service_has_its_deadline_and_its_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    url = "https://directory.example.com/entities"
    source = open_configured_source(source_config(url, "file:token"), base_dir=tmp_path, run_dir=tmp_path)
    assert isinstance(source, HTTPAttributeSource)
    assert source._timeout_s == 0.123
    assert source._secret is not None
    assert source._secret.reveal() == b"s3cret"
    with pytest.raises(SecretUnresolved):
        open_configured_source(source_config(url, "file:none"), base_dir=tmp_path, run_dir=tmp_path)
    for other in ("ftp://x/", "http://directory.example.com/"):
        with pytest.raises(ValueError, match=r"unknown kind|not https"):
            open_configured_source(source_config(other), base_dir=tmp_path, run_dir=tmp_path)
