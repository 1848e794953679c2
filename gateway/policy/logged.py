"""Decisions as the decision log has them, read back: the request as policies saw it, and what came of it then.

The format is written by `gateway/front/decisions.py` and told in docs/observability.md. Values are Cedar's explicit
JSON, so no schema is needed to read them, and none can change what they meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from gateway._native.uid import EntityUid
from gateway._native.vm import Answer
from gateway.policy.engine import Engine, Request
from gateway.policy.json_values import Misfit, value_from_json
from gateway.policy.search import may_allow

LINE_BYTES_MAX: Final = 4 * 1024 * 1024
_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_ROLES: Final = ("principal", "resource")

Overlays = dict[EntityUid, tuple[dict[str, Any], tuple[EntityUid, ...]]]


class Damaged(ValueError):
    """A line that is no decision. The text says what is wrong, and nothing of what the line holds."""


class Unrepeatable(ValueError):
    """A decision that cannot be made again: the text says why, as a word of REASONS."""


UNREPEATABLE: Final[Mapping[str, str]] = {
    "redacted": "values of the line were blanked",
    "not_asked": "policies were not asked: a part of the request was missing or unreadable",
    "limited": "a limit was hit, or an entity could not be fetched",
    "away": "it rests on entities that are kept in a source, and are not here",
}


class LoggedDecision(NamedTuple):
    """One line. `place` is the route, or the door where there is none; `overlays` is what was defined for it alone."""

    id: str
    place: str
    principal: EntityUid
    action: EntityUid
    resource: EntityUid
    context: dict[str, Any]
    overlays: Overlays
    allowed: bool
    reason: str
    policies: tuple[str, ...]
    digest: str | None

    def prepare(self, engine: Engine) -> Request:
        """Ask for it again. Raises ValueError for a request that is too large for this engine."""
        return engine.prepare(self.principal, self.action, self.resource, self.context, overlays=self.overlays or None)

    def decide(self, engine: Engine) -> tuple[bool, Answer]:
        """Decide it again, as the doors do: a `forbid` that cannot be evaluated denies. Raises ValueError.

        Raises Unrepeatable where that rests on an entity of a sourced type which is not here.
        """
        answer = engine.answer(self.prepare(engine))
        if answer.missing is not None:
            raise Unrepeatable("away")
        return may_allow(engine, answer), answer


def read_decision(line: bytes | str) -> LoggedDecision:
    """Read one line. Raises Damaged for what is no decision, and Unrepeatable for one that cannot be made again."""
    fields = _fields(line)
    try:
        if fields.get("redacted"):
            raise Unrepeatable("redacted")
        policies = fields["policies"]
        if policies is None or fields["action"] is None or fields["resource"] is None:
            raise Unrepeatable("not_asked")
        if fields["faults"]:
            raise Unrepeatable("limited")
        decision = fields["decision"]
        if decision not in {"allow", "deny"}:
            raise Damaged("`decision` is neither `allow` nor `deny`")
        principal, resource = _uid(fields["principal"]), _uid(fields["resource"])
        return LoggedDecision(
            str(fields["id"]),
            str(fields.get("route") or fields["door"]),
            principal,
            _uid(fields["action"]),
            resource,
            _members(fields["context"]),
            _overlays(fields.get("given"), principal, resource),
            decision == "allow",
            str(fields["reason"]),
            tuple(map(str, policies)),
            fields.get("digest"),
        )
    except KeyError as missing:
        raise Damaged(f"`{missing.args[0]}` is missing") from None
    except (TypeError, AttributeError):
        raise Damaged("a member is of another type") from None
    except Misfit as misfit:
        raise Damaged(f"a value is none of Cedar's: {misfit.message}") from None


def id_of(line: bytes | str) -> str:
    """Give the id of a line, whatever else is wrong with it. Raises Damaged."""
    found = _fields(line).get("id")
    if not isinstance(found, str):
        raise Damaged("`id` is missing")
    return found


def _fields(line: bytes | str) -> dict[str, Any]:
    if len(line) > LINE_BYTES_MAX:
        raise Damaged(f"longer than {LINE_BYTES_MAX:,} bytes")
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Damaged(f"no JSON: {error.msg}") from None
    if not isinstance(fields, dict):
        raise Damaged("no JSON object")
    return fields


def _uid(party: Any) -> EntityUid:
    return EntityUid(party["type"], party["id"])


def _members(values: Any) -> dict[str, Any]:
    return {name: value if _is_plain(value) else value_from_json(value, None, "") for name, value in values.items()}


def _is_plain(value: Any) -> bool:
    """Tell whether a value stands for itself, as most do."""
    kind = type(value)
    return kind is str or kind is bool or (kind is int and _LONG_MIN <= value <= _LONG_MAX)


def _overlays(given: Any, principal: EntityUid, resource: EntityUid) -> Overlays:
    if not given:
        return {}
    made: Overlays = {}
    for role, uid in zip(_ROLES, (principal, resource), strict=True):
        each = given.get(role)
        if each is not None:
            made[uid] = _members(each["attrs"]), tuple(map(_uid, each["parents"]))
    return made
