"""Schemas: what entities, actions and contexts there are. Both of Cedar's syntaxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from gateway.policy.faults import Fault, SchemaError
from gateway.policy.json_text import load_json
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
        """Read several texts, each with its name, as one schema: a namespace may go on in another text."""
        sources = list(files)
        spaces: dict[str, RawNamespace] = {}
        wrong: list[SchemaMisread] = []
        for index, (text, file) in enumerate(sources):
            if len(text) > TEXT_CHARACTERS_MAX:
                raise SchemaError([Fault("text_too_large", f"more than {TEXT_CHARACTERS_MAX:,} characters", file=file)])
            parser = SchemaParser(text, index)
            for space in parser.read():
                wrong += _join(spaces.setdefault(space.name, RawNamespace(space.name, space.mark)), space)
            wrong += parser.faults
        if wrong:
            raise SchemaError([_fault(misread, sources) for misread in wrong[:FAULTS_MAX]])
        return cls._resolved(list(spaces.values()), sources)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str | bytes) -> Self:
        """Read Cedar's JSON syntax."""
        if isinstance(data, str | bytes):
            data = load_json(data, TEXT_CHARACTERS_MAX, SchemaError)
        try:
            spaces = read_json(data)
        except SchemaMisread as misread:
            raise SchemaError([_fault(misread, ())]) from None
        return cls._resolved(spaces, ())

    @classmethod
    def _resolved(cls, spaces: list[RawNamespace], sources: Sequence[tuple[str, str | None]]) -> Self:
        resolver = Resolver(spaces)
        entities, actions = resolver.resolve()
        if resolver.faults:
            raise SchemaError([_fault(misread, sources) for misread in resolver.faults[:FAULTS_MAX]])
        annotations = {space.name: {name: value or "" for name, value in space.annotations.items()} for space in spaces}
        return cls(entities, actions, annotations)

    def to_json(self) -> dict[str, Any]:
        """Give the JSON syntax, with qualified names and without common types."""
        return schema_to_json(self)

    def to_text(self) -> str:
        """Give the text syntax, with qualified names and without common types."""
        return schema_to_text(self)


def _fault(misread: SchemaMisread, sources: Sequence[tuple[str, str | None]]) -> Fault:
    mark = misread.mark
    if mark.offset < 0 or not sources:
        return Fault(misread.code, misread.message, misread.hint, pointer=mark.pointer)
    text, file = sources[mark.source]
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


def _join(space: RawNamespace, more: RawNamespace) -> list[SchemaMisread]:
    """Add the declarations of another text to a namespace; what both declare is told, at its second place."""
    wrong = []
    marks = (
        ("entity", {name: raw.mark for name, raw in more.entities.items() if name in space.entities}),
        ("action", {name: raw.mark for name, raw in more.actions.items() if name in space.actions}),
        ("type", {name: mark for name, (_, mark) in more.commons.items() if name in space.commons}),
    )
    for what, twice in marks:
        for name, mark in twice.items():
            message = f"the {what} `{name}` is declared in another file too"
            wrong.append(SchemaMisread(f"duplicate_{what}", message, "keep one of them", mark))
    space.entities.update(more.entities)
    space.actions.update(more.actions)
    space.commons.update(more.commons)
    space.annotations = {**space.annotations, **more.annotations}
    return wrong
