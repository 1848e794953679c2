"""`portcullis policy`: read, check, test, explain, format and compile policies; one verb a file."""

from __future__ import annotations

import importlib

import click

VERBS = {
    "check": "Read policies, schema and entities, and validate them.",
    "test": "Run tests of policies, with their coverage.",
    "explain": "Say why a request is allowed or denied.",
    "fmt": "Format policy files.",
    "compile": "Compile policies; show the bytecode, or keep it.",
}


class PolicyVerbs(click.Group):
    """The verbs, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"gateway.cli.policy.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=PolicyVerbs)
def policy() -> None:
    """Read, check, test, explain, format and compile Cedar policies."""
