"""Say in words where a tree of plain values does not fit a struct: every place, not only the first.

msgspec converts and judges; it stops at the first fault and knows no line. This walks the same types to explain.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from msgspec import NODEFAULT
from msgspec import inspect as kinds

from gateway.config.toml_lines import Path

_LATER = {
    "issuer": ("unknown section", "write `[[issuers]]`: there may be several"),
    "route": ("unknown section", "write `[[routes]]`: there may be several"),
}


@dataclass(frozen=True, slots=True)
class Misfit:
    """One place that does not fit, what is wrong there, and what to do about it."""

    path: Path
    problem: str
    hint: str = ""


def find_misfits(tree: Mapping[str, object], struct: type) -> Iterator[Misfit]:
    """Give every place of `tree` that does not fit `struct`, in the order of the tree."""
    return _struct_misfits(tree, _struct(struct), ())


def is_text(struct: type, path: Path) -> bool:
    """Tell whether a plain string is wanted at `path`."""
    kind: kinds.Type = _struct(struct)
    for part in path:
        if isinstance(kind, kinds.StructType):
            fields = {field.encode_name: field.type for field in kind.fields}
            if part not in fields:
                return False
            kind = fields[str(part)]
        elif isinstance(kind, kinds.VarTupleType):
            kind = kind.item_type
        elif isinstance(kind, kinds.DictType):
            kind = kind.value_type
        else:
            return False
    return isinstance(kind, kinds.StrType | kinds.LiteralType)


def key_text(path: Path) -> str:
    """Write a path as it is read: `routes[0].path`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def guess_text(name: str, known: Iterable[str]) -> str:
    """Return the hint for a name that nobody knows."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower().replace("-", "_"), [one.lower() for one in names], n=1, cutoff=0.6)
    if near:
        return f"did you mean `{next(one for one in names if one.lower() == near[0])}`?"
    return "known: " + ", ".join(f"`{one}`" for one in names)


def _struct(struct: type) -> kinds.StructType:
    found = kinds.type_info(struct)
    assert isinstance(found, kinds.StructType)
    return found


def _misfits(value: object, kind: kinds.Type, path: Path) -> Iterator[Misfit]:
    if isinstance(kind, kinds.StructType) and isinstance(value, dict):
        yield from _struct_misfits(value, kind, path)
    elif isinstance(kind, kinds.VarTupleType) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _misfits(item, kind.item_type, (*path, index))
    elif isinstance(kind, kinds.DictType) and isinstance(value, dict):
        for key, item in value.items():
            yield from _misfits(item, kind.value_type, (*path, key))
    elif isinstance(kind, kinds.LiteralType) and isinstance(value, str):
        if value not in kind.values:
            yield Misfit(path, f"unknown value `{value}`", guess_text(value, map(str, kind.values)))
    elif not _fits(value, kind):
        yield Misfit(path, f"expected {_wanted(kind)}, got {_given(value)}", _remedy(value, kind))


def _struct_misfits(tree: Mapping[str, object], kind: kinds.StructType, path: Path) -> Iterator[Misfit]:
    fields = {field.encode_name: field for field in kind.fields}
    for key, value in tree.items():
        if key in fields:
            yield from _misfits(value, fields[key].type, (*path, key))
        elif not path and key in _LATER:
            yield Misfit((key,), *_LATER[key])
        else:
            yield Misfit((*path, key), "unknown key" if path else "unknown section", guess_text(key, fields))
    for name, field in fields.items():
        if name not in tree and field.required and field.default is NODEFAULT:
            yield Misfit((*path, name), "missing", f"expected {_wanted(field.type)}")


def _fits(value: object, kind: kinds.Type) -> bool:
    if isinstance(kind, kinds.BoolType):
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if isinstance(kind, kinds.StrType):
        return isinstance(value, str)
    if isinstance(kind, kinds.IntType):
        return isinstance(value, int) and _in_bounds(value, kind)
    if isinstance(kind, kinds.FloatType):
        return isinstance(value, int | float) and math.isfinite(value) and _in_bounds(value, kind)
    return False


def _in_bounds(value: float, kind: kinds.IntType | kinds.FloatType) -> bool:
    return (
        (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
        and abs(value) < 2**53
    )


def _wanted(kind: kinds.Type) -> str:
    if isinstance(kind, kinds.IntType | kinds.FloatType):
        noun = "a whole number" if isinstance(kind, kinds.IntType) else "a number"
        bounds = [(">", kind.gt), ("≥", kind.ge), ("≤", kind.le)]
        limits = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)
        return f"{noun} {limits}".rstrip()
    if isinstance(kind, kinds.LiteralType):
        return "one of " + ", ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, kinds.VarTupleType):
        return "an array of tables" if isinstance(kind.item_type, kinds.StructType) else "an array of strings"
    if isinstance(kind, kinds.StrType):
        return "a string"
    return "true or false" if isinstance(kind, kinds.BoolType) else "a table"


def _given(value: object) -> str:
    """Name what stands there; numbers and truth values are shown, strings never: they may be secrets."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{value}`" if math.isfinite(value) and abs(value) < 1e18 else "a number out of bounds"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "an array"
    return "a table" if isinstance(value, dict) else "a date or time"


def _remedy(value: object, kind: kinds.Type) -> str:
    if (
        isinstance(kind, kinds.VarTupleType)
        and isinstance(kind.item_type, kinds.StructType)
        and isinstance(value, dict)
    ):
        return "write the header in double brackets: `[[…]]`"
    if isinstance(kind, kinds.VarTupleType) and isinstance(value, str):
        return 'write `["…"]`'
    if isinstance(kind, kinds.IntType | kinds.FloatType | kinds.BoolType) and isinstance(value, str):
        return "write it without quotes"
    if isinstance(kind, kinds.StrType) and isinstance(value, int | float):
        return "write it in quotes"
    return ""
