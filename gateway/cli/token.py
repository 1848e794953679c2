"""`portcullis token`: make, decode and judge tokens."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gateway.cli.output import as_json_option, config_option, default_file, fail, fail_config, mark, say
from gateway.cli.revoke import revoke
from gateway.errors import ConfigError, KeyInvalid

TOKEN_BYTES_MAX = 64 * 1024  # read here; what is accepted when serving is cache.token_bytes_max
_TIMES = ("exp", "iat", "nbf", "auth_time")

_token_argument = click.argument("token", default="-", metavar="[TOKEN]")


@click.group()
def token() -> None:
    """Make, decode and judge tokens.

    TOKEN is read from standard input where it is not given: arguments are seen by others on this machine.
    """


# ---------------------------------------------------------------------------------------------------------------- mint


@token.command()
@click.option(
    "--key",
    "key_path",
    type=click.Path(path_type=Path),
    default=Path("keys"),
    show_default=True,
    help="A key's file, or a folder of `portcullis keys`.",
)
@click.option("--alg", "algorithm", default="", help="Where the file does not say: PEM of RSA, and secrets.")
@click.option("--kid", default="", help="Where the file does not say.")
@click.option("--iss", "issuer", default="", help="Without it, the config's only issuer.")
@click.option(
    "--aud", "audiences", multiple=True, help="May be given several times; without it, the issuer's first audience."
)
@click.option("--sub", "subject", default="", help="Who it speaks for.")
@click.option("--scope", default="", help="Scopes, with spaces between them.")
@click.option(
    "--claim", "claims", multiple=True, metavar="NAME=VALUE", help="Any claim; VALUE is JSON, or else a string."
)
@click.option("--lifetime", "lifetime_s", type=int, default=3600, show_default=True, help="Seconds until exp.")
@click.option("--typ", default="at+jwt", show_default=True, help='Of the header; "" leaves it away.')
@config_option
@as_json_option
def mint(
    *,
    key_path: Path,
    algorithm: str,
    kid: str,
    issuer: str,
    audiences: tuple[str, ...],
    subject: str,
    scope: str,
    claims: tuple[str, ...],
    lifetime_s: int,
    typ: str,
    file: Path | None,
    as_json: bool,
) -> None:
    """Make a token, signed with a key of one's own."""
    from gateway.tokens import signing
    from gateway.tokens.key_folder import read_key_file

    try:
        payload = _claims(file=file, issuer=issuer, audiences=audiences, subject=subject, scope=scope, claims=claims)
        key = read_key_file(key_path, algorithm, kid)
        minted = signing.mint(payload, key, typ=typ, lifetime_s=lifetime_s)
    except ConfigError as error:
        fail_config(error.faults, as_json)
    except (KeyInvalid, ValueError, TypeError) as error:
        fail(str(error), as_json)
    header, body, _ = _decoded(minted)
    say({"ok": True, "token": minted, "header": header, "claims": body}, as_json, lambda: click.echo(minted))


def _claims(
    *, file: Path | None, issuer: str, audiences: Sequence[str], subject: str, scope: str, claims: Sequence[str]
) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    issuer, audiences = _defaults(file, issuer, audiences)
    for name, value in (("iss", issuer), ("sub", subject), ("scope", scope)):
        if value:
            payload[name] = value
    if audiences:
        payload["aud"] = audiences[0] if len(audiences) == 1 else list(audiences)
    for claim in claims:
        name, equals, text = claim.partition("=")
        if not equals or not name:
            raise click.UsageError(f"`{claim}` is no claim; write NAME=VALUE")
        try:
            payload[name] = json.loads(text)
        except ValueError:
            payload[name] = text
    return payload


def _defaults(file: Path | None, issuer: str, audiences: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Take what is not said from the config: its only issuer, and that one's first audience."""
    found = default_file(file)
    if found is None or (issuer and audiences):
        return issuer, audiences
    from gateway.config import load_config

    known = load_config(found, env=os.environ).config.issuers
    meant = [one for one in known if one.issuer == issuer or (not issuer and len(known) == 1)]
    if not meant:
        return issuer, audiences
    return meant[0].issuer, audiences or meant[0].audiences[:1]


# ------------------------------------------------------------------------------------------------------------- inspect


@token.command()
@_token_argument
@as_json_option
def inspect(token: str, as_json: bool) -> None:
    """Decode a token without judging it: anyone can write what this shows."""
    text = _read(token)
    try:
        header, payload, signature = _decoded(text)
    except ValueError as error:
        fail(str(error), as_json)

    def speak() -> None:
        click.echo(click.style("NOTHING WAS VERIFIED: anybody can write such a token", fg="yellow", bold=True))
        click.echo(f"header  {json.dumps(header, indent=2)}")
        click.echo(f"claims  {json.dumps(payload, indent=2)}")
        for name in _TIMES:
            if isinstance(payload.get(name), int | float):
                click.echo(f"{name:7} {_moment(payload[name])}")
        click.echo(f"signature of {signature} bytes, not looked at")

    document = {"ok": True, "verified": False, "header": header, "claims": payload, "signature_bytes": signature}
    say(document, as_json, speak)


def _read(given: str) -> str:
    text = sys.stdin.read(TOKEN_BYTES_MAX + 1) if given == "-" else given
    if len(text) > TOKEN_BYTES_MAX:
        raise click.UsageError(f"longer than {TOKEN_BYTES_MAX} characters")
    return text.strip().removeprefix("Bearer ").strip()


def _decoded(text: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Give header, payload and the signature's length; leniently, for it is shown to people only."""
    parts = text.split(".")
    if len(parts) != 3:
        raise ValueError(f"no JWT: {len(parts)} parts, where header, payload and signature are wanted")
    documents = []
    for name, part in zip(("header", "payload"), parts, strict=False):
        try:
            document = json.loads(_bytes(part))
        except (ValueError, RecursionError):
            raise ValueError(f"the {name} is no base64url of a JSON object") from None
        if not isinstance(document, dict):
            raise ValueError(f"the {name} is no base64url of a JSON object")
        documents.append(document)
    try:
        return documents[0], documents[1], len(_bytes(parts[2]))
    except ValueError:
        raise ValueError("the signature is no base64url") from None


def _bytes(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _moment(moment_s: float) -> str:
    try:
        when = datetime.datetime.fromtimestamp(moment_s, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "no moment in time"
    distance_s = moment_s - time.time()
    return f"{when} ({datetime.timedelta(seconds=round(abs(distance_s)))} {'from now' if distance_s > 0 else 'ago'})"


# -------------------------------------------------------------------------------------------------------------- verify


@dataclass(frozen=True, slots=True)
class Check:
    """One question that the judge asks, as the top of `_native/token.pyx` orders them.

    `reasons` are the refusals that it can end in; `first` is the earliest place in the order where one of them can come
    up, `last` the place after which all of the question is answered.
    """

    text: str
    first: int
    last: int
    reasons: frozenset[str]


def _check(text: str, first: int, last: int, *reasons: str) -> Check:
    return Check(text, first, last, frozenset(reasons))


# ORDER REASON
CHECKS = (
    _check("is short enough", 0, 0, "too_large"),
    _check("has the form of a JWT", 1, 1, "malformed", "opaque"),
    _check("has a sound header", 2, 2, "header_invalid"),
    _check("has not expired (exp)", 5, 5, "expired"),
    _check("was not issued in the future (iat)", 6, 6, "issued_in_future"),
    _check("is from a configured issuer (iss)", 7, 7, "issuer_unknown"),
    _check("is meant for us (aud)", 9, 9, "audience"),
    _check("is valid already (nbf)", 10, 10, "not_yet_valid"),
    _check("is of an accepted type (typ)", 11, 11, "type"),
    _check("has sound claims, and all that are required", 4, 12, "claim_invalid", "claim_missing"),
    _check("is not bound to a key of its sender (cnf)", 13, 13, "sender_constrained"),
    _check("is signed by a key of the issuer (kid)", 15, 15, "kid_unknown", "keys_unavailable"),
    _check("uses an algorithm of issuer and key (alg)", 3, 16, "algorithm"),
    _check("has the issuer's signature", 17, 17, "signature"),
)


def checks_of(reason: str) -> list[tuple[Check, bool | None]]:
    """Tell of each check whether it was passed; None = it was not answered, because another one failed before."""
    failed = next((check for check in CHECKS if reason in check.reasons), None)
    if failed is None:
        return [(check, True) for check in CHECKS]
    answers: list[tuple[Check, bool | None]] = []
    for check in CHECKS:
        passed = True if check.last < failed.first else None
        answers.append((check, False if check is failed else passed))
    return answers


@token.command()
@_token_argument
@config_option
@click.option("--offline", is_flag=True, help="Fetch no keys; use those on this machine only.")
@click.option("--now", "now_s", type=int, help="Judge as of this moment (Unix time).")
@as_json_option
def verify(token: str, file: Path | None, offline: bool, now_s: int | None, as_json: bool) -> None:
    """Judge a token as the gateway does, with the config's issuers and their keys.

    Prints each check in the judge's order. Revocations are in the store of a running gateway, and are not looked at.
    """
    from gateway._native.token import TokenValidator
    from gateway.cli.issuers import is_local, load_issuers, snapshot_of, trusted_issuers
    from gateway.config import load_config
    from gateway.tokens.control import claimed_key
    from gateway.tokens.reasons import MEANINGS

    text = _read(token).encode("utf-8", "surrogateescape")
    try:
        loaded = load_config(default_file(file), env=os.environ)
    except ConfigError as error:
        fail_config(error.faults, as_json)
    config = loaded.config
    # Nobody but the issuer that the token names is asked for keys; it must be configured, or nobody is.
    claimed = claimed_key(text)
    trusted = trusted_issuers(config, loaded.base_dir)
    named = [one for one in trusted if claimed and one.issuer == claimed[0] and (is_local(one) or not offline)]
    issuers = load_issuers(named, loaded.base_dir)
    validator = TokenValidator(entries=0, token_bytes_max=config.cache.token_bytes_max)
    validator.publish(snapshot_of(trusted, issuers))
    identity, reason = validator.judge_token(text, now_s)
    notes = [f"`{state.issuer}`: {state.error}" for _, state in issuers if state.error]
    document = {
        "ok": identity is not None,
        "reason": reason,
        "meaning": MEANINGS[reason],
        "checks": [{"check": check.text, "passed": passed} for check, passed in checks_of(reason)],
        "subject": _text(identity.subject) if identity else None,
        "issuer": _text(identity.issuer) if identity else None,
        "scopes": [_text(scope) for scope in identity.scopes] if identity else [],
        "notes": notes,
    }

    def speak() -> None:
        for check, passed in checks_of(reason):
            click.echo(f"{mark(passed)} {check.text}{f': {reason}' if passed is False else ''}")
        click.echo(f"{mark(None)} is not revoked: not looked at")
        for note in notes:
            click.echo(f"{mark(False)} {note}")
        click.echo(f"\n{reason}: {MEANINGS[reason]}")
        if identity is not None:
            click.echo(f"subject {_text(identity.subject)}, scopes {' '.join(map(_text, identity.scopes)) or 'none'}")

    say(document, as_json, speak)
    sys.exit(0 if identity is not None else 1)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def decoded_claims(given: str) -> dict[str, Any]:
    """Give a token's claims as anybody can read them ("-" = standard input). Raises ValueError for what is no token."""
    return _decoded(_read(given))[1]


token.add_command(revoke)
