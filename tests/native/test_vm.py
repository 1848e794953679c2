"""What each instruction does, and how each fails: expressions as text, with the value or the error's code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway._native.vm import ERRORS, FORMAT, FUNCTIONS, OPCODES, Answer, Decider, Program
from gateway.policy.compiler.policies import compile_expression
from gateway.policy.evaluation import EvaluationError, evaluate
from gateway.policy.language import tree
from gateway.policy.language.statements import parse_expression
from tests.policy.machine import decider_of

ALICE, BOB, TEAM = EntityUid("User", "alice"), EntityUid("User", "bob"), EntityUid("Team", "t")
VIEW, DOC = EntityUid("Action", "view"), EntityUid("Doc", "d")
BIG = 9223372036854775807

CONTEXT: dict[str, Any] = {
    "t": True,
    "f": False,
    "n": 1,
    "two": 2,
    "min": -BIG - 1,
    "max": BIG,
    "s": "text",
    "set": [1, 2],
    "empty": [],
    "rec": {"a": 1, "inner": {"b": True}},
    "users": [ALICE, BOB],
    "mixed": [ALICE, 1],
    "alice": ALICE,
    "nobody": EntityUid("User", "x"),
}

VALUES = [
    # constants and variables
    ("context.t", True),
    ("context.n", 1),
    ("context.s", "text"),
    ("principal", ALICE),
    ("action", VIEW),
    ("resource", DOC),
    # logic: what is settled is not evaluated further
    ("context.t && context.f", False),
    ("context.f && context.n", False),
    ("context.t || context.n", True),
    ("context.f || context.t", True),
    ("!context.t", False),
    ("context.f && context.nope", False),
    ("context.t || context.nope", True),
    ("context.t && (context.f || context.t) && context.t", True),
    ("if context.t then context.n else context.nope", 1),
    ("if context.f then context.nope else context.s", "text"),
    # equality is of kind and value, and never an error
    ("context.n == 1", True),
    ('context.n == "1"', False),
    ("context.t == 1", False),
    ("context.n != context.two", True),
    ("context.set == [2, 1, 1]", True),
    ("context.rec == {inner: {b: true}, a: 1}", True),
    ("context.rec == {a: 1}", False),
    ('context.alice == User::"alice"', True),
    ('context.alice == Team::"alice"', False),
    ("principal == context.alice", True),
    # order and arithmetic
    ("context.n < context.two", True),
    ("context.n <= 1", True),
    ("context.two > 2", False),
    ("context.two >= 2", True),
    ("context.n + 2 * context.two - 1", 4),
    ("-context.n", -1),
    ("context.max - 1 + 1", BIG),
    ("-(context.min + 1)", BIG),
    ("context.min * 1", -BIG - 1),
    # sets
    ("context.set.contains(2)", True),
    ('context.set.contains("2")', False),
    ("context.set.containsAll([1])", True),
    ("context.set.containsAll([1, 3])", False),
    ("context.set.containsAny([3, 2])", True),
    ("context.set.containsAny([])", False),
    ("context.empty.containsAll([])", True),
    ("context.empty.isEmpty()", True),
    ("context.set.isEmpty()", False),
    ("[context.n, context.n, 2] == context.set", True),
    ("[context.set, [context.n]].contains([1])", True),
    # records and attributes
    ("context.rec.inner.b", True),
    ("{a: context.n, b: 2}.a", 1),
    ("context has n", True),
    ("context has nope", False),
    ("context has rec.inner.b", True),
    ("context has rec.nope.b", False),
    ("context.rec has a", True),
    ('context["s"]', "text"),
    # strings
    ('context.s like "t*t"', True),
    ('context.s like "*ex*"', True),
    ('context.s like "t"', False),
    ('context.s like "*"', True),
    ('context.s like "te*ext"', False),
    ('context.s like "text"', True),
    ('context.s like "*t*t"', True),
    ('"a*b" like "a\\*b"', True),
    ('"axb" like "a\\*b"', False),
    ('"" like "*"', True),
    ('"äöü" like "*ö*"', True),
    ('"aXbXc" like "a*X*c"', True),
    # entities
    ("principal is User", True),
    ("principal is Team", False),
    ('principal in Team::"t"', True),
    ('principal in Team::"x"', False),
    ("principal in principal", True),
    ('principal in [Team::"x", Team::"t"]', True),
    ("principal in []", False),
    ("context.alice in context.users", True),
    ('context.alice is User in Team::"t"', True),
    ("context.alice is Team in context.n", False),
    ("principal.level", 3),
    ("principal has level", True),
    ("principal has nope", False),
    ("principal.level == 3", True),
    ('principal.getTag("color")', "red"),
    ('principal.hasTag("color")', True),
    ('principal.hasTag("size")', False),
    ('context.nobody == User::"x"', True),
    ("context.nobody has level", False),
    ('context.nobody.hasTag("color")', False),
    ("context.nobody in context.nobody", True),
    ('context.nobody in Team::"t"', False),
]

FAILURES = [
    ("context.n && true", "type_error"),
    ("context.t && context.n", "type_error"),
    ("context.f || context.n", "type_error"),
    ("context.n || true", "type_error"),
    ("!context.n", "type_error"),
    ("if context.n then 1 else 2", "type_error"),
    ("context.n < true", "type_error"),
    ('context.s < "u"', "type_error"),
    ("context.n + true", "type_error"),
    ('context.s + "u"', "type_error"),
    ("-context.t", "type_error"),
    ("context.n.contains(1)", "type_error"),
    ("context.set.containsAll(1)", "type_error"),
    ("context.n.containsAny(context.set)", "type_error"),
    ("context.n.isEmpty()", "type_error"),
    ('context.n like "x"', "type_error"),
    ("context.n is User", "type_error"),
    ("context.n in context.users", "type_error"),
    ("principal in 1", "type_error"),
    ("principal in context.n", "type_error"),
    ("context.alice in context.mixed", "type_error"),
    ("context.n is User in principal", "type_error"),
    ("context.alice is User in context.n", "type_error"),
    ("context.n.a", "type_error"),
    ("context.n has a", "type_error"),
    ("context has n.b", "type_error"),
    ("context has n.b.c", "type_error"),
    ("context.n.getTag(context.s)", "type_error"),
    ("principal.getTag(context.n)", "type_error"),
    ("principal.hasTag(context.n)", "type_error"),
    ("context.max + 1", "integer_overflow"),
    ("context.min - 1", "integer_overflow"),
    ("context.max * 2", "integer_overflow"),
    ("-context.min", "integer_overflow"),
    ("9223372036854775807 + 1", "integer_overflow"),
    ("context.nope", "missing_attribute"),
    ("principal.nope", "missing_attribute"),
    ("context.rec.nope", "missing_attribute"),
    ("principal.nope == 1", "missing_attribute"),
    ("{a: 1}.b", "missing_attribute"),
    ("context.nobody.level", "missing_entity"),
    ('context.nobody.getTag("color")', "missing_entity"),
    ('User::"x".level', "missing_entity"),
    ('principal.getTag("size")', "missing_tag"),
]


@pytest.fixture
def store() -> EntityStore:
    made = EntityStore()
    made.put(ALICE, {"level": 3}, [TEAM], {"color": "red"})
    for uid in (BOB, TEAM, VIEW, DOC):
        made.put(uid, {})
    return made


@pytest.mark.parametrize(("text", "value"), VALUES, ids=[text for text, _ in VALUES])
def test_an_expression_has_its_value(store: EntityStore, text: str, value: object) -> None:
    found = evaluate(parse_expression(text), principal=ALICE, action=VIEW, resource=DOC, context=CONTEXT, store=store)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(("text", "code"), FAILURES, ids=[text for text, _ in FAILURES])
def test_an_expression_fails_with_its_code(store: EntityStore, text: str, code: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate(parse_expression(text), principal=ALICE, action=VIEW, resource=DOC, context=CONTEXT, store=store)
    assert caught.value.code == code


def test_an_unknown_variable_is_a_fault_and_not_an_error_of_the_policy() -> None:
    for text in (
        "principal",
        "principal.level",
        "context.a",
        "context has a",
        "principal.level == 1",
        "resource in action",
    ):
        with pytest.raises(EvaluationError) as caught:
            evaluate(parse_expression(text))
        assert caught.value.code == "internal_fault"


def test_the_node_that_failed_is_named() -> None:
    text = 'context.n == 1 && (context.s like "x" || context.n + context.t > 2)'
    with pytest.raises(EvaluationError) as caught:
        evaluate(parse_expression(text), context=CONTEXT)
    node = caught.value.node
    assert text[node.start : node.end] == "context.n + context.t"
    assert isinstance(node, tree.Binary)


# --- deciders


def ask(deciding: Decider, context: dict[str, Any] | None = None) -> tuple[bool, set[str], set[str]]:
    """Ask in every way there is; they must agree."""
    answer = deciding.authorize(ALICE, VIEW, DOC, context)
    request = deciding.prepare(ALICE, VIEW, DOC, context)
    assert deciding.answer(request) == answer
    assert deciding.allows(ALICE, VIEW, DOC, context) is answer.allowed
    assert deciding.decide(request) is answer.allowed
    assert deciding.decide_all([request, request]) == [answer.allowed] * 2
    assert answer.faults == ()
    return answer.allowed, set(answer.reasons), set(answer.errors)


ANY = "(principal, action, resource)"
DECISIONS = {
    "": (False, set(), set()),
    f"permit{ANY};": (True, {"policy0"}, set()),
    f"permit{ANY}; permit{ANY}; permit{ANY} when {{ false }};": (True, {"policy0", "policy1"}, set()),
    f"permit{ANY}; forbid{ANY}; forbid{ANY};": (False, {"policy1", "policy2"}, set()),
    f"permit{ANY}; forbid{ANY} when {{ context.nope }};": (True, {"policy0"}, {"policy1"}),
    f"permit{ANY} when {{ context.nope }};": (False, set(), {"policy0"}),
    f"permit{ANY} when {{ 1 }};": (False, set(), {"policy0"}),
    f"permit{ANY} unless {{ 1 }};": (False, set(), {"policy0"}),
    f"permit{ANY} when {{ true }} unless {{ false }} when {{ 1 == 1 }};": (True, {"policy0"}, set()),
    # The first clause that does not hold decides between "not satisfied" and "failed", whatever is run first.
    f'permit{ANY} when {{ "x" like "y*" && context.nope }};': (False, set(), set()),
    f'permit{ANY} when {{ context.nope && "x" like "y*" }};': (False, set(), {"policy0"}),
    f'permit{ANY} when {{ [1, context.nope].contains(1) }} unless {{ true }};': (False, set(), {"policy0"}),
    'permit(principal == User::"alice", action, resource);': (True, {"policy0"}, set()),
    'permit(principal == User::"bob", action, resource);': (False, set(), set()),
    'permit(principal in Team::"t", action, resource);': (True, {"policy0"}, set()),
    'permit(principal in User::"alice", action, resource);': (True, {"policy0"}, set()),
    "permit(principal is User, action, resource is Doc);": (True, {"policy0"}, set()),
    "permit(principal is Team, action, resource);": (False, set(), set()),
    'permit(principal is User in Team::"t", action, resource);': (True, {"policy0"}, set()),
    'permit(principal is Team in Team::"t", action, resource);': (False, set(), set()),
    'permit(principal, action == Action::"view", resource);': (True, {"policy0"}, set()),
    'permit(principal, action == Action::"edit", resource);': (False, set(), set()),
    'permit(principal, action in [Action::"edit", Action::"view"], resource);': (True, {"policy0"}, set()),
    "permit(principal, action in [], resource);": (False, set(), set()),
    'permit(principal, action, resource == Doc::"d"); forbid(principal, action, resource in Doc::"e");': (
        True, {"policy0"}, set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", DECISIONS)
def test_policies_decide_by_cedars_rules(store: EntityStore, text: str) -> None:
    assert ask(decider_of(store, text)) == DECISIONS[text]


def test_steps_beyond_the_limit_deny_with_a_reason_of_their_own(store: EntityStore) -> None:
    text = f"permit{ANY} when {{ context.set.containsAll(context.set) }};"
    context = {"set": list(range(2000))}
    assert ask(decider_of(store, text), context)[0] is True
    limited = decider_of(store, text, steps_max=1000)
    assert limited.authorize(ALICE, VIEW, DOC, context).faults == ("steps_limit",)
    assert limited.allows(ALICE, VIEW, DOC, context) is False


@pytest.mark.parametrize(
    "condition",
    [
        "context.a == context.b",
        "context.a != context.b",
        "[context.a, context.b].isEmpty()",
        "[context.a].contains(context.b)",
        "[context.a].containsAny([context.b])",
        '(if context.a == 1 then "" else "x") == "x" && [[context.a], [context.b]] == [context.a]',
    ],
)
def test_comparing_deep_values_costs_steps(store: EntityStore, condition: str) -> None:
    """Two values of many parts that differ in the last one: each comparison walks through all of them."""
    deep: list[Any] = [{"x": number, "y": [number, str(number)]} for number in range(500)]
    context = {"a": [*deep, {"z": 1}], "b": [*deep, {"z": 2}]}
    text = f"permit{ANY} when {{ ({condition}) == ({condition}) }};"
    assert ask(decider_of(store, text), context)[0] is True
    assert decider_of(store, text, steps_max=1500).authorize(ALICE, VIEW, DOC, context).faults == ("steps_limit",)


def test_a_limit_that_a_forbid_hits_denies_what_a_permit_allows(store: EntityStore) -> None:
    text = f"permit{ANY}; forbid{ANY} when {{ context.set.containsAll(context.set) == false }};"
    context = {"set": list(range(2000))}
    assert ask(decider_of(store, text), context)[0] is True
    limited = decider_of(store, text, steps_max=1000)
    assert limited.allows(ALICE, VIEW, DOC, context) is False
    answer = limited.authorize(ALICE, VIEW, DOC, context)
    assert (answer.allowed, answer.reasons, answer.faults) == (False, frozenset(), ("steps_limit",))


def test_memory_beyond_the_limit_denies_with_a_reason_of_its_own(store: EntityStore) -> None:
    inner = "[" + ", ".join(["context.n"] * 4000) + "]"
    clauses = " || ".join(f"{inner} == {number}" for number in range(14))
    limited = decider_of(store, f"permit{ANY} when {{ {clauses} }};" * 12)
    context = {"n": 1}
    assert limited.authorize(ALICE, VIEW, DOC, context).faults == ("memory_limit",)
    assert limited.allows(ALICE, VIEW, DOC, context) is False


def test_steps_are_counted_anew_for_each_decision(store: EntityStore) -> None:
    deciding = decider_of(store, f"permit{ANY} when {{ context.n == 1 }};", steps_max=50)
    request = deciding.prepare(ALICE, VIEW, DOC, {"n": 1})
    assert all(deciding.decide(request) for _ in range(100))
    assert deciding.decide_all([request] * 100) == [True] * 100


def test_a_request_belongs_to_its_store(store: EntityStore) -> None:
    request = decider_of(store, "").prepare(ALICE, VIEW, DOC)
    with pytest.raises(ValueError, match="other entities"):
        decider_of(EntityStore(), "").decide(request)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells so what a process holds")
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer takes its own memory")
def test_a_prepared_request_is_small(store: EntityStore) -> None:
    """Thousands are kept, one a token; each once held 16 KiB of room."""
    deciding = decider_of(store, "")
    unknown = [EntityUid("User", f"nobody{number}") for number in range(5_000)]
    page_bytes = os.sysconf("SC_PAGE_SIZE")

    def held_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page_bytes

    before = held_bytes()
    kept = [deciding.prepare(uid, VIEW, DOC, overlays={uid: ({"level": 1}, ())}) for uid in unknown]
    assert (held_bytes() - before) / len(kept) < 4096


def test_ids_and_rules_must_match(store: EntityStore) -> None:
    with pytest.raises(ValueError, match="as many"):
        Decider(store, [], ["policy0"])


def test_deciders_of_one_store_share_a_prepared_request(store: EntityStore) -> None:
    request = decider_of(store, "").prepare(ALICE, VIEW, DOC)
    assert decider_of(store, f"permit{ANY};").decide(request) is True
    assert decider_of(store, f"forbid{ANY};").decide(request) is False


def test_each_policy_alone_is_what_all_of_them_together_are(store: EntityStore) -> None:
    text = (
        f"permit{ANY} when {{ context.a == 1 }};"
        'permit(principal == User::"bob", action, resource);'
        f'permit(principal, action == Action::"edit", resource); permit(principal, action, resource is Team);'
        f"forbid{ANY} when {{ false }};"
    )
    deciding = decider_of(store, text)
    assert deciding.run_each(deciding.prepare(ALICE, VIEW, DOC)) == [
        (None, "missing_attribute", False, 0),
        ("principal", None, False, 0),
        ("action", None, False, 0),
        ("resource", None, False, 0),
        (None, None, False, 1),
    ]


def test_the_lists_are_whole() -> None:
    assert OPCODES[0].name == "SATISFIED"
    assert len({opcode.name for opcode in OPCODES}) == len(OPCODES)
    assert all(opcode.meaning for opcode in OPCODES)
    assert ERRORS[0] == ("none", "no error")
    assert dict(FUNCTIONS)["isInRange"] == 2
    assert FORMAT == 1


def test_programs_and_answers_are_values() -> None:
    one, same = (compile_expression(parse_expression("1 == context.a")) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != compile_expression(parse_expression("2 == context.a"))
    answer = Answer(True, frozenset({"a"}), frozenset())
    assert answer == Answer(True, frozenset({"a"}), frozenset(), ())
    assert answer != Answer(False, frozenset({"a"}), frozenset())
    assert repr(answer) == "Answer(allowed=True, reasons={'a'}, errors=set(), faults=())"
    assert Program(one.image).code_count == one.code_count


def test_a_trace_names_what_was_looked_at_in_order_and_what_ended_it() -> None:
    text = f'permit{ANY} when {{ context.n == 1 }}; forbid(principal == User::"bob", action, resource);'
    decider = decider_of(EntityStore(), text)
    request = decider.prepare(ALICE, VIEW, DOC, {"n": 1})
    assert decider.trace(request) == (True, [("policy1", "head"), ("policy0", "satisfied")], None)
    assert decider.trace(decider.prepare(BOB, VIEW, DOC, {"n": 1})) == (False, [("policy1", "satisfied")], None)
    assert decider.trace(decider.prepare(ALICE, VIEW, DOC, {})) == (
        False,
        [("policy1", "head"), ("policy0", "error")],
        None,
    )
    limited = decider_of(EntityStore(), f"forbid{ANY} when {{ false }}; {text}", steps_max=2)
    allowed, looks, fault = limited.trace(limited.prepare(ALICE, VIEW, DOC, {"n": 1}))
    assert (allowed, fault) == (False, "steps_limit")
    assert looks[-1][1] == "fault"
