"""The decision log: one JSON line for each decision of the policies, with all that is needed to make it again.

A line holds values that policies saw, and so may hold what people said of themselves; it never holds a credential: what
is named like one, looks like one, or is on the operator's list is blanked, and the line says so under `redacted`. Such
a line cannot be decided again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from gateway.observability.line_writer import LineWriter
from gateway.observability.redaction import REDACTED, is_secret_name, is_secret_text
from gateway.types import Clock, SystemClock

PARTIES: Final = ("principal", "action", "resource")
_LINE: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


@dataclass(frozen=True, slots=True)
class Blanked:
    """Values as they may be written, in JSON already, and the paths of those that were blanked."""

    json: orjson.Fragment
    redacted: tuple[str, ...]


class DecisionLog:
    """Writes lines. A full buffer drops them and counts them; nobody waits."""

    def __init__(self, writer: LineWriter, redact: Iterable[str] = (), clock: Clock | None = None) -> None:
        """`redact`: names of attributes, at any depth, whose values are not written."""
        self._writer = writer
        self._wall_s = (clock or SystemClock()).wall_s
        names = frozenset(redact)
        self._is_hidden = lru_cache(4096)(lambda name: name in names or is_secret_name(name))

    def blanked(self, part: str, values: dict[str, Any]) -> Blanked:
        """Give a part of lines without what must not be written. What many lines share is made once."""
        redacted: list[str] = []
        cleaned = self._cleaned(values, part, redacted)
        return Blanked(orjson.Fragment(orjson.dumps(cleaned)), tuple(redacted))

    def write(self, fields: dict[str, Any], given: Blanked) -> None:
        """Write one decision; `fields` are JSON values, entities `{"type", "id"}`."""
        redacted = [*given.redacted]
        line = {"ts": datetime.fromtimestamp(self._wall_s(), UTC), **fields, "given": given.json}
        for part in PARTIES:
            party = fields[part]
            if party is not None and is_secret_text(party["id"]):
                line[part] = {**party, "id": REDACTED}
                redacted.append(part)
        if fields["context"]:
            line["context"] = self._cleaned(fields["context"], "context", redacted)
        if redacted:
            line["redacted"] = redacted
        self._writer.write(orjson.dumps(line, option=_LINE))

    def _cleaned(self, value: Any, path: str, redacted: list[str]) -> Any:
        """Give a value without what must not be written; note where something was."""
        if isinstance(value, str):
            if is_secret_text(value):
                redacted.append(path)
                return REDACTED
            return value
        if isinstance(value, list):
            return [self._cleaned(each, path, redacted) for each in value]
        if not isinstance(value, dict):
            return value
        made = {}
        for name, each in value.items():
            here = f"{path}.{name}"
            if self._is_hidden(name):
                redacted.append(here)
                made[name] = REDACTED
            else:
                made[name] = self._cleaned(each, here, redacted)
        return made
