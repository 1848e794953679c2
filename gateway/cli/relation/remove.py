"""`portcullis relation remove`: somebody stands in a relation no more, at every worker and gateway."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.output import as_json_option, config_option, fail, mark, say
from gateway.cli.policy.input import many
from gateway.cli.relation.store import given, in_store, load, relations_argument, write


@click.command("remove")
@relations_argument
@config_option
@as_json_option
def command(relations: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Remove relations: all or none up to 1,000; those that are not there are no fault.

    RELATION is written as for `relation add`; "-" reads one a line from standard input. What the schema has no place
    for any more can be removed too.
    """
    loaded = load(file, as_json)
    try:
        found = given(relations)
    except ValueError as error:
        fail(str(error), as_json)
    revision = in_store(loaded, lambda store: write(store, [], found), as_json)
    document = {"ok": True, "removed": len(found), "revision": revision}
    say(document, as_json, lambda: click.echo(f"{mark(True)} removed {many(len(found), 'relation')}: {revision}"))
