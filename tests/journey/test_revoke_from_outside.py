"""`portcullis token revoke` beside a running gateway: every worker refuses the token within a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.real.gateway import Gateway, bearer, gateway, issuer_toml, mint
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

ROUTE = '\n[[routes]]\npath = "/orders/{id}"\nscopes = ["orders:read"]\n'
SECOND_AND_A_PROCESS_S = 3.0  # the promise is one second after the row is stored; the command takes a while to start


def refused_everywhere(running: Gateway, token: str) -> bool:
    """Ask often enough that both workers have answered."""
    return all(running.ask("GET", "/auth/envoy/orders/1", bearer(token)).status == 401 for _ in range(20))


def test_a_token_and_then_its_subject(tmp_path: Path) -> None:
    with gateway(tmp_path, issuer_toml(tmp_path) + ROUTE, workers=2) as running:
        first, second = mint(jti="one"), mint(jti="two")
        for token in (first, second):
            assert running.ask("GET", "/auth/envoy/orders/1", bearer(token)).status == 200
        command = [sys.executable, "-m", "gateway", "token", "revoke", "-c", str(running.path)]
        subprocess.run([*command, "-"], input=first, text=True, check=True, cwd=ROOT, capture_output=True)
        wait_until(lambda: refused_everywhere(running, first), "the token is refused", SECOND_AND_A_PROCESS_S)
        assert running.ask("GET", "/auth/envoy/orders/1", bearer(second)).status == 200
        subprocess.run([*command, "--sub", "alice"], check=True, cwd=ROOT, capture_output=True)
        wait_until(lambda: refused_everywhere(running, second), "the subject is refused", SECOND_AND_A_PROCESS_S)
