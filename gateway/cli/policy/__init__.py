"""`portcullis policy`: read, check, test, explain, format, compile and replay policies; one verb a file."""

from __future__ import annotations

import click

from gateway.cli.verbs import Verbs

VERBS = {
    "check": "Read policies, schema and entities, and validate them.",
    "test": "Run tests of policies, with their coverage.",
    "explain": "Say why a request is allowed or denied.",
    "fmt": "Format policy files.",
    "compile": "Compile policies; show the bytecode, or keep it.",
    "replay": "Decide a decision log again by other policies, and show what differs.",
    "entities": "Write and show entities in the sources of the config.",
}


@click.group(cls=Verbs, package=__name__, verbs=VERBS)
def policy() -> None:
    """Read, check, test, explain, format, compile and replay Cedar policies."""
