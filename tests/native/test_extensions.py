"""Cedar's extension values are read exactly as Cedar reads them, and never read wrongly."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable, Iterable
from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr, Number
from tests.oracle import extensions as oracle

Parse = Callable[[str], Any]
KINDS: dict[str, tuple[Parse, Parse]] = {
    "decimal": (Decimal.parse, oracle.decimal),
    "ip": (IPAddr.parse, oracle.ip),
    "datetime": (Datetime.parse, oracle.datetime),
    "duration": (Duration.parse, oracle.duration),
}

_TEXTS = {
    "decimal": """
        1 1. .1 1.0 1.00 01.00 0001.5 -0.0 0.0 -1.5 +1.0 1.23456 1.2345 -1.2345 1.-5 1e3 1.0e1 0x1.0 1,0 1.0.0 1_0.0 -.5
        - -1 -- --1.0 922337203685477.5807 922337203685477.5808 -922337203685477.5808 -922337203685477.5809
        922337203685478.0 -922337203685478.0 18446744073709551616.0 99999999999999999999999999999999999999999999.0
        00000000000000000000000000000000000000000000000001.5 ١.0 1.٢ 1.0\u0660 inf nan NaN 12.3456 1.2.3 0.00010 0.0001
    """,
    "ip": """
        0.0.0.0 127.0.0.1 255.255.255.255 256.0.0.1 1.2.3 1.2.3.4.5 01.2.3.4 1.2.3.04 1.2.3.00 1..2.3 .1.2.3.4 1.2.3.4.
        1.2.3.4/0 1.2.3.4/32 1.2.3.4/33 1.2.3.4/ 1.2.3.4/01 1.2.3.4/00 1.2.3.4/-1 1.2.3.4/+8 1.2.3.4/8/8 1.2.3.4/8a
        1.2.3.4/255.0.0.0 1.2.3.4/108 1.2.3.4/256 /8 / 0x7f.0.0.1 2130706433 1.2.3.1000
        :: ::1 1:: 1::1 ::/0 ::/128 ::/129 ::/000 ::/08 ::/8 ::/300 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7 1:2:3:4:5:6:7:8:9
        1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1::3:4:5:6:7:8 1:2:3:4::5:6:7:8 1:2:3:4:5:6:7:8:: ::1:2:3:4:5:6:7:8 1:::2 ::1::
        : ::: :1 1: 1:2 12345::1 g::1 ffff:FFFF::1 00001::1 0001::1 ::ffff:1.2.3.4 ::1.2.3.4 ::ffff:102:304
        fe80::1%eth0 [::1] ::1] ff00::/8 ff00::/7 fc00::/7 127.0.0.0/8 126.0.0.0/7 224.0.0.0/4 224.0.0.0/3 240.0.0.0/4
        2001:0db8:85a3:0000:0000:8a2e:0370:7334/128 2001:0db8:85a3:0000:0000:8a2e:0370:7334/0128
        1111:2222:3333:4444:5555:6666:7777:8888/1000 ١.2.3.4 ::١ 1.2.3.4/٨ 1.2.3.4:80 1::2.3 1.2.3::4
    """,
    "datetime": """
        1970-01-01 1969-12-31 0000-01-01 0000-02-29 0000-12-31 9999-12-31 10000-01-01 -001-01-01 2024-02-29 2023-02-29
        1900-02-29 2000-02-29 2100-02-29 2024-02-30 2024-04-31 2024-00-01 2024-13-01 2024-01-00 2024-01-32 24-01-01
        2024-1-1 20240101 2024-01-01T 2024-01-01Z 2024-01-01T00:00:00 2024-01-01T00:00:00Z 2024-01-01T00:00:00z
        2024-01-01t00:00:00Z 2024-01-01T23:59:59Z 2024-01-01T24:00:00Z 2024-01-01T00:60:00Z 2024-01-01T00:00:60Z
        2016-12-31T23:59:60Z 2016-12-31T23:59:60.999Z 2024-01-01T00:00:00.1Z 2024-01-01T00:00:00.12Z
        2024-01-01T00:00:00.123Z 2024-01-01T00:00:00.1234Z 2024-01-01T00:00:00.Z 2024-01-01T00:00:00,123Z
        2024-01-01T00:00:00+0000 2024-01-01T00:00:00-0000 2024-01-01T00:00:00+2359 2024-01-01T00:00:00-2359
        2024-01-01T00:00:00+2400 2024-01-01T00:00:00+0060 2024-01-01T00:00:00+01:00 2024-01-01T00:00:00+01
        2024-01-01T00:00:00+100 2024-01-01T00:00:00+01000 2024-01-01T00:00:00.999+0100 2024-01-01T00:00:00.000-0130
        2024-01-01T00:00:00ZZ 2024-01-01T00:00:00.123 2024-01-01T00:00 2024-01-01T0:00:00Z 2024-01-01T00:00:00Z+0100
        0000-01-01T00:00:00+2359 9999-12-31T23:59:59.999-2359 ٢٠٢٤-01-01 2024-01-01T00:00:00Z\u0660 +2024-01-01
        2024/01/01
    """,
    "duration": """
        0ms 1ms 1s 1m 1h 1d 1d2h3m4s5ms -1d2h3m4s5ms +1d 1d-2h - -- -1 1 1x d 1d2d 2h1d 5ms4s 1m1h 1ms1m 1s1ms 1sms 1mss
        1d1ms -0d 00001d 1D 1.5d 1e3s 1d1 1dh 106751991167d7h12m55s807ms 106751991167d7h12m55s808ms
        -106751991167d7h12m55s808ms -106751991167d7h12m55s809ms 106751991168d 9223372036854775807ms
        9223372036854775808ms
        -9223372036854775808ms -9223372036854775809ms 9223372036854775808s -9223372036854775s809ms
        18446744073709551615ms 18446744073709551616ms 99999999999999999999999999999999999ms 0d9223372036854775807ms
        153722867280912930m7s807ms ١d 1d\u0660h 0000000000000000000000000000000000000000000000000000000001ms msms 1ms1s
    """,
}
TEXTS = {kind: texts.split() for kind, texts in _TEXTS.items()}
SPACED = ["", " ", "\0"]


def spoiled(kind: str, seed: int, count: int) -> Iterable[str]:
    """Give texts near those that are right: characters dropped, doubled, swapped, replaced; two texts joined."""
    chosen = random.Random(f"{kind} {seed}")
    alphabet = {
        "decimal": "0123456789.-+e",
        "ip": "0123456789abcdefF.:/%-",
        "datetime": "0123456789-:T.Z+",
        "duration": "0123456789dhms-",
    }[kind]
    for _ in range(count):
        text = chosen.choice(TEXTS[kind])
        for _ in range(chosen.randint(1, 3)):
            place = chosen.randint(0, len(text))
            match chosen.randint(0, 3):
                case 0:
                    text = text[:place] + text[place + 1 :]
                case 1:
                    text = text[:place] + chosen.choice(alphabet) + text[place:]
                case 2:
                    text = text[:place] + chosen.choice(alphabet) + text[place + 1 :]
                case 3:
                    text = text[:place] + chosen.choice(TEXTS[kind])[place:]
        yield text


def all_texts(kind: str) -> list[str]:
    own = [edge.format(text) for text in TEXTS[kind] for edge in ("{}", " {}", "{} ", "{}\n", "{}\0")]
    return [*SPACED, *own, *spoiled(kind, 1, 1500)]


def outcome(parse: Parse, text: str) -> Any:
    try:
        return parse(text)
    except ValueError:
        return None


def cedar_says(policy: str, contexts: list[dict[str, Any]]) -> list[bool | None]:
    """Decide each context with Cedar itself; None where the policy had an error."""
    requests = [
        {"principal": 'U::"a"', "action": 'Action::"b"', "resource": 'R::"c"', "context": json.dumps(context)}
        for context in contexts
    ]
    answers = cedarpy.is_authorized_batch(requests, f"permit(principal, action, resource) when {{ {policy} }};", "[]")
    return [None if answer.diagnostics.errors else answer.allowed for answer in answers]


@pytest.mark.parametrize("kind", KINDS)
def test_accepts_what_cedar_accepts_with_the_same_value(kind: str) -> None:
    parse, slow = KINDS[kind]
    texts = all_texts(kind)
    values = [outcome(parse, text) for text in texts]
    assert [outcome(slow, text) for text in texts] == values
    contexts: list[dict[str, Any]] = []
    for text, value in zip(texts, values, strict=True):
        context: dict[str, Any] = {"text": text}
        if isinstance(value, Datetime | Duration):
            context["ms"] = value.number
        elif value is not None:
            context["ours"] = str(value)
        contexts.append(context)
    policy = {
        "decimal": "decimal(context.text) == decimal(if context has ours then context.ours else context.text)",
        "ip": "ip(context.text) == ip(if context has ours then context.ours else context.text)",
        "datetime": 'datetime(context.text).durationSince(datetime("1970-01-01")).toMilliseconds() == context.ms',
        "duration": "duration(context.text).toMilliseconds() == context.ms",
    }[kind]
    said = cedar_says(policy, contexts)
    for text, value, ours in zip(texts, values, said, strict=True):
        assert ours is (None if value is None else True), (kind, text, value)
    assert sum(value is not None for value in values) > len(TEXTS[kind]) // 4


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_reads_as_the_slow_reader(kind: str, data: st.DataObject) -> None:
    parse, slow = KINDS[kind]
    alphabet = "0123456789" + {"decimal": ".-", "ip": "abf.:/", "datetime": "-:T.Z+", "duration": "dhms-"}[kind]
    text = data.draw(st.one_of(st.text(alphabet, max_size=30), st.sampled_from(TEXTS[kind]), st.text(max_size=8)))
    assert outcome(parse, text) == outcome(slow, text)


OPERATIONS = {
    "decimal": ["lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"],
    "ip": ["isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange"],
    "datetime": ["toDate", "toTime", "durationSince", "offset"],
    "duration": ["toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"],
}
BINARY = {"lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual", "isInRange", "durationSince", "offset"}


def spelled(value: Any) -> Any:
    """Give a value as JSON that Cedar reads without a schema; a datetime as an offset from 1970."""
    match value:
        case Decimal():
            return {"__extn": {"fn": "decimal", "arg": str(value)}}
        case IPAddr():
            return {"__extn": {"fn": "ip", "arg": str(value)}}
        case Duration():
            return {"__extn": {"fn": "duration", "arg": str(value)}}
        case Datetime():
            epoch = {"__extn": {"fn": "datetime", "arg": "1970-01-01"}}
            return {"__extn": {"fn": "offset", "args": [epoch, spelled(Duration(value.number))]}}
    return value


@pytest.mark.parametrize("function", [name for names in OPERATIONS.values() for name in names])
def test_the_slow_operations_are_those_of_cedar(function: str) -> None:
    kind = next(kind for kind, names in OPERATIONS.items() if function in names)
    chosen = random.Random(function)
    edges = [oracle.I64_MIN, oracle.I64_MIN + 1, oracle.I64_MAX, -1, 0, 1, -oracle.DAY, oracle.DAY, 1 - oracle.DAY]
    made: list[Any]
    if kind == "ip":
        made = [value for text in [*TEXTS["ip"], *spoiled("ip", 2, 200)] if (value := outcome(IPAddr.parse, text))]
    else:
        numbers = edges + [chosen.randint(-(10**k), 10**k) for k in range(1, 19) for _ in range(3)]
        made = [{"decimal": Decimal, "datetime": Datetime, "duration": Duration}[kind](number) for number in numbers]
    others = [Duration(value.number) for value in made] if function == "offset" else made
    count = 2 if function in BINARY else 1
    cases = [(a, b) for a in made for b in others][:: 1 + len(made) // 25] if count == 2 else [(a, a) for a in made]
    contexts, wanted = [], []
    for a, b in cases:
        try:
            result = oracle.call(function, (a, b)[:count])
        except ValueError:
            result = None
        contexts.append({"a": spelled(a), "b": spelled(b), "result": spelled(result) if result is not None else 0})
        wanted.append(None if result is None else True)
    said = cedar_says(f"context.a.{function}({'context.b' if count == 2 else ''}) == context.result", contexts)
    assert said == wanted
    assert len(wanted) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_spelling_reads_as_the_same_value(kind: str) -> None:
    parse = KINDS[kind][0]
    values = [value for text in all_texts(kind) if (value := outcome(parse, text)) is not None]
    for value in values:
        if not isinstance(value, Datetime) or value.is_spellable:
            assert parse(str(value)) == value
        assert pickle.loads(pickle.dumps(value)) == value
        assert hash(pickle.loads(pickle.dumps(value))) == hash(value)


def test_spelled_as_cedar_spells_them() -> None:
    assert str(Decimal(12345)) == "1.2345"
    assert str(Decimal(-5000)) == "-0.5"
    assert str(Decimal(oracle.I64_MIN)) == "-922337203685477.5808"
    assert str(IPAddr("2001:0DB8::0001/64")) == "2001:db8::1/64"
    assert str(IPAddr("10.0.0.1/32")) == "10.0.0.1"
    assert str(IPAddr("::ffff:102:304")) == "::ffff:102:304"
    assert str(Datetime(-1)) == "1969-12-31T23:59:59.999Z"
    assert str(Duration(-90_000)) == "-90000ms"


def test_values_of_different_kinds_are_never_equal() -> None:
    values = [Decimal(0), Datetime(0), Duration(0), IPAddr("0.0.0.0"), 0, False, ""]
    for a in values[:4]:
        assert [a == b for b in values].count(True) == 1
    assert IPAddr("10.0.0.1/8") != IPAddr("10.0.0.0/8")
    assert IPAddr("0.0.0.0") != IPAddr("::")


@pytest.mark.parametrize("value", [Decimal(1), Datetime(1), Duration(1), IPAddr("::1")], ids=repr)
def test_cannot_be_changed(value: Any) -> None:
    for name in ("number", "prefix", "version", "other"):
        with pytest.raises(AttributeError):
            setattr(value, name, 2)


@pytest.mark.parametrize("make", [Decimal, Datetime, Duration])
def test_refuses_numbers_beyond_64_bits(make: Callable[[int], object]) -> None:
    for number in (oracle.I64_MIN - 1, oracle.I64_MAX + 1):
        with pytest.raises(ValueError, match="64 bits"):
            make(number)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_refused_in_linear_time(kind: str) -> None:
    with pytest.raises(ValueError, match="no "):
        KINDS[kind][0]("1" * 1_000_000)
    with pytest.raises(ValueError, match="no "):
        KINDS[kind][0]("1d" * 1_000_000)


def test_what_numbers_have_in_common_is_no_value() -> None:
    with pytest.raises(TypeError, match="no value is only a number"):
        Number(5)
