"""`portcullis init`: what it writes loads, and is no riddle."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from gateway.cli.init import SHAPES
from gateway.cli.render import PROXIES
from gateway.config import load_config

Run = Callable[..., Result]
RunJson = Callable[..., Any]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_it_writes_loads_without_a_warning(shape: str, run: Run, folder: Path) -> None:
    run("init", shape)
    loaded = load_config(folder / "portcullis.toml")
    assert loaded.warnings == ()
    assert loaded.config.issuers[0].issuer == "https://idp.example.com"
    run("check")


def test_a_sidecar_is_short(run: Run, folder: Path) -> None:
    run("init")
    lines = (folder / "portcullis.toml").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 20


def test_its_options_are_written(run: Run, folder: Path) -> None:
    run(
        "init",
        "--issuer",
        'https://a"b.example',
        "--audience",
        "me\\you",
        "--app",
        "http://10.0.0.1:1",
        "--out",
        "conf/p.toml",
    )
    text = (folder / "conf" / "p.toml").read_text()
    assert 'issuer = "https://a\\"b.example"' in text
    run("init", "--issuer", "https://a.example", "--audience", "me\\you", "--app", "http://10.0.0.1:1", "--force")
    config = load_config(folder / "portcullis.toml").config
    assert config.issuers[0].audiences == ("me\\you",)
    assert {route.upstream for route in config.routes} == {"http://10.0.0.1:1"}


def test_nothing_is_overwritten_without_being_asked_to(run: Run, folder: Path) -> None:
    (folder / "portcullis.toml").write_text("mine")
    assert "`--force` overwrites it" in run("init", status=1).stderr
    assert (folder / "portcullis.toml").read_text() == "mine"
    run("init", "--force")
    assert (folder / "portcullis.toml").read_text() != "mine"


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_proxys_side_is_written_too(proxy: str, run_json: RunJson, folder: Path) -> None:
    files = run_json("init", "forward-auth", "--for", proxy)["files"]
    assert len(files) >= 2
    assert all((folder / file).stat().st_size for file in files)


def test_an_introspection_clients_secret_is_made_and_kept(run: Run, folder: Path) -> None:
    run("init", "introspection")
    path = folder / "orders-api.secret"
    secret = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(secret) > 32
    run("init", "introspection", "--force")
    assert path.read_bytes() == secret


def test_a_folder_that_cannot_be_written_is_a_fault(run: Run, folder: Path) -> None:
    (folder / "file").touch()
    assert "✗ " in run("init", "--out", "file/portcullis.toml", status=1).stderr
