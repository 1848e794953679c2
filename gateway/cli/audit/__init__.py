"""`portcullis audit`: what the audit log says, and whether it holds; one verb a file."""

from __future__ import annotations

import click

from gateway.cli.verbs import Verbs

VERBS = {
    "verify": "Check every entry of every chain.",
    "show": "Print entries.",
}


@click.group(cls=Verbs, package=__name__, verbs=VERBS)
def audit() -> None:
    """Read and check the audit log that the config names (`[audit]`), while the gateway runs or not."""
