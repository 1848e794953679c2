"""`portcullis user reset`: a link by which a user sets a new password."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from gateway.cli.output import as_json_option, config_option, say
from gateway.cli.store_access import load
from gateway.cli.user.people import (
    OPERATOR,
    Desk,
    at_desk,
    document_of,
    name_argument,
    tenant_option,
    user_of,
)
from gateway.types import SystemClock

if TYPE_CHECKING:
    from gateway.stores.directory import User


@click.command("reset")
@name_argument
@click.option("--lifetime", "lifetime_s", type=click.IntRange(60, 604_800), default=3600, show_default=True,
              metavar="SECONDS", help="How long it is good for.")  # fmt: skip
@tenant_option
@config_option
@as_json_option
def command(*, name: str, lifetime_s: int, tenant: str, file: Path | None, as_json: bool) -> None:
    """Print a link for the user NAME, good for one new password. Whoever has it is that user: hand it over safely.

    Second factors stay as they are, and are asked for afterwards.
    """
    loaded = load(file, as_json)
    config = loaded.config
    tenant = tenant or config.login.tenant

    async def making(desk: Desk) -> tuple[User, str]:
        from gateway.config import resolve_store_url
        from gateway.flows.pending import PendingLogins, new_reset
        from gateway.stores import open_token_store

        found = await user_of(desk.directory, tenant, name)
        clock = SystemClock()
        address = resolve_store_url(config.login.store_url, loaded.base_dir).reveal().decode()
        if address == "memory:":
            raise ValueError("`memory:` is inside the running gateway; use another login.store_url")
        store = open_token_store("" if address == "embedded" else address, desk.run_dir, clock)
        try:
            pending = PendingLogins(store, clock)
            secret = await new_reset(pending, found, desk.trail, actor=OPERATOR, lifetime_s=lifetime_s)
        finally:
            await store.close()
        return found, secret

    found, secret = at_desk(loaded, making, as_json)
    link = f"{config.login.url.rstrip('/')}/login/reset?token={quote(secret)}"
    document = {"ok": True, "user": document_of(found), "link": link, "lifetime_s": lifetime_s}
    say(document, as_json, lambda: click.echo(link))
