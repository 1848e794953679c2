"""Routes of a real gateway that ask the policies, at forward-auth and at the proxy door, and over a reload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest

from tests.real.gateway import Gateway, bearer, gateway, issuer_toml, mint
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

SCHEMA = """
entity User;
entity Order = { owner: User };
action read, write appliesTo { principal: User, resource: Order, context: { tenant?: String } };
"""
POLICIES = """
permit (principal, action, resource) when { principal == resource.owner };
forbid (principal, action, resource) when { context has tenant && context.tenant == "blocked" };
"""
ENTITIES = '[{"uid": {"type": "Order", "id": "1"}, "attrs": {"owner": {"type": "User", "id": "alice"}}, "parents": []}]'
ROUTES = """
[policy]
path = "policies"
entities = "entities.json"

[[routes]]
path = "/orders/{id}"
methods = ["GET"]
action = 'Action::"read"'
resource = 'Order::"{id}"'
context = { tenant = "{header.x-tenant}" }
"""


@pytest.fixture(params=["inline", "public"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that answers on the server's own thread, and one that answers over the event loop."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "orders.cedarschema").write_text(SCHEMA)
    (tmp_path / "policies" / "orders.cedar").write_text(POLICIES)
    (tmp_path / "entities.json").write_text(ENTITIES)
    inline = "true" if request.param == "inline" else "false"
    with gateway(tmp_path, f"inline = {inline}\n#server\n" + issuer_toml(tmp_path) + ROUTES) as started:
        yield started


def forward(running: Gateway, uri: str, subject: str, *headers: tuple[str, str], **claims: Any) -> int:
    described = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", uri), ("X-Forwarded-Host", "app.test")]
    return running.ask("GET", "/auth/forward", *described, bearer(mint(sub=subject, **claims)), *headers).status


def test_policies_decide_about_good_tokens_new_and_known(running: Gateway) -> None:
    for _ in range(3):
        assert forward(running, "/orders/1", "alice") == 200
        assert forward(running, "/orders/1", "bob") == 403
        assert forward(running, "/orders/2", "alice") == 403
        assert forward(running, "/orders/1", "alice", ("X-Tenant", "blocked")) == 403
    denied = running.ask("GET", "/orders/2", bearer(mint(sub="alice")))
    assert (denied.status, b'"policy_denied"' in denied.body) == (403, True)


def test_a_reload_changes_what_is_decided_and_a_broken_set_does_not(running: Gateway) -> None:
    policies = running.folder / "policies" / "orders.cedar"
    assert forward(running, "/orders/1", "bob") == 403
    policies.write_text("permit (principal, action, resource);")
    running.server.signal(SIGHUP)
    wait_until(lambda: forward(running, "/orders/1", "bob") == 200, "the new policies")
    policies.write_text("permit (principal, action, resource) when { resource.nobody };")
    running.server.signal(SIGHUP)
    wait_until(lambda: "nobody" in running.server.output, "the refusal")
    assert forward(running, "/orders/1", "bob") == 200


def test_claims_say_who_asks_and_a_reload_changes_which(running: Gateway) -> None:
    folder = running.folder / "policies"
    (folder / "orders.cedarschema").write_text(
        "entity Role; entity User in [Role] = { level: Long }; entity Order = { owner: User };"
        "action read, write appliesTo { principal: User, resource: Order, context: { tenant?: String } };"
    )
    (folder / "orders.cedar").write_text(
        'permit (principal in Role::"admin", action, resource) when { principal.level > 2 };'
        'forbid (principal, action, resource) unless { context has tenant && context.tenant == "acme" };'
    )
    config = running.path.read_text().replace("{header.x-tenant}", "{claim.org.id}")
    mapping = 'principal_claims = { level = "level" }\nprincipal_parents = { roles = "Role" }\n'
    running.path.write_text(config.replace("[policy]\n", "[policy]\n" + mapping))
    running.server.signal(SIGHUP)
    admin: dict[str, Any] = {"roles": ["admin"], "level": 3, "org": {"id": "acme"}}
    wait_until(lambda: forward(running, "/orders/1", "bob", **admin) == 200, "the mapping")
    lacking: list[dict[str, Any]] = [{"roles": []}, {"level": 2}, {"level": None}, {"org": {"id": "x"}}, {"org": None}]
    for changes in (*lacking, {"level": "3"}):
        assert forward(running, "/orders/1", "bob", **{**admin, **changes}) == 403
    refused = running.ask("GET", "/orders/1", bearer(mint(**{**admin, "level": "3"})))
    assert (refused.status, b'"policy_claim_invalid"' in refused.body) == (403, True)
    running.path.write_text(config.replace("[policy]\n", "[policy]\n" + mapping.replace('"level"', '"rank"')))
    running.server.signal(SIGHUP)
    wait_until(lambda: forward(running, "/orders/1", "bob", **admin, rank=1) == 403, "the other claim")
    assert forward(running, "/orders/1", "bob", **{**admin, "level": 1}, rank=3) == 200
