"""What the verbs of entities share: the config's sources, which of them has what, and what is written to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.cli import store_access
from gateway.cli.output import fail

if TYPE_CHECKING:
    from gateway._native.uid import EntityUid
    from gateway.config import LoadedConfig
    from gateway.stores.attributes import AttributeSource, FollowedSource

T = TypeVar("T")

PAGE = 500  # entities read or removed at once

Body = tuple["EntityUid", bytes]


def load(file: Path | None, as_json: bool) -> LoadedConfig:
    """Load a config with sources, or end with what is wrong."""
    loaded = store_access.load(file, as_json)
    if not loaded.config.policy.sources:
        hint = 'say where: `[[policy.sources]]`, `name = "people"`, `types = ["User"]`, `url = "embedded"`'
        fail(f"the config keeps no entities in sources; {hint}", as_json)
    return loaded


class OpenSources:
    """The sources of a config, open, by the types that each has."""

    def __init__(self, loaded: LoadedConfig, run_dir: Path, closing: AsyncExitStack) -> None:
        self._loaded = loaded
        self._run_dir = run_dir
        self._closing = closing
        self._opened: dict[str, AttributeSource] = {}
        self._name_of = {kind: source.name for source in loaded.config.policy.sources for kind in source.types}

    def of(self, kind: str) -> AttributeSource:
        """Return the source of a type. Raises ValueError where there is none, or none that can be reached."""
        if kind not in self._name_of:
            raise ValueError(f"no source has entities of the type `{kind}`; name it in `types` of one")
        return self.named(self._name_of[kind])

    def named(self, name: str) -> AttributeSource:
        """Return a source by its name. Raises ValueError where there is none, or none that can be reached."""
        from gateway.front.attribute_sources import open_configured_source

        if name in self._opened:
            return self._opened[name]
        config = next((each for each in self._loaded.config.policy.sources if each.name == name), None)
        if config is None:
            raise ValueError(f"the config has no source `{name}`")
        if config.url == "memory:":
            raise ValueError(f"`{name}` is inside the running gateway; use another store to reach it from outside")
        source = open_configured_source(config, base_dir=self._loaded.base_dir, run_dir=self._run_dir)
        self._closing.push_async_callback(source.close)
        self._opened[name] = source
        return source

    def types_of(self, name: str) -> frozenset[str]:
        return frozenset(kind for kind, owner in self._name_of.items() if owner == name)

    def by_source(self, uids: Iterable[EntityUid]) -> dict[AttributeSource, list[EntityUid]]:
        """Sort uids by their sources. Raises ValueError for one that has none."""
        sorted_uids: dict[AttributeSource, list[EntityUid]] = defaultdict(list)
        for uid in uids:
            sorted_uids[self.of(uid.type)].append(uid)
        return sorted_uids


def in_sources(loaded: LoadedConfig, work: Callable[[OpenSources], Awaitable[T]], as_json: bool) -> T:
    """Run `work` over the config's sources, or end with what is wrong there."""

    async def working(run_dir: Path) -> T:
        async with AsyncExitStack() as closing:
            return await work(OpenSources(loaded, run_dir, closing))

    return store_access.with_run_dir(loaded, working, as_json)


def written(source: AttributeSource) -> FollowedSource:
    """Return a source that is written here. Raises ValueError for another."""
    from gateway.stores.attributes import FollowedSource

    if not isinstance(source, FollowedSource):
        raise ValueError(f"`{source.name}` is a service over HTTP: its owner alone writes it, and lists what it has")
    return source


async def all_of(source: FollowedSource, types: frozenset[str]) -> AsyncIterator[list[Body]]:
    """Yield pages of all entities of these types; one that is written meanwhile may come twice."""
    cursor, more = "", True
    while more:
        page = await source.read_all(cursor, PAGE)
        yield [(uid, body) for uid, body in page.entities if uid.type in types]
        cursor, more = page.cursor, bool(page.cursor)


async def remove(source: FollowedSource, uids: Sequence[EntityUid]) -> str:
    """Remove entities, in steps; give the last revision."""
    revision = ""
    for first in range(0, len(uids), PAGE):
        revision = await source.write((), uids[first : first + PAGE])
    return revision


def parse_uids(texts: Sequence[str], as_json: bool) -> list[EntityUid]:
    """Read uids of the command line, and of standard input where one is "-"; or end with all that are none."""
    from gateway.policy.faults import PolicyFault
    from gateway.policy.testing.running import parse_uid

    found, wrong = [], []
    for text in store_access.lines(texts):
        try:
            found.append(parse_uid(text))
        except PolicyFault:
            wrong.append(f'`{text}` is no entity; write it as User::"eve"')
    if wrong:
        fail("\n".join(wrong), as_json)
    return found
