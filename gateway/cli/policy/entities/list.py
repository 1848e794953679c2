"""`portcullis policy entities list`: all that the sources have, in the form that `import` reads."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gateway.cli.output import as_json_option, config_option
from gateway.cli.policy.entities.reading import line_of
from gateway.cli.policy.entities.sources import OpenSources, all_of, in_sources, load, written


@click.command("list")
@click.option("--source", "name", default="", metavar="NAME", help="Of this source alone.")
@click.option("--type", "kind", default="", metavar="TYPE", help="Of this type alone: User.")
@click.option("--uids", "only_uids", is_flag=True, help="Only the uids, one a line, as `remove -` reads them.")
@config_option
@as_json_option
def command(*, name: str, kind: str, only_uids: bool, file: Path | None, as_json: bool) -> None:
    """Show the entities of the sources, an array in Cedar's JSON, one entity a line.

    Without --source, of all sources but those over HTTP, whose owners list what they have. They come as they are read:
    a million of them are never in memory.
    """
    loaded = load(file, as_json)
    configured = loaded.config.policy.sources
    names = [name] if name else [each.name for each in configured if not each.url.startswith(("https:", "http:"))]
    opening, closing = ('{"ok": true, "entities": [', "]}") if as_json else ("[", "]")

    async def listing(sources: OpenSources) -> None:
        opened = [(written(sources.named(each)), sources.types_of(each)) for each in names]
        if kind:
            sources.of(kind)  # or there is none
        separator = "\n"
        if not only_uids or as_json:
            click.echo(opening, nl=False)
        for source, types in opened:
            async for page in all_of(source, types & {kind} if kind else types):
                for uid, body in page:
                    if only_uids and not as_json:
                        click.echo(str(uid))
                        continue
                    click.echo(separator + (json.dumps(str(uid)) if only_uids else line_of(uid, body)), nl=False)
                    separator = ",\n"
        if not only_uids or as_json:
            click.echo(("" if separator == "\n" else "\n") + closing)

    in_sources(loaded, listing, as_json)
