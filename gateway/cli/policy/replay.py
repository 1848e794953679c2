"""`portcullis policy replay`: what other policies would have said to everything in a decision log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.cli.output import as_json_option, config_option, fail, mark, say, table
from gateway.cli.policy.input import entities_option, fail_policy, many, read, schema_option
from gateway.cli.policy.logged import lines_of, mark_sourced, path_of, policy_config
from gateway.cli.policy.relations import fill_relations, relations_option

if TYPE_CHECKING:
    from gateway.config import PolicyConfig
    from gateway.policy.folder import PolicyFolder
    from gateway.policy.replay import Differences, Kind, Report

PROGRESS_S: Final = 1.0  # between two looks of people at how far it is


@click.command("replay")
@click.argument("log", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--policies",
    type=click.Path(path_type=Path, exists=True),
    help="The policies that decide now: a folder, or a file [the config's].",
)
@schema_option
@entities_option
@relations_option
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Rows of differences.")
@config_option
@as_json_option
def command(
    *,
    log: Path,
    policies: Path | None,
    schema: Path | None,
    entities: Path | None,
    relations: str,
    limit: int,
    file: Path | None,
    as_json: bool,
) -> None:
    """Decide all that is in the decision log LOG again, and show by user and route what comes out otherwise.

    Entities, relations, and a schema where none lies beside the policies, are those of the options, else of the config.
    `-` reads standard input. Exit status 1 where something differs, or where lines are damaged.
    """
    from gateway.policy.engine import Engine
    from gateway.policy.faults import PolicyFault
    from gateway.policy.replay import replay

    config = policy_config(file, as_json)
    folder, path = _read(config, policies, schema, entities, as_json)
    fill_relations(folder, path, relations, file, as_json)
    try:
        engine = Engine(folder.policies, folder.entities, folder.schema)
    except PolicyFault as error:
        fail_policy(error, as_json)
    mark_sourced(engine, config, as_json)
    started_s = time.monotonic()
    try:
        with _progress(log) as told:
            report = replay(engine, lines_of(log), told)
    except OSError as error:
        fail(f"`{log}`: {(error.strerror or 'cannot be read').lower()}", as_json)
    elapsed_s = time.monotonic() - started_s
    shown = report.ordered[:limit]
    say(_document(report, shown, folder.digest, elapsed_s), as_json, lambda: _speak(report, shown, elapsed_s))
    if report.different or report.damaged:
        sys.exit(1)


def _read(
    config: PolicyConfig | None, policies: Path | None, schema: Path | None, entities: Path | None, as_json: bool
) -> tuple[PolicyFolder, Path]:
    """Read what decides now, and say for which policies the config's relations count."""
    from gateway.policy.policy_files import has_schema

    if policies is None and (config is None or not config.path):
        raise click.UsageError("say which policies decide: --policies, or a config with `policy.path`")
    own = None if config is None else path_of(config.path)
    path = policies or own
    assert path is not None
    if config is not None and own is not None:
        entities = entities or path_of(config.entities)
        if schema is None and not has_schema(path):
            schema = path_of(config.schema) or (own if own != path and has_schema(own) else None)
    return read(path, schema, entities, as_json), own or path


@contextmanager
def _progress(log: Path) -> Iterator[Callable[[Report], None] | None]:
    """Give what tells people how far a replay is, on a terminal only; wipe it out at the end."""
    if not _is_watched():
        yield None
        return
    begun_s = time.monotonic()
    told_s = begun_s

    def tell(report: Report) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= PROGRESS_S:
            told_s = now_s
            rate = report.lines / (now_s - begun_s)
            click.echo(
                f"\r{log}: {report.lines:,} lines, {rate:,.0f} a second, {report.different:,} differ\x1b[K",
                err=True,
                nl=False,
            )

    try:
        yield tell
    finally:
        if told_s != begun_s:
            click.echo("\r\x1b[K", err=True, nl=False)


def _is_watched() -> bool:
    return sys.stderr.isatty()


def _speak(report: Report, shown: Iterable[tuple[Kind, Differences]], elapsed_s: float) -> None:
    from gateway.policy.logged import UNREPEATABLE

    rows = [
        (
            str(kind.principal),
            kind.place,
            str(kind.action),
            "allow → deny" if kind.was_allowed else "deny → allow",
            f"{found.count:,}",
            str(found.examples[0].resource),
            found.examples[0].id,
            _why(found),
        )
        for kind, found in shown
    ]
    if rows:
        table(("user", "route", "action", "change", "times", "for example", "id", "by"), rows)
        click.echo("")
    left = len(report.kinds) - len(rows)
    if left > 0 or report.kinds_left_out:
        click.echo(f"· {many(left, 'more kind')} of difference (--limit shows them)")
    for number, wrong in report.damaged_named:
        click.echo(f"{mark(False)} line {number:,}: {wrong}", err=True)
    unnamed = report.damaged - len(report.damaged_named)
    if unnamed:
        click.echo(f"{mark(False)} {many(unnamed, 'more damaged line')}", err=True)
    for word, count in sorted(report.unrepeatable.items()):
        click.echo(f"· {many(count, 'decision')} not made again: {UNREPEATABLE[word]}")
    rate = report.lines / elapsed_s if elapsed_s else 0.0
    compared = report.same + report.different
    click.echo(
        f"{mark(not report.different and not report.damaged)} {report.different:,} of "
        f"{compared:,} {'decision differs' if compared == 1 else 'decisions differ'}: {report.allows_now:,} would be "
        f"allowed, {report.different - report.allows_now:,} denied "
        f"({report.lines:,} {'line' if report.lines == 1 else 'lines'}, {rate:,.0f} a second)"
    )


def _why(found: Differences) -> str:
    """Give the policies that make the difference: those that decide now, else those that decided then."""
    example = found.examples[0]
    if example.faults_now:
        return ", ".join(example.faults_now)
    if example.policies_now:
        return ", ".join(example.policies_now)
    if example.errors_now:
        return f"{', '.join(example.errors_now)} cannot be evaluated"
    return f"no longer {', '.join(example.policies_then)}" if example.policies_then else ""


def _document(
    report: Report, shown: Iterable[tuple[Kind, Differences]], digest: str, elapsed_s: float
) -> dict[str, object]:
    return {
        "ok": not report.different and not report.damaged,
        "lines": report.lines,
        "same": report.same,
        "different": report.different,
        "allowed_now": report.allows_now,
        "denied_now": report.different - report.allows_now,
        "seconds": round(elapsed_s, 3),
        "digest": digest,
        "digests_then": sorted(report.digests),
        "not_made_again": dict(report.unrepeatable),
        "damaged": report.damaged,
        "damaged_lines": [{"line": number, "problem": wrong} for number, wrong in report.damaged_named],
        "kinds": len(report.kinds),
        "differences": [
            {
                "principal": str(kind.principal),
                "place": kind.place,
                "action": str(kind.action),
                "then": "allow" if kind.was_allowed else "deny",
                "now": "deny" if kind.was_allowed else "allow",
                "times": found.count,
                "examples": [
                    {
                        "line": each.line,
                        "id": each.id,
                        "resource": str(each.resource),
                        "policies_then": list(each.policies_then),
                        "policies_now": list(each.policies_now),
                        "errors_now": list(each.errors_now),
                        "faults_now": list(each.faults_now),
                    }
                    for each in found.examples
                ],
            }
            for kind, found in shown
        ],
    }
