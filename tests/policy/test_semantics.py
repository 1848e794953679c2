"""Where Cedar surprises: each expression has the value that is written here: by machine, slow twin and Cedar."""

from __future__ import annotations

import pytest

from gateway._native.uid import EntityUid
from tests.oracle import policy as oracle
from tests.policy import differential
from tests.policy.generate import Case

ALICE, BOB, TEAM, DOC = (EntityUid(*name) for name in (("User", "a"), ("User", "b"), ("Team", "t"), ("Doc", "d")))
MISSING = EntityUid("Team", "missing")
KNOWN = {
    ALICE: oracle.Entity({"age": 3, "boss": BOB, "ghost": EntityUid("User", "ghost")}, frozenset([TEAM]), {"k": "v"}),
    BOB: oracle.Entity({}, frozenset([MISSING])),
    TEAM: oracle.Entity({}, frozenset([EntityUid("Org", "o")])),
    EntityUid("Org", "o"): oracle.Entity(),
    DOC: oracle.Entity({"owner": ALICE}),
}
CONTEXT = {"n": 1, "t": True, "empty": [], "s": "text", "rec": {"a": {"b": 1}}}

TRUE, FALSE, ERROR = True, False, None
TRAPS = [
    # settled before the other side is looked at
    ("true || 1", TRUE), ("false && 1", FALSE), ("true && 1", ERROR), ("false || 1", ERROR), ("1 || true", ERROR),
    ("if context.t then true else 1 < true", TRUE), ("if 1 then true else true", ERROR),
    # equality is never an error; order is, between types
    ('1 == "1"', FALSE), ("1 != true", TRUE), ("context.t == 1", FALSE), ('2 > "1"', ERROR), ('"a" < "b"', ERROR),
    ('decimal("1.0") < decimal("2.0")', ERROR), ('datetime("2024-01-01") < datetime("2024-01-02")', TRUE),
    ('duration("1h") == duration("60m")', TRUE), ('datetime("2024-01-01") < duration("1h")', ERROR),
    # entities that are not there
    ("principal.ghost.age == 3", ERROR), ("principal.ghost has age", FALSE), ("principal.nope == 3", ERROR),
    ("principal has boss.age", FALSE), ("principal has ghost.age", FALSE), ('principal.ghost.hasTag("k")', FALSE),
    ('principal.ghost.getTag("k") == "v"', ERROR), ('principal.getTag("k") == "v"', TRUE),
    ("context has rec.a.b", TRUE),
    ("context has s.a", ERROR), ("context.n has a", ERROR), ("principal.ghost in principal.ghost", TRUE),
    ('User::"b" in Team::"missing"', TRUE), ('Team::"missing" in Team::"missing"', TRUE),
    ('principal in Org::"o"', TRUE), ('Org::"o" in principal', FALSE),
    # `in` looks at the types of all elements first
    ("principal in [principal, 1]", ERROR), ("principal in []", FALSE), ("principal in context.empty", FALSE),
    ("1 in []", ERROR), ("principal in 1", ERROR), ("principal is User in [Team::\"t\"]", TRUE),
    ("principal is Team in 1", FALSE), ("context is User", ERROR),
    # numbers of 64 bits
    ("9223372036854775807 + 1 > 0", ERROR), ("-9223372036854775808 < 0", TRUE), ("-(-9223372036854775808) > 0", ERROR),
    ("9223372036854775807 + 1 - 1 > 0", ERROR), ("3037000500 * 3037000500 > 0", ERROR), ("- context.s == 1", ERROR),
    # sets
    ("[1, 2] == [2, 1, 1]", TRUE), ("[1].containsAll([])", TRUE), ("[1].containsAny([])", FALSE),
    ("context.empty.containsAll(1)", ERROR), ("context.n.containsAny([])", ERROR), ("context.n.containsAll([])", ERROR),
    ("[1, true, \"1\"].contains(true)", TRUE), ("[1].contains(true)", FALSE), ("[[1], [2]].contains([2, 2])", TRUE),
    ("[1].contains(1 + 9223372036854775807)", ERROR), ("[].isEmpty()", TRUE), ("context.n.isEmpty()", ERROR),
    # records are evaluated whole
    ("{a: 1, b: 1 + true}.a == 1", ERROR), ('{a: 1, "b c": 2} == {"b c": 2, a: 1}', TRUE), ("{a: 1} has b", FALSE),
    # texts
    ('"a*b" like "a\\*b"', TRUE), ('"axb" like "a\\*b"', FALSE), ('"" like "*"', TRUE), ('"\U0001f600" like "*"', TRUE),
    ('1 like "*"', ERROR), ('"abab" like "*ab"', TRUE), ('"a\\nb" like "a*b"', TRUE),
    # extension values
    ('ip("10.0.0.1") == ip("10.0.0.1/32")', TRUE), ('ip("10.0.0.1/8") == ip("10.0.0.0/8")', FALSE),
    ('ip("::ffff:127.0.0.1").isLoopback()', ERROR), ('ip("10.1.2.3").isInRange(ip("10.0.0.0/8"))', TRUE),
    ('ip("10.0.0.0/7").isInRange(ip("10.0.0.0/8"))', FALSE), ('ip("::1").isInRange(ip("0.0.0.0/0"))', FALSE),
    ('decimal("1") == decimal("1.0")', ERROR), ('decimal("1.00") == decimal("1.0")', TRUE),
    ('datetime("1969-12-31T23:59:59Z").toDate() == datetime("1969-12-31")', TRUE), ('decimal(1) == 1', ERROR),
    ('datetime("1969-12-31T23:59:59.999Z").toTime().toMilliseconds() == 86399999', TRUE),
    ('duration("-90s").toMinutes() == -1', TRUE), ('datetime("2024-02-30") == 1', ERROR),
    ('datetime("9999-12-31").offset(duration("9223372036854775807ms")) == 1', ERROR),
]  # fmt: skip


@pytest.mark.parametrize("who", ["of_machine", "without_index", "of_oracle", "of_cedar"])
def test_every_trap_is_known(who: str) -> None:
    text = "\n".join(f"permit(principal, action, resource) when {{ {expression} }};" for expression, _ in TRAPS)
    request = oracle.Request(ALICE, EntityUid("Action", "x"), DOC, CONTEXT)
    verdict = getattr(differential, f"verdicts_{who}")(Case(text, [], KNOWN, [request]))[0]
    for number, (expression, wanted) in enumerate(TRAPS):
        policy_id = f"policy{number}"
        outcome = ERROR if policy_id in verdict.errors else policy_id in verdict.reasons
        assert outcome is wanted, expression
