"""Claims of a token, read as values of Cedar: whoever signed them knows JSON, not Cedar.

| declared type         | claim                                                                                |
|-----------------------|--------------------------------------------------------------------------------------|
| `String` `Long` `Bool`| text, a whole number of 64 bits, true or false                                       |
| `datetime`            | seconds since 1970 (NumericDate, RFC 7519 §2), or a text that Cedar reads            |
| `decimal`             | a number of at most four digits behind the point, or a text that Cedar reads         |
| `ipaddr` `duration`   | a text that Cedar reads                                                              |
| an entity type        | the entity's id as text, or `{"type": …, "id": …}` of this type                      |
| `Set<T>`              | an array of what `T` takes; or a text, its words (as in `scope`, RFC 8693 §4.2)      |
| a record              | an object; members that are not declared are left out                                |

Without a declared type a claim is what it looks like. A claim or member that is null counts as absent. Messages name
kinds, never what a claim holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway._native.entities import DEPTH_MAX
from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy.json_text import kind_of
from gateway.policy.json_values import Misfit, check_choice, escaped
from gateway.policy.schema import model

_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
IDS_MAX: Final = 10_000  # that one claim may name; a token of the usual bounds has a tenth of them
_SECONDS_MAX: Final = 2**53  # as far as a number of JSON is exact
_WANTED: Final[dict[type, str]] = {
    model.BoolType: "true or false",
    model.LongType: "a whole number of 64 bits",
    model.StringType: "text",
    model.EntityType: "the id of an entity",
    model.SetType: "an array",
    model.RecordType: "an object",
}
_READERS: Final = {
    "ipaddr": IPAddr.parse,
    "decimal": Decimal.parse,
    "datetime": Datetime.parse,
    "duration": Duration.parse,
}


def find_claim(claims: Mapping[str, Any], name: str) -> Any:
    """Give the claim of this very name, else what lies at the dots of it; None where there is neither.

    The very name goes first: `https://id.example.com/roles` is one claim, `realm_access.roles` a member of one.
    """
    found = claims.get(name)
    if found is not None or "." not in name:
        return found
    here: Any = claims
    for part in name.split("."):
        if not isinstance(here, Mapping):
            return None
        here = here.get(part)
    return here


def value_of_claim(claim: Any, expected: model.Type | None, schema: model.Schema | None, pointer: str = "") -> Any:
    """Give a claim that is not null as a value; `expected` None: as what it looks like. Raises Misfit."""
    return _value(claim, expected, schema, pointer, 1)


def text_of_claim(claim: Any) -> str:
    """Give a claim as part of a text: itself, a whole number's digits, `true` or `false`. Raises Misfit."""
    if isinstance(claim, str):
        return claim
    if isinstance(claim, bool):
        return "true" if claim else "false"
    if isinstance(claim, int):
        return str(claim)
    raise Misfit("wrong_type", f"{kind_of(claim)} cannot be part of a text", "")


def ids_of_claim(claim: Any) -> tuple[str, ...]:
    """Give the ids that an array of texts, or the words of a text, name. Raises Misfit."""
    if isinstance(claim, str):
        ids = tuple(claim.split())
    elif isinstance(claim, list) and all(isinstance(each, str) for each in claim):
        ids = tuple(dict.fromkeys(claim))
    else:
        raise Misfit("wrong_type", f"an array of texts is expected, not {kind_of(claim)}", "")
    if len(ids) > IDS_MAX:
        raise Misfit("too_many", f"more than {IDS_MAX:,} are named", "")
    return ids


def _value(claim: Any, expected: model.Type | None, schema: model.Schema | None, pointer: str, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise Misfit("too_deep", f"nested more than {DEPTH_MAX} times", pointer)
    match expected:
        case None:
            return _plain(claim, schema, pointer, depth)
        case model.BoolType() if isinstance(claim, bool):
            return claim
        case model.LongType() if _is_long(claim):
            return claim
        case model.StringType() if isinstance(claim, str):
            return claim
        case model.ExtensionType(name):
            return _extension(claim, name, pointer)
        case model.EntityType(name):
            return _entity(claim, name, schema, pointer)
        case model.SetType(element) if isinstance(claim, str):
            return [_value(word, element, schema, pointer, depth + 1) for word in claim.split()]
        case model.SetType(element) if isinstance(claim, list):
            return [
                _value(each, element, schema, f"{pointer}/{index}", depth + 1)
                for index, each in enumerate(claim)
                if each is not None
            ]
        case model.RecordType() if isinstance(claim, Mapping):
            return _record(claim, expected, schema, pointer, depth)
    raise Misfit("wrong_type", f"{_WANTED[type(expected)]} is expected here, not {kind_of(claim)}", pointer)


def _is_long(claim: Any) -> bool:
    return isinstance(claim, int) and not isinstance(claim, bool) and _LONG_MIN <= claim <= _LONG_MAX


def _plain(claim: Any, schema: model.Schema | None, pointer: str, depth: int) -> Any:
    """Read a claim whose type nobody declared. Nothing in it is an escape: an object is a record."""
    if isinstance(claim, str | bool) or _is_long(claim):
        return claim
    if isinstance(claim, float):
        return _extension(claim, "decimal", pointer)
    if isinstance(claim, list):
        return [
            _value(each, None, schema, f"{pointer}/{index}", depth + 1)
            for index, each in enumerate(claim)
            if each is not None
        ]
    if isinstance(claim, Mapping):
        return {
            name: _value(each, None, schema, f"{pointer}/{escaped(name)}", depth + 1)
            for name, each in claim.items()
            if each is not None
        }
    raise Misfit("wrong_type", f"{kind_of(claim)} is no Cedar value", pointer)


def _extension(claim: Any, name: str, pointer: str) -> Any:
    number = isinstance(claim, int | float) and not isinstance(claim, bool)
    try:
        if number and name == "datetime" and abs(claim) <= _SECONDS_MAX:
            return Datetime(round(claim * 1000))
        if number and name == "decimal":
            return Decimal.parse(repr(claim) if isinstance(claim, float) else f"{claim}.0")
        if isinstance(claim, str):
            return _READERS[name](claim)
    except (ValueError, OverflowError):
        raise Misfit("extension_value", f"{kind_of(claim)} that is no {name}", pointer) from None
    raise Misfit("wrong_type", f"a value of type {name} is expected here, not {kind_of(claim)}", pointer)


def _entity(claim: Any, name: str, schema: model.Schema | None, pointer: str) -> EntityUid:
    if isinstance(claim, str):
        uid = EntityUid(name, claim)
    elif isinstance(claim, Mapping) and claim.keys() == {"type", "id"} and claim["type"] == name:
        if not isinstance(claim["id"], str):
            raise Misfit("wrong_type", "the id of an entity is text", pointer)
        uid = EntityUid(name, claim["id"])
    else:
        raise Misfit("wrong_type", f"the id of a `{name}` is expected here, not {kind_of(claim)}", pointer)
    if schema is not None:
        try:
            check_choice(uid, schema, pointer)
        except Misfit as misfit:
            raise Misfit(misfit.code, f"none of the ids of `{name}`", pointer) from None
    return uid


def _record(
    claim: Mapping[str, Any], expected: model.RecordType, schema: model.Schema | None, pointer: str, depth: int
) -> dict[str, Any]:
    made = {}
    for name, attribute in expected.attributes.items():
        member = claim.get(name)
        if member is not None:
            made[name] = _value(member, attribute.type, schema, f"{pointer}/{escaped(name)}", depth + 1)
        elif attribute.required:
            raise Misfit("missing_attribute", f"the member `{name}` is missing", pointer)
    return made
