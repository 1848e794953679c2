"""A plan names the policies that could hold, what they read, and which entities that is, level by level."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from typing import Any

import pytest

from gateway.policy import Engine, Entities, Entity, EntityUid, PolicySet
from gateway.policy.plans import MAKING_MAX, PLANS_MAX, EnginePlans, Plan, Plans, Question
from tests.policy import differential, generate

ALICE, BOB, CAROL = (EntityUid("User", name) for name in ("alice", "bob", "carol"))
VIEW, EDIT, READ = (EntityUid("Action", name) for name in ("view", "edit", "read"))
DOC, FOLDER, STAFF, ALL = (
    EntityUid("Doc", "1"),
    EntityUid("Folder", "f"),
    EntityUid("Group", "g"),
    EntityUid("Group", "a"),
)
SITE = EntityUid("Site", "main")


def engine_of(text: str, entities: list[Entity] | None = None) -> Engine:
    return Engine(PolicySet.parse(text), Entities(entities or []))


def plan_of(text: str, entities: list[Entity] | None = None, *types: str) -> Plan:
    principal_type, resource_type = types or ("User", "Doc")
    engine = engine_of(text, entities)
    return Plans(engine).of(principal_type, VIEW, resource_type)


def question(context: dict[str, Any] | None = None, **others: Any) -> Question:
    return Question(ALICE, VIEW, DOC, context, **others)


# --- which policies


HEADS = {
    "principal, action, resource": True,
    "principal is User, action, resource": True,
    "principal is Robot, action, resource": False,
    'principal == User::"x", action, resource': True,
    'principal == Robot::"x", action, resource': False,
    'principal in Group::"g", action, resource': True,
    'principal is Robot in Group::"g", action, resource': False,
    'principal, action == Action::"view", resource': True,
    'principal, action == Action::"edit", resource': False,
    'principal, action in Action::"read", resource': True,
    'principal, action == Action::"read", resource': False,
    'principal, action in [Action::"edit", Action::"read"], resource': True,
    "principal, action in [], resource": False,
    "principal, action, resource is Folder": False,
    'principal, action, resource in Folder::"f"': True,
}


@pytest.mark.parametrize("head", HEADS)
def test_a_policy_is_a_candidate_where_its_head_could_hold_for_the_types(head: str) -> None:
    plan = plan_of(f"permit ({head}) when {{ context.a }};", [Entity(VIEW, {}, (READ,)), Entity(READ)])
    assert (plan.policies == ("policy0",)) is HEADS[head]
    assert bool(plan.reads.attributes) is HEADS[head]


def test_candidates_keep_the_order_of_the_set_and_come_once() -> None:
    plan = plan_of(
        'permit (principal, action in [Action::"view", Action::"read"], resource);'
        "permit (principal, action, resource);"
        'permit (principal, action == Action::"edit", resource);'
        'permit (principal, action == Action::"view", resource);',
        [Entity(VIEW, {}, (READ,)), Entity(READ)],
    )
    assert plan.policies == ("policy0", "policy1", "policy3")


def test_a_plan_is_made_once_and_anew_when_the_groups_of_its_action_change() -> None:
    engine = engine_of('permit (principal, action in Action::"read", resource);', [Entity(VIEW)])
    plans = Plans(engine)
    before = plans.of("User", VIEW, "Doc")
    assert plans.of("User", VIEW, "Doc") is before
    assert before.policies == ()
    engine.entities.upsert([Entity(VIEW, {}, (READ,))])
    assert plans.of("User", VIEW, "Doc").policies == ("policy0",)


def test_plans_of_made_up_types_do_not_pile_up() -> None:
    engine = engine_of("permit (principal, action, resource);")
    plans = Plans(engine)
    for number in range(PLANS_MAX + 10):
        plans.of(f"T{number}", VIEW, "Doc")
    assert len(plans._plans) == PLANS_MAX
    assert plans.of("T5", VIEW, "Doc").policies == ("policy0",)


def test_read_sets_of_statements_that_stay_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("permit (principal, action, resource) when { principal.level > 1 };")
    former = Plans(engine)
    before = former.of("User", VIEW, "Doc")
    monkeypatch.setattr("gateway.policy.plans.reads_of", lambda _: pytest.fail("read anew"))
    other = engine.with_policies(engine.policies)
    assert Plans(other, like=former).of("User", VIEW, "Doc").reads == before.reads


def test_equal_candidates_have_equal_digests_wherever_others_change() -> None:
    text = 'permit (principal in Group::"g", action, resource) when { context.a };'
    other = "permit (principal is Robot, action, resource);"
    assert plan_of(text).digest == plan_of(text + other).digest
    assert plan_of(text).digest != plan_of(text.replace("context.a", "context.b")).digest
    assert plan_of(text).digest != plan_of(text.replace('"g"', '"a"')).digest
    assert plan_of(text).digest != plan_of(text.replace("permit", "forbid")).digest


def test_a_link_names_what_fills_its_slot() -> None:
    policies = PolicySet.parse("permit (principal in ?principal, action, resource);").link(
        "policy0", "link", {"?principal": STAFF}
    )
    engine = Engine(policies, Entities())
    assert Plans(engine).of("User", VIEW, "Doc").named == (STAFF,)


def test_plans_of_engines_live_as_long_as_they_do() -> None:
    kept, engine = EnginePlans(), engine_of("permit (principal, action, resource);")
    plans = kept.of(engine)
    assert kept.of(engine) is plans
    del engine
    gc.collect()
    with pytest.raises(RuntimeError):
        plans.of("User", VIEW, "Doc")


MANY = "".join(f"permit (principal, action, resource) when {{ principal.n{n} > resource.n }};" for n in range(1000))


async def test_a_plan_of_many_policies_is_made_while_others_have_their_turn() -> None:
    engine = engine_of(MANY)
    plans, turns = Plans(engine), 0
    made = asyncio.create_task(plans.prepared("User", VIEW, "Doc"))
    while not made.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10
    assert await made is plans.of("User", VIEW, "Doc")
    assert await plans.prepared("User", VIEW, "Doc") is await made
    other = Plans(engine).of("User", VIEW, "Doc")
    assert (other.policies, other.reads, other.digest) == (
        (await made).policies,
        (await made).reads,
        (await made).digest,
    )


async def test_what_is_not_at_hand_is_made_once_in_the_background() -> None:
    engine, few = engine_of(MANY), engine_of("permit (principal, action, resource);")
    plans = EnginePlans()
    assert plans.at_hand(few, "User", VIEW, "Doc") is not None
    assert plans.at_hand(engine, "User", VIEW, "Doc") is None
    assert plans.at_hand(engine, "User", VIEW, "Doc") is None
    assert len(plans._making) == 1
    for number in range(10):
        plans.at_hand(engine, f"T{number}", VIEW, "Doc")
    assert len(plans._making) == MAKING_MAX
    async with asyncio.timeout(10):
        while plans._making:
            await asyncio.sleep(0)
    assert plans.at_hand(engine, "User", VIEW, "Doc") is plans.of(engine).of("User", VIEW, "Doc")


async def test_a_plan_that_cannot_be_made_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, plans = engine_of(MANY), EnginePlans()
    monkeypatch.setattr("gateway.policy.plans.reads_of", lambda _: 1 // 0)
    assert plans.at_hand(engine, "User", VIEW, "Doc") is None
    async with asyncio.timeout(10):
        while plans._making:
            await asyncio.sleep(0)
    assert "a plan could not be made" in caplog.text


async def test_policies_that_are_yet_to_be_read_are_read_beside_the_loop() -> None:
    policies, readers = PolicySet.parse(MANY), []

    def read() -> PolicySet:
        readers.append(threading.current_thread())
        return policies

    compiled = Engine(policies, Entities())
    engine = Engine.from_bytes(compiled.to_bytes(bytes(32)), bytes(32), read, Entities())
    await Plans(engine).prepared("User", VIEW, "Doc")
    assert [reader is threading.main_thread() for reader in readers] == [False]


# --- which entities


def sourced(entities: list[Entity], text: str) -> tuple[Plan, Engine]:
    engine = engine_of(text, entities)
    for name in ("User", "Doc", "Folder", "Group", "Site"):
        engine.store.source_type(name)
    return Plans(engine).of("User", VIEW, "Doc"), engine


def test_paths_are_followed_a_level_a_round() -> None:
    plan, engine = sourced([], "permit (principal, action, resource) when { principal.manager.manager.level > 1 };")
    assert plan.uids(question(), engine.store) == {ALICE}
    engine.entities.upsert([Entity(ALICE, {"manager": BOB})])
    assert plan.uids(question(), engine.store) == {BOB}
    engine.entities.upsert([Entity(BOB, {"manager": CAROL})])
    assert plan.uids(question(), engine.store) == {CAROL}
    engine.store.settle([CAROL])
    assert plan.uids(question(), engine.store) == frozenset()


def test_what_a_membership_rests_on_is_fetched_upwards() -> None:
    plan, engine = sourced([], 'permit (principal in Group::"a", action, resource) when { resource in Folder::"f" };')
    assert plan.uids(question(), engine.store) == {ALICE, DOC}
    engine.entities.upsert([Entity(ALICE, {}, (STAFF,)), Entity(DOC, {}, (FOLDER,))])
    assert plan.uids(question(), engine.store) == {STAFF, FOLDER}
    engine.entities.upsert([Entity(STAFF, {}, (ALL,)), Entity(FOLDER)])
    assert plan.uids(question(), engine.store) == {ALL}


WHAT_IS_READ = {
    "true": set(),
    "principal == resource.owner": {DOC},
    "principal.level > 1 && resource.level > 1": {ALICE, DOC},
    'Site::"main".open': {SITE},
    "context.who.level > 1": {BOB},
    "context.record.who.level > 1": {BOB},
    'context.who in Group::"g"': {BOB},
    "context.who == principal": set(),
    'resource.hasTag("a")': {DOC},
    'context.who.getTag("a") == 1': {BOB},
    "principal has level": {ALICE},
    "context.nobody.level > 1": set(),
    "context.level.level > 1": set(),
}


@pytest.mark.parametrize("condition", WHAT_IS_READ)
def test_entities_that_conditions_read_are_told(condition: str) -> None:
    plan, engine = sourced([], f"permit (principal, action, resource) when {{ {condition} }};")
    context = {"who": BOB, "record": {"who": BOB}, "level": 1}
    assert plan.uids(question(context), engine.store) == WHAT_IS_READ[condition]


def test_what_any_head_asks_of_membership_is_needed_before_policies_are_found() -> None:
    text = 'permit (principal, action, resource); permit (principal in Group::"g", action == Action::"edit", resource);'
    plan, engine = sourced([], text)
    assert plan.policies == ("policy0",)
    assert plan.uids(question(), engine.store) == {ALICE}
    assert engine.authorize(ALICE, VIEW, DOC).missing == ALICE


def test_what_a_request_defines_itself_is_not_fetched() -> None:
    plan, engine = sourced([], "permit (principal, action, resource) when { principal.manager.level > 1 };")
    assert plan.uids(question(overlays={ALICE: ({"manager": BOB}, ())}), engine.store) == {BOB}
    assert plan.uids(question(overlays={ALICE: ({"level": 1}, ())}), engine.store) == {ALICE}


def test_parents_that_a_request_defines_are_fetched() -> None:
    plan, engine = sourced([Entity(ALICE)], 'permit (principal in Group::"a", action, resource);')
    assert plan.uids(question(overlays={ALICE: ({}, (STAFF,))}), engine.store) == {STAFF}


# --- what makes no difference


def test_a_moment_that_is_read_otherwise_too_is_no_window() -> None:
    text = 'permit (principal, action, resource) when { context.now < datetime("2030-01-01") };'
    assert plan_of(text).windows == (("context", "now"),)
    assert plan_of(text).context_paths == ()
    both = plan_of(text + "permit (principal, action, resource) when { context.now == context.start };")
    assert both.windows == ()
    assert both.context_paths == (("context", "now"), ("context", "start"))


def test_paths_below_another_one_are_not_named_again() -> None:
    plan = plan_of(
        "permit (principal, action, resource) when { context.a.b && context.a == context.c && context has d };"
    )
    assert plan.context_paths == (("context", "a"), ("context", "c"))
    assert plan.presences == ("d",)
    whole = plan_of("permit (principal, action, resource) when { context == {} && context.a && context has d };")
    assert (whole.context_paths, whole.presences) == ((("context",),), ())


GROUPS_ALONE = {
    'permit (principal in Group::"g", action, resource);': True,
    'permit (principal is User in Group::"g", action, resource) when { principal in [Group::"a"] };': True,
    'permit (principal == User::"bob", action, resource);': True,
    "permit (principal, action, resource) when { principal.level > 1 };": False,
    'permit (principal, action, resource) when { principal.hasTag("a") };': False,
    "permit (principal, action, resource) when { resource.owner == principal };": False,
    "permit (principal, action, resource) when { principal in resource.groups };": False,
}


@pytest.mark.parametrize("text", GROUPS_ALONE)
def test_says_whether_a_principal_counts_by_its_groups_alone(text: str) -> None:
    assert plan_of(text).asks_groups_alone is GROUPS_ALONE[text]


@pytest.mark.parametrize(
    ("condition", "direct"),
    [
        ("principal.level > 1 && context.a", True),
        ('resource in Folder::"f"', True),
        ("resource.owner.level > 1", False),
        ('resource.owner in Group::"g"', False),
        ('Site::"main".open', False),
        ("context.who.level > 1", False),
        ('(if context.a then principal else resource) in Group::"g"', False),
    ],
)
def test_says_whether_entities_are_read_that_the_request_does_not_name(condition: str, direct: bool) -> None:
    assert plan_of(f"permit (principal, action, resource) when {{ {condition} }};").is_direct is direct


# --- against the whole engine


def engine_of_case(case: generate.Case) -> Engine:
    engine = Engine(differential.read_policies(case), Entities())
    engine.store.apply(
        [(uid, each.attributes, list(each.parents), each.tags or None) for uid, each in case.entities.items()]
    )
    return engine


@pytest.mark.parametrize("seed", range(60))
def test_the_candidates_alone_decide_as_all_do(seed: int) -> None:
    case = generate.case(random.Random(f"candidates {seed}"), policies_max=12, requests=10)
    engine = engine_of_case(case)
    plans = Plans(engine)
    for each in case.requests:
        asked = Question(each.principal, each.action, each.resource, dict(each.context))
        plan = plans.of(asked.principal.type, asked.action, asked.resource.type)
        known = engine.policies.policies
        few = engine.with_policies(PolicySet([known[policy_id] for policy_id in plan.policies]))
        assert asked.answered_by(few) == asked.answered_by(engine)


@pytest.mark.parametrize("seed", range(60))
def test_no_change_turns_a_decision_unless_the_version_of_something_touched_turns(seed: int) -> None:
    chooser = random.Random(f"versions {seed}")
    case = generate.case(chooser, policies_max=4, requests=10)
    engine = engine_of_case(case)
    plans, store = Plans(engine), engine.store
    for each in case.requests:
        asked = Question(each.principal, each.action, each.resource, dict(each.context))
        plan = plans.of(asked.principal.type, asked.action, asked.resource.type)
        if plan.reads.dynamic:
            continue
        versions = {uid: store.version(uid) for uid in plan.touched(asked, store).uids | {asked.action}}
        before = asked.answered_by(engine)
        for uid, other in generate.entities(chooser).items():
            store.apply([(uid, other.attributes, list(other.parents), other.tags or None)])
            if any(store.version(one) != version for one, version in versions.items()):
                break
            assert asked.answered_by(engine) == before


@pytest.mark.parametrize("seed", range(60))
def test_what_is_told_beforehand_is_all_that_the_machine_misses(seed: int) -> None:
    case = generate.case(random.Random(f"fetching {seed}"), policies_max=4, requests=10)
    whole = engine_of_case(case)
    engine = Engine(whole.policies, Entities())
    for name in ("User", "Shop::Buyer", "Group", "Doc", "Folder", "Ghost"):
        engine.store.source_type(name)
    engine.store.apply(
        [
            (uid, each.attributes, list(each.parents), None)
            for uid, each in case.entities.items()
            if uid.type == "Action"
        ]
    )
    plans, store = Plans(engine), engine.store
    for each in case.requests:
        asked = Question(each.principal, each.action, each.resource, dict(each.context))
        while True:
            plan = plans.of(asked.principal.type, asked.action, asked.resource.type)
            wanted = plan.uids(asked, store)
            answer = asked.answered_by(engine)
            if answer.missing is not None:
                assert plan.reads.dynamic or answer.missing in wanted
                wanted |= {answer.missing}
            if not wanted:
                break
            known = [(uid, case.entities[uid]) for uid in wanted if uid in case.entities]
            store.apply([(uid, one.attributes, list(one.parents), one.tags or None) for uid, one in known])
            store.settle(wanted - case.entities.keys())
        assert answer == asked.answered_by(whole)
