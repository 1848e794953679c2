"""A Cedar request made from a request to a route: templates such as `Order::"{id}"` and where their holes are filled.

| hole               | filled with                                                         |
|--------------------|---------------------------------------------------------------------|
| `{name}`           | a parameter of the route's path, decoded                            |
| `{request.method}` | of the judged request; also `.host`, `.path`, `.scheme`             |
| `{header.x-name}`  | a header of the judged request                                      |
| `{query.name}`     | a parameter of the query, decoded; twice the same is no value       |
| `{claim.name}`     | a claim of the token: text, whole number or truth value; `a.b` is   |
|                    | the claim of that very name, else member `b` of the claim `a`       |

`{{` and `}}` stand for the braces themselves. A hole that cannot be filled makes no entity (the request is denied) and
no context attribute (policies ask with `has`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, get_args

PieceKind = Literal["text", "parameter", "request", "header", "query", "claim"]
RequestPart = Literal["method", "host", "path", "scheme"]

REQUEST_PARTS: Final = frozenset(get_args(RequestPart))
PIECES_MAX = 16  # of one template
CLAIM_NAME_CHARACTERS_MAX = 256

_TYPE = r"[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*"
_ENTITY = re.compile(rf'\s*({_TYPE})\s*::\s*"((?:[^"\\]|\\.)*)"\s*', re.DOTALL)
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'"}
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")


class TemplateError(ValueError):
    """A template that is none: `problem` says what is wrong, `hint` what to do."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a template: `text` as it is, or the name of what fills a hole."""

    kind: PieceKind
    value: str


@dataclass(frozen=True, slots=True)
class EntityTemplate:
    """`Type::"pieces"`."""

    type: str
    pieces: tuple[Piece, ...]

    @property
    def constant_id(self) -> str | None:
        """The id, where no hole is in it."""
        if any(piece.kind != "text" for piece in self.pieces):
            return None
        return "".join(piece.value for piece in self.pieces)


def parse_entity_template(text: str, parameters: Collection[str]) -> EntityTemplate:
    """Read `Type::"id with {holes}"`; `parameters` are those of the route's path. Raises TemplateError."""
    found = _ENTITY.fullmatch(text)
    if found is None:
        raise TemplateError(f"`{text}` is no entity", 'write it as Type::"id", for example Order::"{id}"')
    return EntityTemplate(found[1], parse_pieces(_unescaped(found[2]), parameters))


def parse_pieces(text: str, parameters: Collection[str]) -> tuple[Piece, ...]:
    """Split a text at its holes. Raises TemplateError for one that nothing could fill."""
    pieces: list[Piece] = []
    for match in _PIECE.finditer(text):
        token = match[0]
        if token in ("{{", "}}"):
            _add_text(pieces, token[0])
        elif token in ("{", "}"):
            raise TemplateError(f"`{text}` has a brace without its partner", "write {{ or }} for a brace itself")
        elif token[0] == "{":
            pieces.append(_hole(match[1].strip(), parameters))
        else:
            _add_text(pieces, token)
    if len(pieces) > PIECES_MAX:
        raise TemplateError(f"`{text}` has more than {PIECES_MAX} pieces")
    return tuple(pieces)


def claims_in(text: str) -> frozenset[str]:
    """Give the claims that a template takes, also where the rest of it is wrong."""
    found = set()
    for match in _PIECE.finditer(text):
        kind, dot, rest = (match[1] or "").strip().partition(".")
        if kind == "claim" and dot and is_claim_name(rest):
            found.add(rest)
    return frozenset(found)


def is_claim_name(name: str) -> bool:
    """Tell whether a claim can be named so: printable, no longer than CLAIM_NAME_CHARACTERS_MAX."""
    return 0 < len(name) <= CLAIM_NAME_CHARACTERS_MAX and name.isprintable() and not name.isspace()


def _add_text(pieces: list[Piece], text: str) -> None:
    if pieces and pieces[-1].kind == "text":
        text = pieces.pop().value + text
    pieces.append(Piece("text", text))


def _hole(name: str, parameters: Collection[str]) -> Piece:
    kind, dot, rest = name.partition(".")
    if not dot:
        if name in parameters:
            return Piece("parameter", name)
        known = ", ".join(sorted(parameters)) or "none"
        raise TemplateError(
            f"nothing fills `{{{name}}}`",
            f"parameters of this path: {known}; others: request., header., query., claim.",
        )
    if kind == "request" and rest in REQUEST_PARTS:
        return Piece("request", rest)
    if kind == "header" and _HEADER_NAME.fullmatch(rest):
        return Piece("header", rest.lower())
    if kind == "query" and rest:
        return Piece("query", rest)
    if kind == "claim" and is_claim_name(rest):
        return Piece("claim", rest)
    parts = ", ".join(sorted(REQUEST_PARTS))
    raise TemplateError(
        f"nothing fills `{{{name}}}`",
        f"holes are {{parameter}}, {{request.…}} ({parts}), {{header.…}}, {{query.…}}, {{claim.…}}",
    )


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        escaped = _ESCAPES.get(match[1])
        if escaped is None:
            raise TemplateError(f"`\\{match[1]}` is no escape", r"escapes are \" \\ \n \r \t \0")
        return escaped

    return re.sub(r"\\(.)", one, text, flags=re.DOTALL)
