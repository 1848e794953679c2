"""What verbs share that read decision logs: which decision is meant, and by what it is decided again."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.cli.output import default_file, fail, fail_config

if TYPE_CHECKING:
    from gateway.config import PolicyConfig
    from gateway.policy.engine import Engine
    from gateway.policy.logged import LoggedDecision

F = TypeVar("F", bound=Callable[..., object])


def decision_options(command: F) -> F:
    """Add the options that name a logged decision."""
    for option in (
        click.option("--id", "decision_id", default="", metavar="ID", help="Which decision of --log."),
        click.option(
            "--log",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="A decision log; --id says which decision of it.",
        ),
        click.option(
            "--decision", default="", metavar="FILE|LINE", help="A logged decision: its line, or a file with it alone."
        ),
    ):
        command = option(command)
    return command


def logged_decision(decision: str, log: Path | None, decision_id: str, as_json: bool) -> LoggedDecision | None:
    """Give the decision that the options name, or None where they name none. Ends with what is wrong."""
    from gateway.policy.logged import UNREPEATABLE, Damaged, Unrepeatable, read_decision

    if bool(log) != bool(decision_id) or (decision and log):
        raise click.UsageError("name a decision by --decision, or by --log and --id")
    if not (decision or log):
        return None
    line = _find(log, decision_id, as_json) if log is not None else _single(decision, as_json)
    try:
        return read_decision(line)
    except Unrepeatable as reason:
        fail(f"the decision cannot be made again: {UNREPEATABLE[str(reason)]}", as_json)
    except Damaged as error:
        fail(f"no logged decision: {error}", as_json)


def lines_of(log: Path) -> Iterator[bytes]:
    """Give the lines of a log, `-` for standard input. Raises OSError."""
    from gateway.policy.logged import LINE_BYTES_MAX

    with contextlib.nullcontext(sys.stdin.buffer) if str(log) == "-" else log.open("rb") as file:
        # What is longer than a decision may be is read in pieces: each is damaged, and none fills the memory.
        while line := file.readline(LINE_BYTES_MAX + 1):
            yield line


def policy_config(file: Path | None, as_json: bool) -> PolicyConfig | None:
    """Give what a config says of policies; None where there is none. Ends with its faults."""
    from gateway.config import load_config
    from gateway.errors import ConfigError

    found = default_file(file)
    if found is None:
        return None
    try:
        return load_config(found, env=os.environ).config.policy
    except ConfigError as error:
        fail_config(error.faults, as_json)


def mark_sourced(engine: Engine, config: PolicyConfig | None, as_json: bool) -> None:
    """Have it noticed where a decision rests on entities that the config keeps in a source, and that are not here."""
    if config is None:
        return
    try:
        for source in config.sources:
            for kind in source.types:
                engine.store.source_type(kind)
    except ValueError as error:
        fail(f"policy.sources: {error}", as_json)


def path_of(text: str) -> Path | None:
    """Give a path of a config, or None where it has none."""
    return Path(text) if text else None


def _find(log: Path, decision_id: str, as_json: bool) -> bytes:
    """Give the line of this id; the newest, should there be several."""
    from gateway.policy.logged import Damaged, id_of

    found = None
    wanted = decision_id.encode()
    try:
        for line in lines_of(log):
            if wanted in line:  # most lines need no reading
                try:
                    if id_of(line) == decision_id:
                        found = line
                except Damaged:
                    continue
    except OSError as error:
        fail(f"`{log}`: {(error.strerror or 'cannot be read').lower()}", as_json)
    if found is None:
        fail(f"`{log}` has no decision `{decision_id}`", as_json)
    return found


def _single(decision: str, as_json: bool) -> bytes:
    """Give the line itself, or the only line of a file."""
    if decision.lstrip().startswith("{"):
        return decision.encode("utf-8", "surrogateescape")
    try:
        lines = [line for line in lines_of(Path(decision)) if not line.isspace()]
    except OSError as error:
        fail(f"`{decision}`: {(error.strerror or 'cannot be read').lower()}", as_json)
    if len(lines) != 1:
        fail(f"`{decision}` has {len(lines):,} lines: say which by --log and --id", as_json)
    return lines[0]
