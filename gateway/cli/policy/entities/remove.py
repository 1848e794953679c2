"""`portcullis policy entities remove`: entities that are nobody any more."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.output import as_json_option, config_option, mark, say
from gateway.cli.policy.entities.sources import OpenSources, in_sources, load, parse_uids, remove, written
from gateway.cli.policy.input import many


@click.command("remove")
@click.argument("uids", nargs=-1, required=True, metavar="UID...")
@config_option
@as_json_option
def command(uids: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Remove entities: User::"eve", or "-" for one a line from standard input.

    One that is not there is no fault. Others that name it as a parent, or in an attribute, still do.
    """
    loaded = load(file, as_json)
    found = parse_uids(uids, as_json)

    async def removing(sources: OpenSources) -> dict[str, str]:
        sorted_uids = sources.by_source(found)
        for source in sorted_uids:
            written(source)  # of all, before any is changed
        return {source.name: await remove(written(source), each) for source, each in sorted_uids.items()}

    revisions = in_sources(loaded, removing, as_json)
    document = {"ok": True, "removed": len(found), "revisions": revisions}
    say(document, as_json, lambda: click.echo(f"{mark(True)} removed {many(len(found), 'entity', 'entities')}"))
