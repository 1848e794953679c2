"""What the policy verbs share: where policies lie, and how their faults are told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from gateway.cli.output import mark

if TYPE_CHECKING:
    from gateway.policy.faults import Fault, PolicyFault
    from gateway.policy.folder import PolicyFolder

F = TypeVar("F", bound=Callable[..., object])

POLICIES = Path("policies")

path_argument = click.argument("path", type=click.Path(path_type=Path, exists=True), default=POLICIES)
schema_option = click.option(
    "--schema",
    type=click.Path(path_type=Path, exists=True),
    help="Schema: a file, or a folder of *.cedarschema [those beside the policies].",
)
entities_option = click.option(
    "--entities", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Entities, in Cedar's JSON."
)


def read(path: Path, schema: Path | None, entities: Path | None, as_json: bool) -> PolicyFolder:
    """Read everything, or end with its faults."""
    from gateway.policy.faults import PolicyFault
    from gateway.policy.folder import read_folder

    try:
        return read_folder(path, schema=schema, entities=entities)
    except PolicyFault as error:
        fail_policy(error, as_json)


def fail_policy(error: PolicyFault, as_json: bool) -> NoReturn:
    """End with the faults of policies, schema, entities or a request."""
    if as_json:
        click.echo(json.dumps({"ok": False, "code": error.code, "faults": documents(error.faults)}, indent=2))
    else:
        speak_faults(error.faults)
    sys.exit(1)


def documents(faults: Sequence[Fault]) -> list[dict[str, object]]:
    """Give faults for `--json`."""
    return [fault.as_json() for fault in faults]


def speak_faults(faults: Sequence[Fault], ok: bool | None = False) -> None:
    """Tell faults, or with `ok` None warnings, to people."""
    for fault in faults:
        click.echo(f"{mark(ok)} {fault}", err=ok is False)


def many(count: int, what: str, plural: str = "") -> str:
    """Give `1 policy`, `2 policies`."""
    return f"{count} {what}" if count == 1 else f"{count} {plural or what + 's'}"
