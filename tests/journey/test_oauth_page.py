"""docs/oauth.md is true: its config is written, its commands are typed in, and what they print is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config import load_config
from tests.conftest import ROOT
from tests.real.process import ServerProcess, accepts, find_binary, free_port, wait_until

pytestmark = pytest.mark.journey

PAGE = (ROOT / "docs" / "oauth.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(console: str) -> list[tuple[str, list[str]]]:
    """Give each command with the lines that it is said to print."""
    found = []
    for piece in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        lines = piece.splitlines()
        count = 1
        while lines[count - 1].endswith("\\"):
            count += 1
        found.append(("\n".join(lines[:count]), lines[count:]))
    return found


def matches(shown: str, printed: str) -> bool:
    """Compare a line; `…` stands for anything."""
    return re.fullmatch(".*".join(re.escape(part) for part in shown.split("…")), printed) is not None


def test_what_the_page_shows_is_what_happens(tmp_path: Path) -> None:
    find_binary("curl")
    find_binary("openssl")
    blocks = _BLOCK.findall(PAGE)
    ports = {"8480": str(free_port()), "8481": str(free_port())}

    def placed(text: str) -> str:
        return re.sub(r"848[01]", lambda found: ports[found[0]], text)

    config = next(text for kind, text in blocks if kind == "toml")
    (tmp_path / "portcullis.toml").write_text(placed(config))
    environment = {name: os.urandom(32).hex() for name in ("SEALING_KEY", "JOB_SECRET")}
    program = f'portcullis() {{ "{sys.executable}" -m gateway "$@"; }}\n'
    (console,) = (text for kind, text in blocks if kind == "console")
    server = ServerProcess(
        [sys.executable, "-m", "gateway", "serve"], tmp_path / "log", cwd=tmp_path, env={**environment, **path()}
    )
    try:
        wait_until(lambda: accepts(int(ports["8480"])), "the gateway listens")
        token = ""
        for command, shown in commands(placed(console)):
            if command.startswith("export ") or "serve" in command:
                continue
            done = subprocess.run(
                ["bash", "-c", f'{program}{token}{command}\necho "TOKEN=$TOKEN" >token'],
                cwd=tmp_path,
                env={**os.environ, **environment, **path()},
                capture_output=True,
                text=True,
            )
            token = (tmp_path / "token").read_text()
            printed = done.stdout.splitlines()
            assert len(printed) >= len(shown), (command, done.stdout, done.stderr)
            for line, given in zip(shown, printed, strict=False):
                assert matches(line, given), (command, line, given)
    finally:
        server.stop()


def path() -> dict[str, str]:
    """Have the checkout importable from the folder of the test."""
    return {"PYTHONPATH": str(ROOT)}


def test_every_config_of_the_page_loads(tmp_path: Path) -> None:
    environment = {name: "x" * 40 for name in ("SEALING_KEY", "JOB_SECRET")}
    first, *others = [text for kind, text in _BLOCK.findall(PAGE) if kind == "toml"]
    for number, more in enumerate(others, start=1):
        file = tmp_path / f"{number}.toml"
        file.write_text(f"{first}\n{more}")
        assert not [warning for warning in load_config(file, env=environment).warnings if "oauth" in warning.key]
