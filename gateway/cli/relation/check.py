"""`portcullis relation check`: whether somebody stands in a relation, over however many steps, and which ones."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gateway.cli.output import as_json_option, config_option, fail, mark, say
from gateway.cli.policy.input import fail_policy
from gateway.cli.relation.store import fill, graph_of, in_store, load, path_document


@click.command("check")
@click.argument("relation", metavar="RELATION")
@config_option
@as_json_option
def command(relation: str, file: Path | None, as_json: bool) -> None:
    """Say whether the subject of RELATION stands in it, by the config's entities and all relations in the store.

    Exit status 1 where it does not. RELATION is written as for `relation add`.
    """
    from gateway.policy.faults import PolicyFault
    from gateway.policy.relation_paths import relation_path
    from gateway.policy.relation_text import parse_relation
    from gateway.stores.relations import Userset

    loaded = load(file, as_json)
    try:
        asked = parse_relation(relation)
        graph = graph_of(loaded)
        who = asked.subject
        child = graph.node(who.object, who.relation) if isinstance(who, Userset) else who
        graph.node(asked.object, asked.relation)
    except ValueError as error:
        fail(str(error), as_json)
    except PolicyFault as error:
        fail_policy(error, as_json)
    in_store(loaded, lambda store: fill(store, graph), as_json)
    path = relation_path(graph, child, asked.object, asked.relation)
    stands = path is not None

    def speak() -> None:
        verb = "stands" if stands else "does not stand"
        click.echo(f"{mark(stands)} {who} {verb} in {Userset(asked.object, asked.relation)}")
        for step in path or ():
            click.echo(f"  {step}")

    say({"ok": True, "stands": stands, "path": path_document(path)}, as_json, speak)
    sys.exit(0 if stands else 1)
