"""Replays: what differs by user and route, and lines that cannot be compared counted and named."""

from __future__ import annotations

import pytest

from gateway.policy import EntityUid
from gateway.policy.replay import DAMAGED_NAMED_MAX, EXAMPLES_MAX, Kind, Report, replay
from tests.unit.policy.logged_lines import BLOCKED, POLICIES, admin, engine, line


def kind(subject: str, was_allowed: bool, place: str = "/orders/{id}") -> Kind:
    return Kind(EntityUid("User", subject), place, EntityUid("Action", "read"), was_allowed)


def test_by_the_same_policies_nothing_differs() -> None:
    report = replay(engine(), [line(), line("bob", "deny"), line("carol", policies=["admins"], given=admin())])
    assert (report.lines, report.same, report.different, report.kinds) == (3, 3, 0, {})
    assert report.digests == {"abc"}


def test_differences_are_told_by_user_and_route() -> None:
    lines = [
        line(id="1"),
        line(id="2", context={"tenant": "x"}),
        line("bob", "deny", id="3"),
        line("carol", given=admin(), id="4", policies=["admins"]),
        line("carol", given=admin(), id="5", policies=["admins"]),
        line("carol", given=admin(), id="6", policies=["admins"], route=..., door="authzen"),
    ]
    now = (
        POLICIES.replace('Role::"admin"', 'Role::"nobody"')
        + BLOCKED
        + 'permit (principal == User::"bob", action, resource);'
    )
    report = replay(engine(now), lines)
    assert (report.same, report.different, report.allows_now) == (1, 5, 1)
    assert [(each, found.count) for each, found in report.ordered] == [
        (kind("carol", True), 2),
        (kind("alice", True), 1),
        (kind("bob", False), 1),
        (kind("carol", True, "authzen"), 1),
    ]
    example = report.kinds[kind("alice", True)].examples[0]
    assert (example.line, example.id, example.policies_then, example.policies_now) == (2, "2", ("own",), ("tenant",))


def test_damaged_lines_are_counted_and_named_and_stop_nothing() -> None:
    lines = [b"{", line(), b"\n", b"  \n", *[b"x\n"] * (DAMAGED_NAMED_MAX + 5), line("bob", "deny")]
    report = replay(engine(), lines)
    assert (report.lines, report.same, report.damaged) == (DAMAGED_NAMED_MAX + 8, 2, DAMAGED_NAMED_MAX + 6)
    assert [number for number, _ in report.damaged_named] == [1, *range(5, DAMAGED_NAMED_MAX + 4)]


def test_what_cannot_be_made_again_is_counted_by_why() -> None:
    lines = [line(redacted=["context.a"]), line(policies=None), line(policies=None), line(faults=["x"])]
    report = replay(engine(), lines)
    assert report.unrepeatable == {"redacted": 1, "not_asked": 2, "limited": 1}
    assert (report.same, report.different, report.damaged) == (0, 0, 0)


def test_what_rests_on_entities_that_are_kept_elsewhere_is_not_compared() -> None:
    deciding = engine()
    deciding.store.source_type("Order")
    report = replay(deciding, [line("bob", "deny"), line("bob", "deny", resource={"type": "Order", "id": "away"})])
    assert (report.same, report.different, report.unrepeatable) == (1, 0, {"away": 1})


def test_a_request_that_is_too_large_is_named() -> None:
    parents = [{"type": "Role", "id": str(number)} for number in range(200_000)]
    report = replay(engine(), [line(given={"principal": {"attrs": {}, "parents": parents}})])
    assert (report.damaged, report.same) == (1, 0)


def test_examples_and_kinds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policy.replay.GROUPS_MAX", 3)
    lines = [line("bob", id=str(number)) for number in range(10)] + [line(f"u{number}") for number in range(5)]
    report = replay(engine(), lines)
    assert (report.different, len(report.kinds), report.kinds_left_out) == (15, 3, 3)
    assert len(report.kinds[kind("bob", True)].examples) == EXAMPLES_MAX
    assert report.kinds[kind("bob", True)].count == 10


def test_progress_is_told_of_long_logs() -> None:
    told: list[int] = []

    def progress(report: Report) -> None:
        told.append(report.lines)

    replay(engine(), [line()] * 25_000, progress)
    assert told == [10_000, 20_000]
