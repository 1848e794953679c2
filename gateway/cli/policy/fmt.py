"""`portcullis policy fmt`: one layout for policy files."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import click

from gateway.cli.output import as_json_option, fail, mark, say
from gateway.cli.policy.input import fail_policy, many, path_argument


@click.command("fmt")
@path_argument
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit status 1 where something would change.")
@click.option("--diff", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--width", type=click.IntRange(40, 200), default=80, show_default=True, help="Characters of a line.")
@as_json_option
def command(path: Path, only_check: bool, diff: bool, width: int, as_json: bool) -> None:
    """Format the policy files under PATH; comments stay."""
    from gateway.policy.faults import PolicyFault
    from gateway.policy.language.format import format_policies
    from gateway.policy.policy_files import policy_paths

    changed: list[Path] = []
    try:
        files = policy_paths(path)
        for file in files:
            text = file.read_text(encoding="utf-8")
            formatted = format_policies(text, width=width, file=str(file))
            if formatted == text:
                continue
            changed.append(file)
            if diff:
                _show(text, formatted, file)
            elif not only_check:
                file.write_text(formatted, encoding="utf-8")
    except PolicyFault as error:
        fail_policy(error, as_json)
    except (OSError, UnicodeDecodeError) as error:
        fail(str(error), as_json)
    faulty = only_check and bool(changed)

    def speak() -> None:
        word = "would change" if only_check or diff else "changed"
        for file in changed:
            click.echo(f"{mark(not faulty)} {file} {word}")
        click.echo(f"{mark(not faulty)} {many(len(changed), 'file')} of {len(files)} {word}")

    say({"ok": not faulty, "files": len(files), "changed": [str(file) for file in changed]}, as_json, speak)
    if faulty:
        sys.exit(1)


def _show(before: str, after: str, file: Path) -> None:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(file), f"{file} (formatted)"
    )
    click.echo("".join(lines), nl=False)
