"""Routes that ask the policies: what a request is made into, and that whatever goes wrong denies."""

from __future__ import annotations

import gc
import sys

import pytest

from gateway._native.entities import EntityStore
from gateway._native.route_policy import Piece
from gateway.config import PolicyConfig, RouteConfig
from gateway.errors import ConfigError
from gateway.front.principals import PrincipalClaims
from gateway.front.route_policy import compile_route_policy
from gateway.policy import Engine, Entity, EntityUid, Schema
from tests.native.policy_harness import ALICE, READ, ROUTE, Asking, context_route, engine_of
from tests.real.gateway import bearer, mint

OWN = 'permit (principal, action == Action::"read", resource is Order) when { principal == resource.owner };'
SCHEMA = """
entity User;
entity Order = { owner: User };
action read appliesTo {
  principal: User, resource: Order, context: { tenant?: String, page?: Long, fresh?: Bool, from?: ipaddr },
};
"""


def test_the_owner_passes_and_others_do_not() -> None:
    door = Asking(OWN)
    assert door.reason("/orders/1") == "ok"
    assert door.reason("/orders/1", subject="bob") == "policy_denied"
    assert door.reason("/orders/2") == "policy_denied"


def test_a_denial_is_403_with_its_own_code() -> None:
    answer = Asking(OWN).forward("GET", "/orders/1", bearer(mint(sub="bob")))
    assert answer.status == 403
    assert b'"code":"policy_denied"' in answer.body


@pytest.mark.parametrize("ask", ["forward", "nginx", "envoy"])
def test_all_doors_ask(ask: str) -> None:
    door = Asking(OWN)
    target = "http://app.test/orders/1" if ask == "nginx" else "/orders/1"
    assert getattr(door, ask)("GET", target, bearer(mint(sub="alice"))).status == 200
    assert getattr(door, ask)("GET", target, bearer(mint(sub="bob"))).status == 403


def test_the_same_token_is_asked_about_each_time() -> None:
    door = Asking(OWN)
    token = bearer(mint(sub="alice"))
    reasons = [door.door.judge_scope(door.scope("GET", f"/orders/{number}", [token])).reason for number in (1, 2, 1, 2)]
    assert reasons == ["ok", "policy_denied", "ok", "policy_denied"]


def test_parameters_are_decoded() -> None:
    door = Asking('permit (principal, action, resource == Order::"ä b%");')
    assert door.reason("/orders/%C3%A4%20b%25") == "ok"
    assert door.reason("/orders/%C3%A4%20b%2541") == "path_refused"  # an escaped escape can be read in two ways


def test_a_bad_token_is_refused_before_policies_are_asked() -> None:
    door = Asking("permit (principal, action, resource);")
    assert door.door.judge_scope(door.scope("GET", "/orders/1", [])).reason == "no_credentials"


def test_no_policies_in_force_is_503_and_never_a_pass() -> None:
    door = Asking(None)
    assert door.reason("/orders/1") == "policy_unavailable"
    assert door.forward("GET", "/orders/1", bearer(mint(sub="alice"))).status == 503


def test_a_denial_by_policies_in_doubt_is_503_and_an_allow_is_one() -> None:
    door = Asking(OWN)
    assert (door.reason("/orders/1"), door.reason("/orders/2")) == ("ok", "policy_denied")
    door.cell.doubtful = True
    assert (door.reason("/orders/1"), door.reason("/orders/2")) == ("ok", "policy_unavailable")
    door.cell.decider = None
    assert door.reason("/orders/1") == "policy_unavailable"
    door.cell.doubtful = False
    assert door.reason("/orders/1") == "policy_unavailable"


def test_policies_are_swapped_under_known_tokens() -> None:
    door = Asking(OWN)
    token = bearer(mint(sub="alice"))
    scope = door.scope("GET", "/orders/1", [token])
    assert door.door.judge_scope(scope).reason == "ok"
    door.cell.decider = engine_of("forbid (principal, action, resource);")
    assert door.door.judge_scope(scope).reason == "policy_denied"
    door.cell.decider = engine_of(OWN)
    assert door.door.judge_scope(scope).reason == "ok"
    door.cell.decider = None
    assert door.door.judge_scope(scope).reason == "policy_unavailable"


def test_a_store_that_is_not_in_force_any_more_is_let_go() -> None:
    door = Asking(OWN)
    assert door.cell.decider is not None
    store = door.cell.decider.store
    for subject in ("alice", "bob"):
        door.call("GET", "/orders/1", [bearer(mint(sub=subject))])
    door.cell.decider = engine_of(OWN)
    assert door.call("GET", "/orders/1", [bearer(mint(sub="bob"))]).status == 403
    gc.collect()
    assert sys.getrefcount(store) == 2  # the name here, and the argument


def test_entities_change_under_known_tokens() -> None:
    door = Asking(OWN)
    engine = door.cell.decider
    assert isinstance(engine, Engine)
    token = bearer(mint(sub="alice"))
    scope = door.scope("GET", "/orders/1", [token])
    assert door.door.judge_scope(scope).reason == "ok"
    engine.entities.upsert([Entity(EntityUid("Order", "1"), {"owner": EntityUid("User", "bob")})])
    assert door.door.judge_scope(scope).reason == "policy_denied"
    engine.entities.upsert([Entity(EntityUid("Order", "1"), {"owner": ALICE})])
    assert door.door.judge_scope(scope).reason == "ok"


def test_holes_are_filled_from_method_host_path_header_and_query() -> None:
    resource = 'T::"{request.method} {request.host} {request.path} {request.scheme} {header.x-a} {query.q}"'
    route = RouteConfig(path="/orders/{id}", action='Action::"{request.method}"', resource=resource)
    wanted = 'resource == T::"GET app.test /orders/1 http A b c&"'
    door = Asking(f'permit (principal, action == Action::"GET", resource) when {{ {wanted} }};', route)
    assert door.reason("/orders/1?p=1&q=b+c%26", ("X-A", "A")) == "ok"
    assert door.reason("/orders/1?q=b+c%26", ("X-A", "B")) == "policy_denied"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/orders/1?q=1", []),
        ("/orders/1?q=1", [("X-A", "a"), ("X-A", "b")]),
        ("/orders/1", [("X-A", "a")]),
        ("/orders/1?q=1&q=2", [("X-A", "a")]),
        ("/orders/1?q=%4", [("X-A", "a")]),
        ("/orders/1?q=%zz", [("X-A", "a")]),
        ("/orders/1?q=%ff", [("X-A", "a")]),
        ("/orders/1?q=1", [("X-A", "\xff")]),
        ("/orders/1?q=" + "x" * 9000, [("X-A", "a")]),
    ],
    ids=["no header", "header twice", "no query", "query twice", "cut", "no hex", "no UTF-8", "Latin-1", "too long"],
)
def test_a_hole_of_the_resource_that_nothing_fills_denies(target: str, headers: list[tuple[str, str]]) -> None:
    route = RouteConfig(path="/orders/{id}", action=READ, resource='T::"{header.x-a}{query.q}"')
    door = Asking("permit (principal, action, resource);", route)
    assert door.reason(target, *headers) == "policy_incomplete"


def test_an_attribute_that_nothing_fills_is_absent() -> None:
    door = Asking(
        'permit (principal, action, resource) unless { context has tenant && context.tenant != "a" };',
        context_route(tenant="{header.x-tenant}"),
    )
    assert door.reason("/orders/1") == "ok"
    assert door.reason("/orders/1", ("X-Tenant", "a")) == "ok"
    assert door.reason("/orders/1", ("X-Tenant", "b")) == "policy_denied"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("page=3&fresh=true&from=10.1.2.3", "ok"),
        ("page=-9223372036854775807&fresh=true&from=10.1.2.3", "policy_denied"),
        ("page=3&fresh=false&from=10.1.2.3", "policy_denied"),
        ("page=3&fresh=true&from=192.0.2.1", "policy_denied"),
        ("page=x&fresh=true&from=10.1.2.3", "policy_incomplete"),
        ("page=&fresh=true&from=10.1.2.3", "policy_incomplete"),
        ("page=-&fresh=true&from=10.1.2.3", "policy_incomplete"),
        ("page=9223372036854775808&fresh=true&from=10.1.2.3", "policy_incomplete"),
        ("page=3&fresh=yes&from=10.1.2.3", "policy_incomplete"),
        ("page=3&fresh=true&from=010.1.2.3", "policy_incomplete"),
    ],
)
def test_attributes_are_read_as_the_schema_declares_them(query: str, reason: str) -> None:
    names = {"page": "{query.page}", "fresh": "{query.fresh}", "from": "{query.from}"}
    text = (
        "permit (principal, action, resource) when"
        ' { context.page > 2 && context.fresh && context.from.isInRange(ip("10.0.0.0/8")) };'
    )
    assert Asking(text, context_route(**names), schema=SCHEMA).reason(f"/orders/1?{query}") == reason


@pytest.mark.parametrize(
    ("route", "key", "problem"),
    [
        (RouteConfig(path="/a", action="read", resource='Order::"1"'), "action", "is no entity"),
        (RouteConfig(path="/a", action=READ, resource='Order::"{id}"'), "resource", "nothing fills"),
        (RouteConfig(path="/a", action='Action::"reed"', resource='Order::"1"'), "action", "no action"),
        (RouteConfig(path="/a", action=READ, resource='Thing::"1"'), "resource", "is no resource"),
        (context_route(nobody="x"), "context.nobody", "no such attribute"),
        (context_route(tenant="{header.bad name}"), "context.tenant", "nothing fills"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_key(route: RouteConfig, key: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_route_policy(route, 4, PrincipalClaims(PolicyConfig(), Schema.parse(SCHEMA)))
    [fault] = caught.value.faults
    assert fault.key == f"routes[4].{key}"
    assert problem in fault.problem


def test_a_principal_that_the_action_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes no principal `Robot`"):
        compile_route_policy(ROUTE, 0, PrincipalClaims(PolicyConfig(principal="Robot"), Schema.parse(SCHEMA)))


def test_a_route_that_asks_nothing_has_no_policy() -> None:
    assert compile_route_policy(RouteConfig(path="/a"), 0, PrincipalClaims(PolicyConfig(), None)) is None


def test_pieces_have_known_kinds_only() -> None:
    with pytest.raises(ValueError, match="index"):
        Piece("cookie")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "condition",
    ["context.missing == 1", "resource.nothing", "principal.level > 3", "context has x || resource.nothing"],
)
def test_a_forbid_that_cannot_be_evaluated_denies(condition: str) -> None:
    text = f"permit (principal, action, resource); forbid (principal, action, resource) when {{ {condition} }};"
    door = Asking(text)
    engine = door.cell.decider
    assert isinstance(engine, Engine)
    # Cedar itself leaves it out, and says so.
    answer = engine.authorize(ALICE, EntityUid("Action", "read"), EntityUid("Order", "1"))
    assert answer.allowed and answer.errors == {"policy1"}
    assert door.reason("/orders/1") == "policy_denied"


def test_a_forbid_whose_error_lies_behind_a_false_clause_does_not_deny() -> None:
    text = "permit (principal, action, resource); forbid (principal, action, resource)"
    assert Asking(f"{text} when {{ 1 == 2 && resource.nothing }};").reason("/orders/1") == "ok"
    assert Asking(f"{text} when {{ resource.nothing && 1 == 2 }};").reason("/orders/1") == "policy_denied"


def test_a_permit_that_cannot_be_evaluated_hides_no_other() -> None:
    text = "permit (principal, action, resource) when { resource.nothing }; permit (principal, action, resource);"
    assert Asking(text).reason("/orders/1") == "ok"


def sourced(route: RouteConfig = ROUTE) -> tuple[Asking, EntityStore]:
    """Give a door whose orders are kept elsewhere, and none of them is here."""
    door = Asking(OWN, route)
    assert door.cell.decider is not None
    store = door.cell.decider.store
    store.source_type("Order")
    store.evict([EntityUid("Order", "1")])
    return door, store


def test_an_entity_that_is_kept_elsewhere_is_asked_for_and_never_a_pass() -> None:
    door, _ = sourced(context_route(tenant="{header.x-tenant}"))
    scope = door.scope("GET", "/orders/1", [bearer(mint(sub="alice")), ("x-tenant", "acme")])
    asked = door.door.judge_scope(scope)
    assert (asked.kind, asked.reason) == ("ask", "attributes_unavailable")
    assert asked.away == (ALICE, EntityUid("Action", "read"), EntityUid("Order", "1"), {"tenant": "acme"}, None)
    final = door.door.judge_scope(scope, final=True)
    assert (final.kind, final.reason, final.away) == ("deny", "attributes_unavailable", None)


def test_what_was_fetched_decides_in_the_hot_path() -> None:
    door, store = sourced()
    scope = door.scope("GET", "/orders/1", [bearer(mint(sub="alice"))])
    store.put(EntityUid("Order", "1"), {"owner": ALICE})
    assert door.door.judge_scope(scope).reason == "ok"
    store.evict([EntityUid("Order", "1")])
    assert door.door.judge_again(scope).kind == "ask"
    store.settle([EntityUid("Order", "1")])
    assert door.door.judge_scope(scope).reason == "policy_denied"


def test_a_request_without_its_entities_is_503_when_nobody_can_fetch_them() -> None:
    door, _ = sourced()
    scope = door.scope("GET", "/orders/1", [bearer(mint(sub="alice"))])
    answer = door.finish(scope)
    assert (answer.status, answer.one("retry-after")) == (503, "5")
