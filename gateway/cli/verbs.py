"""Verbs below a noun: `portcullis policy check`, `portcullis relation add`. Each is imported when it is called."""

from __future__ import annotations

import importlib
import keyword
from collections.abc import Mapping
from typing import Any

import click


class Verbs(click.Group):
    """A group whose verb `x` is the object `command` of the module `PACKAGE.x`, `PACKAGE.x_` for a word of Python."""

    def __init__(self, *args: Any, package: str, verbs: Mapping[str, str], **options: Any) -> None:
        """`verbs` says by name what each of them does."""
        super().__init__(*args, **options)
        self._package = package
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"{self._package}.{name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(self._verbs.items()))
