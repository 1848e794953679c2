"""The decision log of a running gateway: every decision of its doors and its decision API, once, with the right id."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.gateway import Gateway, bearer, gateway, issuer_toml, mint
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

SCHEMA = """
entity Role;
entity User in [Role] = { level?: Long };
entity Order = { owner: User };
action read appliesTo { principal: User, resource: Order, context: { tenant?: String } };
"""
POLICIES = """
@id("own") permit (principal, action, resource) when { principal == resource.owner };
@id("admins") permit (principal in Role::"admin", action, resource);
@id("tenant") forbid (principal, action, resource) when { context has tenant && context.tenant == "blocked" };
"""
ENTITIES = '[{"uid": {"type": "Order", "id": "1"}, "attrs": {"owner": {"type": "User", "id": "alice"}}, "parents": []}]'
CONFIG = """
[policy]
path = "policies"
entities = "entities.json"
principal_claims = { level = "level" }
principal_parents = { roles = "Role" }

[authzen]
clients = [{ id = "pep", secret = "env:PEP_SECRET" }]

[[routes]]
path = "/orders/{id}"
action = 'Action::"read"'
resource = 'Order::"{id}"'
context = { tenant = "{header.x-tenant}" }

[log]
decisions = "all"
decisions_to = "decisions.log"
decisions_redact = ["level"]
"""


@pytest.fixture(params=["inline", "public"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that answers on the server's own thread, and one that answers over the event loop."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "orders.cedarschema").write_text(SCHEMA)
    (tmp_path / "policies" / "orders.cedar").write_text(POLICIES)
    (tmp_path / "entities.json").write_text(ENTITIES)
    inline = "true" if request.param == "inline" else "false"
    config = f"inline = {inline}\n#server\n" + issuer_toml(tmp_path) + CONFIG
    with gateway(tmp_path, config, env={"PEP_SECRET": "s" * 32}) as started:
        yield started


def lines_of(running: Gateway) -> list[dict[str, Any]]:
    path = running.folder / "decisions.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def portcullis(running: Gateway, *arguments: str) -> Any:
    """Give what a verb says with `--json`, where the gateway was started."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments, "--json", "--config", str(running.path)],
        cwd=running.folder,
        env={**os.environ, "PEP_SECRET": "s" * 32},
        capture_output=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def test_every_decision_is_written_once_with_what_it_rests_on(running: Gateway) -> None:
    described = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/orders/1"), ("X-Forwarded-Host", "app.test")]
    own, other = mint(), mint(sub="bob", roles=["viewer"], level=3)
    ids = []
    for token, headers in ((own, []), (own, [("X-Tenant", "blocked")]), (other, []), (own, [])):
        answer = running.ask("GET", "/auth/forward", *described, *headers, bearer(token))
        ids.append(answer.one("x-auth-decision-id" if answer.status == 200 else "x-request-id"))
    assert running.ask("GET", "/auth/forward", *described).status == 401
    proxied = running.ask("GET", "/orders/1", bearer(own))
    ids.append(proxied.one("x-request-id"))
    credentials = base64.b64encode(b"pep:" + b"s" * 32).decode()
    question = {
        "subject": {"type": "User", "id": "alice"},
        "action": {"name": "read"},
        "resource": {"type": "Order", "id": "1"},
    }
    told = running.ask(
        "POST",
        "/access/v1/evaluation",
        ("Authorization", f"Basic {credentials}"),
        ("Content-Type", "application/json"),
        body=json.dumps(question).encode(),
    ).json
    ids.append(told["context"]["decision_id"])
    wait_until(lambda: len(lines_of(running)) >= 6, "all lines")
    lines = lines_of(running)
    assert sorted(line["id"] for line in lines) == sorted(ids)
    by_id = {line["id"]: line for line in lines}
    assert [(by_id[each]["decision"], by_id[each]["door"], by_id[each]["policies"]) for each in ids] == [
        ("allow", "forward", ["own"]),
        ("deny", "forward", ["tenant"]),
        ("deny", "forward", []),
        ("allow", "forward", ["own"]),
        ("allow", "proxy", ["own"]),
        ("allow", "authzen", ["own"]),
    ]
    assert by_id[ids[1]]["context"] == {"tenant": "blocked"}
    assert by_id[ids[2]]["given"]["principal"]["parents"] == [{"type": "Role", "id": "viewer"}]
    assert by_id[ids[2]]["redacted"] == ["given.principal.attrs.level"]
    assert by_id[ids[5]]["client"] == "pep"
    assert len({(line["digest"], line["revision"]) for line in lines}) == 1
    told = portcullis(running, "policy", "explain", "--log", "decisions.log", "--id", ids[1])
    assert (told["decision"], told["reasons"], told["logged"]["same_policies"]) == ("deny", ["tenant"], True)
    replayed = portcullis(running, "policy", "replay", "decisions.log")
    assert (replayed["same"], replayed["different"], replayed["not_made_again"]) == (5, 0, {"redacted": 1})
    text = (running.folder / "decisions.log").read_text()
    for secret in (*own.split("."), *other.split("."), "s" * 32, credentials):
        assert secret not in text
