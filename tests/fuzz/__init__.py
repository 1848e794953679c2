"""Fuzz targets, one for each parser that reads what a stranger sent; `run.py` runs them (`make fuzz`).

A target is a module `fuzz_NAME.py` with

- `seeds()`: texts to begin with, made by code;
- `target(data)`: feed `data` to the compiled module, raise AssertionError where an invariant or the oracle disagrees,
  and return a small hashable outcome. Without coverage the outcome is what tells interesting inputs from the rest;
- `WORDS`: byte strings of the grammar that a mutation should try;
- `LENGTH_MAX`: where inputs end.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...]
    length_max: int


def names() -> list[str]:
    """Name the targets that are there."""
    return sorted(path.stem.removeprefix("fuzz_") for path in FOLDER.glob("fuzz_*.py"))


def load(name: str) -> Target:
    module = importlib.import_module(f"tests.fuzz.fuzz_{name}")
    return Target(name, module.target, module.seeds, module.WORDS, module.LENGTH_MAX)
