"""A list answer is exactly what asking about each entity by itself would give, in order, over any pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine, Request
from gateway.policy.entities import Entities, Entity
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema
from gateway.policy.search import BATCH, EntitiesAway, Lister, may_allow

READ, USER = EntityUid("Action", "read"), EntityUid("User", "1")
SCOPES = ("", " == {role}", " in {group}", " is {type}", " is {type} in {group}")
CONDITIONS = ("", "when { resource.open }", "when { principal.age > 3 }", "unless { resource.open }")
ACTIONS = ("action", 'action == Action::"read"', 'action in Action::"all"', 'action == Action::"write"')


class Ticks:
    """A clock that moves by a second with each look."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def world() -> Entities:
    made = [Entity(EntityUid("Action", "all")), Entity(READ, {}, (EntityUid("Action", "all"),))]
    for number in range(6):
        above = (EntityUid("Group", str(number % 2)),) if number % 3 else ()
        made.append(Entity(EntityUid("User", str(number)), {"age": number}, above))
        attributes = {"open": number % 2 == 0} if number != 4 else {}
        made.append(Entity(EntityUid("Doc", str(number)), attributes, (EntityUid("Group", str(number % 2)),)))
    made += [Entity(EntityUid("Group", "0"), {}, (EntityUid("Group", "1"),)), Entity(EntityUid("Group", "1"))]
    return Entities(made)


@st.composite
def policy(draw: st.DrawFn) -> str:
    parts = []
    for role, kind in (("principal", "User"), ("resource", "Doc")):
        scope = draw(st.sampled_from(SCOPES)).format(
            role=f'{kind}::"{draw(st.integers(0, 7))}"',
            group=f'Group::"{draw(st.integers(0, 2))}"',
            type=draw(st.sampled_from([kind, "Group"])),
        )
        parts.append(role + scope)
    effect = draw(st.sampled_from(["permit", "permit", "forbid"]))
    action, condition = draw(st.sampled_from(ACTIONS)), draw(st.sampled_from(CONDITIONS))
    return f"{effect} ({parts[0]}, {action}, {parts[1]}) {condition};"


def all_pages(
    lister: Lister,
    candidates: Callable[[str | None], object],
    prepare: Callable[[EntityUid], Request | None],
    *,
    limit: int,
    count_max: int,
    time_s: float = 9.0,
) -> list[EntityUid]:
    found: list[EntityUid] = []
    after: str | None = None
    while True:
        page = lister.find(candidates(after), prepare, limit=limit, count_max=count_max, time_s=time_s)  # type: ignore[arg-type]
        assert len(page.uids) <= limit
        assert page.looked_at <= max(count_max, 1)
        found += page.uids
        if page.resume is None:
            return found
        assert after is None or page.resume > after
        after = page.resume


@given(st.lists(policy(), max_size=5), st.integers(1, 4), st.integers(1, 9))
def test_lists_are_what_single_questions_say(texts: list[str], limit: int, count_max: int) -> None:
    engine = Engine(PolicySet.parse("\n".join(texts)), world())
    lister = Lister(engine, clock=Ticks())
    users = [EntityUid("User", str(number)) for number in range(8)]  # the last two are not stored
    docs = [EntityUid("Doc", str(number)) for number in range(8)]

    def allowed(principal: EntityUid, resource: EntityUid) -> bool:
        return may_allow(engine, engine.authorize(principal, READ, resource))

    def is_candidate(uid: EntityUid) -> bool:
        named = {e for p in engine.policies.policies.values() for c in p.scope() for e in c.entities}
        return uid in engine.entities or uid in named

    subject, target = users[1], docs[2]
    for role, other, prepare, expected in (
        ("resource", subject, lambda uid: engine.prepare(subject, READ, uid), [d for d in docs if allowed(subject, d)]),
        ("principal", target, lambda uid: engine.prepare(uid, READ, target), [u for u in users if allowed(u, target)]),
    ):
        kind = "Doc" if role == "resource" else "User"
        found = all_pages(
            lister,
            lambda after, role=role, kind=kind, other=other: lister.entities(  # type: ignore[misc]
                role, kind, READ, other, after=after
            ),
            prepare,
            limit=limit,
            count_max=count_max,
        )
        assert found == [uid for uid in expected if is_candidate(uid)]


@given(
    st.lists(policy(), max_size=5), st.integers(0, 7), st.integers(1, 4), st.integers(1, 9), st.sampled_from([0, 64])
)
def test_lists_for_one_principal_are_what_single_questions_say(
    texts: list[str], who: int, limit: int, count_max: int, residual_max: int
) -> None:
    """By residuals, and by heads alone."""
    engine = Engine(PolicySet.parse("\n".join(texts)), world())
    lister = Lister(engine, clock=Ticks())
    principal = EntityUid("User", str(who))
    found: list[EntityUid] = []
    after: str | None = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.policy.search.RESIDUAL_POLICIES_MAX", residual_max)
        while True:
            candidates, residual = lister.resources(principal, READ, "Doc", after=after)
            page = lister.find(
                candidates,
                lambda uid: engine.prepare(principal, READ, uid),
                limit=limit,
                count_max=count_max,
                time_s=9.0,
                residual=residual,
            )
            found += page.uids
            after = page.resume
            if after is None:
                break
    named = {uid for each in engine.policies.policies.values() for part in each.scope() for uid in part.entities}
    docs = [EntityUid("Doc", str(number)) for number in range(8)]
    assert found == [
        uid
        for uid in docs
        if (uid in engine.entities or uid in named) and may_allow(engine, engine.authorize(principal, READ, uid))
    ]


def test_permits_for_others_make_no_candidates() -> None:
    text = """
permit (principal == User::"3", action, resource == Doc::"1");
permit (principal == User::"4", action, resource);
permit (principal, action, resource == Doc::"2") when { principal.age > 4 };
permit (principal, action, resource == Doc::"3") when { resource.open };
"""
    lister = Lister(Engine(PolicySet.parse(text), world()), clock=Ticks())

    def ids(who: str) -> list[str]:
        return [uid.id for uid in lister.resources(EntityUid("User", who), READ, "Doc")[0]]

    assert ids("3") == ["1", "3"]
    assert ids("5") == ["2", "3"]
    assert ids("4") == ["0", "1", "2", "3", "4", "5"]
    assert ids("nobody") == ["2", "3"]  # of whom nothing is known, and nothing computed
    assert lister.resources(EntityUid("User", "nobody"), READ, "Doc")[1] is None


def test_a_residual_that_holds_no_more_decides_no_more() -> None:
    entities = world()
    lister = Lister(
        Engine(PolicySet.parse("permit (principal, action, resource) when { principal.age > 2 };"), entities),
        clock=Ticks(),
    )
    user = EntityUid("User", "3")
    candidates, residual = lister.resources(user, READ, "Doc")
    assert residual is not None
    assert residual.decided is True
    entities.upsert([Entity(user, {"age": 1})])
    page = lister.find(
        candidates,
        lambda uid: lister.engine.prepare(user, READ, uid),
        limit=9,
        count_max=9,
        time_s=9.0,
        residual=residual,
    )
    assert page.uids == ()


def test_scopes_leave_few_candidates() -> None:
    entities = world()
    text = """
permit (principal == User::"3", action, resource);
permit (principal in Group::"0", action in Action::"all", resource is Doc);
permit (principal, action == Action::"write", resource);
forbid (principal, action, resource);
"""
    lister = Lister(Engine(PolicySet.parse(text), entities), clock=Ticks())
    one, four = EntityUid("Doc", "1"), EntityUid("User", "4")
    assert [uid.id for uid in lister.entities("principal", "User", READ, one)] == ["2", "3", "4"]
    assert [uid.id for uid in lister.entities("principal", "Doc", READ, one)] == ["0", "2", "4"]
    assert [uid.id for uid in lister.entities("principal", "User", READ, EntityUid("Ship", "1"))] == ["3"]
    assert [uid.id for uid in lister.entities("resource", "Doc", READ, four, after="3")] == ["4", "5"]
    assert list(lister.entities("resource", "Doc", READ, EntityUid("User", "5"))) == []
    assert list(lister.entities("resource", "Ship", READ, four)) == []


def test_a_change_of_entities_is_seen() -> None:
    entities = world()
    lister = Lister(Engine(PolicySet.parse("permit (principal, action, resource);"), entities), clock=Ticks())
    assert len(list(lister.entities("resource", "Doc", READ, USER))) == 6
    entities.upsert([Entity(EntityUid("Doc", "9"))])
    entities.remove([EntityUid("Doc", "0")])
    assert [uid.id for uid in lister.entities("resource", "Doc", READ, USER)] == ["1", "2", "3", "4", "5", "9"]


def test_actions_come_from_the_schema_or_from_what_is_named() -> None:
    text = 'permit (principal, action == Action::"write", resource);'
    lister = Lister(Engine(PolicySet.parse(text), world()), clock=Ticks())
    assert [uid.id for uid in lister.actions("Action")] == ["all", "read", "write"]
    schema = Schema.parse(
        "entity User; entity Doc; action every;\n"
        "action read, write in [every] appliesTo { principal: User, resource: Doc };"
    )
    lister = Lister(Engine(PolicySet.parse(text), Entities(), schema), clock=Ticks())
    assert [uid.id for uid in lister.actions("Action")] == ["read", "write"]
    assert [uid.id for uid in lister.actions("Action", after="read")] == ["write"]


def test_entities_of_a_choice_are_candidates_though_nobody_stored_them() -> None:
    schema = Schema.parse(
        'entity User enum ["x", "y"]; entity Doc; action read appliesTo { principal: User, resource: Doc };'
    )
    lister = Lister(Engine(PolicySet.parse("permit (principal, action, resource);"), Entities(), schema), clock=Ticks())
    assert [uid.id for uid in lister.entities("principal", "User", READ, EntityUid("Doc", "1"))] == ["x", "y"]


def test_time_ends_a_page_and_loses_nothing() -> None:
    entities = Entities(Entity(EntityUid("Doc", f"{number:04}")) for number in range(3 * BATCH))
    engine = Engine(PolicySet.parse("permit (principal, action, resource);"), entities)
    lister = Lister(engine, clock=Ticks(1.0))
    user = EntityUid("User", "1")

    def prepare(uid: EntityUid) -> Request:
        return engine.prepare(user, READ, uid)

    page = lister.find(lister.entities("resource", "Doc", READ, USER), prepare, limit=1000, count_max=1000, time_s=0.5)
    assert (len(page.uids), page.looked_at, page.resume) == (BATCH, BATCH, f"{BATCH - 1:04}")
    found = all_pages(
        lister,
        lambda after: lister.entities("resource", "Doc", READ, USER, after=after),
        prepare,
        limit=1000,
        count_max=1000,
        time_s=0.5,
    )
    assert [uid.id for uid in found] == [f"{number:04}" for number in range(3 * BATCH)]


@given(st.lists(policy(), min_size=1, max_size=5), st.integers(0, 6))
def test_a_list_over_entities_that_are_fetched_is_that_over_all_of_them(texts: list[str], number: int) -> None:
    whole = Engine(PolicySet.parse("\n".join(texts)), world())
    kept = world()
    docs = [entity for uid in kept if uid.type in {"Doc", "Action"} and (entity := kept.get(uid)) is not None]
    sourced = Engine(PolicySet.parse("\n".join(texts)), Entities(docs))
    for name in ("User", "Group"):
        sourced.store.source_type(name)
    principal = EntityUid("User", str(number))

    def found(engine: Engine) -> list[EntityUid]:
        lister = Lister(engine, clock=Ticks())
        candidates, residual = lister.resources(principal, READ, "Doc")
        prepare = lambda uid: engine.prepare(principal, READ, uid)  # noqa: E731
        return list(lister.find(candidates, prepare, limit=99, count_max=99, time_s=9, residual=residual).uids)

    for _ in range(99):
        try:
            assert found(sourced) == found(whole)
        except EntitiesAway as away:
            for uid in away.uids:
                entity = kept.get(uid)
                if entity is None:
                    sourced.store.settle([uid])
                else:
                    sourced.store.put(uid, dict(entity.attributes), entity.parents)
        else:
            return
    pytest.fail("it never came to an end")
