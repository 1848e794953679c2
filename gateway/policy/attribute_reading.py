"""Reading entities of sources into stores: once for all who wait, in time, and each of them checked."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from gateway._native.uid import EntityUid
from gateway.errors import GatewayError
from gateway.policy.attribute_origins import AttributeUnavailable, Origin, Reason
from gateway.policy.entities import Entity
from gateway.policy.faults import EntityError
from gateway.policy.residency import Residency
from gateway.resilience import detached
from gateway.stores.attributes import READ_MAX, AttributeBatch
from gateway.types import Clock

logger = logging.getLogger(__name__)

FLIGHTS_MAX: Final = 20_000  # entities being read at once, for all requests
ABSENT_TTL_S: Final = 5.0  # an entity that comes into being is seen after so long, where nobody tells of it
JITTER: Final = 0.9  # of a time to live at least: what was read together is not over together
TOLD_MAX: Final = 1000  # entities of which it is remembered that the log was told of them


class AttributeReading:
    """Reads what is wanted of the sources that have it. Belongs to one event loop.

    `limit_s` is what one read may take. `counts` counts what is read: it is its owner's.
    """

    def __init__(
        self,
        by_type: Mapping[str, Origin],
        *,
        clock: Clock,
        limit_s: float,
        uniform: Callable[[float, float], float],
        counts: Counter[str],
    ) -> None:
        self._by_type = by_type
        self._clock = clock
        self._limit_s = limit_s
        self._uniform = uniform
        self._counts = counts
        self._tasks: set[asyncio.Task[Any]] = set()
        self._told: OrderedDict[EntityUid, None] = OrderedDict()

    async def stop(self) -> None:
        """End what is under way; whoever waits for it is refused."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def fetch(self, residency: Residency, wanted: Collection[EntityUid], until_s: float) -> None:
        """Wait until all that is wanted was read, by whomever. Raises AttributeUnavailable for what was not."""
        groups: dict[Origin, list[EntityUid]] = {}
        for uid in wanted:
            origin = self._by_type.get(uid.type)
            if origin is None:
                raise AttributeUnavailable("", "no_source")
            if not origin.trusted:
                raise AttributeUnavailable(origin.name, "untrusted")
            if self._clock.monotonic_s() >= until_s:
                raise AttributeUnavailable(origin.name, "too_slow")
            groups.setdefault(origin, []).append(uid)
        if not groups:
            return
        joined = {residency.flights[uid] for uid in wanted if uid in residency.flights}
        flights = {origin: self._flights(residency, origin, uids) for origin, uids in groups.items()}
        tasks = {task for each in flights.values() for task in each}
        _, late = await asyncio.wait(tasks, timeout=max(0.0, until_s - self._clock.monotonic_s()))
        again: list[EntityUid] = []
        for origin, uids in groups.items():
            if not late.isdisjoint(flights[origin]):
                raise AttributeUnavailable(origin.name, "too_slow")
            for task in flights[origin]:
                if task.cancelled():  # all of this is being stopped
                    raise AttributeUnavailable(origin.name, "unavailable")
                failed = task.result()
                for uid in failed.keys() & set(uids):
                    if failed[uid] != "too_slow" or task not in joined:
                        raise AttributeUnavailable(origin.name, failed[uid])
                    again.append(uid)  # its time was over, ours is not
        if again:
            await self.fetch(residency, again, until_s)

    def _flights(
        self, residency: Residency, origin: Origin, uids: Sequence[EntityUid]
    ) -> set[asyncio.Task[Mapping[EntityUid, Reason]]]:
        """Give the reads that bring `uids`: those that are under way, and new ones for the others."""
        fresh = [uid for uid in uids if uid not in residency.flights]
        if len(residency.flights) + len(fresh) > FLIGHTS_MAX:
            raise AttributeUnavailable(origin.name, "too_many")
        for first in range(0, len(fresh), READ_MAX):
            part = fresh[first : first + READ_MAX]
            task = detached(self._read(residency, origin, part), name=f"attributes: {origin.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            residency.flights.update(dict.fromkeys(part, task))
        return {residency.flights[uid] for uid in uids}

    def read_again(self, residency: Residency, origin: Origin, uids: Sequence[EntityUid]) -> None:
        """Read entities that nobody waits for, where there is room for that: else whoever needs them reads them."""
        if not uids or len(residency.flights) + len(uids) > FLIGHTS_MAX:
            return
        self._counts["refreshed"] += len(uids)
        self._flights(residency, origin, uids)

    async def _read(
        self, residency: Residency, origin: Origin, uids: Sequence[EntityUid]
    ) -> Mapping[EntityUid, Reason]:
        """Read entities of a source into the store; give those that are not here afterwards, with the reason.

        It goes on when whoever asked has given up: what comes late serves the next one. It never takes longer than a
        decision may.
        """
        reason: Reason
        try:
            async with asyncio.timeout(self._limit_s):
                return await self._read_and_put(residency, origin, uids)
        except TimeoutError:
            reason = "too_slow"
        except AttributeUnavailable as failure:
            reason = failure.reason
        except GatewayError as error:  # the source, or what is between us: its breaker, its permits
            logger.warning("attributes of `%s` could not be read: %s", origin.name, error)
            reason = "unavailable"
        except Exception:  # our own mistake, or the source's: nobody may wait for ever, or decide without
            logger.exception("attributes of `%s` could not be read", origin.name)
            reason = "internal"
        finally:
            for uid in uids:
                residency.flights.pop(uid, None)
        return dict.fromkeys(uids, reason)

    async def _read_and_put(
        self, residency: Residency, origin: Origin, uids: Sequence[EntityUid]
    ) -> Mapping[EntityUid, Reason]:
        while True:
            now_s = self._clock.monotonic_s()
            self._counts["reads"] += 1
            batch = await origin.source.read(uids)
            found, failed = await self._entities(residency, origin, uids, batch)
            # From here on nothing else runs in the loop: no change can be told between the question and the store.
            if not origin.trusted:
                raise AttributeUnavailable(origin.name, "untrusted")
            if origin.covers(batch.revision):
                break
            await asyncio.sleep(0)  # a change was told meanwhile that the batch may not show
        absent = [uid for uid in uids if uid not in batch.found]

        def ends(is_absent: bool) -> float | None:
            if origin.follower is not None:
                return None
            ttl_s = min(origin.ttl_s, ABSENT_TTL_S) if is_absent else origin.ttl_s
            return now_s + ttl_s * self._uniform(JITTER, 1.0)

        for uid, why in residency.put(origin.name, found, absent, now_s=now_s, ends=ends).items():
            failed[uid] = "invalid"
            self._note_invalid(origin, uid, why)
        residency.evict(residency.held_of(failed, origin.name))  # what was here of them is no longer so
        self._counts["fetched"] += len(found)
        self._counts["absent"] += len(absent)
        self._counts["bytes"] += sum(map(len, batch.found.values()))
        return failed

    async def _entities(
        self, residency: Residency, origin: Origin, uids: Sequence[EntityUid], batch: AttributeBatch
    ) -> tuple[list[Entity], dict[EntityUid, Reason]]:
        """Read the bodies; nothing that was not asked for counts."""
        found: list[Entity] = []
        failed: dict[EntityUid, Reason] = {}
        for number, uid in enumerate(uids, 1):
            if uid in batch.found:
                try:
                    found.append(residency.entity(uid, batch.found[uid]))
                    self._told.pop(uid, None)
                except EntityError as error:
                    failed[uid] = "invalid"
                    self._note_invalid(origin, uid, str(error))
            if number % 100 == 0:
                await asyncio.sleep(0)
        return found, failed

    def _note_invalid(self, origin: Origin, uid: EntityUid, why: str) -> None:
        """Count, and tell the log once until the entity fits again."""
        self._counts["invalid"] += 1
        if uid not in self._told:
            logger.error("`%s` of the source `%s` does not fit: %s", uid, origin.name, why)
            self._told[uid] = None
            if len(self._told) > TOLD_MAX:
                self._told.popitem(last=False)
