"""`portcullis policy entities`: what the config's sources know of entities; one verb a file."""

from __future__ import annotations

import click

from gateway.cli.verbs import Verbs

VERBS = {
    "put": "Write some entities, in place of what was there.",
    "remove": "Remove entities.",
    "get": "Show entities as their sources have them.",
    "list": "Show all entities of the sources.",
    "import": "Write many entities from a file, and remove others if told so.",
}


@click.group("entities", cls=Verbs, package=__name__, verbs=VERBS)
def command() -> None:
    """Write, remove and show entities in the sources that the config names (`[[policy.sources]]`).

    Entities are Cedar's JSON: {"uid": {"type": "User", "id": "eve"}, "attrs": {…}, "parents": [{"type": …, "id": …}]}.
    Running gateways follow within a quarter of a second. A source over HTTP is written by its owner alone.
    """
