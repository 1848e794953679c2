"""`portcullis policy entities put`: a few entities, in place of what was there."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from gateway.cli.output import as_json_option, config_option, mark, say
from gateway.cli.policy.entities.reading import file_argument, read_file
from gateway.cli.policy.entities.sources import OpenSources, in_sources, load, written
from gateway.cli.policy.input import many
from gateway.stores.rows import CHANGES_MAX

if TYPE_CHECKING:
    from gateway.cli.policy.entities.sources import Body


@click.command("put")
@file_argument
@config_option
@as_json_option
def command(entities: BinaryIO, file: Path | None, as_json: bool) -> None:
    """Write the entities of FILE, an array in Cedar's JSON ("-": standard input), each in place of what it was.

    They are checked against the schema of the config's policies. Those of one source are written all at once, or none;
    1,000 at most: `import` takes more.
    """
    loaded = load(file, as_json)
    found, count = read_file(loaded, entities.read(), as_json)

    async def put(sources: OpenSources) -> dict[str, str]:
        bodies: dict[str, list[Body]] = defaultdict(list)
        for uid, body in found.bodies():
            bodies[written(sources.of(uid.type)).name].append((uid, body))
        if any(len(each) > CHANGES_MAX for each in bodies.values()):
            raise ValueError(f"more than {CHANGES_MAX:,} entities of one source; `import` takes them in steps")
        return {name: await written(sources.named(name)).write(each) for name, each in bodies.items()}

    revisions = in_sources(loaded, put, as_json)
    document = {"ok": True, "written": count, "revisions": revisions}
    say(document, as_json, lambda: click.echo(f"{mark(True)} wrote {many(count, 'entity', 'entities')}"))
