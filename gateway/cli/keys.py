"""`portcullis keys`: make, list and rotate the keys of an issuer of one's own."""

from __future__ import annotations

import datetime
import re
import time
from pathlib import Path

import click

from gateway.cli.output import as_json_option, fail, mark, say, table
from gateway.errors import KeyInvalid

FOLDER = Path("keys")
SECRET_FILE = Path("hmac.key")
OVERLAP = "24h"
ALGORITHM = "ES256"

_SPAN = re.compile(r"(\d{1,9})([smhd]?)")
_SPAN_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

_algorithm_option = click.option("--alg", "algorithm", default=ALGORITHM, show_default=True, help="RFC 7518 name.")
_format_option = click.option(
    "--format",
    "file_format",
    type=click.Choice(["jwk", "pem"]),
    default="jwk",
    show_default=True,
    help="Of the private file.",
)
_bits_option = click.option(
    "--bits", type=click.IntRange(2048, 16_384), default=2048, show_default=True, help="Of an RSA key."
)
_folder_argument = click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER)


@click.group()
def keys() -> None:
    """Make, list and rotate signing keys.

    A folder holds one private file a key (mode 0600) and jwks.json, the set to publish, or to name as jwks_file.
    """


@keys.command()
@_algorithm_option
@_format_option
@_bits_option
@click.option("--kid", default="", help="Name of the key; without it, its thumbprint (RFC 7638).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help=f"The folder [{FOLDER}]; for HS256, 384 and 512 the file [{SECRET_FILE}].",
)
@as_json_option
def new(*, algorithm: str, file_format: str, bits: int, kid: str, out: Path | None, as_json: bool) -> None:
    """Make a key; it signs from now on, beside those that are there."""
    from gateway.tokens.key_folder import KeyFolder, write_private
    from gateway.tokens.signing import new_key
    from gateway.types import Secret

    try:
        key = new_key(algorithm, kid=kid, rsa_bits=bits)
        if isinstance(key.material, Secret):
            path = out or SECRET_FILE
            write_private(path, key.material.reveal() + b"\n")
            published = ""
        else:
            folder = KeyFolder(out or FOLDER)
            path = folder.add(key, now_s=int(time.time()), file_format="pem" if file_format == "pem" else "jwk")
            published = str(folder.jwks_path)
    except FileExistsError as error:
        fail(f"`{error}` is there already", as_json)
    except (KeyInvalid, OSError) as error:
        fail(_text(error), as_json)

    def speak() -> None:
        click.echo(f"{mark(True)} {path}: {algorithm} key{f' {key.kid}' if key.kid else ''}, readable by you alone")
        click.echo(f"  published in {published}" if published else f'  for an issuer: secret = "file:{path}"')

    say({"ok": True, "kid": key.kid, "algorithm": algorithm, "private": str(path), "jwks": published}, as_json, speak)


@keys.command("list")
@_folder_argument
@as_json_option
def list_keys(folder: Path, as_json: bool) -> None:
    """List the keys of a folder, newest first."""
    from gateway.tokens.key_folder import KeyFolder

    try:
        found = KeyFolder(folder).published()
    except KeyInvalid as error:
        fail(str(error), as_json)
    now_s = int(time.time())
    rows = [
        {
            "kid": key.kid,
            "algorithm": key.algorithm,
            "state": key.state(now_s),
            "created_at": _date(key.created_at_s),
            "retires_at": _date(key.retires_at_s),
            "private": key.has_private,
        }
        for key in found
    ]

    def speak() -> None:
        if not rows:
            click.echo(f"no keys in {folder}; `portcullis keys new` makes one")
            return
        columns = ("kid", "algorithm", "state", "created_at", "retires_at")
        table(columns, [tuple(str(row[column]) for column in columns) for row in rows])

    say({"ok": True, "folder": str(folder), "keys": rows}, as_json, speak)


@keys.command()
@_folder_argument
@_algorithm_option
@_format_option
@_bits_option
@click.option(
    "--overlap", default=OVERLAP, show_default=True, help="How long old keys stay published: 3600, 90m, 24h, 7d."
)
@as_json_option
def rotate(*, folder: Path, algorithm: str, file_format: str, bits: int, overlap: str, as_json: bool) -> None:
    """Let a new key sign; old ones verify for a while longer and are deleted after that.

    The overlap must be longer than the tokens live, and than verifiers keep the set.
    """
    from gateway.tokens.key_folder import KeyFolder
    from gateway.tokens.signing import new_key

    span = _SPAN.fullmatch(overlap)
    if span is None:
        raise click.UsageError(f"`{overlap}` is no span of time; write 3600, 90m, 24h or 7d")
    overlap_s = int(span[1]) * _SPAN_S[span[2]]
    now_s = int(time.time())
    keeper = KeyFolder(folder)
    try:
        key = new_key(algorithm, rsa_bits=bits)
        gone = keeper.rotate(
            key, now_s=now_s, overlap_s=overlap_s, file_format="pem" if file_format == "pem" else "jwk"
        )
        old = [other for other in keeper.published() if other.kid != key.kid]
    except (KeyInvalid, OSError) as error:
        fail(_text(error), as_json)

    def speak() -> None:
        click.echo(f"{mark(True)} {key.kid} ({algorithm}) signs from now on")
        for other in old:
            click.echo(f"  {other.kid} verifies until {_date(other.retires_at_s)}")
        for other in gone:
            click.echo(f"  {other.kid} is gone")

    document = {
        "ok": True,
        "signing": key.kid,
        "verifying": [{"kid": other.kid, "retires_at": _date(other.retires_at_s)} for other in old],
        "retired": [other.kid for other in gone],
        "jwks": str(keeper.jwks_path),
    }
    say(document, as_json, speak)


def _text(error: KeyInvalid | OSError) -> str:
    if isinstance(error, OSError):
        return f"`{error.filename}`: {(error.strerror or 'cannot be written').lower()}"
    return str(error)


def _date(moment_s: int) -> str:
    return datetime.datetime.fromtimestamp(moment_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment_s else ""
