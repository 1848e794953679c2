"""`portcullis audit verify`: whether anything was changed, taken out or put in."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.audit.log import in_log
from gateway.cli.output import as_json_option, config_option, fail, mark, say, table

if TYPE_CHECKING:
    from gateway.stores.audit_log import AuditHead, AuditVerdict

PROGRESS_S = 0.2  # between two looks of people at how far it is


@click.command("verify")
@click.option(
    "--known",
    multiple=True,
    metavar="CHAIN:NUMBER:HASH",
    help="An end of a chain that you kept elsewhere: without one nobody can tell that the last entries are missing.",
)
@config_option
@as_json_option
def command(*, known: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Check every entry of every chain; exit 1 where one does not hold.

    Prints the end of each chain. Keep it where nobody who can write the log can, and hand it to the next check.
    """
    try:
        heads = [_head(text) for text in known]
    except ValueError:
        raise click.UsageError("`--known` is CHAIN:NUMBER:HASH, as `audit verify` prints it") from None
    with _progress() as told:
        verdict = in_log(file, lambda log: log.verify(heads, told), as_json)
    say(_document(verdict), as_json, lambda: _speak(verdict))
    if not verdict.whole:
        if not as_json:
            fail("the audit log does not hold", as_json)
        sys.exit(1)


def _head(text: str) -> AuditHead:
    from gateway.stores.audit_log import AuditHead

    chain, number, digest = text.split(":")
    if not chain or len(digest) != 64:
        raise ValueError(text)
    return AuditHead(chain, int(number), digest)


@contextmanager
def _progress() -> Iterator[Callable[[int], None] | None]:
    """Give what tells people how far it is, on a terminal only; wipe it out at the end."""
    if not sys.stderr.isatty():
        yield None
        return
    begun_s = told_s = time.monotonic()

    def tell(entries: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= PROGRESS_S:
            told_s = now_s
            rate = entries / (now_s - begun_s)
            click.echo(f"\r{entries:,} entries, {rate:,.0f} a second\x1b[K", err=True, nl=False)

    try:
        yield tell
    finally:
        if told_s != begun_s:
            click.echo("\r\x1b[K", err=True, nl=False)


def _document(verdict: AuditVerdict) -> dict[str, object]:
    return {
        "ok": verdict.whole,
        "entries": verdict.entries,
        "heads": [{"chain": each.chain, "number": each.number, "hash": each.hash} for each in verdict.heads],
        "faults": [{"chain": each.chain, "number": each.number, "problem": each.problem} for each in verdict.faults],
    }


def _speak(verdict: AuditVerdict) -> None:
    for fault in verdict.faults:
        click.echo(f"{mark(False)} {fault.chain}, entry {fault.number}: {fault.problem}", err=True)
    if verdict.heads:
        table(
            ("chain", "entries", "end"),
            [(head.chain, str(head.number), f"{head.chain}:{head.number}:{head.hash}") for head in verdict.heads],
        )
    if verdict.whole:
        click.echo(f"{mark(True)} {verdict.entries:,} entries in {len(verdict.heads)} chains hold")
