"""`portcullis user`: the people who log in, in the config's directory; one verb a file."""

from __future__ import annotations

import click

from gateway.cli.verbs import Verbs

VERBS = {
    "add": "Add a user.",
    "list": "List users.",
    "disable": "Let a user in no more, and end what they have.",
    "enable": "Let a user in again.",
    "passwd": "Set a user's password.",
    "reset": "Print a link by which a user sets a new password, once.",
    "leaked": "Make the list of leaked passwords that new ones are held against.",
}


@click.group(cls=Verbs, package=__name__, verbs=VERBS)
def user() -> None:
    """Add, list, disable and enable users in the directory that the config names (`[directory]`).

    Running gateways see each change with the next request.
    """
