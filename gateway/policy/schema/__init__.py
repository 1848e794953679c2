"""Schemas: what entities, actions and contexts there are. Both of Cedar's syntaxes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from gateway.policy.faults import Fault, SchemaError
from gateway.policy.schema import model
from gateway.policy.schema.json_syntax import read_json
from gateway.policy.schema.limits import FAULTS_MAX, TEXT_CHARACTERS_MAX
from gateway.policy.schema.raw import RawNamespace
from gateway.policy.schema.resolve import Resolver
from gateway.policy.schema.text import SchemaMisread, SchemaParser
from gateway.policy.schema.writing import schema_to_json, schema_to_text

__all__ = ["Schema", "model"]


@dataclass(frozen=True, slots=True)
class Schema(model.Schema):
    """A resolved schema, and how to read and write one. Raises SchemaError with everything that is wrong."""

    @classmethod
    def parse(cls, text: str, *, file: str | None = None) -> Self:
        """Read Cedar's text syntax."""
        return cls.parse_files([(text, file)])

    @classmethod
    def parse_files(cls, files: Iterable[tuple[str, str | None]]) -> Self:
        """Read several texts, each with its name, as one schema: a namespace may be in one of them only."""
        spaces: list[tuple[RawNamespace, str, str | None]] = []
        for text, file in files:
            if len(text) > TEXT_CHARACTERS_MAX:
                raise SchemaError([Fault("text_too_large", f"more than {TEXT_CHARACTERS_MAX:,} characters", file=file)])
            try:
                spaces.extend((space, text, file) for space in SchemaParser(text).read())
            except SchemaMisread as misread:
                raise SchemaError([_fault(misread, text, file)]) from None
        seen: dict[str, str | None] = {}
        for space, _, file in spaces:
            if space.name in seen:
                message = f"the namespace `{space.name}` stands in two files"
                raise SchemaError(
                    [Fault("duplicate_namespace", message, f"the other is {seen[space.name]}", file=file)]
                )
            seen[space.name] = file
        whole = "".join(text for _, text, _ in spaces[:1])
        return cls._resolved([space for space, _, _ in spaces], whole, spaces[0][2] if spaces else None)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str | bytes) -> Self:
        """Read Cedar's JSON syntax."""
        if isinstance(data, str | bytes):
            try:
                data = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise SchemaError([Fault("no_json", f"is no JSON: {error}", pointer="/")]) from None
        try:
            spaces = read_json(data)
        except SchemaMisread as misread:
            raise SchemaError([_fault(misread, "", None)]) from None
        return cls._resolved(spaces, "", None)

    @classmethod
    def _resolved(cls, spaces: list[RawNamespace], text: str, file: str | None) -> Self:
        resolver = Resolver(spaces)
        entities, actions = resolver.resolve()
        if resolver.faults:
            raise SchemaError([_fault(misread, text, file) for misread in resolver.faults[:FAULTS_MAX]])
        annotations = {space.name: {name: value or "" for name, value in space.annotations.items()} for space in spaces}
        return cls(entities, actions, annotations)

    def to_json(self) -> dict[str, Any]:
        """Give the JSON syntax, with qualified names and without common types."""
        return schema_to_json(self)

    def to_text(self) -> str:
        """Give the text syntax, with qualified names and without common types."""
        return schema_to_text(self)


def _fault(misread: SchemaMisread, text: str, file: str | None) -> Fault:
    mark = misread.mark
    if mark.offset < 0:
        return Fault(misread.code, misread.message, misread.hint, file=file, pointer=mark.pointer)
    line_start = text.rfind("\n", 0, mark.offset) + 1
    line_end = text.find("\n", mark.offset)
    excerpt = text[line_start : line_end if line_end >= 0 else len(text)].rstrip("\r")
    return Fault(
        misread.code,
        misread.message,
        misread.hint,
        file=file,
        line=text.count("\n", 0, mark.offset) + 1,
        column=mark.offset - line_start + 1,
        length=mark.length,
        excerpt=excerpt if len(excerpt) <= 400 else "",
    )
