"""Relations at the decision API: what they allow, how new they are, and what no caller can put in their place."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_follower import BEHIND_S_MAX, RelationFollower
from gateway.stores.relations import Relation
from tests.policy.decision_api import Pdp
from tests.unit.policy.relation_world import relation
from tests.unit.policy.test_relation_follower import TroubledStore

SCHEMA = """
entity User { level?: Long };
entity Group { @relation("Group.members") members: Set<User> };
entity Doc { title?: String, @relation("Group.members") viewers: Set<User> };
action read, list appliesTo { principal: User, resource: Doc, context: {} };
"""
POLICIES = """
@id("viewers") permit (principal, action == Action::"read", resource) when { principal in resource.viewers };
@id("list") permit (principal, action == Action::"list", resource);
"""
ALICE, BOB = {"type": "User", "id": "alice"}, {"type": "User", "id": "bob"}
READ, ONE = {"name": "read"}, {"type": "Doc", "id": "1"}


class World:
    """A decision point whose relations are in a store that tests write to, and can switch off."""

    def __init__(self, folder: Path, **options: Any) -> None:
        (folder / "p.cedar").write_text(POLICIES)
        (folder / "p.cedarschema").write_text(SCHEMA)
        (folder / "entities.json").write_text(json.dumps([{"uid": ALICE, "attrs": {"level": 1}, "parents": []}]))
        self.point = Pdp(folder, entities=folder / "entities.json", **options)
        loaded = self.point.repository.load()
        entities = loaded.engine.entities
        assert isinstance(entities, RelatedEntities)
        self.store = TroubledStore(self.point.clock)
        self.follower = RelationFollower(self.store, entities.graph, clock=self.point.clock)
        self.point.handle.publish(loaded.engine, loaded.digest, stamp=loaded.stamp, relations=self.follower)

    def write(self, *adds: str, removes: tuple[str, ...] = ()) -> str:
        """Write to the store alone; give the revision."""
        changes: list[list[Relation]] = [[relation(each) for each in part] for part in (adds, removes)]
        return asyncio.run(self.store.write(*changes))

    def follow(self) -> None:
        asyncio.run(self.follower.follow())

    def ask(self, subject: dict[str, Any], resource: dict[str, Any], **context: Any) -> Any:
        reply = self.point.post("evaluation", asked(subject, resource, **context))
        assert reply.status == 200, reply.body
        return reply.json


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def asked(subject: dict[str, Any], resource: dict[str, Any], **context: Any) -> dict[str, Any]:
    return {"subject": subject, "action": READ, "resource": resource, "context": context}


def test_relations_decide_over_several_steps_and_both_searches_find_them(world: World) -> None:
    world.write(
        "Doc:1#viewers@Group:eng#members", "Group:eng#members@Group:core#members", "Group:core#members@User:bob"
    )
    world.follow()
    answer = world.ask(BOB, ONE)
    assert (answer["decision"], answer["context"]["reasons"]) == (True, ["viewers"])
    assert world.ask(ALICE, ONE)["decision"] is False
    found = world.point.post("search/resource", asked(BOB, {"type": "Doc"})).json
    assert found["results"] == [{"type": "Doc", "id": "1"}]
    found = world.point.post("search/subject", asked({"type": "User"}, ONE)).json
    assert found["results"] == [{"type": "User", "id": "bob"}]


def test_the_revision_is_that_of_policies_and_of_relations(world: World) -> None:
    written = world.write("Doc:1#viewers@User:bob")
    world.follow()
    revision = world.ask(BOB, ONE)["context"]["revision"]
    assert revision == f"{world.point.handle.revision}~{written}"
    before = world.point.handle.revision
    world.write("Doc:2#viewers@User:bob")
    world.follow()
    assert world.point.handle.revision == before  # of relations, only their own revision tells
    assert world.ask(BOB, ONE, at_least=before)["decision"] is True


def test_whoever_names_a_revision_sees_at_least_that(world: World) -> None:
    world.write("Doc:1#viewers@User:bob")
    world.follow()
    first = world.ask(BOB, ONE)["context"]["revision"]
    removed = world.write("Doc:2#viewers@User:alice", removes=("Doc:1#viewers@User:bob",))
    assert world.ask(BOB, ONE, at_least=first)["decision"] is True  # nothing newer was asked for, and nobody looked
    answer = world.ask(BOB, ONE, at_least=removed)
    assert (answer["decision"], answer["context"]["revision"].endswith(f"~{removed}")) == (False, True)
    last = world.write("Doc:1#viewers@User:bob")
    wish = {"context": {"at_least": f"{world.point.handle.revision}~{last}"}}
    batch = world.point.post("evaluations", {**asked(BOB, ONE), "evaluations": [{}, wish]}).json["evaluations"]
    assert [each["decision"] for each in batch] == [True, True]  # one state for all of a request


def test_a_revision_that_cannot_be_reached_is_a_503(world: World) -> None:
    world.follow()
    revision = world.write("Doc:1#viewers@User:bob")
    world.store.down = True
    for path in ("evaluation", "search/resource"):
        reply = world.point.post(path, asked(BOB, ONE, at_least=revision))
        assert (reply.status, reply.json["code"]) == (503, "revision_unavailable")


def test_a_revision_of_relations_is_not_reached_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text("permit (principal, action, resource);")
    reply = Pdp(tmp_path).post("evaluation", asked(BOB, ONE, at_least="a:1"))
    assert (reply.status, reply.json["code"]) == (503, "revision_unavailable")


def test_relations_that_may_be_too_old_allow_nothing(world: World) -> None:
    world.write("Doc:1#viewers@User:bob")
    before = world.ask(BOB, ONE)
    assert (before["decision"], before["context"]["code"]) == (False, "relations_unavailable")  # never read
    world.follow()
    assert world.ask(BOB, ONE)["decision"] is True
    world.point.clock.now_s += BEHIND_S_MAX + 0.1
    assert world.ask(BOB, ONE)["context"]["code"] == "relations_unavailable"
    batch = world.point.post("evaluations", {**asked(BOB, ONE), "evaluations": [{}, {}]}).json["evaluations"]
    assert {(each["decision"], each["context"]["code"]) for each in batch} == {(False, "relations_unavailable")}
    reply = world.point.post("search/resource", asked(BOB, {"type": "Doc"}))
    assert (reply.status, reply.json["code"]) == (503, "relations_unavailable")  # an empty list would be an answer
    world.follow()
    assert world.ask(BOB, ONE)["decision"] is True


def test_what_no_policy_about_relations_applies_to_is_answered_without_them(world: World) -> None:
    reads = world.point.handle.now.reads
    assert reads is not None
    reads.prepare()
    listed = {**asked(BOB, ONE), "action": {"name": "list"}}
    unread, answered = asked(BOB, ONE), world.point.post("evaluation", listed).json
    assert (answered["decision"], "code" in answered["context"]) == (True, False)
    batch = world.point.post("evaluations", {**unread, "evaluations": [{}, {"action": {"name": "list"}}]}).json
    assert [each["decision"] for each in batch["evaluations"]] == [False, True]
    assert batch["evaluations"][0]["context"]["code"] == "relations_unavailable"


@pytest.mark.parametrize("trust", ["resource", "all"])
def test_no_caller_gives_a_resource_its_relations(tmp_path: Path, trust: Any) -> None:
    world = World(tmp_path, open_trust=trust)
    world.write("Doc:2#viewers@User:bob", "Group:eng#members@User:bob")
    world.follow()
    for value in (
        {"__entity": {"type": "Relation::Doc::viewers", "id": "2"}},
        {"type": "Relation::Doc::viewers", "id": "2"},
        {"type": "Relation::Group::members", "id": "eng"},
        [BOB],
    ):
        reply = world.point.post("evaluation", asked(BOB, {**ONE, "properties": {"viewers": value}}))
        assert reply.status == 400
        assert "`/resource/properties/viewers`: is made by relations alone" in reply.json["detail"]
    assert world.ask(BOB, {**ONE, "properties": {"viewers": None, "title": "x"}})["decision"] is False


def test_properties_leave_relations_as_they_are(tmp_path: Path) -> None:
    world = World(tmp_path, open_trust="all")
    world.write("Doc:1#viewers@Group:eng#members", "Group:eng#members@User:alice")
    world.follow()
    alice, one = {**ALICE, "properties": {"level": 9}}, {**ONE, "properties": {"title": "x"}}
    assert world.ask(alice, one)["decision"] is True
    assert world.ask({**BOB, "properties": {"level": 9}}, one)["decision"] is False


@pytest.mark.parametrize("trust", ["none", "resource", "all"])
def test_what_stands_for_relations_is_nobody_that_a_caller_can_be(tmp_path: Path, trust: Any) -> None:
    world = World(tmp_path, open_trust=trust)
    world.write("Doc:1#viewers@Group:eng#members", "Doc:1#viewers@User:bob")
    world.follow()
    for name, identity in (("Relation::Group::members", "eng"), ("Relation::Doc::viewers", "1")):
        node = {"type": name, "id": identity}
        assert world.ask(node, ONE)["decision"] is False  # though it is in the viewers, as far as the store goes
        assert world.ask(BOB, node)["decision"] is False
        assert world.point.post("search/resource", asked(BOB, {"type": name})).json["results"] == []
        assert world.point.post("search/subject", asked({"type": name}, ONE)).json["results"] == []
        assert world.ask(BOB, {**ONE, "properties": {"title": "x", "nobody": node}})["decision"] is True
