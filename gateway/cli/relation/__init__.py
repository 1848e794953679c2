"""`portcullis relation`: who stands in which relation to what, in the config's store; one verb a file."""

from __future__ import annotations

import click

from gateway.cli.verbs import Verbs

VERBS = {
    "add": "Add relations, or change until when they hold.",
    "remove": "Remove relations.",
    "list": "List the relations in the store.",
    "check": "Say whether somebody stands in a relation, and why.",
}


@click.group(cls=Verbs, package=__name__, verbs=VERBS)
def relation() -> None:
    """Add, remove, list and check relations in the store that the config names (`[policy.relations]`).

    A relation is written Doc::"1"#viewers@User::"eve", or Doc::"1"#viewers@Team::"eng"#members for all who stand in
    another one.
    """
