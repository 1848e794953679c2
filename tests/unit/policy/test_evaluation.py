from __future__ import annotations

import pickle

import pytest

from gateway._native.entities import EntityStore
from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy.evaluation import EvaluationError, evaluate
from gateway.policy.language.statements import parse_expression

ALICE = EntityUid("User", "alice")

VALUES = {
    'ip("10.1.2.3").isInRange(ip("10.0.0.0/8"))': True,
    'ip("::1").isLoopback() && !ip("::1").isIpv4()': True,
    'decimal("1.5").lessThan(decimal("1.50"))': False,
    'decimal("1.5") == decimal("1.50")': True,
    'datetime("2024-01-02T03:04:05Z").toDate() == datetime("2024-01-02")': True,
    'datetime("1969-12-31T23:59:59Z").toTime().toSeconds()': 86399,
    'datetime("2024-01-02").offset(duration("1d")) < datetime("2024-01-04")': True,
    'datetime("2024-01-02").durationSince(datetime("2024-01-01")).toHours()': 24,
    'duration("1h30m") > duration("5400000ms")': False,
    'duration("-90s").toMinutes()': -1,
    'decimal("0.25")': Decimal.parse("0.25"),
    'ip("10.0.0.0/8")': IPAddr.parse("10.0.0.0/8"),
    'datetime("2024-01-02")': Datetime.parse("2024-01-02"),
    'duration("1h")': Duration.parse("1h"),
    "[3, 1, 3]": (1, 3),
    '{a: 1, "b c": [true]}': {"a": 1, "b c": (True,)},
    "if true then 1 else 2": 1,
    "true || context.unknown": True,
}


@pytest.mark.parametrize("text", VALUES)
def test_an_expression_without_variables_has_its_value(text: str) -> None:
    assert evaluate(parse_expression(text)) == VALUES[text]


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ('ip("10.0.0.256")', "extension_error", 'ip("10.0.0.256")'),
        ('decimal("1") == decimal("1.0")', "extension_error", 'decimal("1")'),
        ('[1, datetime("2024-02-30")].contains(1)', "extension_error", 'datetime("2024-02-30")'),
        ('duration("30m1h") == 1', "extension_error", 'duration("30m1h")'),
        ('1 == 2 || ip("10.0.0.1").lessThan(1)', "type_error", 'ip("10.0.0.1").lessThan(1)'),
        ("1 + 9223372036854775807 > 0", "integer_overflow", "1 + 9223372036854775807"),
        ('User::"alice".level', "missing_entity", 'User::"alice".level'),
    ],
)
def test_what_fails_is_named(text: str, code: str, part: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate(parse_expression(text))
    assert caught.value.code == code
    assert text[caught.value.node.start : caught.value.node.end] == part


def test_entities_are_those_of_the_store_and_the_request() -> None:
    store = EntityStore()
    store.put(ALICE, {"level": 3})
    assert (
        evaluate(parse_expression("principal.level + context.n"), principal=ALICE, context={"n": 1}, store=store) == 4
    )
    assert evaluate(parse_expression("principal"), principal=ALICE) == ALICE
    assert evaluate(parse_expression("context.names"), context={"names": ["b", "a"]}) == ("a", "b")


def test_an_error_survives_pickling() -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate(parse_expression("context.a"), context={})
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.code, again.node) == (caught.value.code, caught.value.node)
