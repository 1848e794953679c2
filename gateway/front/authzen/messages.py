"""What callers send, read and checked: each fault names the member by its JSON pointer (RFC 6901).

Members that the specification does not know are ignored (§5: "unknown fields"), so that newer callers are served.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import orjson

from gateway.policy.handle import REVISIONS_PART
from gateway.stores.base import ORIGIN

Target = Literal["subject", "resource", "action"]
Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]

SEMANTICS: Final = ("execute_all", "deny_on_first_deny", "permit_on_first_permit")
TEXT_CHARACTERS_MAX: Final = 1024  # of a type, an id or a name
REVISION_MAX: Final = 2**63 - 1
REVISION_CHARACTERS_MAX: Final = 256
_IDENTIFIERS: Final = {"subject": ("type", "id"), "resource": ("type", "id"), "action": ("name",)}
_NOTHING: Final[dict[str, Any]] = {}


class BadRequest(Exception):
    """A message that is none: answered with 400. `pointer` leads to the member, "" is the whole message."""

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(f"`{pointer}`: {detail}" if pointer else detail)
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Party:
    """A subject or a resource. `id` is "" where a search asks for it."""

    type: str
    id: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActionName:
    name: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AtLeast:
    """What must have been seen: a revision of the policies, and some of the relations' store."""

    policies: int = 0
    relations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """May this subject do this to this resource? `at_least` is the revision that must have been seen."""

    subject: Party
    action: ActionName
    resource: Party
    context: Mapping[str, Any]
    at_least: AtLeast = AtLeast()


@dataclass(frozen=True, slots=True)
class Batch:
    """Several questions; one that is malformed by itself is answered with an error of its own."""

    items: tuple[Question | BadRequest, ...]
    semantic: Semantic
    at_least: AtLeast  # all that any of them asks for


@dataclass(frozen=True, slots=True)
class SearchQuestion:
    """Who or what would be allowed? The part that is asked for has no id, and an action no name."""

    target: Target
    subject: Party
    action: ActionName | None
    resource: Party
    context: Mapping[str, Any]
    at_least: AtLeast
    limit: int | None
    token: str


def parse_body(body: bytes) -> dict[str, Any]:
    """Read a JSON object that can be read in one way only. Raises BadRequest."""
    if not body:
        raise BadRequest("the body is empty")
    try:
        orjson.loads(body)  # refuses bad UTF-8, lone surrogates, NaN and deep nesting, which `json` takes
        value = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        raise BadRequest("the body is no JSON document") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is no JSON object")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise BadRequest("an object has a member twice")
    return made


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_distinct)


def parse_question(data: Mapping[str, Any]) -> Question:
    """Read an Access Evaluation request (§6.1). Raises BadRequest."""
    return _question(data, "")


def parse_batch(data: Mapping[str, Any], *, items_max: int) -> Question | Batch:
    """Read an Access Evaluations request (§7.1); without evaluations it is a single question. Raises BadRequest."""
    evaluations = data.get("evaluations")
    if evaluations is None and "evaluations" not in data:
        return _question(data, "")
    if not isinstance(evaluations, list):
        raise BadRequest("must be an array", "/evaluations")
    semantic = _semantic(data)
    if not evaluations:
        return _question(data, "")
    if len(evaluations) > items_max:
        raise BadRequest(f"more than {items_max} evaluations", "/evaluations")
    for name in (*_IDENTIFIERS, "context"):
        if name in data and not isinstance(data[name], dict):
            raise BadRequest("must be an object", f"/{name}")
    items: list[Question | BadRequest] = []
    for index, item in enumerate(evaluations):
        pointer = f"/evaluations/{index}"
        if not isinstance(item, dict):
            raise BadRequest("must be an object", pointer)
        try:
            items.append(_question(_with_defaults(item, data), pointer))
        except BadRequest as error:
            items.append(error)
    return Batch(tuple(items), semantic, _together([item.at_least for item in items if isinstance(item, Question)]))


def _together(wishes: Sequence[AtLeast]) -> AtLeast:
    relations = dict.fromkeys(each for wish in wishes for each in wish.relations)
    return AtLeast(max((wish.policies for wish in wishes), default=0), tuple(relations))


def _semantic(data: Mapping[str, Any]) -> Semantic:
    options = _object(data, "options", "")
    found = options.get("evaluations_semantic", "execute_all")
    if found not in SEMANTICS:
        raise BadRequest(f"must be one of {', '.join(SEMANTICS)}", "/options/evaluations_semantic")
    return cast("Semantic", found)


def _with_defaults(item: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what an evaluation leaves out: whole objects, and what names an entity; never single properties."""
    merged = {name: item.get(name, data.get(name)) for name in ("context",) if name in item or name in data}
    for name, identifiers in _IDENTIFIERS.items():
        default, own = data.get(name), item.get(name)
        if name not in item:
            if default is not None:
                merged[name] = default
        elif isinstance(own, dict) and isinstance(default, dict):
            merged[name] = {**{key: default[key] for key in identifiers if key in default}, **own}
        else:
            merged[name] = own
    return merged


def parse_search(data: Mapping[str, Any], target: Target, *, limit_max: int) -> SearchQuestion:
    """Read a search request (§8): an id of what is searched is ignored. Raises BadRequest."""
    subject = _party(data, "subject", "", with_id=target != "subject")
    resource = _party(data, "resource", "", with_id=target != "resource")
    action = None if target == "action" else _action(data, "")
    context, at_least = _context(data, "")
    page = _object(data, "page", "")
    limit = page.get("limit")
    if limit is not None or "limit" in page:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise BadRequest("must be a whole number above 0", "/page/limit")
        limit = min(limit, limit_max)
    token = page.get("token", "")
    if not isinstance(token, str):
        raise BadRequest("must be a string", "/page/token")
    return SearchQuestion(target, subject, action, resource, context, at_least, limit, token)


def _question(data: Mapping[str, Any], pointer: str) -> Question:
    subject = _party(data, "subject", pointer)
    action = _action(data, pointer)
    resource = _party(data, "resource", pointer)
    context, at_least = _context(data, pointer)
    return Question(subject, action, resource, context, at_least)


def _party(data: Mapping[str, Any], name: str, pointer: str, *, with_id: bool = True) -> Party:
    members = _required(data, name, pointer)
    here = f"{pointer}/{name}"
    kind = _text(members, "type", here)
    identifier = _text(members, "id", here) if with_id else ""
    return Party(kind, identifier, _object(members, "properties", here))


def _action(data: Mapping[str, Any], pointer: str) -> ActionName:
    members = _required(data, "action", pointer)
    here = f"{pointer}/action"
    return ActionName(_text(members, "name", here), _object(members, "properties", here))


def _context(data: Mapping[str, Any], pointer: str) -> tuple[Mapping[str, Any], AtLeast]:
    """Give the context that policies see, and the revision that the caller wants to have been seen."""
    context = _object(data, "context", pointer)
    if "at_least" not in context:
        return context, AtLeast()
    wish = _at_least(context["at_least"])
    if wish is None:
        raise BadRequest("must be a revision, as an earlier answer gave it", f"{pointer}/context/at_least")
    return {name: value for name, value in context.items() if name != "at_least"}, wish


def _at_least(value: object) -> AtLeast | None:
    """Read a revision: a number, of policies; a text, of relations as their store gives it, or of both with `~`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return AtLeast(value) if 0 <= value <= REVISION_MAX else None
    if not isinstance(value, str) or not value or len(value) > REVISION_CHARACTERS_MAX:
        return None
    policies, parted, relations = value.rpartition(REVISIONS_PART)
    if parted and not (policies.isascii() and policies.isdecimal() and int(policies) <= REVISION_MAX):
        return None
    if ":" not in relations and not (parted and relations == ORIGIN):
        return None
    return AtLeast(int(policies or 0), (relations,) if relations else ())


def _required(data: Mapping[str, Any], name: str, pointer: str) -> Mapping[str, Any]:
    if name not in data:
        raise BadRequest("is missing", f"{pointer}/{name}")
    return _object(data, name, pointer)


def _object(data: Mapping[str, Any], name: str, pointer: str) -> Mapping[str, Any]:
    found = data.get(name, _NOTHING)
    if not isinstance(found, dict):
        raise BadRequest("must be an object", f"{pointer}/{name}")
    return found


def _text(data: Mapping[str, Any], name: str, pointer: str) -> str:
    if name not in data:
        raise BadRequest("is missing", f"{pointer}/{name}")
    found = data[name]
    if not isinstance(found, str):
        raise BadRequest("must be a string", f"{pointer}/{name}")
    if not found or len(found) > TEXT_CHARACTERS_MAX:
        raise BadRequest(f"must have 1 to {TEXT_CHARACTERS_MAX} characters", f"{pointer}/{name}")
    return found
