"""`portcullis policy check`: whether policies can be read, and whether they are right for the schema."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from gateway.cli.output import as_json_option, mark, say
from gateway.cli.policy.input import (
    documents,
    entities_option,
    many,
    path_argument,
    read,
    schema_option,
    speak_faults,
)


@click.command("check")
@path_argument
@schema_option
@entities_option
@click.option("--permissive", is_flag=True, help="Validate by Cedar's permissive rules.")
@as_json_option
def command(path: Path, schema: Path | None, entities: Path | None, permissive: bool, as_json: bool) -> None:
    """Read policies, schema and entities under PATH, and validate them.

    Without a schema, only what is no policy at all is found. Exit status 1 where something is wrong; warnings change
    nothing.
    """
    folder = read(path, schema, entities, as_json)
    mode: Literal["strict", "permissive"] = "permissive" if permissive else "strict"
    report = None if folder.schema is None else folder.policies.validate(folder.schema, mode)
    errors = [] if report is None else list(report.errors)
    warnings = [] if report is None else list(report.warnings)
    document = {
        "ok": not errors,
        "policies": len(folder.policies),
        "templates": len(folder.policies.templates),
        "entities": len(folder.entities),
        "validated": report is not None,
        "files": [str(file) for file in folder.files],
        "faults": documents(errors),
        "warnings": documents(warnings),
    }

    def speak() -> None:
        speak_faults(warnings, None)
        speak_faults(errors)
        validated = "no schema, so not validated" if report is None else f"validated, {mode}"
        counted = many(len(folder.policies), "policy", "policies")
        click.echo(f"{mark(not errors)} {counted} in {many(len(folder.files), 'file')}: {validated}")

    say(document, as_json, speak)
    if errors:
        sys.exit(1)
