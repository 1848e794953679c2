"""Tables for people and JSON for programs, both made from the same rows."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

Cell = str | float | int | None


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or cell >= 1000:
        return f"{cell:,.0f}"
    if cell >= 100:
        return f"{cell:.0f}"
    return f"{cell:.1f}" if cell >= 10 else f"{cell:.2f}" if cell >= 1 else f"{cell:.3f}"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table: the first column to the left, all others to the right."""
    shown = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(columns), *shown]) for index in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))])

    print(f"\n{title}\n{line(columns)}\n{'─' * (sum(widths) + 2 * (len(widths) - 1))}")
    for row in shown:
        print(line(row).rstrip())
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is not printed yet."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def print(self) -> None:
        print_table(self.title, self.columns, self.rows)


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a run found: tables for people, figures by the names that bars ask for, all of it for JSON."""

    tables: Sequence[Table] = ()
    bars: Mapping[Any, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)


def save(kind: str, result: dict[str, object], path: Path | None = None) -> Path:
    """Write a result as JSON: to `path`, or into bench/results under its kind and the time."""
    target = path or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}-{kind}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return target


class Progress:
    """Says on standard error what is being measured: one line that changes on a terminal, plain lines elsewhere."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._terminal = sys.stderr.isatty()
        self._started_s = time.monotonic()

    def step(self, what: str) -> None:
        """Begin the next step."""
        self._done += 1
        elapsed_s = time.monotonic() - self._started_s
        left = ""
        if self._done > 1:
            left_s = elapsed_s / (self._done - 1) * (self._steps - self._done + 1)
            left = f", about {left_s / 60:.0f} min left" if left_s > 90 else f", about {left_s:.0f} s left"
        text = f"[{self._done}/{self._steps}{left}] {what}"
        if self._terminal:
            sys.stderr.write(f"\r\x1b[2K{text}")
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._terminal:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
