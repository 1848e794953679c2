"""`portcullis user list`: who is in the directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, say, table
from gateway.cli.store_access import load
from gateway.cli.user.people import Desk, at_desk, document_of, tenant_option

if TYPE_CHECKING:
    from gateway.stores.directory import User

_PAGE = 1000


@click.command("list")
@click.option("--name", default="", metavar="TEXT", help="Only names that contain this.")
@click.option("--disabled", is_flag=True, help="Only those who are not let in.")
@tenant_option
@config_option
@as_json_option
def command(*, name: str, disabled: bool, tenant: str, file: Path | None, as_json: bool) -> None:
    """List the users of a tenant, in the order of their ids."""
    from gateway.stores.directory import Condition

    loaded = load(file, as_json)
    tenant = tenant or loaded.config.login.tenant
    conditions = [Condition("user_name", "co", name)] if name else []
    conditions += [Condition("active", "eq", False)] if disabled else []

    async def listing(desk: Desk) -> list[User]:
        found: list[User] = []
        while True:
            page = await desk.directory.find_users(tenant, conditions, len(found), _PAGE)
            found += page.users
            if not page.users or len(found) >= page.total:
                return found

    users = at_desk(loaded, listing, as_json)

    def tell() -> None:
        rows = [(each.user_name, each.id, "yes" if each.active else "no", ", ".join(each.emails)) for each in users]
        table(("name", "id", "active", "e-mail"), rows)

    say({"ok": True, "users": [document_of(each) for each in users]}, as_json, tell)
