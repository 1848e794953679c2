"""Equal keys mean equal decisions; what makes no difference is in none."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy import Engine, Entities, Entity, PolicySet
from gateway.policy.decision_keys import canonical, decision_key, moment_at, standing_groups
from gateway.policy.plans import Overlays, Plans, Question
from tests.oracle import policy as oracle
from tests.policy import differential, generate
from tests.unit.policy.attribute_world import VIEW
from tests.unit.policy.relation_world import uid

ALICE, BOB, DOC = uid("User:alice"), uid("User:bob"), uid("Doc:1")
STAFF, ALL = uid("Group:staff"), uid("Group:all")

# --- values

scalars = st.one_of(
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]),
    st.sampled_from(["", "a", "b", "ab", "1", "\0", "é", "i\1\0\0\0\0\0\0\0"]),
    st.builds(EntityUid, st.sampled_from(["A", "AB"]), st.sampled_from(["", "B", "C"])),
    st.builds(Decimal, st.integers(-1, 1)),
    st.builds(Datetime, st.integers(-1, 1)),
    st.builds(Duration, st.integers(-1, 1)),
    st.sampled_from([IPAddr(text) for text in ("10.0.0.1", "10.0.0.1/8", "10.0.0.0/8", "::1", "::a00:1")]),
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["", "a", "b", "ab"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def turned(value: Any) -> Any:
    """Give an equal value that is written otherwise."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    if isinstance(value, list):
        return tuple(turned(item) for item in [*reversed(value), *value])
    return value


@given(values, values)
def test_values_are_spelled_alike_if_and_only_if_they_are_equal_to_policies(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) is oracle.same(one, other)
    assert canonical(one) == canonical(turned(one))


@given(st.lists(values, max_size=3), st.lists(values, max_size=3))
def test_no_two_sequences_of_values_run_together(one: list[Any], other: list[Any]) -> None:
    alike = len(one) == len(other) and all(oracle.same(a, b) for a, b in zip(one, other, strict=True))
    assert (b"".join(map(canonical, one)) == b"".join(map(canonical, other))) is alike


@pytest.mark.parametrize("value", [1.5, None, 2**63, {1: 2}, "\ud800", object()])
def test_what_is_no_value_has_no_spelling(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical(value)


def test_values_are_not_followed_for_ever() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested"):
        canonical(endless)


# --- requests


class World:
    def __init__(self, text: str, entities: list[Entity] | None = None) -> None:
        self.engine = Engine(PolicySet.parse(text), Entities(entities or []))
        self.plans = Plans(self.engine)

    def key(self, context: dict[str, Any] | None = None, *, principal: EntityUid = ALICE, **others: Any) -> bytes:
        question = Question(principal, VIEW, DOC, context, **others)
        plan = self.plans.of(principal.type, VIEW, "Doc")
        return decision_key(b"", plan, question, standing_groups(plan, question, self.engine.store))


READS_A = World("permit (principal, action, resource) when { principal.level > 1 && context.a == 1 && context has b };")


def test_what_nobody_reads_is_in_no_key() -> None:
    assert READS_A.key({"a": 1, "x": 1}) == READS_A.key({"a": 1})
    assert READS_A.key({"a": 1, "b": 1}) == READS_A.key({"a": 1, "b": 2})


def test_what_is_read_is_in_the_key_with_its_type_and_also_that_it_is_absent() -> None:
    contexts: list[dict[str, Any]] = [
        {"a": 1}, {"a": 2}, {"a": True}, {"a": "1"}, {"a": {}}, {"a": []}, {}, {"b": 1}, {"a": 1, "b": 1},
        {"a": ALICE}, {"a": BOB},
    ]  # fmt: skip
    assert len({READS_A.key(context) for context in contexts}) == len(contexts)


def test_all_that_names_the_request_is_in_the_key() -> None:
    keys = {
        decision_key(tenant, READS_A.plans.of("User", action, "Doc"), Question(principal, action, resource), None)
        for tenant in (b"", b"a")
        for principal in (ALICE, BOB)
        for action in (VIEW, uid("Action:edit"))
        for resource in (DOC, uid("Doc:2"))
    }
    assert len(keys) == 16
    other = World("permit (principal, action, resource) when { principal.level > 2 && context.a == 1 };")
    assert other.key({"a": 1}) != READS_A.key({"a": 1})


def test_the_tenant_and_the_rest_do_not_run_together() -> None:
    plan, question = READS_A.plans.of("User", VIEW, "Doc"), Question(ALICE, VIEW, DOC)
    key = decision_key(b"", plan, question, None)
    assert decision_key(key, plan, question, None) != key + key


NOW = 'permit (principal, action, resource) when { context has now && context.now < datetime("2030-01-01") };'


def test_a_moment_is_in_the_key_only_by_being_one() -> None:
    world = World(NOW)
    assert world.key({"now": Datetime(1)}) == world.key({"now": Datetime(2)})
    others: list[dict[str, Any]] = [{}, {"now": 1}, {"now": 2}, {"now": Datetime(1)}, {"now": ALICE}]
    assert len({world.key(context) for context in others}) == len(others)
    assert moment_at({"now": Datetime(7)}, ("context", "now")) == 7
    assert moment_at({"now": 7}, ("context", "now")) is None
    assert moment_at(None, ("context", "now")) is None


def test_a_path_that_leads_through_an_entity_is_in_the_key_by_that_entity() -> None:
    world = World("permit (principal, action, resource) when { context.who.level == 1 };")
    keys = {world.key({"who": value}) for value in (ALICE, BOB, {"level": ALICE}, {"level": 1}, {}, 1)}
    assert len(keys) == 6
    assert world.key({"who": 1}) == world.key({"who": 2})  # an error, whatever the number


def test_how_far_the_way_leads_is_in_the_key() -> None:
    asked = World("permit (principal, action, resource) when { !(context has who) || context.who.level == 1 };")
    assert asked.key({}) != asked.key({"who": {}})
    assert asked.engine.allows(ALICE, VIEW, DOC, {})
    assert not asked.engine.allows(ALICE, VIEW, DOC, {"who": {}})
    erring = World("forbid (principal, action, resource) when { context.who has manager.level };")
    assert erring.key({}) != erring.key({"who": {}})
    assert erring.engine.authorize(ALICE, VIEW, DOC, {}).errors == {"policy0"}
    assert not erring.engine.authorize(ALICE, VIEW, DOC, {"who": {}}).errors
    deep = World("permit (principal, action, resource) when { context.who.manager.level == 1 };")
    assert deep.key({"who": BOB}) != deep.key({"who": {"manager": BOB}})


# --- groups

PEOPLE = [Entity(ALICE, {"level": 1}, (STAFF,)), Entity(BOB, {"level": 2}, (STAFF,))]
GROUPS = [*PEOPLE, Entity(STAFF, {}, (ALL,)), Entity(ALL)]
MEMBER = 'permit (principal in Group::"all", action, resource);'


def test_groups_stand_for_who_is_asked_for_nothing_else() -> None:
    world = World(MEMBER, GROUPS)
    assert world.key() == world.key(principal=BOB)
    assert world.key() != world.key(principal=uid("User:carol"))
    assert world.key() != world.key(principal=uid("Robot:alice"))
    before = world.key()
    world.engine.entities.upsert([Entity(STAFF)])
    assert world.key() != before
    assert world.key() == world.key(principal=uid("User:carol"))


@pytest.mark.parametrize(
    "text",
    [
        MEMBER + "permit (principal, action, resource) when { principal.level > 1 };",
        MEMBER + 'permit (principal == User::"alice", action, resource);',
        MEMBER + "permit (principal, action, resource) when { resource.owner == principal };",
    ],
)
def test_who_is_asked_for_more_stands_for_itself(text: str) -> None:
    world = World(text, GROUPS)
    assert world.key() != world.key(principal=BOB)


def test_with_too_many_groups_a_principal_stands_for_itself() -> None:
    text = "".join(f'permit (principal in Group::"{number}", action, resource);' for number in range(65))
    assert World(text, GROUPS).key() != World(text, GROUPS).key(principal=BOB)


def test_groups_that_are_not_here_stand_for_nobody() -> None:
    world = World(MEMBER, GROUPS)
    world.engine.store.source_type("Group")
    assert world.key() == world.key(principal=BOB)
    world.engine.store.evict([STAFF])
    assert world.key() != world.key(principal=BOB)


def test_what_a_request_defines_is_in_the_key() -> None:
    world = World(MEMBER + "permit (principal, action, resource) when { principal.level > 1 };", GROUPS)
    overlays: list[Overlays | None] = [
        None,
        {ALICE: ({}, ())},
        {ALICE: ({"level": 1}, ())},
        {ALICE: ({"level": 1}, (STAFF,))},
        {BOB: ({"level": 1}, (STAFF,))},
        {DOC: ({}, ())},
    ]
    assert len({world.key(overlays=each) for each in overlays}) == len(overlays)
    assert world.key(overlays={ALICE: ({}, (STAFF, ALL))}) == world.key(overlays={ALICE: ({}, (ALL, STAFF, ALL))})


def test_groups_that_a_request_defines_stand_for_the_principal() -> None:
    world = World(MEMBER, [Entity(STAFF, {}, (ALL,))])
    first = world.key(overlays={ALICE: ({"level": 1}, (STAFF,))})
    assert first == world.key(principal=BOB, overlays={BOB: ({"level": 2}, (ALL,))})
    assert first != world.key(overlays={ALICE: ({"level": 1}, ())})


# --- against the engine


def variants(chooser: random.Random, request: oracle.Request) -> list[Question]:
    """Requests that are nearly the same: a few of them have the same key."""
    made = []
    for _ in range(8):
        context = dict(request.context)
        for name in list(context):
            if generate.chance(chooser, 30):
                context[name] = generate.value(chooser, generate.FIELDS[name])
            elif generate.chance(chooser, 10):
                context[name] = {} if generate.chance(chooser, 50) else generate.pick(chooser, generate.USERS)
            elif generate.chance(chooser, 10):
                del context[name]
        principal = generate.pick(chooser, generate.USERS) if generate.chance(chooser, 60) else request.principal
        made.append(Question(principal, request.action, request.resource, context))
    return made


@pytest.mark.parametrize("seed", range(150))
def test_requests_of_one_key_are_decided_alike(seed: int) -> None:
    chooser = random.Random(f"keys {seed}")
    case = generate.case(chooser, policies_max=4 if seed % 2 else 2, requests=6)
    engine = Engine(differential.read_policies(case), Entities())
    engine.store.apply(
        [(one, each.attributes, list(each.parents), each.tags or None) for one, each in case.entities.items()]
    )
    plans = Plans(engine)
    seen: dict[bytes, tuple[Any, list[int | None], int | None]] = {}
    for request in case.requests:
        for question in variants(chooser, request):
            plan = plans.of(question.principal.type, question.action, question.resource.type)
            key = decision_key(b"", plan, question, standing_groups(plan, question, engine.store))
            answer = question.answered_by(engine)
            moments = [moment_at(question.context, path) for path in plan.windows]
            first, then, flip_ms = seen.setdefault(key, (answer, moments, answer.flip_ms))
            near = flip_ms is None or all(
                a is None or b is None or abs(a - b) < flip_ms for a, b in zip(then, moments, strict=True)
            )
            if near:
                assert answer == first
