"""Properties and contexts in JSON, as values of Cedar.

Where a schema declares members, only those are taken, and their types lead (texts become `ipaddr`, `datetime` and so
on): policies that fit the schema cannot ask for others. Cedar has neither null nor fractions: a member that is null
counts as absent, and a number with a fraction becomes a `decimal` where one fits (four digits), else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.front.authzen.messages import BadRequest
from gateway.policy.json_values import Misfit, check_type, escaped, value_from_json
from gateway.policy.schema import model

DEPTH_MAX: Final = 32


def record_of(data: Mapping[str, Any], declared: model.RecordType | None, pointer: str) -> dict[str, Any]:
    """Give a Cedar record; with `declared`, of those members only. Raises BadRequest."""
    made = {}
    for name, value in data.items():
        attribute = None if declared is None else declared.attributes.get(name)
        if value is None or (declared is not None and attribute is None):
            continue
        here = f"{pointer}/{escaped(name)}"
        kind = None if attribute is None else attribute.type
        try:
            made[name] = value_from_json(_cedar_json(value, here, 1), kind, here)
        except Misfit as misfit:
            raise BadRequest(misfit.message, misfit.pointer or here) from None
    return made


def check_members(record: Mapping[str, Any], declared: model.RecordType, schema: model.Schema, pointer: str) -> None:
    """Refuse members of other types than declared. Raises BadRequest."""
    for name, value in record.items():
        try:
            check_type(value, declared.attributes[name].type, schema, f"{pointer}/{name}")
        except Misfit as misfit:
            raise BadRequest(misfit.message, misfit.pointer or pointer) from None


def _cedar_json(value: Any, pointer: str, depth: int) -> Any:
    """Leave out nulls, and write fractions as Cedar's JSON has them."""
    if depth > DEPTH_MAX:
        raise BadRequest(f"more than {DEPTH_MAX} levels deep", pointer)
    if isinstance(value, float):
        return {"__extn": {"fn": "decimal", "arg": repr(value)}}
    if isinstance(value, list):
        return [_cedar_json(item, pointer, depth + 1) for item in value if item is not None]
    if isinstance(value, dict):
        return {name: _cedar_json(item, pointer, depth + 1) for name, item in value.items() if item is not None}
    return value
