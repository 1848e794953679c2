"""Revisions grow with every change, over stores and restarts, and can be waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities, Entity
from gateway.policy.handle import PolicyHandle
from gateway.policy.policy_set import PolicySet
from tests.policy.decision_api import SetClock

ANY = "permit (principal, action, resource);"


def engine(entities: Entities | None = None) -> Engine:
    return Engine(PolicySet.parse(ANY), Entities() if entities is None else entities)


def test_revisions_only_grow() -> None:
    entities = Entities()
    handle = PolicyHandle(engine(entities), "one", stamp=100)
    seen = [handle.revision]
    entities.upsert([Entity(EntityUid("User", "a"))])
    seen.append(handle.revision)
    handle.publish(engine(entities), "two")
    seen.append(handle.revision)
    handle.publish(engine(), "three")  # a store that was changed less often
    seen.append(handle.revision)
    handle.publish(engine(), "four", stamp=500)
    seen.append(handle.revision)
    assert seen[0] == 100
    assert seen[-1] == 500
    assert seen == sorted(set(seen))


def test_who_holds_a_snapshot_keeps_its_engine() -> None:
    first = engine()
    handle = PolicyHandle(first, "one")
    held = handle.now
    handle.publish(engine(), "two")
    assert held.engine is first
    assert handle.now.digest == "two"


async def test_a_revision_can_be_waited_for() -> None:
    handle = PolicyHandle(engine(), "one")
    clock = SetClock()
    wanted = handle.revision + 1
    waiting = asyncio.create_task(handle.reach(wanted, clock=clock, within_s=1.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    handle.publish(engine(), "two")
    assert await waiting
    late = asyncio.create_task(handle.reach(wanted + 99, clock=clock, within_s=1.0))
    await asyncio.sleep(0)
    clock.now_s += 1.0
    assert not await late


class _Relations:
    """What a snapshot asks of the relations among its entities."""

    trusted = False
    revision = "log:7"


def test_relations_that_cannot_be_trusted_close_the_doors() -> None:
    relations: Any = _Relations()
    handle = PolicyHandle(engine(), "one", stamp=5, relations=relations)
    assert (handle.cell.decider, handle.now.refusal) == (None, "relations_unavailable")
    relations.trusted = True
    handle.look()
    assert (handle.cell.decider, handle.now.refusal) == (handle.now.engine, "")
    relations.trusted = False
    handle.publish(engine(), "two", relations=relations)
    assert (handle.cell.decider, handle.now.refusal) == (None, "relations_unavailable")
    handle.publish(engine(), "three")
    assert (handle.cell.decider, handle.now.refusal) == (handle.now.engine, "")


def test_while_relations_cannot_be_trusted_the_doors_decide_what_rests_on_none() -> None:
    relations: Any = _Relations()
    handle = PolicyHandle(engine(), "one", relations=relations)
    assert (handle.cell.decider, handle.cell.doubtful) == (None, True)
    assert handle.now.reads is not None
    handle.now.reads.prepare()
    handle.look()
    assert (handle.cell.decider, handle.cell.doubtful) == (handle.now.reads.cautious, True)
    relations.trusted = True
    handle.look()
    assert (handle.cell.decider, handle.cell.doubtful) == (handle.now.engine, False)


def test_with_relations_a_revision_is_of_files_and_of_the_relations_store() -> None:
    entities = Entities()
    relations: Any = _Relations()
    handle = PolicyHandle(engine(entities), "one", stamp=100, relations=relations)
    assert (handle.revision, handle.now.shown_revision) == (100, "100~log:7")
    entities.upsert([Entity(EntityUid("User", "a"))])  # as a change of relations does, in each process differently
    assert handle.revision == 100
    assert handle.publish(engine(entities), "two", relations=relations).revision == 101
    assert handle.publish(engine(entities), "three").shown_revision == 102
