"""Write down what can be configured: a JSON Schema for editors, and the tables of `docs/configuration.md`."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as kinds

from gateway.config import knobs
from gateway.config.knobs import Config

_BEGIN = "<!-- reference: begin (made by `python -m gateway.config`) -->\n"
_END = "<!-- reference: end -->\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the config file, with the reason of each knob as its description."""
    schema = msgspec.json.schema(Config)
    for name, definition in schema["$defs"].items():
        for field, text in _comments().get(name, {}).items():
            definition["properties"][field]["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "portcullis.toml", **schema}


def render_reference() -> str:
    """Return the tables of all sections as Markdown, made from the structs and their comments."""
    root = kinds.type_info(Config)
    assert isinstance(root, kinds.StructType)
    return "\n".join(_sections(root, ""))


def _sections(struct: kinds.StructType, key: str) -> list[str]:
    lines: list[str] = []
    for field in struct.fields:
        name = f"{key}.{field.encode_name}" if key else field.encode_name
        kind = field.type
        if isinstance(kind, kinds.StructType):
            lines += _table(kind, f"[{name}]")
            lines += _sections(kind, name)
        elif isinstance(kind, kinds.VarTupleType) and isinstance(kind.item_type, kinds.StructType):
            lines += _table(kind.item_type, f"[[{name}]]")
    return lines


def _table(struct: kinds.StructType, header: str) -> list[str]:
    comments = _comments().get(struct.cls.__name__, {})
    lines = [f"## `{header}`", "", inspect.cleandoc(struct.cls.__doc__ or ""), ""]
    rows = [field for field in struct.fields if not _is_section(field.type)]
    if rows:
        lines += ["| key | type | default | what it is |", "|---|---|---|---|"]
        lines += [
            f"| `{field.encode_name}` | {_type_text(field.type)} | {_default_text(field)} "
            f"| {_cell(comments.get(field.encode_name, ''))} |"
            for field in rows
        ]
        lines.append("")
    return lines


def _is_section(kind: kinds.Type) -> bool:
    return isinstance(kind, kinds.StructType) or (
        isinstance(kind, kinds.VarTupleType) and isinstance(kind.item_type, kinds.StructType)
    )


def _type_text(kind: kinds.Type) -> str:
    if isinstance(kind, kinds.IntType | kinds.FloatType):
        noun = "whole number" if isinstance(kind, kinds.IntType) else "number"
        bounds = [(">", kind.gt), ("≥", kind.ge), ("≤", kind.le)]
        return ", ".join([noun, *(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)])
    if isinstance(kind, kinds.LiteralType):
        return " or ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, kinds.VarTupleType):
        return (
            "array of strings"
            if isinstance(kind.item_type, kinds.StrType)
            else f"array of {_type_text(kind.item_type)}"
        )
    if isinstance(kind, kinds.DictType):
        return "table of strings"
    return "true or false" if isinstance(kind, kinds.BoolType) else "string"


def _default_text(field: kinds.Field) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return f"`{msgspec.json.encode(value).decode()}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@cache
def _comments() -> dict[str, dict[str, str]]:
    """Read the comment at the end of each field's line out of `knobs.py`: by class, then by field."""
    source = inspect.getsource(knobs)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return {
        node.name: {
            field.target.id: comments[field.end_lineno or 0]
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.end_lineno in comments
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def write_page(page: Path) -> None:
    """Put the tables between the two marks of the page."""
    head, begin, rest = page.read_text().partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"`{page}` lacks the marks between which the tables belong")
    page.write_text(f"{head}{begin}\n{render_reference()}\n{end}{tail}")
