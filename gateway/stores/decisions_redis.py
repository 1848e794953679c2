"""Decisions in Redis, shared by all gateways. Nothing here has to last: any Redis, also one that evicts, will do.

    starting ──answered, another epoch──▶ ok ──fault──▶ away ──answered, another epoch──▶ ok

Two connections, one that asks and one that puts, whatever the number of requests: questions that come while one is on
its way go together in the next. Only the task in the background waits for a server that is away. It begins with another
epoch, at the start too: a change may have been missed, by this process or by a server that took over.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Literal

from gateway.errors import StoreUnavailable
from gateway.stores.decisions import (
    KEYS_MAX,
    NO_EPOCH,
    DecisionsFound,
    DecisionStoreState,
    Epoch,
    check_keys,
    check_value,
    nothing,
)
from gateway.stores.following import uniform_random
from gateway.stores.redis_server import CALL_TIMEOUT_S, RedisServer, answer

CALL_S: Final = 0.05  # one question, or the putting of one batch: some times what making a decision anew takes
PUTS_MAX: Final = 1000  # that wait to be sent
PUTS_TOGETHER: Final = 100  # of them in one round trip
PAUSE_MIN_S: Final = 0.25  # before a server that is away is tried again; doubled up to the maximum, with jitter
PAUSE_MAX_S: Final = 10.0

Question = tuple[Sequence[bytes], "asyncio.Future[DecisionsFound]"]
Put = tuple[bytes, bytes, int]  # key in Redis, value, milliseconds


class RedisDecisionStore:
    """A DecisionStore in one key for each decision, and one for the epoch, which is part of the others' names."""

    shared = "network"

    def __init__(
        self,
        url: str,
        *,
        tenant: str = "default",
        call_s: float = CALL_S,
        uniform: Callable[[float, float], float] = uniform_random,
    ) -> None:
        """`tenant`: whose epoch it is; others have their own."""
        self._server = RedisServer(url)
        self._prefix = "portcullis:{decisions:" + tenant + "}:"  # one hash tag, so that a cluster keeps all in one slot
        self._call_s = call_s
        self._uniform = uniform
        self._status: Literal["starting", "ok", "away"] = "starting"
        self._error = ""
        self._faults = self._dropped = 0
        self._epoch: Epoch = NO_EPOCH  # that was seen last
        self._renewals = 0  # begun
        self._renewing = 0  # not ended
        self._questions: list[Question] = []
        self._puts: list[Put] = []
        self._asking: asyncio.Task[None] | None = None
        self._putting: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._closed = False

    async def get_many(self, keys: Sequence[bytes]) -> DecisionsFound:
        check_keys(keys)
        if self._status != "ok" or self._renewing:
            self._return_later()
            return nothing(keys)
        renewals = self._renewals
        future: asyncio.Future[DecisionsFound] = asyncio.get_running_loop().create_future()
        self._questions.append((keys, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="decisions-ask")
        found = nothing(keys)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._call_s):
                found = await future
        # What was asked for before another epoch began may be of the one before.
        return found if renewals == self._renewals else nothing(keys)

    def put(self, key: bytes, value: bytes, ttl_s: float, epoch: Epoch) -> None:
        check_value(key, value, ttl_s)
        if epoch != self._epoch or epoch == NO_EPOCH or self._status != "ok" or len(self._puts) >= PUTS_MAX:
            self._dropped += 1
            return
        self._puts.append((self._name(epoch, key), value, max(1, int(ttl_s * 1000))))
        if self._putting is None:
            self._putting = asyncio.create_task(self._put(), name="decisions-put")

    async def invalidate(self) -> None:
        self._renewals += 1
        self._renewing += 1
        self._epoch = NO_EPOCH
        try:
            if self._status == "ok":  # who is away begins with another epoch anyway
                await self._renew(self._call_s)
        except StoreUnavailable as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(StoreUnavailable("another epoch was not seen to begin"))
            raise
        finally:
            self._renewing -= 1

    def state(self) -> DecisionStoreState:
        return DecisionStoreState(self._status, self._error, self.shared, self._faults, self._dropped)

    async def close(self) -> None:
        self._closed, self._status = True, "away"
        tasks = [task for task in (self._asking, self._putting, self._returning) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._forget()
        await self._server.close()

    # --- the tasks

    async def _ask(self) -> None:
        """Send what is asked, until nothing is."""
        try:
            while self._questions:
                together = self._take_questions()
                for (_, future), found in zip(together, await self._find(together), strict=True):
                    if not future.done():
                        future.set_result(found)
        except StoreUnavailable as error:
            for keys, future in together:
                if not future.done():
                    future.set_result(nothing(keys))
            self._fail(error)
        finally:
            self._asking = None

    def _take_questions(self) -> list[Question]:
        """Take those that fit into one round trip, the first in any case."""
        count, keys = 0, 0
        while count < len(self._questions) and (count == 0 or keys + len(self._questions[count][0]) <= KEYS_MAX):
            keys += len(self._questions[count][0])
            count += 1
        taken, self._questions = self._questions[:count], self._questions[count:]
        return taken

    async def _find(self, questions: Sequence[Question]) -> list[DecisionsFound]:
        """Ask for the epoch, and for the keys as they are named in the epoch that was seen last."""
        epoch, renewals, steady = self._epoch, self._renewals, not self._renewing
        names = [self._name(epoch, key) for keys, _ in questions for key in keys]
        client = await self._server.open()
        async with self._server.bounded(self._call_s):
            present, *values = await answer(client.mget([self._prefix + "epoch", *names]))
            if present is None:  # evicted, or all was forgotten
                await answer(client.set(self._prefix + "epoch", secrets.token_hex(8), nx=True))
            seen: Epoch = NO_EPOCH if present is None else present.decode()
        if steady and renewals == self._renewals:
            self._epoch = seen
        if seen != epoch:
            return [nothing(keys, seen) for keys, _ in questions]
        found = []
        for keys, _ in questions:
            found.append(DecisionsFound(tuple(values[: len(keys)]), seen))
            values = values[len(keys) :]
        return found

    async def _put(self) -> None:
        """Send what is put, until nothing is."""
        try:
            client = await self._server.open()
            while self._puts:
                together, self._puts = self._puts[:PUTS_TOGETHER], self._puts[PUTS_TOGETHER:]
                async with self._server.bounded(self._call_s), client.pipeline(transaction=False) as pipe:
                    for name, value, ttl_ms in together:
                        pipe.set(name, value, px=ttl_ms)
                    await pipe.execute()
        except StoreUnavailable as error:
            self._dropped += len(together)
            self._fail(error)
        finally:
            self._putting = None

    def _return_later(self) -> None:
        if self._returning is None and self._status != "ok" and not self._closed:
            self._returning = asyncio.create_task(self._return(), name="decisions-return")

    async def _return(self) -> None:
        """Wait until the server answers, and begin another epoch there."""
        pause_s = PAUSE_MIN_S
        try:
            while self._status != "ok":
                if self._status == "away":
                    await asyncio.sleep(self._uniform(0.5, 1.0) * pause_s)
                    pause_s = min(2 * pause_s, PAUSE_MAX_S)
                renewals = self._renewals
                try:
                    await self._renew(CALL_TIMEOUT_S)
                except StoreUnavailable as error:
                    self._note(error)
                else:
                    if renewals == self._renewals:  # else one was asked for that the server has not seen
                        self._status, self._error = "ok", ""
        finally:
            self._returning = None

    async def _renew(self, timeout_s: float) -> None:
        """Begin another epoch. Raises StoreUnavailable."""
        renewals, epoch = self._renewals, secrets.token_hex(8)
        client = await self._server.open()
        async with self._server.bounded(timeout_s):
            await answer(client.set(self._prefix + "epoch", epoch))
        if renewals == self._renewals:
            self._epoch = epoch

    # --- faults

    def _fail(self, error: StoreUnavailable) -> None:
        """Be away: nobody waits for the server any more but the task that looks for its return."""
        if self._closed:
            return
        if self._status == "ok":
            self._note(error)
            self._forget()
            self._return_later()

    def _note(self, error: StoreUnavailable) -> None:
        self._faults += self._status != "away"
        self._status, self._error = "away", str(error)

    def _forget(self) -> None:
        """Answer all who wait, and drop what was to be put."""
        self._epoch = NO_EPOCH
        self._dropped += len(self._puts)
        self._puts = []
        questions, self._questions = self._questions, []
        for keys, future in questions:
            if not future.done():
                future.set_result(nothing(keys))

    def _name(self, epoch: Epoch, key: bytes) -> bytes:
        return f"{self._prefix}{epoch}:".encode() + key
