"""`portcullis policy entities get`: entities as their sources have them now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, mark, say
from gateway.cli.policy.entities.reading import document_of, line_of
from gateway.cli.policy.entities.sources import PAGE, OpenSources, in_sources, load, parse_uids

if TYPE_CHECKING:
    from gateway._native.uid import EntityUid


@click.command("get")
@click.argument("uids", nargs=-1, required=True, metavar="UID...")
@config_option
@as_json_option
def command(uids: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Show entities, in Cedar's JSON, one a line: User::"eve", or "-" for uids from standard input.

    Ends with status 1 where one is not there.
    """
    loaded = load(file, as_json)
    wanted = parse_uids(uids, as_json)

    async def reading(sources: OpenSources) -> dict[EntityUid, bytes]:
        found: dict[EntityUid, bytes] = {}
        for source, each in sources.by_source(wanted).items():
            for first in range(0, len(each), PAGE):
                found.update((await source.read(each[first : first + PAGE])).found)
        return {uid: found[uid] for uid in wanted if uid in found}

    found = in_sources(loaded, reading, as_json)
    missing = [str(uid) for uid in wanted if uid not in found]
    document = {
        "ok": not missing,
        "entities": [document_of(uid, body) for uid, body in found.items()] if as_json else [],
        "missing": missing,
    }

    def speak() -> None:
        for uid, body in found.items():
            click.echo(line_of(uid, body))
        for name in missing:
            click.echo(f"{mark(False)} `{name}` is not there", err=True)

    say(document, as_json, speak)
    sys.exit(1 if missing else 0)
