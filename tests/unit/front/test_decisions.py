"""What the decision log says of routes' requests and of questions to the decision API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway._native.route_policy import Sampling
from gateway.config import PolicyConfig, RouteConfig
from gateway.front.decisions import DecisionRecorder
from gateway.observability.decisions import DecisionLog
from gateway.observability.line_writer import LineWriter
from gateway.policy.handle import PolicyHandle
from tests.native.policy_harness import READ, Asking, context_route, engine_of
from tests.policy.decision_api import Pdp
from tests.real.gateway import bearer, mint

SCHEMA = """
entity Role;
entity User in [Role] = { level?: Long };
entity Order = { owner: User };
action read appliesTo {
  principal: User, resource: Order,
  context: { tenant?: String, n?: Long, b?: Bool, from?: ipaddr, roles?: Set<String> },
};
"""
OWN = "permit (principal, action, resource) when { resource.owner == principal };"
EVERYTHING = Sampling(all=True)


class Written:
    """A decision log in a file, read back."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "decisions.log"
        self.writer = LineWriter(str(self.path), name="decisions")
        self.log = DecisionLog(self.writer)

    def lines(self) -> list[dict[str, Any]]:
        self.writer.close()
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]


def told(door: Asking, folder: Path) -> list[dict[str, Any]]:
    """Give the lines of what a door decided."""
    written = Written(folder)
    recorder = DecisionRecorder(PolicyHandle(door.deciding, "abc", stamp=7), written.log, EVERYTHING)
    for noted in door.decided:
        recorder.route(*noted)
    return written.lines()


def test_a_line_says_what_was_asked_and_what_came_of_it(tmp_path: Path) -> None:
    names = ("tenant", "n", "b", "from")
    route = context_route(**{name: f"{{query.{name}}}" for name in names}, roles="{claim.roles}")
    config = PolicyConfig(path="p", principal_claims={"level": "level"}, principal_parents={"roles": "Role"})
    door = Asking(OWN, route, schema=SCHEMA, config=config, sampling=EVERYTHING)
    target = "/orders/1?tenant=a%26b&n=-3&b=true&from=10.0.0.0/8"
    verdict = door.judged(target, roles=["a", "b"], level=3)
    (line,) = told(door, tmp_path)
    assert line.pop("duration_us") > 0
    assert line.pop("ts")
    assert line == {
        "id": verdict.request_id,
        "door": "proxy",
        "route": "/orders/{id}",
        "principal": {"type": "User", "id": "alice"},
        "action": {"type": "Action", "id": "read"},
        "resource": {"type": "Order", "id": "1"},
        "context": {
            "tenant": "a&b",
            "n": -3,
            "b": True,
            "from": {"__extn": {"fn": "ip", "arg": "10.0.0.0/8"}},
            "roles": ["a", "b"],
        },
        "given": {
            "principal": {"attrs": {"level": 3}, "parents": [{"type": "Role", "id": "a"}, {"type": "Role", "id": "b"}]}
        },
        "decision": "allow",
        "reason": "ok",
        "policies": ["policy0"],
        "errors": [],
        "faults": [],
        "revision": 7,
        "digest": "abc",
        "entities": door.deciding.store.revision,
        "relations": None,
        "cache": "resident",
    }


@pytest.mark.parametrize("known", [False, True])
def test_each_answered_request_is_told_of_once_with_the_id_that_its_client_got(known: bool, tmp_path: Path) -> None:
    door = Asking(OWN, sampling=EVERYTHING)
    allowed, denied = bearer(mint(sub="alice")), bearer(mint(sub="bob"))
    answers = [door.forward("GET", "/orders/1", token) for _ in range(1 + known) for token in (allowed, denied)]
    lines = told(door, tmp_path)
    headers = [dict(answer.headers) for answer in answers]
    assert [line["id"] for line in lines] == [
        each.get("x-auth-decision-id") or each.get("x-request-id") for each in headers
    ]
    assert [(line["decision"], line["reason"], line["door"]) for line in lines[-2:]] == [
        ("allow", "ok", "forward"),
        ("deny", "policy_denied", "forward"),
    ]


def test_a_request_that_policies_were_not_asked_about_is_no_decision() -> None:
    door = Asking(OWN, sampling=EVERYTHING)
    door.forward("GET", "/orders/1")
    door.forward("GET", "/nowhere", bearer())
    assert door.decided == []


def test_errors_reasons_and_limits_are_told_as_cedar_has_them(tmp_path: Path) -> None:
    text = (
        '@id("all") permit (principal, action, resource);'
        ' @id("broken") forbid (principal, action, resource) when { resource.nobody };'
    )
    door = Asking(text, sampling=EVERYTHING)
    door.judged("/orders/1")
    (line,) = told(door, tmp_path)
    assert (line["decision"], line["policies"], line["errors"]) == ("deny", ["policy0"], ["policy1"])


def test_what_could_not_be_asked_says_how_far_it_came(tmp_path: Path) -> None:
    route = RouteConfig(path="/x", action=READ, resource='Order::"{query.id}"', context={"t": "{header.x-t}"})
    door = Asking("permit (principal, action, resource);", route, sampling=EVERYTHING)
    assert door.judged("/x", ("X-T", "a")).reason == "policy_incomplete"
    (line,) = told(door, tmp_path)
    assert (line["resource"], line["action"]["id"], line["context"]) == (None, "read", {"t": "a"})
    assert (line["reason"], line["policies"], line["decision"]) == ("policy_incomplete", None, "deny")


def test_claims_that_are_not_of_their_type_are_named_and_not_shown(tmp_path: Path) -> None:
    config = PolicyConfig(path="p", principal_claims={"level": "level"})
    door = Asking(OWN, context_route(), schema=SCHEMA, config=config, sampling=EVERYTHING)
    assert door.judged("/orders/1", level="hunter2").reason == "policy_claim_invalid"
    (line,) = told(door, tmp_path)
    assert (line["reason"], line["given"]) == ("policy_claim_invalid", {})
    assert [(fault["claim"], fault["code"]) for fault in line["claim_faults"]] == [("level", "wrong_type")]
    assert "hunter2" not in json.dumps(line)


def test_a_decision_by_policies_that_just_went_out_of_force_names_them(tmp_path: Path) -> None:
    door = Asking(OWN, sampling=EVERYTHING)
    written = Written(tmp_path)
    handle = PolicyHandle(door.deciding, "old", stamp=7)
    recorder = DecisionRecorder(handle, written.log, EVERYTHING)
    door.judged("/orders/1")
    handle.publish(engine_of(OWN), "new")
    recorder.route(*door.decided[0])
    handle.publish(engine_of(OWN), "newer")
    assert [(line["digest"], line["revision"]) for line in written.lines()] == [("old", 7)]


@pytest.mark.parametrize(
    ("sampling", "allows", "denials"),
    [(Sampling(all=False), 0, 50), (Sampling(all=True, rate=0.0), 0, 50), (EVERYTHING, 50, 50), (None, 0, 0)],
)
def test_what_is_wanted_is_recorded_and_nothing_else(sampling: Sampling | None, allows: int, denials: int) -> None:
    door = Asking(OWN, sampling=sampling)
    tokens = bearer(mint(sub="alice")), bearer(mint(sub="bob"))
    for _ in range(50):
        for token in tokens:
            door.door.judge_scope(door.scope("GET", "/orders/1", [token]))
    outcomes = [decided.outcome for decided, *_ in door.decided]
    assert (outcomes.count("allowed"), outcomes.count("denied")) == (allows, denials)


def test_a_share_of_the_allows_is_about_that_share() -> None:
    sampling = Sampling(all=True, rate=0.25)
    assert 2000 < sum(sampling.wants(True) for _ in range(10_000)) < 3000
    assert all(sampling.wants(False) for _ in range(1000))
    for rate in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            Sampling(all=True, rate=rate)


def test_a_hundred_decisions_give_the_same_answer_with_and_without_the_log() -> None:
    text = OWN + "forbid (principal, action, resource) when { context has n && context.n > 5 };"
    route = context_route(n="{query.n}")
    quiet, loud = Asking(text, route, schema=SCHEMA), Asking(text, route, schema=SCHEMA, sampling=EVERYTHING)
    for number in range(100):
        target = f"/orders/{number % 3}?n={number % 10}"
        subject = ("alice", "bob")[number % 2]
        reason = loud.reason(target, subject=subject)
        assert quiet.reason(target, subject=subject) == reason
        assert loud.decided[-1][0].answer is not None
        assert loud.decided[-1][0].answer.allowed == (reason == "ok")


def test_relations_are_told_by_the_revision_of_their_store(tmp_path: Path) -> None:
    class Follower:
        revision, trusted = "5f:17", True

    door = Asking(OWN, sampling=EVERYTHING)
    written = Written(tmp_path)
    handle = PolicyHandle(door.deciding, "abc", stamp=7, relations=Follower())  # type: ignore[arg-type]
    door.judged("/orders/1")
    DecisionRecorder(handle, written.log, EVERYTHING).route(*door.decided[0])
    assert [(line["relations"], line["revision"]) for line in written.lines()] == [("5f:17", 7)]


# --- the decision API


def api(folder: Path, sampling: Sampling = EVERYTHING) -> tuple[Pdp, Written]:
    (folder / "p").mkdir()
    (folder / "p" / "a.cedar").write_text('@id("own") ' + OWN)
    (folder / "p" / "a.cedarschema").write_text(SCHEMA)
    entities = folder / "entities.json"
    owner = {"__entity": {"type": "User", "id": "alice"}}
    entities.write_text(json.dumps([{"uid": {"type": "Order", "id": "1"}, "attrs": {"owner": owner}, "parents": []}]))
    written = Written(folder)
    return Pdp(
        folder / "p", entities=entities, recorder=lambda handle: DecisionRecorder(handle, written.log, sampling)
    ), written


def question(subject: str, **more: Any) -> dict[str, Any]:
    asked = {
        "subject": {"type": "User", "id": subject},
        "action": {"name": "read"},
        "resource": {"type": "Order", "id": "1"},
        "context": {"tenant": "a"},
    }
    return {**asked, **more}


def test_questions_to_the_decision_api_are_written_with_their_decision_id(tmp_path: Path) -> None:
    pdp, written = api(tmp_path)
    asked = question("alice")
    asked["subject"]["properties"] = {"level": 3}
    replies = [pdp.post("evaluation", each).json for each in (asked, question("bob"))]
    lines = written.lines()
    assert [line["id"] for line in lines] == [reply["context"]["decision_id"] for reply in replies]
    first = lines[0]
    assert (first["door"], first["client"], first["decision"], first["policies"]) == ("authzen", None, "allow", ["own"])
    assert first["given"] == {"principal": {"attrs": {"level": 3}, "parents": []}}
    assert first["context"] == {"tenant": "a"}
    assert first["revision"] == replies[0]["context"]["revision"]
    assert first["digest"] == pdp.handle.now.digest
    assert (lines[1]["decision"], lines[1]["reason"], lines[1]["policies"]) == ("deny", "policy_denied", [])


def test_each_question_of_a_batch_is_a_decision(tmp_path: Path) -> None:
    pdp, written = api(tmp_path)
    body = {**question("alice"), "evaluations": [{}, {"subject": {"type": "User", "id": "bob"}}, {"resource": 7}]}
    answers = pdp.post("evaluations", body).json["evaluations"]
    assert [answer["decision"] for answer in answers] == [True, False, False]
    assert [line["decision"] for line in written.lines()] == ["allow", "deny"]


def test_a_question_that_the_schema_does_not_foresee_says_so(tmp_path: Path) -> None:
    pdp, written = api(tmp_path)
    pdp.post("evaluation", question("alice", action={"name": "eat"}))
    (line,) = written.lines()
    assert (line["decision"], line["reason"], line["policies"]) == ("deny", "undeclared_action", None)
    assert line["action"] == {"type": "Action", "id": "eat"}


def test_allows_are_left_out_where_only_denials_are_wanted(tmp_path: Path) -> None:
    pdp, written = api(tmp_path, Sampling(all=False))
    for subject in ("alice", "bob"):
        pdp.post("evaluation", question(subject))
    assert [line["principal"]["id"] for line in written.lines()] == ["bob"]
