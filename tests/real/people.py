"""Users of a real gateway, made by its own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.conftest import ROOT
from tests.real.gateway import Gateway

PASSWORD = "correct horse battery staple"


def portcullis(
    gateway: Gateway, *words: str, given: str = "", ok: bool = True, env: Mapping[str, str] | None = None
) -> Any:
    """Run a verb of `portcullis` with the gateway's config; return its JSON."""
    command = [sys.executable, "-m", "gateway", *words, "-c", str(gateway.path), "--json"]
    finished = subprocess.run(
        command, input=given, capture_output=True, text=True, cwd=ROOT, check=False, env={**os.environ, **(env or {})}
    )
    assert (finished.returncode == 0) is ok, finished.stdout + finished.stderr
    return json.loads(finished.stdout)


def add_user(gateway: Gateway, name: str, password: str = PASSWORD, env: Mapping[str, str] | None = None) -> str:
    """Add a user; return the id."""
    added = portcullis(gateway, "user", "add", name, given=f"{password}\n", env=env)
    return str(added["user"]["id"])
