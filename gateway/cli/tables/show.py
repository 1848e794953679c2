"""`portcullis tables show`: of which revision the tables of each database are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, say, table
from gateway.cli.store_access import load, with_run_dir

if TYPE_CHECKING:
    from gateway.cli.tables.databases import Database


@click.command("show")
@config_option
@as_json_option
def command(*, file: Path | None, as_json: bool) -> None:
    """Show of which revision the tables of each database are, and which one this version works with."""
    from gateway.stores.migrations import HEAD

    loaded = load(file, as_json)

    async def look(run_dir: Path) -> list[tuple[Database, str]]:
        from gateway.cli.tables.databases import databases
        from gateway.stores.migrations import BASE, current

        found = databases(loaded, run_dir)
        return [(each, BASE if each.is_missing else await asyncio.to_thread(current, each.address)) for each in found]

    found = with_run_dir(loaded, look, as_json)
    document = {
        "ok": True,
        "newest": HEAD,
        "databases": [
            {"database": each.shown, "holds": list(each.holds), "revision": revision} for each, revision in found
        ],
    }

    def speak() -> None:
        if not found:
            click.echo("no store of this config has tables")
            return
        rows = [[each.shown, ", ".join(each.holds), revision] for each, revision in found]
        table(["database", "holds", "revision"], rows)
        click.echo(f"this version works with {HEAD}")

    say(document, as_json, speak)
