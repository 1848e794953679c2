"""Clients that others wrote get tokens of the real gateway: openid-client, oauth4webapi, and the SDK of MCP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.flows.sessions import Proof, SessionNames, Sessions
from gateway.flows.trail import AuditTrail
from gateway.stores import open_session_store
from gateway.tokens.signing import new_key
from gateway.types import AuditEvent, Secret, Subject, SystemClock
from tests.real.gateway import Gateway, gateway
from tests.real.npm import npm_packages
from tests.real.process import find_binary, free_port

pytestmark = pytest.mark.journey

PACKAGES = ("openid-client@6.9.0", "oauth4webapi@3.8.8", "@modelcontextprotocol/sdk@1.32.2", "zod@4.6.7")
SCRIPTS = Path(__file__).parent / "oauth_clients"
SCRIPT_TIMEOUT_S = 60.0
GRACE_S = 1
ALICE = Subject("", "usr_alice")
SECRET = "w" * 40
COOKIE_KEY = "k" * 40
ENV = {"SEALING": "s" * 40, "WEB_SECRET": SECRET, "COOKIE_KEY": COOKIE_KEY}
CONFIG = f"""
[log]
access = "-"

[sessions]
url = "sqlite:sessions.sqlite3"
key = "env:COOKIE_KEY"

[oauth]
issuer = "http://127.0.0.1:@PORT@"
encryption_key = "env:SEALING"
refresh_grace_s = {GRACE_S}

[[oauth.clients]]
id = "web"
name = "The web application"
secret = "env:WEB_SECRET"
redirect_uris = ["http://127.0.0.1:5999/back"]
post_logout_redirect_uris = ["http://127.0.0.1:5999/goodbye"]
scopes = ["openid", "profile", "offline_access", "read"]

[[oauth.clients]]
id = "app"
auth = "none"
consent = "implied"
redirect_uris = ["http://127.0.0.1/back"]
scopes = ["openid", "profile", "offline_access", "read"]

[[oauth.clients]]
id = "signer"
auth = "private_key_jwt"
jwks_file = "signer.jwks.json"
grant_types = ["client_credentials"]
scopes = ["read"]

[[oauth.resources]]
id = "http://127.0.0.1:@PORT@/mcp"
name = "Tools"
scopes = ["read"]

[oauth.strangers]
registration = "open"

[[routes]]
path = "/mcp"
upstream = "http://127.0.0.1:@UPSTREAM@"
"""


class _Silent:
    def tell(self, event: AuditEvent) -> None:
        pass


def log_in(folder: Path) -> str:
    """Begin a session in the store of the gateway, as its login would, and return what the browser's cookie holds."""

    async def begin() -> str:
        clock = SystemClock()
        store = open_session_store(f"sqlite:{folder / 'sessions.sqlite3'}", folder, clock)
        sessions = Sessions(
            store, SessionNames("local", Secret(COOKIE_KEY)), clock=clock, trail=AuditTrail(_Silent(), clock)
        )
        begun = await sessions.begin(ALICE, Proof(amr=("pwd",), acr="1"))
        await store.close()
        return begun.value

    return asyncio.run(begin())


class Clients:
    """A gateway, and scripts that are its clients."""

    def __init__(self, running: Gateway, packages: Path, environment: dict[str, str]) -> None:
        self._packages = packages
        self.environment = environment
        self.running = running

    def run(self, script: str, **environment: str) -> list[str]:
        """Run a script to its end, and return the steps that it got through; fail with all it said."""
        for each in SCRIPTS.glob("*.mjs"):
            target = self._packages / each.name
            if not target.exists() or target.read_text() != each.read_text():
                draft = target.with_suffix(f".{os.getpid()}")
                draft.write_text(each.read_text())
                draft.replace(target)
        done = subprocess.run(
            [find_binary("node"), script],
            cwd=self._packages,
            env={**os.environ, **self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=SCRIPT_TIMEOUT_S,
        )
        said = f"{done.stdout}\n{done.stderr}\n--- gateway\n{self.running.server.output[-3000:]}"
        assert done.returncode == 0, said
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    packages = npm_packages(*PACKAGES)
    folder = tmp_path_factory.mktemp("oauth")
    signer = new_key("ES256", kid="signer-1")
    (folder / "signer.jwks.json").write_text(json.dumps({"keys": [signer.public_jwk()]}))
    upstream = free_port()
    with gateway(folder, CONFIG.replace("@UPSTREAM@", str(upstream)), workers=2, env=ENV) as running:
        issuer = f"http://127.0.0.1:{running.port}"
        environment = {
            "ISSUER": issuer,
            "RESOURCE": f"{issuer}/mcp",
            "COOKIE": f"__Host-portcullis={log_in(folder)}",
            "SECRET": SECRET,
            "SUBJECT": ALICE.id,
            "GRACE_S": str(GRACE_S),
            "SIGNER_JWK": json.dumps(signer.private_jwk()),
            "UPSTREAM_PORT": str(upstream),
        }
        yield Clients(running, packages, environment)


def test_openid_client_logs_in_refreshes_introspects_and_revokes(clients: Clients) -> None:
    clients.run("openid_client_dpop.mjs")
    steps = clients.run("openid_client.mjs")
    assert "reuse ends the family" in steps
    assert steps[-1] == "a user who does not agree"


def test_openid_client_logs_its_user_out(clients: Clients) -> None:
    cookie = f"__Host-portcullis={log_in(clients.running.path.parent)}"
    assert clients.run("openid_client_logout.mjs", COOKIE=cookie)[-1] == "nobody is logged in"
    assert "id_token_hint" not in clients.running.server.output


def test_oauth4webapi_finds_every_answer_right_to_the_letter(clients: Clients) -> None:
    steps = clients.run("oauth4webapi.mjs")
    assert steps[-1] == "an access token by RFC 9068, bound to its key"
    assert "a nonce is asked for" in steps


def test_no_token_code_secret_or_cookie_is_written_down(clients: Clients) -> None:
    clients.run("oauth4webapi.mjs")
    output = clients.running.server.output
    assert "oauth.token" in output
    for secret in ("pcr_", "pcc_", "eyJ", "request_uri:", "code=", "code_verifier", SECRET, COOKIE_KEY, ENV["SEALING"]):
        assert secret not in output, secret
    assert clients.environment["COOKIE"].partition("=")[2] not in output


def test_the_mcp_sdk_calls_a_tool_behind_the_gateway_that_it_knew_nothing_of(clients: Clients) -> None:
    assert clients.run("mcp_client.mjs")[-1] == "done"
