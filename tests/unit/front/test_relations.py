"""Relations of a worker over starts, reloads and faults of their store: nothing is decided by a part of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway._native.uid import EntityUid
from gateway.config import PolicyConfig, RelationsConfig
from gateway.errors import ConfigError
from gateway.front import relations as module
from gateway.front.policies import Policies, PolicyPlan
from gateway.policy.faults import Fault, PolicyFault
from gateway.policy.relation_reads import RelationReads
from gateway.stores.relations import RelationPage, RelationStore
from tests.files import rewrite
from tests.unit.policy.relation_world import ManualClock, relation
from tests.unit.policy.test_relation_follower import TroubledStore

SCHEMA = """
entity User;
entity Team { @relation members: Set<User> };
entity Doc { team?: Team, @relation("Team.members") viewers: Set<User> };
action read appliesTo { principal: User, resource: Doc };
"""
BY_RELATION = "permit (principal, action, resource) when { principal in resource.viewers };"
BOB, READ, ONE = EntityUid("User", "bob"), EntityUid("Action", "read"), EntityUid("Doc", "1")


class KeptStore(TroubledStore):
    """A store that several open and close, and that lives on."""

    opened = closed = 0

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.may_be_read = asyncio.Event()  # whole; the log always may
        self.may_be_read.set()

    @contextlib.contextmanager
    def not_read_whole(self) -> Iterator[None]:
        """Hold up whoever begins to read all relations."""
        self.may_be_read.clear()
        yield
        self.may_be_read.set()

    async def read_all(self, cursor: str, limit: int) -> RelationPage:
        await self.may_be_read.wait()
        return await super().read_all(cursor, limit)

    async def close(self) -> None:
        self.closed += 1


class World:
    """Policies in a folder, and stores that tests hold in their hands, by url."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.stores: dict[str, KeptStore] = {}
        self.folder = folder / "policies"
        self.folder.mkdir()
        self.entities = folder / "entities.json"
        self.write("p.cedarschema", SCHEMA)
        self.write("p.cedar", BY_RELATION)
        self.put_entities()
        self.policies = Policies(folder, self.clock)

    def write(self, name: str, text: str) -> None:
        rewrite(self.folder / name, text)

    def put_entities(self, *docs: str) -> None:
        made = [{"uid": {"type": "Doc", "id": doc}, "attrs": {}, "parents": []} for doc in docs]
        rewrite(self.entities, json.dumps(made))

    def open_store(self, config: RelationsConfig, *, base_dir: Path, run_dir: Path) -> RelationStore:
        store = self.store(config.url)
        store.opened += 1
        return store

    def store(self, url: str = "one") -> KeptStore:
        return self.stores.setdefault(url, KeptStore(self.clock))

    def plan(self, url: str = "one", *, lease_s: float = 1.0, watch_s: float = 0.0) -> PolicyPlan:
        relations = RelationsConfig(url=url, lease_s=lease_s)
        path, entities = str(self.folder), str(self.entities)
        return self.policies.plan(PolicyConfig(path=path, entities=entities, relations=relations, watch_s=watch_s))

    async def started(self) -> PolicyPlan:
        plan = self.plan()
        self.policies.commit(plan)
        await self.policies.start()
        return plan


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    world = World(tmp_path)
    monkeypatch.setattr(module, "open_configured_store", world.open_store)
    yield world
    await world.policies.stop()


def is_allowed(plan: PolicyPlan) -> bool | None:
    """What the doors would say now; None: that it cannot be decided."""
    return verdict(plan, READ)


def verdict(plan: PolicyPlan, action: EntityUid) -> bool | None:
    cell = plan.handle.cell
    allowed = cell.decider is not None and cell.decider.allows(BOB, action, ONE)
    return None if cell.decider is None or (cell.doubtful and not allowed) else allowed


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition():
            await asyncio.sleep(0)


async def at(plan: PolicyPlan, revision: str) -> None:
    assert plan.following is not None
    await plan.following.follower.at_least(revision, timeout_s=10.0)


async def test_tuples_decide_from_the_start_on_and_when_they_change(world: World) -> None:
    await world.store().write([relation("Doc:1#viewers@Team:a#members"), relation("Team:a#members@User:bob")])
    plan = world.plan()
    world.policies.commit(plan)
    assert is_allowed(plan) is None  # nothing was read yet
    await world.policies.start()
    assert is_allowed(plan) is True
    await at(plan, await world.store().write([], [relation("Team:a#members@User:bob")]))
    assert is_allowed(plan) is False
    assert world.policies.relations is not None
    state = world.policies.relations.state()
    assert (state.status, state.trusted) == ("ok", True)


async def test_a_start_without_its_store_refuses_until_the_store_is_there(world: World) -> None:
    world.store().down = True
    plan = await world.started()
    assert world.policies.relations is not None
    state = world.policies.relations.state()
    assert (is_allowed(plan), state.status, state.error) == (None, "unavailable", "away")
    world.store().down = False
    await until(lambda: is_allowed(plan) is False)


async def test_a_lost_lease_closes_the_doors_and_a_new_one_opens_them(world: World) -> None:
    await world.store().write([relation("Doc:1#viewers@User:bob")])
    plan = await world.started()
    assert is_allowed(plan) is True
    world.store().down = True
    world.clock.move(1.1)
    await until(lambda: is_allowed(plan) is None)
    assert plan.handle.now.refusal == "relations_unavailable"
    world.store().down = False
    await until(lambda: is_allowed(plan) is True)


async def test_what_no_relation_can_change_is_decided_without_them(world: World) -> None:
    world.write("p.cedarschema", SCHEMA + "action list appliesTo { principal: User, resource: Doc };")
    world.write("p.cedar", BY_RELATION.replace("action,", 'action == Action::"read",'))
    world.write("q.cedar", 'permit (principal, action == Action::"list", resource);')
    await world.store().write([relation("Doc:1#viewers@User:bob")])
    world.store().down = True
    plan = await world.started()
    listing = EntityUid("Action", "list")
    await until(lambda: verdict(plan, listing) is True)
    assert is_allowed(plan) is None
    assert plan.handle.now.refusal_of(BOB, listing, ONE) == ""
    assert plan.handle.now.refusal_of(BOB, READ, ONE) == "relations_unavailable"
    world.store().down = False
    await until(lambda: is_allowed(plan) is True)
    assert verdict(plan, listing) is True
    world.store().down = True
    world.clock.move(1.1)
    await until(lambda: is_allowed(plan) is None)
    assert verdict(plan, listing) is True  # at once: it was found out before
    world.write("q.cedar", 'forbid (principal, action == Action::"list", resource);')
    world.policies.commit(world.plan())
    await until(lambda: plan.handle.cell.decider is not None)
    assert verdict(plan, listing) is None  # what is denied now may rest on relations, for all that the doors know


async def test_policies_that_cannot_be_looked_at_decide_nothing_without_relations(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(self: RelationReads) -> None:
        raise PolicyFault([Fault("unreadable", "no such file")])

    monkeypatch.setattr(RelationReads, "prepare", gone)
    world.store().down = True
    plan = await world.started()
    await until(lambda: "nothing is decided without relations" in caplog.text)
    assert plan.handle.cell.decider is None


async def test_the_lease_is_as_long_as_the_config_says(world: World) -> None:
    plan = world.plan(lease_s=60.0)
    world.policies.commit(plan)
    await world.policies.start()
    world.store().down = True
    world.clock.move(59.0)
    assert plan.handle.now.refusal == ""
    world.clock.move(1.1)
    assert plan.handle.now.refusal == "relations_unavailable"


async def test_other_policies_over_the_same_entities_keep_their_relations(world: World) -> None:
    await world.store().write([relation("Doc:1#viewers@User:bob")])
    plan = await world.started()
    world.write("p.cedar", BY_RELATION + "forbid (principal, action, resource);")
    following = world.plan()
    assert following.following is plan.following
    world.policies.commit(following)
    assert is_allowed(plan) is False  # at once


async def test_entities_that_are_read_anew_come_into_force_with_all_relations(world: World) -> None:
    await world.store().write([relation("Doc:1#viewers@User:bob")])
    plan = await world.started()
    world.put_entities("1", "2")
    second = world.plan()
    assert second.following is not plan.following
    world.policies.commit(second)
    seen = set()
    while plan.handle.now.engine is not second.loaded.engine:
        seen.add(is_allowed(plan))
        await asyncio.sleep(0)
    seen.add(is_allowed(plan))
    assert seen == {True}  # neither refused nor denied while relations were read into the new entities
    await at(second, await world.store().write([], [relation("Doc:1#viewers@User:bob")]))
    assert is_allowed(plan) is False


async def test_until_the_new_entities_have_their_relations_the_former_follow_every_change(world: World) -> None:
    await world.store().write([relation("Doc:1#viewers@User:bob")])
    plan = await world.started()
    assert plan.following is not None
    world.put_entities("1")
    second = world.plan()
    assert second.following is not None
    with world.store().not_read_whole():
        world.policies.commit(second)
        revision = await world.store().write([], [relation("Doc:1#viewers@User:bob")])
        await at(plan, revision)
        assert plan.handle.now.engine is plan.loaded.engine
        assert is_allowed(plan) is False
        world.write("p.cedar", BY_RELATION + "permit (principal, action, resource);")
        third = world.plan()
        assert third.following is second.following
        world.policies.commit(third)
        assert is_allowed(plan) is False
    await until(lambda: plan.handle.now.engine is third.loaded.engine)  # the newest, never the one in between
    assert is_allowed(plan) is True


async def test_new_entities_do_not_wait_for_a_store_that_is_away(world: World) -> None:
    plan = await world.started()
    world.store().down = True
    world.clock.move(1.1)
    await until(lambda: is_allowed(plan) is None)
    world.put_entities("1")
    second = world.plan()
    world.policies.commit(second)
    assert plan.handle.now.engine is second.loaded.engine  # who refuses anyway can refuse by the newest
    assert is_allowed(plan) is None
    world.store().down = False
    await until(lambda: is_allowed(plan) is False)


async def test_waiting_ends_when_the_former_relations_cannot_be_trusted_any_more(world: World) -> None:
    plan = await world.started()
    world.put_entities("1")
    second = world.plan()
    world.store().down = True
    world.policies.commit(second)
    assert plan.handle.now.engine is plan.loaded.engine
    world.clock.move(1.1)
    await until(lambda: plan.handle.now.engine is second.loaded.engine)
    assert is_allowed(plan) is None


async def test_a_reload_that_comes_meanwhile_goes_before(world: World) -> None:
    await world.store().write([relation("Doc:1#viewers@User:bob")])
    plan = await world.started()
    world.put_entities("1")
    second = world.plan()
    assert second.following is not None
    with world.store().not_read_whole():
        world.policies.commit(second)
        world.put_entities("2")
        third = world.plan()
        world.policies.commit(third)
    await until(lambda: plan.handle.now.engine is third.loaded.engine)
    assert is_allowed(plan) is True
    assert plan.handle.now.relations is not second.following.follower
    await world.policies.stop()
    assert world.store().closed >= world.store().opened == 1  # shared by all of them, and gone with the last


async def test_a_store_stays_open_for_the_reading_that_took_over_from_one_given_up(world: World) -> None:
    plan = await world.started()
    world.put_entities("1")
    second = world.plan("two")
    with world.store("two").not_read_whole():
        world.policies.commit(second)
        world.put_entities("2")
        third = world.plan("two")
        world.policies.commit(third)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (world.store("two").opened, world.store("two").closed) == (1, 0)
    await until(lambda: plan.handle.now.engine is third.loaded.engine)
    await until(lambda: world.store("one").closed == 1)
    assert world.store("two").closed == 0


async def test_another_store_is_another_set_of_relations(world: World) -> None:
    await world.store("one").write([relation("Doc:1#viewers@User:bob")])
    plan = await world.started()
    second = world.plan("two")
    world.policies.commit(second)
    await until(lambda: plan.handle.now.engine is second.loaded.engine)
    assert is_allowed(plan) is False
    await at(second, await world.store("two").write([relation("Doc:1#viewers@User:bob")]))
    assert is_allowed(plan) is True


async def test_a_schema_with_relations_needs_a_store_of_them(world: World) -> None:
    with pytest.raises(ConfigError) as caught:
        world.plan("")
    fault = caught.value.faults[0]
    assert (fault.key, fault.problem) == ("policy.relations.url", "the schema has relations, and nothing keeps them")


async def test_a_store_without_relations_in_the_schema_is_not_followed(world: World) -> None:
    world.write("p.cedarschema", "entity User; entity Doc; action read appliesTo { principal: User, resource: Doc };")
    world.write("p.cedar", "permit (principal, action, resource);")
    plan = await world.started()
    assert (plan.following, world.policies.relations, is_allowed(plan)) == (None, None, True)
    world.write("p.cedarschema", SCHEMA)  # and now there are
    world.write("p.cedar", BY_RELATION)
    second = world.plan()
    world.policies.commit(second)
    await until(lambda: is_allowed(plan) is False)
    world.write("p.cedarschema", "entity User; entity Doc; action read appliesTo { principal: User, resource: Doc };")
    world.write("p.cedar", "permit (principal, action, resource);")
    world.policies.commit(world.plan())
    assert (world.policies.relations, is_allowed(plan)) == (None, True)


async def test_watched_entities_that_change_keep_their_relations(world: World) -> None:
    await world.store().write([relation("Doc:1#viewers@User:bob")])
    plan = world.plan(watch_s=1.0)
    world.policies.commit(plan)
    await world.policies.start()
    await world.policies.look()
    world.put_entities("1", "2")
    await world.policies.look()
    await world.policies.look()
    await until(lambda: EntityUid("Doc", "2") in plan.handle.now.engine.store)
    assert is_allowed(plan) is True
    world.write("p.cedarschema", SCHEMA.replace("@relation members", "members"))
    await world.policies.look()
    await world.policies.look()
    assert is_allowed(plan) is True  # `Team.members` is no relation any more, which the schema needs: refused
