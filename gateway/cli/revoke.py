"""`portcullis token revoke`: refuse tokens from now on, at every worker and gateway that shares the config's store."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

import click

from gateway.cli.output import as_json_option, config_option, default_file, fail, fail_config, mark, say
from gateway.config import Config, load_config, resolve_store_url
from gateway.errors import ConfigError, StoreUnavailable
from gateway.stores import RevocationRow, open_store

DAY_S = 86_400
LEEWAY_S_MAX = 3600  # what an issuer's leeway may be: a token may be taken this long after its exp


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for."""

    token: str
    jti: str
    subject: str
    session: str
    issuer: str
    lifetime_s: int
    later_too: bool


@click.command()
@click.argument("token", default="", metavar="[TOKEN]")
@click.option("--jti", default="", help="Revoke the token with this id.")
@click.option("--sub", "subject", default="", help="Revoke all tokens of this subject that were issued until now.")
@click.option("--sid", "session", default="", help="Revoke all tokens of this session that were issued until now.")
@click.option("--iss", "issuer", default="", help="Of the issuer; without it, the token's, or the config's only one.")
@click.option(
    "--lifetime", "lifetime_s", type=click.IntRange(1), default=DAY_S, show_default=True,
    help="Seconds from now after which no such token can be valid anyway.",
)  # fmt: skip
@click.option("--also-later", "later_too", is_flag=True, help="With --sub or --sid: tokens issued later too.")
@config_option
@as_json_option
def revoke(  # noqa: PLR0917  (click hands over each option)
    token: str, jti: str, subject: str, session: str, issuer: str, lifetime_s: int, later_too: bool,
    file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Refuse tokens from now on.

    Name one of TOKEN ("-" reads it from standard input), --jti, --sub or --sid. Running gateways that share the
    config's store follow within a second.
    """
    try:
        loaded = load_config(default_file(file), env=os.environ)
    except ConfigError as error:
        fail_config(error.faults, as_json)
    wish = Wish(token, jti, subject, session, issuer, lifetime_s, later_too)
    try:
        row = row_of(wish, loaded.config)
        revision = asyncio.run(_append(row, loaded.config, loaded.base_dir))
    except (ValueError, StoreUnavailable) as error:
        fail(str(error), as_json)
    except ConfigError as error:
        fail_config(error.faults, as_json)
    document = {
        "ok": True,
        "kind": row.kind,
        "issuer": row.issuer.decode(),
        "value": row.value.decode(),
        "until": row.until_s,
        "issued_before": row.issued_before_s,
        "revision": revision,
    }
    say(document, as_json, lambda: click.echo(f"{mark(True)} revoked {row.kind} `{row.value.decode()}`"))


def row_of(wish: Wish, config: Config) -> RevocationRow:
    """Make the row for a wish. Raises ValueError for one that is not clear."""
    named = [bool(given) for given in (wish.token, wish.jti, wish.subject, wish.session)]
    if sum(named) != 1:
        raise ValueError("name one of TOKEN, --jti, --sub and --sid")
    now_s = int(time.time())
    if wish.token:
        return _row_of_token(wish, now_s)
    issuer = wish.issuer or _only_issuer(config)
    until_s = now_s + wish.lifetime_s
    if wish.jti:
        return RevocationRow("jti", issuer.encode(), wish.jti.encode(), until_s)
    before_s = 0 if wish.later_too else now_s + 1
    if wish.subject:
        return RevocationRow("sub", issuer.encode(), wish.subject.encode(), until_s, before_s)
    return RevocationRow("sid", issuer.encode(), wish.session.encode(), until_s, before_s)


def _row_of_token(wish: Wish, now_s: int) -> RevocationRow:
    """Revoke one token by its id, until it expires; nothing of it is verified, as nothing is gained by a forged one."""
    from gateway.cli.token import decoded_claims

    claims = decoded_claims(wish.token)
    issuer, jti, expires_s = claims.get("iss"), claims.get("jti"), claims.get("exp")
    if not isinstance(issuer, str) or not isinstance(jti, str):
        raise ValueError("the token has no `jti`; revoke its subject or session instead")
    until_s = int(expires_s) + LEEWAY_S_MAX if isinstance(expires_s, (int, float)) else now_s + wish.lifetime_s
    return RevocationRow("jti", issuer.encode(), jti.encode(), max(until_s, now_s + 1))


def _only_issuer(config: Config) -> str:
    known = [issuer.issuer for issuer in config.issuers] + ([config.oauth.issuer] if config.oauth.issuer else [])
    if len(known) != 1:
        raise ValueError("the config has not one issuer; say which with --iss")
    return known[0]


async def _append(row: RevocationRow, config: Config, base_dir: Path) -> str:
    from gateway.cli.folders import lasting_dir

    address = resolve_store_url(config.store.url, base_dir).reveal().decode()
    if address == "memory:":
        raise ValueError("`memory:` is inside the running gateway; use another store to revoke from outside")
    run_dir = lasting_dir(config.server.run_dir, os.environ)
    if run_dir is None:
        raise ValueError("there is no folder for the embedded store; set server.run_dir")
    store = open_store(address, run_dir, poll_ms=config.store.poll_ms)
    try:
        return await store.append([row])
    finally:
        await store.close()
