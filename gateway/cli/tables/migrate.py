"""`portcullis tables migrate`: bring the tables forward, or back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, fail, say
from gateway.cli.store_access import load, with_run_dir

if TYPE_CHECKING:
    from gateway.cli.tables.databases import Database


@click.command("migrate")
@click.option("--to", "revision", default="", help="Of this revision; by default the one that this version works with.")
@click.option("--lose-data", is_flag=True, help="Go back, though what only newer tables hold is lost.")
@config_option
@as_json_option
def command(*, revision: str, lose_data: bool, file: Path | None, as_json: bool) -> None:
    """Bring the tables of every database of the config forward, or back.

    Stop all gateways before going back: one that opens the tables brings them forward again.
    """
    from gateway.stores.migrations import BASE, HEAD, HISTORY

    wanted = revision or HEAD
    order = (BASE, *HISTORY)
    if wanted not in order:
        fail(f"there is no revision `{wanted}`; there are {', '.join(order)}", as_json)
    loaded = load(file, as_json)

    async def migrate(run_dir: Path) -> list[tuple[Database, str]]:
        from gateway.cli.tables.databases import databases

        found = databases(loaded, run_dir)
        return [(each, await asyncio.to_thread(_migrate, each, wanted, lose_data)) for each in found]

    found = with_run_dir(loaded, migrate, as_json)
    document = {
        "ok": True,
        "revision": wanted,
        "databases": [
            {"database": each.shown, "holds": list(each.holds), "revision_before": before} for each, before in found
        ],
    }

    def speak() -> None:
        for each, before in found:
            click.echo(f"{each.shown}: {before} → {wanted}" if before != wanted else f"{each.shown}: is of {wanted}")

    say(document, as_json, speak)


def _migrate(database: Database, wanted: str, lose_data: bool) -> str:
    """Return the revision before. Raises ValueError where going back was not asked for."""
    from gateway.stores.migrations import BASE, HISTORY, current, downgrade, upgrade

    before = BASE if database.is_missing else current(database.address)
    order = (BASE, *HISTORY)
    if before not in order:
        raise ValueError(f"`{database.shown}` is of revision {before}, which a newer gateway made")
    if order.index(wanted) >= order.index(before):
        if wanted != before:
            _make_private(database)
            upgrade(database.address, wanted)
        return before
    if not lose_data:
        raise ValueError(
            f"`{database.shown}` is of revision {before}: going back to {wanted} loses what only newer tables hold;"
            " say `--lose-data` where that is meant"
        )
    return downgrade(database.address, wanted)


def _make_private(database: Database) -> None:
    """Make a file that is not there yet, for this user alone."""
    if database.is_missing:
        path = Path(database.address.removeprefix("sqlite:"))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
