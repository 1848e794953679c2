"""`portcullis relation list`: what is in the store, in the form that `relation add -` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, fail, say
from gateway.cli.relation.store import document_of, in_store, load, read_all

if TYPE_CHECKING:
    from gateway.stores.relations import Relation, Subject


@click.command("list")
@click.option("--object", "target", default="", metavar="UID", help='Of this object alone: Doc::"1".')
@click.option("--relation", "name", default="", metavar="NAME", help="Of this relation alone: viewers.")
@click.option("--subject", default="", metavar="SUBJECT", help='Of this subject alone: User::"eve", Team::"a"#members.')
@config_option
@as_json_option
def command(*, target: str, name: str, subject: str, file: Path | None, as_json: bool) -> None:
    """List the relations in the store, in order; what has expired is left out.

    These are what was written. Who stands in a relation over others is what `relation check` tells.
    """
    from gateway.policy.relation_text import parse_subject, relation_to_text

    loaded = load(file, as_json)
    try:
        wanted = parse_subject(target) if target else None, name, parse_subject(subject) if subject else None
    except ValueError as error:
        fail(str(error), as_json)
    found = [each for each in in_store(loaded, read_all, as_json) if _fits(each, *wanted)]
    found.sort(key=str)
    document = {"ok": True, "relations": [document_of(each) for each in found]}
    say(document, as_json, lambda: click.echo("".join(f"{relation_to_text(each)}\n" for each in found), nl=False))


def _fits(relation: Relation, target: Subject | None, name: str, subject: Subject | None) -> bool:
    return (
        (target is None or relation.object == target)
        and (not name or relation.relation == name)
        and (subject is None or relation.subject == subject)
    )
