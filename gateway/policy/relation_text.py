"""Relations as text: `Doc::"1"#viewers@Team::"eng"#members`, and ` until 2026-12-31T00:00:00Z` where one expires."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from gateway._native.uid import EntityUid
from gateway.policy.faults import PolicyFault
from gateway.policy.language import tree
from gateway.policy.language.statements import parse_expression
from gateway.stores.relations import Relation, Subject, Userset

_ENTITY: Final = r'[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*::"(?:[^"\\]|\\.)*"'
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_SUBJECT: Final = rf"(?P<subject>{_ENTITY})(?:\#(?P<userset>{_NAME}))?"
_RELATION: Final = re.compile(
    rf"(?P<object>{_ENTITY})\#(?P<relation>{_NAME})@{_SUBJECT}(?:\s+until\s+(?P<until>\S+))?", re.DOTALL
)
_SUBJECT_ALONE: Final = re.compile(_SUBJECT, re.DOTALL)
_SHAPE: Final = 'write it as Doc::"1"#viewers@User::"eve"'


def parse_relation(text: str) -> Relation:
    """Read one relation. Raises ValueError, with what to write instead, for text that is none."""
    found = _RELATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"`{text.strip()}` is no relation; {_SHAPE}")
    until = None if found["until"] is None else _moment(found["until"])
    return Relation(_entity(found["object"]), found["relation"], _subject(found), until)


def parse_subject(text: str) -> Subject:
    """Read an entity, or all who stand in a relation: `Team::"eng"#members`. Raises ValueError."""
    found = _SUBJECT_ALONE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'`{text.strip()}` is nobody; write User::"eve" or Team::"eng"#members')
    return _subject(found)


def relation_to_text(relation: Relation) -> str:
    """Write a relation so that `parse_relation` reads the same one."""
    if relation.expires_at_s is None:
        return str(relation)
    return f"{relation} until {datetime.fromtimestamp(relation.expires_at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _subject(found: re.Match[str]) -> Subject:
    who = _entity(found["subject"])
    return who if found["userset"] is None else Userset(who, found["userset"])


def _entity(text: str) -> EntityUid:
    try:
        node = parse_expression(text)
    except PolicyFault as error:
        raise ValueError(f"`{text}` is no entity: {error.faults[0].message}") from None
    if not isinstance(node, tree.Literal) or not isinstance(node.value, EntityUid):
        raise ValueError(f"`{text}` is no entity")
    return node.value


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"`{text}` is no time; write it as 2026-12-31T00:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"`{text}` has no time zone; end it with Z for UTC")
    return int(moment.timestamp())
