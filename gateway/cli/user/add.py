"""`portcullis user add`: somebody who may log in from now on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, mark, say
from gateway.cli.store_access import load
from gateway.cli.user.people import (
    OPERATOR,
    Desk,
    ask_password,
    at_desk,
    document_of,
    keep_password,
    name_argument,
    tenant_option,
)

if TYPE_CHECKING:
    from gateway.stores.directory import User


@click.command("add")
@name_argument
@click.option("--email", "emails", multiple=True, metavar="ADDRESS", help="An address; may be given again.")
@click.option("--display-name", default="", metavar="TEXT", help="What applications show.")
@click.option("--no-password", is_flag=True, help="Set none now; `portcullis user reset` gives a link.")
@click.option("--must-change", is_flag=True, help="The password is changed at the first log-in.")
@tenant_option
@config_option
@as_json_option
def command(
    *,
    name: str,
    emails: tuple[str, ...],
    display_name: str,
    no_password: bool,
    must_change: bool,
    tenant: str,
    file: Path | None,
    as_json: bool,
) -> None:
    """Add the user NAME. The password is read from standard input: a line of a pipe, or unseen from a terminal."""
    from gateway.errors import AlreadyExists
    from gateway.stores.directory import Tenant, User, new_id

    loaded = load(file, as_json)
    tenant = tenant or loaded.config.login.tenant
    password = "" if no_password else ask_password(as_json)

    async def adding(desk: Desk) -> User:
        if await desk.directory.get_tenant(tenant) is None:
            await desk.directory.put_tenant(Tenant(tenant, tenant))
        attributes = {"displayName": display_name} if display_name else {}
        wanted = User(id=new_id("usr_"), tenant=tenant, user_name=name, emails=emails, attributes=attributes)
        try:
            made = await desk.directory.add_user(wanted)
        except AlreadyExists:
            raise ValueError(f"there is a user `{name}` in tenant `{tenant}` already") from None
        if password:
            try:
                await keep_password(desk.directory, loaded, made, password, must_change=must_change)
            except ValueError:
                await desk.directory.remove_user(tenant, made.id)
                raise
        desk.trail.tell("admin.user.create", "success", tenant=tenant, actor=OPERATOR, target=made.id)
        return made

    added = at_desk(loaded, adding, as_json)
    document = {"ok": True, "user": document_of(added)}
    say(document, as_json, lambda: click.echo(f"{mark(True)} added `{added.user_name}`: {added.id}"))
