"""`portcullis user leaked`: the list of leaked passwords, from a file that the operator brings."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.output import as_json_option, fail, mark, say


@click.command("leaked")
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seen", "seen_min", type=click.IntRange(1), default=1, show_default=True,
              help="Of lines `HASH:COUNT`, those with so high a count.")  # fmt: skip
@as_json_option
def command(*, source: Path, target: Path, seen_min: int, as_json: bool) -> None:
    """Make the file TARGET for `login.leaked_passwords` from the passwords in SOURCE, one a line.

    A line is a password, its SHA-1 in hexadecimal, or `SHA-1:COUNT`, as the lists of Have I Been Pwned have it. TARGET
    takes 3 bytes a password, and holds none of them. Nothing is fetched from anywhere.
    """
    from gateway.flows.breached import hashes_in, write_filter

    try:
        with source.open("rb") as lines:
            count = sum(1 for _ in hashes_in(lines, seen_min=seen_min))
        with source.open("rb") as lines:
            written = write_filter(hashes_in(lines, seen_min=seen_min), count, target)
    except (ValueError, OSError) as error:
        fail(str(error), as_json)
    document = {"ok": True, "passwords": written, "bytes": target.stat().st_size}
    text = f"{mark(True)} {written} passwords in `{target}`, {document['bytes']} bytes"
    say(document, as_json, lambda: click.echo(text))
