"""`portcullis policy compile`: policies to bytecode, and the bytecode in words."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gateway.cli.output import as_json_option, mark, say
from gateway.cli.policy.input import entities_option, fail_policy, many, path_argument, read, schema_option


@click.command("compile")
@path_argument
@schema_option
@entities_option
@click.option("--listing", is_flag=True, help="Print the instructions of every policy.")
@click.option("--policy", "only", help="Only this one, by its id.")
@as_json_option
def command(
    *, path: Path, schema: Path | None, entities: Path | None, listing: bool, only: str | None, as_json: bool
) -> None:
    """Compile the policies under PATH."""
    from gateway.policy.compiler.listing import list_program
    from gateway.policy.engine import Engine
    from gateway.policy.faults import PolicyFault

    folder = read(path, schema, entities, as_json)
    if only is not None and only not in folder.policies.policies:
        known = ", ".join(list(folder.policies.policies)[:10])
        raise click.UsageError(f"no policy `{only}`; there are: {known}")
    started_s = time.perf_counter()
    try:
        engine = Engine(folder.policies, folder.entities, folder.schema)
    except PolicyFault as error:
        fail_policy(error, as_json)
    elapsed_ms = (time.perf_counter() - started_s) * 1000
    chosen = [only] if only is not None else list(folder.policies.policies)
    listings = {name: str(list_program(engine.program(name))) for name in chosen} if listing else {}
    count = sum(engine.program(name).code_count for name in chosen)
    document = {
        "ok": True,
        "policies": len(chosen),
        "instructions": count,
        "milliseconds": round(elapsed_ms, 3),
        "listings": listings,
    }

    def speak() -> None:
        for name, text in listings.items():
            policy = folder.policies.policies[name]
            click.echo(f"{name} ({policy.statement.effect})")
            click.echo("\n".join(f"  {line}" for line in text.splitlines()) or "  (no conditions)")
            click.echo("")
        counted = many(len(chosen), "policy", "policies")
        click.echo(f"{mark(True)} {counted}, {many(count, 'instruction')}, {elapsed_ms:.1f} ms")

    say(document, as_json, speak)
