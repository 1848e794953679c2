"""JSON from outside: read strictly, by one reader for schemas, entities and contexts.

RFC 8259 with nothing left open: a name stands once in an object, text is Unicode without lone surrogates, there is no
NaN. The reader is `json` of the standard library with a hook, not orjson: orjson keeps the last of two members of one
name silently, and turns integers beyond 64 bits into floats; checking for both afterwards costs more than it saves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import orjson

from gateway.policy.faults import Fault, PolicyFault

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
# All `\u` that stand in a row, or another escape: so `\\ud800`, which is plain text, is passed over.
_ESCAPES: Final = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\.")
_SPACE: Final = re.compile(r"[ \t\r\n]*")


class JsonFault(ValueError):
    """A text that is no acceptable JSON; `fault` says where and why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Duplicate(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Duplicate(name)
            seen.add(name)
    return made


def _constant(name: str) -> NoReturn:
    raise ValueError(f"`{name}` is no JSON number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def load_json(data: str | bytes, bytes_max: int, error: type[PolicyFault]) -> Any:
    """Read one JSON text of at most `bytes_max` characters or bytes. Raises `error`."""
    try:
        text = _text(data, bytes_max)
        value, end = _value(text, _space(text, 0))
        _end(text, end)
    except JsonFault as wrong:
        raise error([wrong.fault]) from None
    return value


def load_json_items(data: str | bytes, bytes_max: int, error: type[PolicyFault]) -> Iterator[Any]:
    """Read one JSON array item by item, so that a large one is never in memory whole. Raises `error` on the way."""
    try:
        yield from _items(_text(data, bytes_max))
    except JsonFault as wrong:
        raise error([wrong.fault]) from None


def _items(text: str) -> Iterator[Any]:
    at = _space(text, 0)
    if text[at : at + 1] != "[":
        value, _ = _value(text, at)
        _fail(text, at, "ill_typed", f"expected an array, found {kind_of(value)}")
    at = _space(text, at + 1)
    closed = text[at : at + 1] == "]"
    while not closed:
        value, at = _value(text, at)
        yield value
        at = _space(text, at)
        closed = text[at : at + 1] == "]"
        if not closed:
            if text[at : at + 1] != ",":
                _fail(text, at, "no_json", "expected `,` or `]`")
            at = _space(text, at + 1)
    _end(text, at + 1)


def _end(text: str, at: int) -> None:
    at = _space(text, at)
    if at != len(text):
        _fail(text, at, "no_json", "text follows the JSON value", "one value is wanted, and nothing more")


def kind_of(value: object) -> str:
    """Name the kind of a JSON value, with its article, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int):
        return "an integer"
    if isinstance(value, float):
        return "a number with a fraction or an exponent"
    if isinstance(value, str):
        return "a string"
    return "an object" if isinstance(value, dict) else "an array" if isinstance(value, list) else type(value).__name__


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _text(data: str | bytes, limit: int) -> str:
    if len(data) > limit:
        raise JsonFault(Fault("too_large", f"more than {limit:,} bytes of JSON", "split it"))
    try:
        text = data if isinstance(data, str) else str(data, "utf-8")
        if _SURROGATE.search(text):
            _refuse_lone_surrogates(text)
        elif isinstance(data, str) and not data.isascii():
            data.encode()
    except UnicodeError:
        raise JsonFault(Fault("no_unicode", "the JSON is no valid Unicode text", "write it as UTF-8")) from None
    return text


def _refuse_lone_surrogates(text: str) -> None:
    """Raise UnicodeError for half of a pair, which the standard reader lets through. Runs of escapes are looked at."""
    text.encode()
    for match in _ESCAPES.finditer(text):
        if match[0][1] == "u":
            try:
                orjson.loads(f'"{match[0]}"')
            except orjson.JSONDecodeError:
                raise UnicodeError("a lone surrogate") from None


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except _Duplicate as error:
        message = f"the name `{error.name[:60]}` stands twice in one object"
        raise JsonFault(Fault("duplicate_name", message, "keep one of them")) from None
    except json.JSONDecodeError as error:
        # `raw_decode` tells every start of a value that is none in the same words, at its place.
        _fail(text, error.pos, "no_json", error.msg[:1].lower() + error.msg[1:])
    except RecursionError:
        raise JsonFault(Fault("too_deep", "the JSON is nested too deep", "make it flatter")) from None
    except ValueError as error:  # a constant, or an integer of thousands of digits
        hint = "numbers are integers of 64 bits"
        raise JsonFault(Fault("no_whole_number", str(error).partition(";")[0], hint)) from None


def _fail(text: str, at: int, code: str, message: str, hint: str = "") -> NoReturn:
    first = text.rfind("\n", 0, at) + 1
    last = text.find("\n", at)
    line = text[first : len(text) if last < 0 else last]
    column = at - first + 1
    excerpt = line if len(line) <= 200 else ""  # one line of megabytes: where it is says enough
    raise JsonFault(Fault(code, message, hint, line=text.count("\n", 0, at) + 1, column=column, excerpt=excerpt))
