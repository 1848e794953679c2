"""SCIM's filters and PATCH over plain dictionaries, written from RFC 7644 alone: what ours is held to."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

EXACT = {"id", "externalId"}  # compared with regard to case


@dataclass(frozen=True)
class Compares:
    """`path operator value`; `path` may have one dot."""

    path: str
    operator: str
    value: str | bool | None = None

    def __str__(self) -> str:
        if self.operator == "pr":
            return f"{self.path} pr"
        if isinstance(self.value, bool):
            return f"{self.path} {self.operator} {'true' if self.value else 'false'}"
        return f'{self.path} {self.operator} "{self.value}"'


@dataclass(frozen=True)
class Both:
    """`left word right`, where `word` is `and` or `or`."""

    word: str
    left: Any
    right: Any

    def __str__(self) -> str:
        return f"({self.left}) {self.word} ({self.right})"


@dataclass(frozen=True)
class Negated:
    """`not (inner)`."""

    inner: Any

    def __str__(self) -> str:
        return f"not ({self.inner})"


@dataclass(frozen=True)
class Within:
    """`path[inner]`: one entry for which all of `inner` holds."""

    path: str
    inner: Any

    def __str__(self) -> str:
        return f"{self.path}[{self.inner}]"


def matches(resource: dict[str, Any], tree: Any) -> bool:
    """Tell whether a filter holds for a resource (RFC 7644 §3.4.2.2)."""
    if isinstance(tree, Both):
        left, right = matches(resource, tree.left), matches(resource, tree.right)
        return (left and right) if tree.word == "and" else (left or right)
    if isinstance(tree, Negated):
        return not matches(resource, tree.inner)
    if isinstance(tree, Within):
        return any(matches(entry, tree.inner) for entry in resource.get(tree.path, []))
    return _tested(resource, tree)


def _tested(resource: dict[str, Any], test: Compares) -> bool:
    name, _, part = test.path.partition(".")
    found = resource.get(name)
    if isinstance(found, dict) and not part:
        return test.operator == "pr" and bool(found)  # a complex attribute has no value to compare
    values: list[Any] = found if isinstance(found, list) else [found]
    if values and isinstance(values[0], dict):
        values = [entry.get(part or "value") for entry in values]
    values = [value for value in values if value not in (None, "")]
    if test.operator == "pr":
        return bool(values)
    return any(_compared(name, value, test) for value in values)


def _compared(name: str, value: Any, test: Compares) -> bool:
    if isinstance(value, bool) or isinstance(test.value, bool):
        return value is test.value
    left, right = str(value), str(test.value)
    if name not in EXACT:
        left, right = _folded(left), _folded(right)
    return {
        "eq": left == right,
        "co": right in left,
        "sw": left.startswith(right),
        "ew": left.endswith(right),
        "gt": left > right,
        "ge": left >= right,
        "lt": left < right,
        "le": left <= right,
    }[test.operator]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def patched(resource: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply operations to plain attributes and to `emails` (RFC 7644 §3.5.2)."""
    made = {name: list(value) if isinstance(value, list) else value for name, value in resource.items()}
    for operation in operations:
        _apply(made, operation["op"], operation["path"], operation.get("value"))
    return {name: value for name, value in made.items() if value not in (None, [])}


def _apply(made: dict[str, Any], op: str, path: str, value: Any) -> None:
    if path.startswith("emails["):
        wanted = path.partition('"')[2].rpartition('"')[0]
        made["emails"] = [each for each in made.get("emails", []) if _folded(each["value"]) != _folded(wanted)]
    elif op == "remove":
        made.pop(path, None)
    elif path == "emails" and op == "add":
        there = made.setdefault("emails", [])
        there.extend(dict(each) for each in value if each not in there)
    else:
        made[path] = [dict(each) for each in value] if isinstance(value, list) else value
