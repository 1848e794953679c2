"""`portcullis tables`: of which revision the tables of stores are, forward and back; one verb a file."""

from __future__ import annotations

import click

from gateway.cli.verbs import Verbs

VERBS = {
    "show": "Show of which revision the tables of each database are.",
    "migrate": "Bring the tables forward, or back.",
}


@click.group(cls=Verbs, package=__name__, verbs=VERBS)
def tables() -> None:
    """Look after the tables of the databases that the config names: users, sessions, clients and tokens.

    A gateway brings them forward when it opens them; nobody needs these verbs for that.
    """
