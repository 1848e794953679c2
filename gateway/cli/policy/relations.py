"""Relations for verbs that decide requests: out of a file, a store, or what the config names."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import default_file, fail, fail_config
from gateway.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from gateway.policy.folder import PolicyFolder
    from gateway.policy.relations import RelationGraph
    from gateway.stores.relations import Relation

STORES = ("sqlite:", "redis://", "rediss://", "unix://", "postgresql://", "postgres://")

relations_option = click.option(
    "--relations",
    default="",
    metavar="FILE|STORE",
    help="Relations: a file with one a line, or a store as in `policy.relations.url` [the config's, for its policies].",
)


def fill_relations(folder: PolicyFolder, path: Path, given: str, file: Path | None, as_json: bool) -> str:
    """Bring relations into a folder's entities, and say from where; "" for nowhere. Ends with what is wrong.

    `given` is the option; without it the config `file` is asked, if the policies at `path` are those that it serves.
    """
    from gateway.policy.related_entities import RelatedEntities

    if not isinstance(folder.entities, RelatedEntities):
        if given:
            fail("the schema has no relations; mark an attribute: `@relation viewers: Set<User>`", as_json)
        return ""
    graph = folder.entities.graph
    try:
        if given.startswith(STORES):
            asyncio.run(_fill_from(given, graph))
            return given.rpartition("@")[2]  # without a password
        if given:
            _put(graph, _read(given))
            return given
        return _fill_by_config(graph, path, file, as_json)
    except (ValueError, StoreUnavailable) as error:
        fail(str(error), as_json)


def _fill_by_config(graph: RelationGraph, path: Path, file: Path | None, as_json: bool) -> str:
    from gateway.cli.relation.store import fill, in_store, load
    from gateway.config import load_config

    config = default_file(file)
    if config is None:
        return ""
    try:
        policy = load_config(config, env=os.environ).config.policy
    except ConfigError as error:
        fail_config(error.faults, as_json)
    if policy.relations.url in {"", "memory:"} or Path(policy.path) != path.absolute():
        return ""
    in_store(load(file, as_json), lambda store: fill(store, graph), as_json)
    return f"the store of {config}"


def _read(name: str) -> list[Relation]:
    """Read a file of relations. Raises ValueError with the place of each line that is none."""
    from gateway.policy.relation_text import parse_relation

    try:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"`{name}`: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"`{name}`: is no UTF-8 text") from None
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(parse_relation(line))
            except ValueError as error:
                wrong.append(f"{name}:{number}: {error}")
    if wrong:
        raise ValueError("\n".join(wrong))
    return found


def _put(graph: RelationGraph, relations: list[Relation]) -> None:
    from gateway.stores.relations import RelationChange

    for relation in relations:
        graph.rules.check(relation)
    graph.apply([RelationChange(relation) for relation in relations])


async def _fill_from(url: str, graph: RelationGraph) -> None:
    from gateway.cli.relation.store import fill
    from gateway.stores import open_relation_store

    store = open_relation_store(url, Path.cwd())
    try:
        await fill(store, graph)
    finally:
        await store.close()
