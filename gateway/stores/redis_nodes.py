"""Redis, one server or a cluster, asked within hard deadlines: each command goes to the node that has its key.

What a cluster's client has to survive is a node that is stopped and still accepts connections. So nothing here is
asked of one node in the hope that it knows: which node has what is asked of all of them at once, and the first answer
counts; a node that let a deadline pass is asked again only when the others still name it. Commands must be harmless
when they are run twice, for those of which no answer came are.

It must not forget what it acknowledged: run it with `appendonly yes` and `maxmemory-policy noeviction`. A cluster
replicates behind the acknowledgement: what was acknowledged in the last instant before a primary died may be lost,
unless the command asked for replicas to have it.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

from gateway.config.addresses import each_server
from gateway.errors import StoreUnavailable
from gateway.stores.pools import REDIS_NODE, PoolLimits, PoolState

if TYPE_CHECKING:
    from redis.asyncio import Redis

SCHEMES: Final = ("redis", "rediss", "unix")
OPEN_TIMEOUT_S: Final = 30.0  # the import of the driver, on a machine that has just started
ATTEMPTS: Final = 2  # "retry on timeout", once
PAUSE_S: Final = 0.05  # before the second attempt, where the cluster is about to know better
MAP_TIMEOUT_S: Final = 0.4  # for the first answer of any node
MAP_PAUSE_S: Final = 0.2  # between two looks at the map
REPLICA_WAIT_MS: Final = 100
REDIRECTS_MAX: Final = 4
BLOCK_S_MAX: Final = 1.0  # of one blocking read

Word = str | bytes | int | float
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Command:
    """One command, and the key by which its node is found."""

    key: str
    words: tuple[Word, ...]
    replicated: bool = False  # the answer waits for a replica to have it, REPLICA_WAIT_MS at most


def script(text: str, keys: Sequence[str], *arguments: Word, replicated: bool = False) -> Command:
    """Return the command that runs a script; all `keys` lie in one slot."""
    return Command(keys[0], ("EVAL", text, len(keys), *keys, *arguments), replicated)


class _Node:
    """One server, and the connections to it."""

    def __init__(self, address: Address, client: Redis, limits: PoolLimits) -> None:
        host, port = address
        self.name = f"{host}:{port}"
        self.client = client
        self.places = asyncio.Semaphore(limits.connections_max)
        self.waiting = 0
        self.busy = 0
        self.warming: asyncio.Task[None] | None = None


class RedisNodes:
    """The connections to a server, or to the nodes of a cluster. Belongs to one event loop."""

    def __init__(self, url: str, limits: PoolLimits = REDIS_NODE) -> None:
        """`url`: of one server, or with several `host:port`, comma between, of some nodes of a cluster."""
        self._seeds, self._parts = _addresses(url)
        self._url = url
        self._clustered = len(self._seeds) > 1
        self._name = f"{self._parts.scheme}://" + ",".join(f"{host}:{port}" for host, port in self._seeds)
        self._limits = limits
        self._nodes: dict[Address, _Node] = {}
        self._slots: list[Address] = []  # of a cluster, for each slot its primary; empty: not known yet
        self._loaded = False
        self._map_at_s = float("-inf")
        self._mapping: asyncio.Task[None] | None = None
        self._closed = False
        self._users = 1
        self.unreplicated = 0  # commands that no replica confirmed in time

    def use(self) -> bool:
        """Count one more store that uses it, and closes it once; False where it is closed already."""
        if self._closed:
            return False
        self._users += 1
        return True

    async def ask(self, commands: Sequence[Command], *, attempts: int = ATTEMPTS) -> list[Any]:
        """Run commands, those of one node in one go, and return their answers. Raises StoreUnavailable."""
        await self._load_driver()
        answers: list[Any] = [None] * len(commands)
        open_places = list(range(len(commands)))
        fault: Exception | None = None
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(PAUSE_S)
            try:
                groups = await self._grouped(commands, open_places)
            except StoreUnavailable as error:
                fault = error
                continue
            calls = [self._ask_node(address, [commands[place] for place in places]) for address, places in groups]
            for (_, places), outcome in zip(groups, await asyncio.gather(*calls, return_exceptions=True), strict=True):
                if isinstance(outcome, StoreUnavailable):
                    fault = outcome
                    continue
                if isinstance(outcome, BaseException):
                    raise outcome
                for place, answer in zip(places, outcome, strict=True):
                    answers[place] = answer
                    open_places.remove(place)
            if not open_places:
                return answers
        assert fault is not None
        raise fault

    async def block(self, key: str, words: Sequence[Word], block_s: float) -> Any:
        """Run one command that may block for `block_s` in the server."""
        await self._load_driver()
        ((address, _),) = await self._grouped((Command(key, ()),), (0,))
        node = self._node(address)
        async with self._bounded(node, block_s + self._limits.call_timeout_s):
            return await node.client.execute_command(*words)  # type: ignore[no-untyped-call]

    def pools(self) -> list[PoolState]:
        """Return how many connections there are to each node."""
        states = []
        for node in self._nodes.values():
            open_count = len(node.client.connection_pool._available_connections) + node.busy
            states.append(
                PoolState("redis", node.name, open_count, node.busy, node.waiting, self._limits.connections_max)
            )
        return states

    async def close(self) -> None:
        """Close all connections, with the last of those who use them; never raises."""
        self._users -= 1
        if self._users:
            return
        self._closed = True
        tasks = [task for task in (self._mapping, *(node.warming for node in self._nodes.values())) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await _close(node)

    # -- which node has what

    async def _grouped(self, commands: Sequence[Command], places: Sequence[int]) -> list[tuple[Address, list[int]]]:
        if not self._clustered:
            return [(self._seeds[0], list(places))]
        from redis.crc import key_slot

        if not self._slots:
            await self._look()
        groups: dict[Address, list[int]] = {}
        for place in places:
            groups.setdefault(self._slots[key_slot(commands[place].key.encode())], []).append(place)
        return list(groups.items())

    async def _look(self) -> None:
        """Learn the map anew, together with all who want the same; raises StoreUnavailable where nobody knows it."""
        await asyncio.shield(self._begin_to_learn())

    def _doubt(self) -> None:
        """Learn the map anew, in the background: a node let us down."""
        loop = asyncio.get_running_loop()
        if not self._clustered or self._closed or loop.time() < self._map_at_s + MAP_PAUSE_S:
            return
        self._begin_to_learn()

    def _begin_to_learn(self) -> asyncio.Task[None]:
        if self._mapping is None or self._mapping.done():
            self._mapping = asyncio.create_task(self._learn())
            self._mapping.add_done_callback(lambda task: None if task.cancelled() else task.exception())
        return self._mapping

    async def _learn(self) -> None:
        self._map_at_s = asyncio.get_running_loop().time()
        known = dict.fromkeys((*self._seeds, *self._nodes))
        asking = [asyncio.create_task(self._map_of(address)) for address in known]
        best: tuple[int, list[Address]] | None = None
        try:
            for answer in asyncio.as_completed(asking, timeout=MAP_TIMEOUT_S):
                with suppress(StoreUnavailable):
                    told = await answer
                    # The highest epoch is the newest view; a minority behind a partition still tells the old one.
                    if best is None or told[0] > best[0]:
                        best = told
        except TimeoutError:
            pass
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if best is None:
            raise StoreUnavailable(f"no node of `{self._name}` tells which one has what")
        self._slots = best[1]
        named = {*self._slots, *self._seeds}
        for address in [address for address in self._nodes if address not in named]:
            node = self._nodes[address]
            if not node.busy and not node.waiting:
                await _close(self._nodes.pop(address))

    async def _map_of(self, address: Address) -> tuple[int, list[Address]]:
        """Ask one node, on a connection of its own, for the epoch and for the primary of each slot."""
        client = self._new_client(address, connections_max=1)
        try:
            async with asyncio.timeout(MAP_TIMEOUT_S):
                pipe = client.pipeline(transaction=False)
                pipe.execute_command("CLUSTER", "INFO")
                pipe.execute_command("CLUSTER", "SLOTS")
                info, ranges = await pipe.execute()
            slots: list[Address | None] = [None] * 16384
            for first, last, (host, port, *_), *_ in ranges:
                name = (host or b"").decode() or address[0]  # absent: the one that was asked
                slots[int(first) : int(last) + 1] = [(name, int(port))] * (int(last) - int(first) + 1)
            covered = [owner for owner in slots if owner is not None]
            if len(covered) != len(slots):
                raise StoreUnavailable("the map has holes")
            return _epoch(info), covered
        except StoreUnavailable:
            raise
        except Exception as error:
            host, port = address
            raise StoreUnavailable(f"Redis at `{host}:{port}` tells no map: {type(error).__name__}") from error
        finally:
            with suppress(Exception):
                await client.aclose()

    # -- asking one node

    async def _ask_node(self, address: Address, commands: Sequence[Command]) -> list[Any]:
        node = self._node(address)
        async with self._bounded(node, self._limits.call_timeout_s):
            if len(commands) == 1 and not (self._clustered and commands[0].replicated):
                return [await self._redirected(commands[0], await _run(node.client, commands[0]))]
            pipe = node.client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command.words)
            replicated = self._clustered and any(command.replicated for command in commands)
            if replicated:
                pipe.execute_command("WAIT", 1, REPLICA_WAIT_MS)
            answers = await pipe.execute(raise_on_error=False)
            if replicated:
                self.unreplicated += int(answers.pop()) < 1
            return [await self._redirected(command, answer) for command, answer in zip(commands, answers, strict=True)]

    async def _redirected(self, command: Command, answer: Any) -> Any:
        """Follow the cluster's word that another node has the key. Raises what else is an error."""
        from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

        for _ in range(REDIRECTS_MAX):
            if not isinstance(answer, Exception):
                return answer
            if isinstance(answer, MovedError):
                address = (answer.host or self._seeds[0][0], int(answer.port))
                if self._slots:
                    self._slots = list(self._slots)
                    self._slots[int(answer.slot_id)] = address
                self._doubt()
                words: list[tuple[Word, ...]] = [command.words]
            elif isinstance(answer, AskError):
                address = (answer.host or self._seeds[0][0], int(answer.port))
                words = [("ASKING",), command.words]
            elif isinstance(answer, TryAgainError):  # half of the keys of a script have moved
                await asyncio.sleep(PAUSE_S)
                ((address, _),) = await self._grouped((command,), (0,))
                words = [command.words]
            elif isinstance(answer, ClusterDownError):
                self._doubt()
                raise answer
            else:
                raise answer
            pipe = self._node(address).client.pipeline(transaction=False)
            for each in words:
                pipe.execute_command(*each)
            answer = (await pipe.execute(raise_on_error=False))[-1]
        raise StoreUnavailable("the cluster sends us around in circles")

    @asynccontextmanager
    async def _bounded(self, node: _Node, timeout_s: float) -> AsyncIterator[None]:
        """Hold a place in the node's pool and a hard deadline, and let no error of the driver pass."""
        try:
            async with asyncio.timeout(timeout_s):
                node.waiting += 1
                try:
                    await node.places.acquire()
                finally:
                    node.waiting -= 1
                node.busy += 1
                try:
                    yield
                finally:
                    node.busy -= 1
                    node.places.release()
        except TimeoutError as error:
            self._doubt()
            raise StoreUnavailable(f"Redis at `{node.name}` did not answer within {timeout_s:g} s") from error
        except StoreUnavailable:
            raise
        except Exception as error:  # redis-py lets AttributeError and others out of a connection that breaks
            self._doubt()
            raise StoreUnavailable(f"Redis at `{node.name}` failed: {type(error).__name__}") from error

    def _node(self, address: Address) -> _Node:
        if self._closed:
            raise StoreUnavailable(f"`{self._name}` is closed")
        node = self._nodes.get(address)
        if node is None:
            client = self._new_client(address, self._limits.connections_max)
            node = self._nodes[address] = _Node(address, client, self._limits)
        if node.warming is None and self._limits.connections_min > 1:
            node.warming = asyncio.create_task(self._warm(node))
        return node

    async def _warm(self, node: _Node) -> None:
        """Open the connections that are kept at rest, so that a burst finds them."""
        pool = node.client.connection_pool
        places, held = 0, []
        try:
            with suppress(Exception):
                async with asyncio.timeout(self._limits.connect_timeout_s):
                    # Calls come first: they take a place as this does, and leave connections behind as well.
                    while node.busy < self._limits.connections_min and not node.places.locked():
                        await node.places.acquire()
                        node.busy += 1
                        places += 1
                        held.append(await pool.get_connection())  # type: ignore[no-untyped-call]
        finally:
            for connection in held:
                with suppress(Exception):
                    await pool.release(connection)
            for _ in range(places):
                node.busy -= 1
                node.places.release()

    async def _load_driver(self) -> None:
        if self._loaded:
            return
        try:
            # The import takes 200 ms; the loop has requests to answer meanwhile.
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await asyncio.to_thread(importlib.import_module, "redis.asyncio")
        except TimeoutError as error:
            raise StoreUnavailable("the driver of Redis could not be loaded in time") from error
        self._loaded = True

    def _new_client(self, address: Address, connections_max: int) -> Redis:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.maint_notifications import MaintNotificationsConfig

        host, port = address
        parts = self._parts
        if not self._clustered:
            url = self._url
        else:
            place = f"[{host}]" if ":" in host else host
            user = parts.netloc.rpartition("@")[0]
            url = f"{parts.scheme}://{f'{user}@' if user else ''}{place}:{port}/0" + (
                f"?{parts.query}" if parts.query else ""
            )
        return Redis.from_url(
            url,
            # The deadline is held around the call. With a socket_timeout, redis-py 8.1 writes through
            # asyncio.wait_for, which on Python 3.11 swallows a cancellation that comes when the write is done.
            socket_timeout=None,
            socket_connect_timeout=self._limits.connect_timeout_s,
            socket_keepalive=True,
            max_connections=connections_max,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )


def _addresses(url: str) -> tuple[list[Address], SplitResult]:
    """Read the hosts of a URL. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"unknown kind of store `{parts.scheme}`")
    if parts.scheme == "unix":
        return [(parts.path, 0)], parts
    servers = [urlsplit(server) for server in each_server(url)]
    found = [(server.hostname or "localhost", server.port or 6379) for server in servers]
    if len(found) > 1 and parts.path not in ("", "/", "/0"):
        raise ValueError("a cluster of Redis has only the database 0")
    return found, parts


def _epoch(info: bytes) -> int:
    """Return the epoch of a node's view. A view of a node that sees no majority is better than none, no more."""
    lines = dict(line.split(":", 1) for line in info.decode().split("\r\n") if ":" in line)
    return int(lines["cluster_current_epoch"]) if lines.get("cluster_state") == "ok" else -1


async def _run(client: Redis, command: Command) -> Any:
    """Run one command without the cost of a pipeline; return its answer, or the error that the server answered."""
    from redis.exceptions import ResponseError

    try:
        return await client.execute_command(*command.words)  # type: ignore[no-untyped-call]
    except ResponseError as error:
        return error


async def _close(node: _Node) -> None:
    with suppress(Exception):
        async with asyncio.timeout(1.0):
            await node.client.aclose()
