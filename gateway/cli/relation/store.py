"""What the verbs of relations share: the config's store, the schema's rules, and how relations are given and told."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.cli import store_access
from gateway.cli.output import fail
from gateway.errors import StoreUnavailable

if TYPE_CHECKING:
    from gateway.config import LoadedConfig
    from gateway.policy.folder import FolderReader
    from gateway.policy.policy_files import FolderState
    from gateway.policy.relation_paths import PathStep
    from gateway.policy.relation_rules import RelationRules
    from gateway.policy.relations import RelationGraph
    from gateway.stores.relations import Relation, RelationStore

T = TypeVar("T")

PAGE = 1000  # relations read at once

relations_argument = click.argument("relations", nargs=-1, required=True, metavar="RELATION...")


def load(file: Path | None, as_json: bool) -> LoadedConfig:
    """Load a config that keeps relations where another process can reach them, or end with what is wrong."""
    loaded = store_access.load(file, as_json)
    url = loaded.config.policy.relations.url
    if not url:
        fail('the config keeps no relations; say where: `[policy.relations]`, `url = "embedded"`', as_json)
    if url == "memory:":
        fail("`memory:` is inside the running gateway; use another store to change relations from outside", as_json)
    return loaded


def in_store(loaded: LoadedConfig, work: Callable[[RelationStore], Awaitable[T]], as_json: bool) -> T:
    """Run `work` over the config's store, or end with what is wrong there."""

    async def working(run_dir: Path) -> T:
        from gateway.front.relations import open_configured_store

        store = open_configured_store(loaded.config.policy.relations, base_dir=loaded.base_dir, run_dir=run_dir)
        try:
            return await work(store)
        finally:
            await store.close()

    return store_access.with_run_dir(loaded, working, as_json)


def read_policies(loaded: LoadedConfig, *, entities: bool) -> tuple[FolderReader, FolderState]:
    """Read the files of the config's policies, unparsed; with the entities or without. Raises PolicyFault."""
    from dataclasses import replace

    from gateway.front.policies import sources_of
    from gateway.policy.folder import FolderReader
    from gateway.policy.policy_files import read_state

    sources = sources_of(loaded.config.policy)
    return FolderReader(), read_state(sources if entities else replace(sources, entities=None))


def rules_of(loaded: LoadedConfig) -> RelationRules:
    """Give what the config's schema says of relations. Raises PolicyFault."""
    return graph_of(loaded, entities=False).rules


def graph_of(loaded: LoadedConfig, *, entities: bool = True) -> RelationGraph:
    """Give the graph of the config's entities, no relation in it yet. Raises PolicyFault."""
    from gateway.policy.faults import Fault, SchemaError
    from gateway.policy.related_entities import RelatedEntities

    reader, state = read_policies(loaded, entities=entities)
    found = reader.entities(state)
    if not isinstance(found, RelatedEntities):
        hint = "mark an attribute: `@relation viewers: Set<User>`"
        raise SchemaError([Fault("no_relations", "the schema has no relations", hint)])
    return found.graph


def given(texts: Sequence[str]) -> list[Relation]:
    """Read relations of the command line; "-" stands for those of standard input, one a line.

    Raises ValueError with everything that is no relation.
    """
    from gateway.policy.relation_text import parse_relation

    found, wrong = [], []
    for text in store_access.lines(texts):
        try:
            found.append(parse_relation(text))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    return found


async def write(store: RelationStore, adds: Sequence[Relation], removes: Sequence[Relation]) -> str:
    """Write relations, in steps of what the store takes at once; give the last revision."""
    from gateway.stores.rows import CHANGES_MAX

    revision = ""
    for part, is_added in ((removes, False), (adds, True)):
        for first in range(0, len(part), CHANGES_MAX):
            page = part[first : first + CHANGES_MAX]
            revision = await (store.write(page) if is_added else store.write([], page))
    return revision


async def fill(store: RelationStore, graph: RelationGraph) -> None:
    """Read all relations into a graph. Raises StoreUnavailable."""
    from gateway.policy.relation_follower import RelationFollower
    from gateway.types import SystemClock

    follower = RelationFollower(store, graph, clock=SystemClock())
    await follower.follow()
    if error := follower.state().error:
        raise StoreUnavailable(error)


async def read_all(store: RelationStore) -> list[Relation]:
    """Give all relations that hold now."""
    found: dict[object, Relation] = {}
    cursor, more = "", True
    while more:
        page = await store.read_all(cursor, PAGE)
        found.update({relation.key: relation for relation in page.relations})
        cursor, more = page.cursor, bool(page.cursor)
    now_s = time.time()
    return [each for each in found.values() if each.expires_at_s is None or each.expires_at_s > now_s]


def document_of(relation: Relation) -> dict[str, object]:
    """Give a relation for `--json`."""
    from gateway.policy.relation_text import relation_to_text

    return {
        "relation": relation_to_text(relation),
        "object": str(relation.object),
        "name": relation.relation,
        "subject": str(relation.subject),
        "expires_at": relation.expires_at_s,
    }


def path_document(path: Sequence[PathStep] | None) -> list[dict[str, str]]:
    """Give the way up to a relation for `--json`; nothing where there is none."""
    return [{"lower": str(step.lower), "upper": str(step.upper), "how": step.how} for step in path or ()]
