"""What is wrong with a policy, a schema or an entity: a stable code, the place, the line with a caret, the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `str()` is what a person reads; `as_json()` what a program reads.

    `code` is stable (`unexpected_token`, `undeclared_attribute`, …). In a text, `line` and `column` count from 1 and
    `excerpt` is the line; in JSON, `pointer` (RFC 6901) leads to the value instead. Messages are lower case and name
    the offending input in backticks.
    """

    code: str
    message: str
    hint: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    length: int = 1  # characters under the caret
    excerpt: str = ""
    pointer: str | None = None
    policy_id: str | None = None

    def __str__(self) -> str:
        place = self.file or ""
        if self.line is not None:
            place = f"{place or 'line'}:{self.line}:{self.column}"
        elif self.pointer is not None:
            place = f"{place}#{self.pointer}"
        subject = f"policy `{self.policy_id}`: " if self.policy_id else ""
        text = f"{place}: {subject}{self.message}" if place else f"{subject}{self.message}"
        if self.excerpt and self.column is not None:
            # Tabs stay tabs, so that the caret stands under its character whatever their width.
            indent = "".join("\t" if c == "\t" else " " for c in self.excerpt[: self.column - 1])
            carets = "^" * max(1, min(self.length, len(self.excerpt) - self.column + 1))
            text = f"{text}\n    {self.excerpt}\n    {indent}{carets}"
        return f"{text}\n  hint: {self.hint}" if self.hint else text

    def as_json(self) -> dict[str, Any]:
        """Give the members that are known, by name."""
        members = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in members.items() if value not in (None, "") and name != "length"}


class PolicyFault(GatewayError):
    """Base of what is wrong with input to the policy engine. `faults` holds everything that was found, at least one."""

    status = 400

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)

    def __reduce__(self) -> tuple[type[PolicyFault], tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)


class PolicySyntaxError(PolicyFault):
    """A policy text or policy JSON that is none, or one beyond the limits."""

    code = "policy_syntax"


class SchemaError(PolicyFault):
    """A schema that cannot be read, or that contradicts itself."""

    code = "schema_invalid"


class EntityError(PolicyFault):
    """Entities that cannot be read, contradict themselves, or do not fit the schema."""

    code = "entities_invalid"


class RequestError(PolicyFault):
    """A request whose principal, action, resource or context is malformed, or does not fit the schema."""

    code = "request_invalid"
