"""JSON is read strictly, and item by item where it is large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.policy.faults import EntityError, RequestError
from gateway.policy.json_text import kind_of, load_json, load_json_items


def whole(text: str | bytes) -> Any:
    return load_json(text, 1_000_000, RequestError)


def by_items(text: str | bytes) -> Any:
    return list(load_json_items(text, 1_000_000, RequestError))


BOTH = pytest.mark.parametrize("read", [whole, by_items])
Read = Callable[[str | bytes], Any]


@BOTH
@pytest.mark.parametrize(
    "text", ["[]", " [ ] ", "[1, -2 ,\n\t3]", '[{"a": [true, null]}, "\\ud83d\\ude00", "é"]', '["\\\\ud800"]']
)
def test_json_is_read(read: Read, text: str) -> None:
    import json

    assert read(text) == read(text.encode()) == json.loads(text)


@BOTH
@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("no_json", ""),
        ("no_json", "["),
        ("no_json", "[1"),
        ("no_json", "[1,]"),
        ("no_json", "[,1]"),
        ("no_json", "[1 2]"),
        ("no_json", "[] []"),
        ("no_json", "[\u00a01]"),
        ("no_json", "\ufeff[]"),
        ("no_json", '["a\tb"]'),
        ("no_json", "[01]"),
        ("no_json", "['a']"),
        ("no_json", '[{"a":1,}]'),
        ("no_whole_number", "[NaN]"),
        ("no_whole_number", "[-Infinity]"),
        ("no_whole_number", "[" + "9" * 5000 + "]"),
        ("duplicate_name", '[{"a": {"b": 1, "b": 1}}]'),
        ("duplicate_name", '[{"\\u0061": 1, "a": 2}]'),
        ("no_unicode", '["\\ud800"]'),
        ("no_unicode", '["\\udc00\\ud800"]'),
        ("no_unicode", '["\\ud83d\\\\\\ude00"]'),
        ("no_unicode", '[{"\\ud800": 1}]'),
        ("no_unicode", '["\ud800"]'),
        ("no_unicode", b'["\xff"]'),
        ("too_deep", "[" * 100_000),
        ("too_deep", "[" + '{"a":' * 100_000),
    ],
)
def test_what_is_no_json_is_refused(read: Read, code: str, text: str | bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read(text)
    assert [fault.code for fault in caught.value.faults] == [code]


@BOTH
def test_a_text_beyond_the_limit_is_refused(read: Read) -> None:
    with pytest.raises(RequestError) as caught:
        read(" " * 1_000_001)
    assert caught.value.faults[0].code == "too_large"


def test_the_place_of_a_slip_is_told() -> None:
    with pytest.raises(RequestError) as caught:
        whole('{\n  "a": 1,\n  "b" 2\n}')
    fault = caught.value.faults[0]
    assert (fault.line, fault.column, fault.excerpt) == (3, 7, '  "b" 2')


def test_items_before_a_slip_are_given() -> None:
    items = load_json_items('[1, {"a": 2}, oops]', 100, EntityError)
    assert [next(items), next(items)] == [1, {"a": 2}]
    with pytest.raises(EntityError):
        next(items)


def test_only_an_array_has_items() -> None:
    with pytest.raises(RequestError) as caught:
        by_items('{"a": 1}')
    assert caught.value.faults[0].message == "expected an array, found an object"


def test_kinds_have_names() -> None:
    kinds: list[object] = [None, True, 1, 1.5, "", {}, []]
    assert [kind_of(each) for each in kinds] == [
        "null",
        "a boolean",
        "an integer",
        "a number with a fraction or an exponent",
        "a string",
        "an object",
        "an array",
    ]
