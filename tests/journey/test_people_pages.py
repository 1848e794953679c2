"""docs/scim.md and docs/admin.md are true: their commands are typed in, and what they print is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.conftest import ROOT
from tests.journey.test_oauth_page import commands, matches, path
from tests.real.process import ServerProcess, find_binary, free_port, wait_until

pytestmark = pytest.mark.journey

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_KEPT = "URL|AUTH|JSON|ID"  # what commands keep for those that follow


@pytest.mark.parametrize(
    ("page", "secrets", "probe"),
    [
        ("scim.md", ("SCIM_TOKEN", "READER_TOKEN"), "8480/scim/v2/Users"),
        ("admin.md", ("PAGER_TOKEN", "SIEM_TOKEN"), "8481/admin/v1/users"),
    ],
)
def test_what_the_page_shows_is_what_happens(tmp_path: Path, page: str, secrets: tuple[str, ...], probe: str) -> None:
    find_binary("curl")
    blocks = _BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    ports = {"8480": str(free_port()), "8481": str(free_port())}

    def placed(text: str) -> str:
        return re.sub(r"848[01]", lambda found: ports[found[0]], text)

    (tmp_path / "portcullis.toml").write_text(placed(next(text for kind, text in blocks if kind == "toml")))
    (console,) = (text for kind, text in blocks if kind == "console")
    environment = {**path(), **{name: os.urandom(32).hex() for name in secrets}}
    server = ServerProcess([sys.executable, "-m", "gateway", "serve"], tmp_path / "log", cwd=tmp_path, env=environment)

    def answers() -> bool:
        headers = {"Authorization": f"Bearer {environment[secrets[0]]}"}
        try:
            state = httpx2.get(f"http://127.0.0.1:{ports['8481']}/readyz").json()["status"]
            answer = httpx2.get(f"http://127.0.0.1:{placed(probe)}", headers=headers)
            return answer.status_code == 200 and state == "ok"
        except httpx2.HTTPError:
            return False

    try:
        wait_until(answers, "the gateway answers")
        (tmp_path / "kept").write_text("")
        for command, shown in commands(placed(console)):
            if command.startswith("export ") or "serve" in command:
                continue
            program = f'portcullis() {{ "{sys.executable}" -m gateway "$@"; }}\n. ./kept\n'
            keep = f"\nfor name in $(compgen -A variable | grep -xE '{_KEPT}'); do declare -p $name; done >kept"
            done = subprocess.run(
                ["bash", "-c", program + command + keep],
                cwd=tmp_path,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
            )
            printed = done.stdout.splitlines()
            assert len(printed) >= len(shown), (command, done.stdout, done.stderr)
            for line, given in zip(shown, printed, strict=False):
                assert matches(line, given), (command, line, given)
    finally:
        server.stop()
