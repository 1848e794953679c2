"""Logged decisions read back: every value as policies saw it, and nothing that is not whole is taken for a decision."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.extensions import Datetime, Decimal, IPAddr
from gateway._native.route_policy import Sampling
from gateway.config import PolicyConfig
from gateway.front.decisions import DecisionRecorder
from gateway.observability.decisions import DecisionLog
from gateway.observability.line_writer import LineWriter
from gateway.policy import EntityUid
from gateway.policy.handle import PolicyHandle
from gateway.policy.json_values import value_to_json
from gateway.policy.logged import LINE_BYTES_MAX, Damaged, Unrepeatable, id_of, read_decision
from tests.native.policy_harness import Asking, context_route
from tests.unit.policy.logged_lines import admin, engine, line

VALUES: dict[str, Any] = {
    "text": "a",
    "number": -(2**63),
    "truth": False,
    "who": EntityUid("User", "é"),
    "ip": IPAddr.parse("10.0.0.0/8"),
    "moment": Datetime(1704067200000),
    "share": Decimal.parse("0.25"),
    "all": ["a", 1, EntityUid("User", "b")],
    "record": {"deep": {"er": [True]}, "__odd": "name"},
}


def test_values_come_back_as_they_were() -> None:
    shown = {name: value_to_json(value) for name, value in VALUES.items()}
    given = {"principal": {"attrs": shown, "parents": []}, "resource": {"attrs": {"n": 1}, "parents": []}}
    logged = read_decision(line(context=shown, given=given))
    assert logged.context == VALUES
    assert logged.overlays == {EntityUid("User", "alice"): (VALUES, ()), EntityUid("Order", "1"): ({"n": 1}, ())}


def test_what_was_said_of_the_request_comes_back() -> None:
    logged = read_decision(line("bob", "deny", policies=["p", "q"], reason="policy_denied"))
    assert (logged.id, logged.place, logged.allowed, logged.reason) == ("6f1c", "/orders/{id}", False, "policy_denied")
    assert (logged.policies, logged.digest) == (("p", "q"), "abc")
    assert read_decision(line(route=..., door="authzen")).place == "authzen"


def test_it_is_decided_again_with_what_was_defined_for_it() -> None:
    deciding = engine()
    assert [read_decision(each).decide(deciding)[0] for each in (line(), line("bob"), line("bob", given=admin()))] == [
        True,
        False,
        True,
    ]


def test_a_forbid_that_cannot_be_evaluated_denies_as_at_the_doors() -> None:
    text = "permit (principal, action, resource); forbid (principal, action, resource) when { resource.nobody };"
    allowed, answer = read_decision(line()).decide(engine(text))
    assert (allowed, answer.allowed) == (False, True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"principal": ...}, "`principal` is missing"),
        ({"policies": ...}, "`policies` is missing"),
        ({"given": {"principal": {"attrs": {}}}}, "`parents` is missing"),
        ({"principal": {"type": "User"}}, "`id` is missing"),
        ({"principal": "alice"}, "another type"),
        ({"principal": {"type": "User", "id": 7}}, "another type"),
        ({"context": [1]}, "another type"),
        ({"given": 7}, "another type"),
        ({"policies": 7}, "another type"),
        ({"decision": "maybe"}, "neither"),
        ({"context": {"a": 1.5}}, "none of Cedar's"),
        ({"context": {"a": None}}, "none of Cedar's"),
        ({"context": {"a": 2**63}}, "none of Cedar's"),
        ({"context": {"a": {"__extn": {"fn": "ip", "arg": "x"}}}}, "none of Cedar's"),
    ],
)
def test_a_damaged_line_says_what_is_wrong(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(Damaged, match=problem):
        read_decision(line(**changes))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b'"x"', b"\xff", b"{}" * 2, b" " * (LINE_BYTES_MAX + 1)])
def test_what_is_no_object_is_damaged(text: bytes) -> None:
    for reading in (read_decision, id_of):
        with pytest.raises(Damaged):
            reading(text)


def test_every_cut_of_a_line_is_damaged() -> None:
    whole = line(context={"a": {"b": ["c"]}}, given=admin())
    for length in range(len(whole) - 2):
        with pytest.raises(Damaged):
            read_decision(whole[:length])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "id", "attrs", "parents", "__extn", "__entity", "fn", "arg", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["principal", "action", "resource", "context", "given", "decision", "policies", "faults", "id"]
        ),
        _JSON,
        max_size=3,
    )
)
def test_whatever_stands_in_a_line_it_is_a_decision_or_told_to_be_none(changes: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):  # Damaged, Unrepeatable, and what is too large for the machine
        read_decision(line(**changes)).decide(engine())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"redacted": ["context.tenant"]}, "redacted"),
        ({"policies": None}, "not_asked"),
        ({"resource": None}, "not_asked"),
        ({"action": None}, "not_asked"),
        ({"faults": ["steps_exceeded"]}, "limited"),
    ],
)
def test_what_cannot_be_made_again_says_why(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(Unrepeatable, match=word):
        read_decision(line(**changes))


def test_what_a_door_writes_is_decided_the_same_again(tmp_path: Path) -> None:
    """A hundred requests with claims and contexts of all kinds, from the door into the log and back."""
    schema = (
        "entity Role; entity User in [Role] = { level?: Long, since?: datetime }; entity Order = { owner: User };"
        "action read appliesTo { principal: User, resource: Order,"
        " context: { n?: Long, b?: Bool, from?: ipaddr, tags?: Set<String>, text?: String } };"
    )
    policies = (
        "permit (principal, action, resource) when { context has n && context.n > 3 && principal has level };"
        'permit (principal in Role::"a", action, resource) when { context has tags && context.tags.contains("x") };'
        'forbid (principal, action, resource) when { context has from && context.from.isInRange(ip("10.0.0.0/8")) };'
        'forbid (principal, action, resource) when { principal has since && principal.since > datetime("2024-01-01") };'
    )
    names = {name: f"{{query.{name}}}" for name in ("n", "b", "from", "text")}
    sampling = Sampling(all=True)
    door = Asking(
        policies,
        context_route(**names, tags="{claim.tags}"),
        schema=schema,
        config=PolicyConfig(
            path="p", principal_claims={"level": "level", "since": "since"}, principal_parents={"roles": "Role"}
        ),
        sampling=sampling,
    )
    writer = LineWriter(str(tmp_path / "log"), name="decisions")
    recorder = DecisionRecorder(PolicyHandle(door.deciding, "abc"), DecisionLog(writer), sampling)
    for number in range(100):
        query = f"n={number % 9}&text=a%20{number}" + "&from=10.1.2.3" * (number % 4 == 0) + "&b=true" * (number % 2)
        claims: dict[str, Any] = {
            "level": number,
            "since": 1700000000 + number * 10**6,
            "roles": ["a", "b"][: number % 3],
        }
        claims["tags"] = ["x", "y"][number % 2 :]
        for name in list(claims)[: number % 5]:
            claims.pop(name)
        door.judged(f"/orders/{number % 3}?{query}", **claims)
    for noted in door.decided:
        recorder.route(*noted)
    writer.close()
    lines = (tmp_path / "log").read_bytes().splitlines()
    again = [read_decision(each) for each in lines]
    assert len(again) == 100
    assert {logged.allowed for logged in again} == {True, False}
    for each, logged in zip(lines, again, strict=True):
        allowed, answer = logged.decide(door.deciding)
        assert (allowed, sorted(answer.reasons)) == (logged.allowed, sorted(json.loads(each)["policies"]))
