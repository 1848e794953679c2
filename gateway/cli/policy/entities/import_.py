"""`portcullis policy entities import`: many entities from a file, in steps that no other writer waits long for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from gateway.cli.output import as_json_option, config_option, mark, say
from gateway.cli.policy.entities.reading import EntityFile, file_argument, read_file
from gateway.cli.policy.entities.sources import PAGE, OpenSources, all_of, in_sources, load, remove, written
from gateway.cli.policy.input import many
from gateway.errors import StoreUnavailable

if TYPE_CHECKING:
    from gateway._native.uid import EntityUid
    from gateway.cli.policy.entities.sources import Body

STEP_BYTES = 1024 * 1024  # of the bodies written at once


@click.command("import")
@file_argument
@click.option("--replace", is_flag=True, help="Then remove what FILE has not, of the types that it has.")
@config_option
@as_json_option
def command(*, entities: BinaryIO, replace: bool, file: Path | None, as_json: bool) -> None:
    """Write the entities of FILE, an array in Cedar's JSON ("-": standard input), each in place of what it was.

    All are checked against the schema of the config's policies before the first is written; then they are written in
    steps. Where a step fails, those before it stay: to import the same again is harmless.
    """
    loaded = load(file, as_json)
    found, count = read_file(loaded, entities.read(), as_json)
    progress = Progress(count, shown=not as_json and sys.stderr.isatty())

    async def importing(sources: OpenSources) -> int:
        try:
            seen = await _write(sources, found, progress, keep_uids=replace)
        except StoreUnavailable as error:
            raise StoreUnavailable(f"{progress.done:,} of {count:,} were written: {error}") from error
        finally:
            progress.end()
        return await _remove_others(sources, seen) if replace else 0

    removed = in_sources(loaded, importing, as_json)
    document = {"ok": True, "written": count, "removed": removed}
    told = f"wrote {many(count, 'entity', 'entities')}" + (f", removed {removed:,}" if replace else "")
    say(document, as_json, lambda: click.echo(f"{mark(True)} {told}"))


class Progress:
    """How many are written, on the terminal while it goes on."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self.done = 0
        self._total = total
        self._shown = shown

    def add(self, count: int) -> None:
        self.done += count
        if self._shown:
            share = 100 * self.done // max(1, self._total)
            click.echo(f"\r{self.done:,} of {self._total:,} entities ({share} %)", err=True, nl=False)

    def end(self) -> None:
        if self._shown:
            click.echo(err=True)


async def _write(
    sources: OpenSources, found: EntityFile, progress: Progress, *, keep_uids: bool
) -> dict[str, set[EntityUid]]:
    """Write all; give their uids by type, if they are wanted."""
    seen: dict[str, set[EntityUid]] = {}
    for step in steps(found.bodies()):
        by_source: dict[str, list[Body]] = {}
        for uid, body in step:
            by_source.setdefault(sources.of(uid.type).name, []).append((uid, body))
            if keep_uids:
                seen.setdefault(uid.type, set()).add(uid)
        for name, bodies in by_source.items():
            await written(sources.named(name)).write(bodies)
            progress.add(len(bodies))
    return seen


async def _remove_others(sources: OpenSources, seen: dict[str, set[EntityUid]]) -> int:
    """Remove, of the types in `seen`, what is not in it; give how many that were."""
    count = 0
    for kind, uids in seen.items():
        source = written(sources.of(kind))
        others = [uid async for page in all_of(source, frozenset((kind,))) for uid, _ in page if uid not in uids]
        await remove(source, others)
        count += len(others)
    return count


def steps(bodies: Iterable[Body]) -> Iterable[list[Body]]:
    """Divide entities into what is written at once: PAGE of them at most, and STEP_BYTES unless one alone is more."""
    step: list[Body] = []
    size_bytes = 0
    for uid, body in bodies:
        if step and (len(step) == PAGE or size_bytes + len(body) > STEP_BYTES):
            yield step
            step, size_bytes = [], 0
        step.append((uid, body))
        size_bytes += len(body)
    if step:
        yield step
