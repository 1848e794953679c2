"""Sources of entities that can be counted, slowed down and broken, and an engine over what they hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

from gateway._native.uid import EntityUid
from gateway.errors import StoreUnavailable
from gateway.policy import Engine, Entities, PolicySet, Schema
from gateway.policy.json_values import value_to_json
from gateway.stores.attributes import AttributeBatch
from gateway.stores.attributes_rows import LAYOUT, RowAttributeSource
from gateway.stores.base import ORIGIN
from gateway.stores.rows_memory import MemoryRowStore
from gateway.types import Clock

VIEW = EntityUid("Action", "view")


def body(attributes: dict[str, Any] | None = None, parents: Iterable[EntityUid] = ()) -> bytes:
    """Spell what a source keeps of an entity."""
    above = [{"type": each.type, "id": each.id} for each in parents]
    return json.dumps({"attrs": value_to_json(attributes or {}), "parents": above}).encode()


def engine_of(text: str, schema: str | None = None) -> Engine:
    return Engine(PolicySet.parse(text), Entities(), None if schema is None else Schema.parse(schema))


class Watchable:
    """How a source is asked, and how it is made to misbehave."""

    def __init__(self) -> None:
        self.asked: list[list[EntityUid]] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()  # reads wait for it
        self.gate.set()
        self.waiting = asyncio.Event()  # set when a read waits

    async def pass_gate(self, uids: Sequence[EntityUid]) -> None:
        self.asked.append(list(uids))
        self.waiting.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure


class PlainSource(Watchable):
    """A source without a log."""

    shared = "process"

    def __init__(self, name: str = "plain") -> None:
        super().__init__()
        self.name = name
        self.bodies: dict[EntityUid, bytes] = {}

    def keep(self, uid: EntityUid, attributes: dict[str, Any] | None = None, parents: Iterable[EntityUid] = ()) -> None:
        self.bodies[uid] = body(attributes, parents)

    async def read(self, uids: Sequence[EntityUid]) -> AttributeBatch:
        await self.pass_gate(uids)
        return AttributeBatch({uid: self.bodies[uid] for uid in uids if uid in self.bodies}, ORIGIN)

    async def close(self) -> None:
        """Nothing is open."""


class LoggedSource(Watchable, RowAttributeSource):
    """A source with a log. `late`: what was read is given only after the gate, so that changes can come between."""

    late = False
    log_is_away = False

    def __init__(self, clock: Clock, name: str = "logged") -> None:
        Watchable.__init__(self)
        RowAttributeSource.__init__(self, MemoryRowStore(LAYOUT, clock=clock), name)

    async def keep(
        self, uid: EntityUid, attributes: dict[str, Any] | None = None, parents: Iterable[EntityUid] = ()
    ) -> None:
        await self.write([(uid, body(attributes, parents))])

    async def read(self, uids: Sequence[EntityUid]) -> AttributeBatch:
        if self.log_is_away:
            raise StoreUnavailable("away")
        if not uids:  # the follower looks where the log ends
            return await super().read(uids)
        if self.late:
            made = await super().read(uids)
            await self.pass_gate(uids)
            return made
        await self.pass_gate(uids)
        return await super().read(uids)

    async def read_after(self, revision: str, limit: int) -> Any:
        if self.log_is_away:
            raise StoreUnavailable("away")
        return await super().read_after(revision, limit)
