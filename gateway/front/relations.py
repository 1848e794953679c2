"""The relations of a running worker: a store, followed into the entities that are in force.

Entities that are read anew have a graph of their own, into which all relations are read again. Until that is done the
former policies and entities decide, as long as their own relations are trusted: no reload refuses a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config import RelationsConfig, resolve_store_url
from gateway.front.in_force import first_look
from gateway.policy.relation_follower import RelationFollower
from gateway.policy.relations import RelationGraph
from gateway.stores import open_relation_store
from gateway.stores.relations import RelationStore
from gateway.types import Clock


@dataclass(frozen=True, slots=True)
class Following:
    """A store of relations, and the follower that brings them into one graph."""

    config: RelationsConfig
    graph: RelationGraph
    store: RelationStore
    follower: RelationFollower

    async def start(self) -> None:
        """Begin to follow; wait for the first attempt to read everything, FIRST_LOOK_S at most."""
        await first_look(self.follower.start())

    async def stop(self, *, keep_store: bool) -> None:
        """End the following; the store goes too, unless another one has it."""
        await self.follower.stop()
        if not keep_store:
            await self.store.close()


def open_configured_store(config: RelationsConfig, *, base_dir: Path, run_dir: Path) -> RelationStore:
    """Give the store that a config names; it connects when it is first asked. Raises SecretUnresolved (ValueError)."""
    address = resolve_store_url(config.url, base_dir).reveal().decode()
    return open_relation_store("" if address == "embedded" else address, run_dir, poll_ms=config.poll_ms)


class Relations:
    """Which following is in force, and which is to be. Belongs to one event loop; made before it runs."""

    def __init__(
        self,
        *,
        base_dir: Path,
        run_dir: Path,
        clock: Clock,
        publish: Callable[[], None],
        on_trust: Callable[[], None],
    ) -> None:
        """`publish` is called when what was wanted last comes into force, `on_trust` when trust was won or lost."""
        self._base_dir = base_dir
        self._run_dir = run_dir
        self._clock = clock
        self._publish = publish
        self._on_trust = on_trust
        self._now: Following | None = None
        self._next: Following | None = None  # is read while `_now` decides
        self._settling: asyncio.Task[None] | None = None  # of `_next`
        self._turned = asyncio.Event()
        self._is_running = False
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, config: RelationsConfig, graph: RelationGraph) -> Following:
        """Give the following of this graph, the one there is or a new one. Raises ValueError for no usable address.

        Followings of one config share its store: one that is in memory would be lost with the first of them.
        """
        store = None
        for known in (self._now, self._next):
            if known is not None and known.config == config:
                if known.graph is graph:
                    return known
                store = known.store
        if store is None:
            store = open_configured_store(config, base_dir=self._base_dir, run_dir=self._run_dir)
        follower = RelationFollower(store, graph, clock=self._clock, on_trust=self._turn, behind_s_max=config.lease_s)
        return Following(config, graph, store, follower)

    @property
    def follower(self) -> RelationFollower | None:
        """What keeps the relations that are in force; None: there are none."""
        return None if self._now is None else self._now.follower

    def take(self, wanted: Following | None) -> None:
        """Put a following in force: at once, unless the former one is trusted and the new one has still to be read."""
        now = self._now
        if wanted is not None and wanted is self._next:
            return
        given_up = self._give_up_next()
        if wanted is None or wanted is now or not self._is_running:
            self._switch(wanted)
        elif now is not None and now.follower.trusted:
            self._next = wanted
            self._settling = self._spawn(self._settle(wanted))
        else:
            self._switch(wanted)
            self._spawn(wanted.start())
        if given_up is not None:
            self._end(given_up)

    async def start(self) -> None:
        """Begin to follow what is in force; waits for its first reading, and not for ever."""
        if not self._is_running:
            self._is_running = True
            if self._now is not None:
                await self._now.start()

    async def stop(self) -> None:
        """End everything."""
        self._is_running = False
        given_up, now, self._now = self._give_up_next(), self._now, None
        for following in (given_up, now):
            if following is not None:
                await following.stop(keep_store=False)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- from one to the next

    async def _settle(self, following: Following) -> None:
        """Read a following, and put it in force when it can be trusted, or when the former one cannot either."""
        await following.start()
        while not following.follower.trusted and self._now is not None and self._now.follower.trusted:
            self._turned.clear()
            await self._turned.wait()
        self._next = self._settling = None
        self._switch(following)

    def _switch(self, following: Following | None) -> None:
        former, self._now = self._now, following
        self._publish()
        if self._is_running and former is not None and former is not following:
            self._end(former)

    def _end(self, following: Following) -> None:
        is_used = any(each is not None and each.store is following.store for each in (self._now, self._next))
        self._spawn(following.stop(keep_store=is_used))

    def _give_up_next(self) -> Following | None:
        given_up, self._next = self._next, None
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        return given_up

    def _turn(self) -> None:
        self._on_trust()
        self._turned.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
