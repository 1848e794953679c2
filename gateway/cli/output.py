"""How verbs speak: lines for people, one JSON document with `--json`; colour and tables on a terminal only."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from gateway.errors import ConfigFault

DEFAULT_FILE = Path("portcullis.toml")

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
config_option = click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Read this file; without it {DEFAULT_FILE}, where there is one.",
)


def default_file(file: Path | None) -> Path | None:
    """Return the config file that is meant, or None where there is none."""
    return file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def is_rich_terminal() -> bool:
    """Tell whether tables may be drawn: on a terminal, with colours allowed, and rich installed."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and importlib.util.find_spec("rich") is not None


def say(document: object, as_json: bool, speak: Callable[[], None]) -> None:
    """Print the document as JSON, or let `speak` tell it to people."""
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        speak()


def fail(message: str, as_json: bool, *, status: int = 1) -> NoReturn:
    """End with one fault."""
    if as_json:
        click.echo(json.dumps({"ok": False, "error": message}, indent=2))
    else:
        click.echo(f"{mark(False)} {message}", err=True)
    sys.exit(status)


def fail_config(faults: Iterable[ConfigFault], as_json: bool) -> NoReturn:
    """End with the faults of a config."""
    listed = list(faults)
    if as_json:
        click.echo(json.dumps({"ok": False, "faults": [fault_document(fault) for fault in listed]}, indent=2))
    else:
        for fault in listed:
            click.echo(f"{mark(False)} {fault}", err=True)
    sys.exit(1)


def fault_document(fault: ConfigFault) -> dict[str, object]:
    """Give a fault for `--json`."""
    return {"file": fault.file, "line": fault.line, "key": fault.key, "problem": fault.problem, "hint": fault.hint}


def mark(ok: bool | None) -> str:
    """Return ✓, ✗, or · for what was not looked at, coloured where colours show."""
    if ok is None:
        return "·"
    return click.style("✓", fg="green") if ok else click.style("✗", fg="red")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns: drawn by rich on a terminal, aligned by spaces elsewhere."""
    if is_rich_terminal():
        from rich.console import Console
        from rich.table import Table

        drawn = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            drawn.add_row(*row)
        Console(markup=False).print(drawn)
        return
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
