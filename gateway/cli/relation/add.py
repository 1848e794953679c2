"""`portcullis relation add`: somebody stands in a relation from now on, at every worker and gateway."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import click

from gateway.cli.output import as_json_option, config_option, fail, mark, say
from gateway.cli.policy.input import fail_policy, many
from gateway.cli.relation.store import given, in_store, load, relations_argument, rules_of, write


@click.command("add")
@relations_argument
@click.option("--for", "lifetime_s", type=click.IntRange(1), metavar="SECONDS", help="They end so long from now.")
@config_option
@as_json_option
def command(relations: tuple[str, ...], lifetime_s: int | None, file: Path | None, as_json: bool) -> None:
    """Add relations: all or none up to 1,000, after each was checked against the schema.

    RELATION is Doc::"1"#viewers@User::"eve", or Doc::"1"#viewers@Team::"eng"#members for all members of a team, and
    may end in ` until 2026-12-31T00:00:00Z`; "-" reads one a line from standard input. One that is there already is
    given its new end.
    """
    from gateway.policy.faults import PolicyFault

    loaded = load(file, as_json)
    try:
        found, rules = given(relations), rules_of(loaded)
    except ValueError as error:
        fail(str(error), as_json)
    except PolicyFault as error:
        fail_policy(error, as_json)
    wrong = []
    for relation in found:
        try:
            rules.check(relation)
        except ValueError as error:
            wrong.append(f"`{relation}`: {error}")
    if wrong:
        fail("\n".join(wrong), as_json)
    if lifetime_s is not None:
        found = [replace(relation, expires_at_s=int(time.time()) + lifetime_s) for relation in found]
    revision = in_store(loaded, lambda store: write(store, found, []), as_json)
    document = {"ok": True, "added": len(found), "revision": revision}
    say(document, as_json, lambda: click.echo(f"{mark(True)} added {many(len(found), 'relation')}: {revision}"))
