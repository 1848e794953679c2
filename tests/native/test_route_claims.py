"""What claims make of a request to the policies: who asks, and holes of templates. No claim opens by being wrong."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway.config import PolicyConfig, RouteConfig
from gateway.front.claims import ClaimPicker
from gateway.front.principals import Definition
from gateway.policy import Entity, EntityUid
from tests.native.front_harness import FAR_FUTURE_S
from tests.native.policy_harness import ALICE, READ, Asking, context_route
from tests.real.gateway import AUDIENCE, ISSUER, bearer, mint

SCHEMA = """
entity Role;
entity Team in [Team];
entity User in [Role, Team] = { level?: Long, email?: String, mfa?: Bool, boss?: User, tags?: Set<String> };
entity Order = { owner: User };
action read appliesTo {
  principal: User,
  resource: Order,
  context: { tenant?: String, level?: Long, mfa?: Bool, roles?: Set<String>, since?: datetime, unit?: { id: String } },
};
"""
ALL = "permit (principal, action, resource)"
MAPPED = PolicyConfig(
    path="policies",
    principal_claims={"level": "level", "email": "email", "mfa": "amr.mfa", "boss": "boss", "tags": "tags"},
    principal_parents={"roles": "Role", "groups": "Team"},
)


def asking(condition: str, *entities: Entity, schema: str = SCHEMA, config: PolicyConfig = MAPPED) -> Asking:
    return Asking(f"{ALL} when {{ {condition} }};", context_route(), *entities, schema=schema, config=config)


@pytest.mark.parametrize(
    ("condition", "claims"),
    [
        ("principal.level > 2", {"level": 3}),
        ('principal.email like "*@corp.test"', {"email": "a@corp.test"}),
        ("principal.mfa", {"amr": {"mfa": True}}),
        ("principal.mfa", {"amr.mfa": True, "amr": {"mfa": False}}),
        ('principal.boss == User::"carol"', {"boss": "carol"}),
        ('principal.boss == User::"carol"', {"boss": {"type": "User", "id": "carol"}}),
        ('principal.tags.containsAll(["a", "b"])', {"tags": ["a", "b", "c"]}),
        ('principal.tags.contains("b")', {"tags": "a b"}),
        ('principal in Role::"admin"', {"roles": ["viewer", "admin"]}),
        ('principal in Role::"admin"', {"roles": "viewer admin"}),
        ('principal in Team::"all"', {"groups": ["core"]}),
        ('!(principal has level) && !(principal in Role::"admin")', {}),
        ("!(principal has level)", {"level": None}),
    ],
)
def test_claims_define_the_principal(condition: str, claims: dict[str, Any]) -> None:
    teams = Entity(EntityUid("Team", "core"), {}, (EntityUid("Team", "all"),))
    door = asking(condition, teams)
    assert door.judged("/orders/1", **claims).reason == "ok"
    assert asking(f"!({condition})", teams).judged("/orders/1", **claims).reason == "policy_denied"


@pytest.mark.parametrize(
    "claims",
    [
        {"level": "3"},
        {"level": True},
        {"level": 3.0},
        {"level": 2**63},
        {"email": 1},
        {"amr": {"mfa": "yes"}},
        {"boss": 7},
        {"boss": {"type": "Role", "id": "carol"}},
        {"tags": ["a", 1]},
        {"roles": 5},
        {"roles": ["admin", 5]},
        {"roles": {"admin": True}},
    ],
)
def test_a_claim_of_the_wrong_type_denies_with_its_own_reason(claims: dict[str, Any]) -> None:
    assert Asking(f"{ALL};", context_route(), schema=SCHEMA, config=MAPPED).judged("/orders/1", **claims).reason == (
        "policy_claim_invalid"
    )
    # Not even where a policy would allow for want of the attribute.
    door = asking("!(principal has level) && !(principal has mfa)")
    assert door.judged("/orders/1", **claims).reason == "policy_claim_invalid"


def test_a_denial_for_a_claim_is_403_with_its_own_code() -> None:
    answer = asking("true").forward("GET", "/orders/1", bearer(mint(level="3")))
    assert answer.status == 403
    assert b'"code":"policy_claim_invalid"' in answer.body


def test_claims_go_before_stored_attributes_and_beside_stored_parents() -> None:
    stored = Entity(ALICE, {"level": 1, "email": "stored"}, (EntityUid("Role", "staff"),))
    condition = 'principal.level == 5 && principal.email == "stored" && principal in [Role::"staff", Role::"x"]'
    door = asking(condition, stored)
    assert door.judged("/orders/1", level=5).reason == "ok"
    assert door.judged("/orders/1").reason == "policy_denied"
    assert asking('principal in Role::"staff" && principal in Role::"x"', stored).judged(
        "/orders/1", roles="x"
    ).reason == ("ok")


def test_each_token_has_its_own_claims() -> None:
    door = asking("principal.level > 2")
    low, high = mint(level=1), mint(level=3)
    reasons = [
        door.door.judge_scope(door.scope("GET", "/orders/1", [bearer(token)])).reason for token in (low, high) * 3
    ]
    assert reasons == ["policy_denied", "ok"] * 3


def test_entities_change_under_known_claims() -> None:
    door = asking('principal in Team::"all"')
    scope = door.scope("GET", "/orders/1", [bearer(mint(groups=["core"]))])
    assert door.door.judge_scope(scope).reason == "policy_denied"
    door.deciding.entities.upsert([Entity(EntityUid("Team", "core"), {}, (EntityUid("Team", "all"),))])
    assert door.door.judge_scope(scope).reason == "ok"
    door.deciding.entities.upsert([Entity(EntityUid("Team", "core"))])
    assert door.door.judge_scope(scope).reason == "policy_denied"


def test_holes_are_filled_from_claims() -> None:
    route = RouteConfig(path="/me", action='Action::"{claim.verb}"', resource='Order::"{claim.org.id}-{claim.n}"')
    config = PolicyConfig(path="policies")
    door = Asking(f'{ALL} when {{ action == Action::"read" && resource == Order::"acme-7" }};', route, config=config)
    assert door.judged("/me", verb="read", org={"id": "acme"}, n=7).reason == "ok"
    assert door.judged("/me", verb="write", org={"id": "acme"}, n=7).reason == "policy_denied"
    assert door.judged("/me", verb="read", n=7).reason == "policy_incomplete"
    assert door.judged("/me", verb="read", org={"id": ["acme"]}, n=7).reason == "policy_claim_invalid"
    assert door.judged("/me", verb="read", org={"id": "x" * 9000}, n=7).reason != "ok"


@pytest.mark.parametrize(
    ("template", "condition", "claims"),
    [
        ("tenant", 'context.tenant == "acme"', {"it": "acme"}),
        ("level", "context.level == 3", {"it": 3}),
        ("mfa", "context.mfa", {"it": True}),
        ("roles", 'context.roles == ["a", "b"]', {"it": ["b", "a"]}),
        ("roles", 'context.roles == ["a", "b"]', {"it": "a b"}),
        ("since", 'context.since < datetime("2024-01-02")', {"it": 1704067200}),
        ("unit", 'context.unit.id == "x"', {"it": {"id": "x", "more": [1.5]}}),
    ],
)
def test_a_claim_that_stands_alone_has_its_declared_type(template: str, condition: str, claims: dict[str, Any]) -> None:
    config = PolicyConfig(path="policies")
    route = context_route(**{template: "{claim.it}"})
    door = Asking(f"{ALL} when {{ {condition} }};", route, schema=SCHEMA, config=config)
    assert [door.judged("/orders/1", **claims).reason for _ in range(2)] == ["ok", "ok"]
    assert door.judged("/orders/1").reason == "policy_denied"
    absent = Asking(f"{ALL} when {{ !(context has {template}) }};", route, schema=SCHEMA, config=config)
    assert absent.judged("/orders/1").reason == "ok"
    wrong = [["a", 1]] if template != "unit" else {"id": 1}
    assert absent.judged("/orders/1", it=wrong).reason == "policy_claim_invalid"


def test_without_a_schema_a_claim_is_what_it_looks_like() -> None:
    route = context_route(a="{claim.a}", b="{claim.b}", c="{claim.c}", d="{claim.d}", text="{claim.a}!")
    condition = (
        'context.a == 3 && context.b == ["x", true] && context.c.d == "e" && context.d == decimal("1.5")'
        ' && context.text == "3!"'
    )
    door = Asking(f"{ALL} when {{ {condition} }};", route, config=PolicyConfig(path="policies"))
    claims: dict[str, Any] = {"a": 3, "b": ["x", True], "c": {"d": "e"}, "d": 1.5}
    assert door.judged("/orders/1", **claims).reason == "ok"
    # What looks like an escape of Cedar's JSON is a record like any other.
    escaped = Asking(
        f'{ALL} when {{ context.c["__entity"]["id"] == "root" }};',
        context_route(c="{claim.c}"),
        config=PolicyConfig(path="policies"),
    )
    assert escaped.judged("/orders/1", c={"__entity": {"type": "User", "id": "root"}}).reason == "ok"


def test_claims_of_one_request_do_not_show_in_the_next_context() -> None:
    config = PolicyConfig(path="policies")
    door = Asking(f"{ALL} unless {{ context has level }};", context_route(tenant="{claim.tenant}"), config=config)
    assert door.judged("/orders/1", tenant="a", level=1).reason == "ok"
    door = Asking(f'{ALL} unless {{ context has "claim 0" }};', context_route(tenant="{claim.t}"), config=config)
    assert door.judged("/orders/1", t="a").reason == "ok"


def test_more_tokens_than_are_kept_are_answered_the_same() -> None:
    door = asking("principal.level > 2")
    tokens = [mint(level=number % 5, jti=str(number)) for number in range(60)]
    scopes = [door.scope("GET", "/orders/1", [bearer(token)]) for token in tokens]
    wanted = ["ok" if number % 5 > 2 else "policy_denied" for number in range(60)]
    for _ in range(2):
        assert [door.door.judge_scope(scope).reason for scope in scopes] == wanted


def test_the_same_entity_is_seen_as_principal_and_as_resource() -> None:
    route = RouteConfig(path="/me", action=READ, resource='User::"{claim.sub}"')
    door = Asking(
        f"{ALL} when {{ resource.level > 2 && principal == resource }};",
        route,
        config=PolicyConfig(path="policies", principal_claims={"level": "level"}),
    )
    assert door.judged("/me", level=3).reason == "ok"
    assert door.judged("/me", level=1).reason == "policy_denied"


def test_who_comes_often_stays_known_however_many_come_once() -> None:
    made: list[object] = []

    def counting(claims: object) -> Definition:
        made.append(claims)
        return door.principals.define(claims)

    # Many more places than tokens: none makes room for another.
    validator = TokenValidator(entries=1 << 18, claims_factory=ClaimPicker(("level",)))
    config = PolicyConfig(path="policies", principal_claims={"level": "level"})
    door = Asking(f"{ALL} when {{ principal.level > 2 }};", context_route(), config=config, validator=validator)
    door.principals.native.define = counting
    rules = IssuerRules(
        ISSUER.encode(), audiences=(AUDIENCE.encode(),), algorithms=("RS256",), types=(b"jwt",), opaque=True
    )
    validator.publish(KeySnapshot((rules,), ((),), (FAR_FUTURE_S,)))
    tokens = [f"opaque{number}" for number in range(2 * 16_384 + 10)]
    for number, token in enumerate(tokens):
        validator.remember(
            token.encode(),
            issuer_index=0,
            subject=b"alice",
            scopes=(),
            expires_at_s=int(time.time()) + 3600,
            claims={"level": 3 if number % 2 else 2, "n": number},
        )

    def status(number: int) -> int:
        return door.forward("GET", "/orders/1", bearer(tokens[number])).status

    for number in range(len(tokens)):
        assert status(number) == (200 if number % 2 else 403)
        if number % 1000 == 0:
            assert status(1) == 200
    assert len(made) == len(tokens)


def test_what_claims_name_is_fetched_where_a_decision_rests_on_it() -> None:
    door = asking('principal.level > 2 && principal in Role::"staff"')
    store = door.deciding.store
    for name in ("User", "Role"):
        store.source_type(name)
    scope = door.scope("GET", "/orders/1", [bearer(mint(level=3, roles=["admin"]))])
    first = door.door.judge_scope(scope)
    assert (first.kind, first.reason) == ("ask", "attributes_unavailable")
    assert first.away is not None
    assert first.away[4] == {ALICE: ({"level": 3}, (EntityUid("Role", "admin"),))}
    store.put(ALICE, {"email": "a@b"})
    assert door.door.judge_scope(scope).kind == "ask"  # what the role is in is not known yet
    store.put(EntityUid("Role", "admin"), {}, [EntityUid("Role", "staff")])
    store.put(EntityUid("Role", "staff"), {})
    assert door.door.judge_scope(scope).reason == "ok"
    store.put(EntityUid("Role", "admin"), {})
    assert door.door.judge_scope(scope).reason == "policy_denied"


CONDITIONS = (
    "principal has level && principal.level > 2",
    'principal has email && principal.email like "a*"',
    'principal has tags && principal.tags.contains("a")',
    'principal has boss && principal.boss == User::"carol"',
    'principal in [Role::"a", Role::"b"]',
    'principal in Team::"all" && !(principal has mfa && principal.mfa)',
)


@settings(max_examples=60)
@given(
    conditions=st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=3),
    claims=st.fixed_dictionaries(
        {},
        optional={
            "level": st.integers(0, 5),
            "email": st.sampled_from(["a@b", "c@d"]),
            "tags": st.lists(st.sampled_from("abc"), max_size=3),
            "boss": st.sampled_from(["carol", "dave"]),
            "mfa": st.booleans(),
            "roles": st.lists(st.sampled_from("abc"), max_size=3),
            "groups": st.lists(st.sampled_from(["core", "other"]), max_size=2),
        },
    ),
)
def test_claims_decide_as_the_same_entity_in_the_store_does(conditions: list[str], claims: dict[str, Any]) -> None:
    teams = Entity(EntityUid("Team", "core"), {}, (EntityUid("Team", "all"),))
    given = dict(claims)
    parents = [EntityUid("Role", each) for each in given.pop("roles", ())]
    parents += [EntityUid("Team", each) for each in given.pop("groups", ())]
    if "boss" in given:
        given["boss"] = EntityUid("User", given["boss"])
    text = " ".join(f"{ALL} when {{ {condition} }};" for condition in conditions)
    claimed = Asking(text, context_route(), teams, schema=SCHEMA, config=MAPPED)
    sent = {**claims, "amr": {"mfa": claims["mfa"]}} if "mfa" in claims else claims
    stored = Asking(text, context_route(), teams, Entity(ALICE, given, tuple(dict.fromkeys(parents))), schema=SCHEMA)
    assert claimed.judged("/orders/1", **sent).reason == stored.judged("/orders/1").reason
