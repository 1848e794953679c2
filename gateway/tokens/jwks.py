"""The keys of every configured issuer, kept fresh beside the hot path and handed to it whole.

How an issuer's keys live:

    starting ─first success──▶ ok ──failed refresh──▶ stale ──older than stale_s──▶ unavailable
       │                        ▲                       │                                │
       └─ a set from disk ──────┼───────▶ stale         └────────── success ─────────────┤
                                └────────────────────────── success ─────────────────────┘

A successful fetch replaces the set whole: a key that is gone stops working at once. A failed one removes nothing until
`stale_s`. A set that is empty, or of which no key can be used, counts as a failed fetch: it is far more often a fault
of the issuer than its will (Azure AD dropped a key in 2021 and locked out its users), and a will to withdraw *every*
key shows in a set with another key, or in our own configuration. The price is stated: an issuer that publishes an
empty set has its last keys accepted for `stale_s`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gateway.config import IssuerConfig
from gateway.resilience import backoff_s, detached
from gateway.stores.fetch import Fetcher, FetchFailed
from gateway.tokens.issuer_calls import IssuerCalls
from gateway.tokens.keys import JWKS_KEYS_MAX, LoadedKeys, load_jwks
from gateway.tokens.snapshots import KeySetSnapshots, public_keys
from gateway.tokens.sources import FileKeys, KeySource, RemoteKeys, SecretKey
from gateway.types import Clock, Secret

if TYPE_CHECKING:
    from gateway._native.verify import KeyHandle

logger = logging.getLogger(__name__)
_uniform = random.SystemRandom().uniform

KID_BYTES_MAX = 1024  # a longer `kid` is nobody's, and not worth a fetch
ABSENT_MAX = 1000  # kids an issuer is remembered not to have
ABSENT_S = 30.0  # how long such a memory holds back a fetch
WAITERS_MAX = 256  # requests that wait for one fetch; more are told to come again
BACKOFF_MAX_S = 300.0  # between two attempts at an issuer that is down
TICK_S = 0.5  # how often it is looked at what is due
CLOCK_STEP_S = 2.0  # a jump of the wall clock against the monotonic one that is acted upon
SAVE_PAUSE_S = 60.0  # an unchanged set is written to disk again after this, to renew its age
FOREVER_S = 253_402_300_799  # 9999-12-31: `usable_until_s` of keys that do not age

Status = Literal["starting", "ok", "stale", "unavailable"]
Learned = Literal["again", "kid_unknown", "keys_unavailable"]
KeyLoader = Callable[[Mapping[str, Any], Collection[str], "Iterable[KeyHandle]"], LoadedKeys]


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """One issuer's part of a key snapshot."""

    config: IssuerConfig
    handles: tuple[KeyHandle, ...]
    usable_until_s: int  # Unix time; 0 = never loaded


@dataclass(frozen=True, slots=True)
class IssuerState:
    """How an issuer's keys stand, for `/readyz` and metrics."""

    issuer: str
    status: Status  # "starting": nothing yet, and the first attempt still runs
    keys: int
    age_s: float | None  # since the fetch of the set in use; None = never loaded
    fetched_at_s: float | None  # the same as Unix time
    error: str  # the problem of the last attempt, "" after a success
    faults: tuple[str, ...]  # keys of the set that could not be used, and why
    failures: int  # attempts in a row that failed
    # totals since start
    fetched: int
    failed: int
    too_large: int  # of the failed: sets above jwks_bytes_max
    held_back: int  # unknown kids that were not asked for, because the last fetch was less than min_refresh_s ago


@dataclass(slots=True, eq=False)
class _Entry:
    """What is known of one issuer. Touched by the loop's thread only."""

    config: IssuerConfig
    source: KeySource
    handles: tuple[KeyHandle, ...] = ()
    loaded_at_s: float | None = None  # monotonic, when the fetch of the set in use began; may lie before our start
    from_disk: bool = False
    error: str = ""
    faults: tuple[str, ...] = ()
    failures: int = 0
    fetched: int = 0
    failed: int = 0
    too_large: int = 0
    held_back: int = 0
    attempted_at_s: float = float("-inf")  # monotonic
    due_s: float = float("-inf")  # monotonic
    settled: bool = False
    flight: asyncio.Task[None] | None = None
    waiters: int = 0
    absent: dict[bytes, float] = field(default_factory=dict)  # kid -> monotonic end of the memory; oldest first
    saved_at_s: float = float("-inf")  # monotonic
    status: Status = "starting"  # as last told to the log

    def age_s(self, now_s: float) -> float | None:
        return None if self.loaded_at_s is None else max(0.0, now_s - self.loaded_at_s)

    def is_lasting(self) -> bool:
        return self.source.lasting and not self.error

    def is_usable(self, now_s: float) -> bool:
        age_s = self.age_s(now_s)
        return age_s is not None and (self.is_lasting() or age_s <= self.config.stale_s)

    def has(self, kid: bytes) -> bool:
        return any(handle.kid == kid for handle in self.handles)


class JWKSCache:
    """Keep the keys of all configured issuers, and hand each change as a whole to `publish`.

    Belongs to one event loop. `publish` is called in the loop's thread with one `PublishedKeys` an issuer, in the
    order of the configuration. Key handles that did not change stay the same objects, so that verdicts cached under
    them stay valid.
    """

    def __init__(
        self,
        issuers: Sequence[IssuerConfig],
        *,
        publish: Callable[[tuple[PublishedKeys, ...]], None],
        fetcher: Fetcher,
        clock: Clock,
        base_dir: Path = Path(),
        snapshots: KeySetSnapshots | None = None,
        read_secret: Callable[[str], Secret],
        load_keys: KeyLoader = load_jwks,
        uniform: Callable[[float, float], float] = _uniform,
        calls: IssuerCalls | None = None,
    ) -> None:
        self._publish_to = publish
        self._fetcher = fetcher
        self._clock = clock
        self._base_dir = base_dir
        self._snapshots = snapshots
        self._read_secret = read_secret
        self._load_keys = load_keys
        self._uniform = uniform
        self._calls = calls
        self._entries = [self._new_entry(config) for config in issuers]
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # flights and writes to disk: the loop holds tasks weakly
        self._clock_offset_s = 0.0

    async def start(self) -> None:
        """Publish what this machine has (files, secrets, sets of the last run) and begin to fetch the rest.

        Needs no issuer to be up, and waits for none.
        """
        await self._load_local(self._entries)
        self._publish()
        self.tick()
        self._ticker = asyncio.create_task(self._tick_for_ever(), name="jwks-ticker")

    async def stop(self) -> None:
        """End everything that runs. The last published keys stay where they are."""
        tasks = [*self._tasks, *([self._ticker] if self._ticker else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ticker = None

    async def reload(self, issuers: Sequence[IssuerConfig]) -> None:
        """Serve another set of issuers from now on; one whose keys come from the same place keeps them.

        Files and secrets are read again, and addresses asked again within their rate limit. New issuers are asked
        before the change is published, within their `fetch_timeout_s`, so that no request falls into the gap. Raises
        what `read_secret` raises, and then nothing has changed. Not to be called twice at once.
        """
        kept = {_place_of(entry.config): entry for entry in self._entries}
        entries = [self._new_entry(config, kept.get(_place_of(config))) for config in issuers]
        fresh = [entry for entry in entries if entry.loaded_at_s is None]
        await self._load_local(entries)
        await asyncio.gather(*(self._begin(entry) for entry in fresh if not entry.settled))
        self._entries = entries
        self._publish()
        self.tick()

    async def learn(self, issuer: str, kid: bytes) -> Learned:
        """Find out whether `issuer` has the key `kid` after all; ends within the issuer's `fetch_timeout_s`.

        "again": judge the token again, the keys may have changed. "kid_unknown": the issuer, asked just now, has no
        such key. "keys_unavailable": that cannot be known now. At most one fetch in `min_refresh_s` an issuer,
        whatever kids arrive; callers meanwhile share the one that runs.
        """
        entry = self.find(issuer)
        if entry is None:
            return "kid_unknown"
        now_s = self._clock.monotonic_s()
        if entry.is_usable(now_s):
            if entry.has(kid):
                return "again"
            if len(kid) > KID_BYTES_MAX or entry.absent.get(kid, 0.0) > now_s:
                return "kid_unknown"
        allowed_s = entry.attempted_at_s + entry.config.min_refresh_s
        asks_itself = entry.flight is None and now_s >= allowed_s
        before = entry.handles
        if asks_itself:
            self._begin(entry)
        elif entry.flight is None:
            entry.held_back += 1
            entry.due_s = min(entry.due_s, allowed_s)  # too soon after the last fetch: the next comes when it may
        if entry.flight is not None and not await self._wait(entry, entry.flight):
            return "keys_unavailable"
        learned = self._judge(entry, kid)
        if learned == "kid_unknown" and set(entry.handles) != set(before):
            return "again"  # a token without `kid` may fit a key that is new
        if learned == "kid_unknown" and asks_itself:
            # Only a fetch that began after the question can say that the key does not exist.
            self._remember_absent(entry, kid)
        return learned

    async def _wait(self, entry: _Entry, flight: asyncio.Task[None]) -> bool:
        """Wait for the running fetch and say whether it ended; too many waiters are not kept."""
        if entry.waiters >= WAITERS_MAX:
            return False
        entry.waiters += 1
        try:
            done, _ = await asyncio.wait((flight,), timeout=entry.config.fetch_timeout_s + TICK_S)
        finally:
            entry.waiters -= 1
        return bool(done)

    def _judge(self, entry: _Entry, kid: bytes) -> Learned:
        if not entry.is_usable(self._clock.monotonic_s()):
            return "keys_unavailable"
        if entry.has(kid):
            return "again"
        # After a failure nobody can say whether the key is new or made up until the issuer answers again.
        return "keys_unavailable" if entry.error else "kid_unknown"

    def _remember_absent(self, entry: _Entry, kid: bytes) -> None:
        entry.absent.pop(kid, None)
        while len(entry.absent) >= ABSENT_MAX:
            del entry.absent[next(iter(entry.absent))]
        entry.absent[kid] = self._clock.monotonic_s() + ABSENT_S

    def find(self, issuer: str) -> _Entry | None:
        """Return the issuer's entry, or None for an issuer that is not configured."""
        return next((entry for entry in self._entries if entry.config.issuer == issuer), None)

    def states(self) -> tuple[IssuerState, ...]:
        """Say how each issuer's keys stand."""
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        return tuple(_state(entry, now_s, wall_s) for entry in self._entries)

    def tick(self) -> None:
        """Begin what is due, tell the log what changed, and follow a wall clock that was set."""
        now_s = self._clock.monotonic_s()
        for entry in self._entries:
            if entry.flight is None and now_s >= entry.due_s:
                self._begin(entry)
            self._tell(entry, now_s)
        if abs(self._clock.wall_s() - now_s - self._clock_offset_s) > CLOCK_STEP_S:
            self._publish()

    async def settle(self) -> None:
        """Wait until no fetch and no write to disk runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def _new_entry(self, config: IssuerConfig, former: _Entry | None = None) -> _Entry:
        """Make an issuer's entry, with the keys of `former` and due as soon as the rate limit lets it."""
        entry = _Entry(config, self._source(config))
        if former is not None:
            self._inherit(entry, former)
            entry.failures, entry.fetched, entry.failed = former.failures, former.fetched, former.failed
            entry.too_large, entry.held_back, entry.status = former.too_large, former.held_back, former.status
            entry.attempted_at_s = former.attempted_at_s
            entry.due_s = former.attempted_at_s + config.min_refresh_s
        return entry

    @staticmethod
    def _inherit(entry: _Entry, former: _Entry) -> None:
        entry.handles, entry.faults, entry.error = former.handles, former.faults, former.error
        entry.loaded_at_s, entry.from_disk, entry.settled = former.loaded_at_s, former.from_disk, former.settled

    def _bequeath(self, entry: _Entry) -> None:
        """Hand what a fetch learned to the entry that took this one's place by a reload, unless it asked since."""
        heir = self.find(entry.config.issuer)
        if heir is None or heir is entry or _place_of(heir.config) != _place_of(entry.config):
            return
        if heir.attempted_at_s == entry.attempted_at_s:
            self._inherit(heir, entry)

    def _source(self, config: IssuerConfig) -> KeySource:
        if config.secret:
            return SecretKey(self._read_secret(config.secret), config)
        if config.jwks_file:
            return FileKeys(self._base_dir / config.jwks_file, config)
        return RemoteKeys(config, self._fetcher, self._calls)

    async def _load_local(self, entries: Iterable[_Entry]) -> None:
        """Load files, secrets, and the sets that the last run left on disk."""
        for entry in entries:
            if entry.source.lasting:
                await asyncio.wait((self._begin(entry),))
            elif self._snapshots is not None and entry.loaded_at_s is None:
                await self._load_snapshot(entry, self._snapshots)

    async def _load_snapshot(self, entry: _Entry, snapshots: KeySetSnapshots) -> None:
        config = entry.config
        wall_s, now_s = self._clock.wall_s(), self._clock.monotonic_s()
        stored = await asyncio.to_thread(snapshots.load, config.issuer, config.jwks_uri, wall_s)
        if stored is None or wall_s - stored.fetched_at_s > config.stale_s:
            return
        try:
            loaded = self._load(entry, stored.document)
        except FetchFailed as error:
            logger.warning("the stored keys of `%s` cannot be used: %s", config.issuer, error)
            return
        entry.handles, entry.faults = loaded
        entry.loaded_at_s = now_s - (wall_s - stored.fetched_at_s)
        entry.from_disk = True

    def _begin(self, entry: _Entry) -> asyncio.Task[None]:
        """Begin to fetch, or return the fetch that runs."""
        if entry.flight is None:
            entry.attempted_at_s = self._clock.monotonic_s()
            entry.flight = self._spawn(self._refresh(entry))
        return entry.flight

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = detached(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _refresh(self, entry: _Entry) -> None:
        began_s = entry.attempted_at_s
        try:
            document = await entry.source.fetch()
            changed = document is not None and self._accept(entry, document)
        except FetchFailed as error:
            self._fail(entry, error.problem, error)
        except Exception:  # our own mistake must not end the refreshing of keys
            logger.exception("the keys of `%s` could not be refreshed", entry.config.issuer)
            self._fail(entry, "internal", None)
        else:
            recovers = bool(entry.error)
            entry.fetched += 1
            entry.error, entry.failures, entry.from_disk, entry.loaded_at_s = "", 0, False, began_s
            entry.due_s = began_s + entry.source.refresh_s * self._uniform(0.9, 1.0)
            if document is not None:
                self._save(entry, document, changed)
            self._bequeath(entry)
            if document is not None or recovers:
                self._publish()
        finally:
            entry.flight = None
            entry.settled = True
        self._tell(entry, self._clock.monotonic_s())

    def _accept(self, entry: _Entry, document: Mapping[str, Any]) -> bool:
        """Replace the issuer's keys by those of `document`, and say whether that made a difference."""
        before = set(entry.handles)
        entry.handles, entry.faults = self._load(entry, document)
        after = set(entry.handles)
        if before == after:
            return False
        added, removed = len(after - before), len(before - after)
        logger.info("keys of `%s`: %d added, %d removed", entry.config.issuer, added, removed)
        for fault in entry.faults:
            logger.warning("a key of `%s` cannot be used: %s", entry.config.issuer, fault)
        return True

    def _load(self, entry: _Entry, document: Mapping[str, Any]) -> tuple[tuple[KeyHandle, ...], tuple[str, ...]]:
        """Make handles of a key set, reusing those of the same key. Raises FetchFailed for a set that cannot serve."""
        keys = document.get("keys")
        issuer = entry.config.issuer
        if not isinstance(keys, list):
            raise FetchFailed("not_a_key_set", f"what `{issuer}` gives is not a key set")
        if not keys:
            raise FetchFailed("empty", f"the key set of `{issuer}` is empty")
        if len(keys) > JWKS_KEYS_MAX:
            raise FetchFailed("too_many_keys", f"the key set of `{issuer}` has more than {JWKS_KEYS_MAX} keys")
        loaded = self._load_keys(document, entry.source.algorithms, entry.handles)
        if not loaded.handles:
            raise FetchFailed("no_usable_key", f"no key of `{issuer}` can be used with its algorithms")
        return loaded.handles, tuple(f"`{fault.kid}`: {fault.problem}" for fault in loaded.faults)

    def _fail(self, entry: _Entry, problem: str, error: Exception | None) -> None:
        was_lasting, is_news = entry.is_lasting(), problem != entry.error
        entry.source.forget()
        entry.error = problem
        entry.failures += 1
        entry.failed += 1
        entry.too_large += problem == "too_large"
        config = entry.config
        if entry.source.lasting:
            pause_s = entry.source.refresh_s  # looking at a file costs nobody anything
        else:
            most_s = min(BACKOFF_MAX_S, config.jwks_refresh_s)
            pause_s = backoff_s(entry.failures, config.min_refresh_s, most_s, self._uniform)
            pause_s = max(pause_s, config.min_refresh_s)
        entry.due_s = self._clock.monotonic_s() + pause_s
        if is_news or not entry.source.lasting:
            logger.warning("keys of `%s`: %s; next attempt in %.0f s", config.issuer, error or problem, pause_s)
        if was_lasting:
            self._publish()  # a file that is gone: from now on its keys age

    def _save(self, entry: _Entry, document: Mapping[str, Any], changed: bool) -> None:
        """Write the set to disk in the background, unless the same was written a moment ago."""
        now_s = self._clock.monotonic_s()
        if self._snapshots is None or entry.source.lasting:
            return
        if not changed and now_s - entry.saved_at_s < SAVE_PAUSE_S:
            return
        entry.saved_at_s = now_s
        fetched_at_s = self._clock.wall_s() - (now_s - (entry.loaded_at_s or now_s))
        self._spawn(self._write(self._snapshots, entry.config, {"keys": public_keys(document)}, fetched_at_s))

    async def _write(
        self, snapshots: KeySetSnapshots, config: IssuerConfig, document: Mapping[str, Any], fetched_at_s: float
    ) -> None:
        try:
            await asyncio.to_thread(snapshots.save, config.issuer, config.jwks_uri, document, fetched_at_s)
        except OSError as error:
            logger.warning("the keys of `%s` could not be kept for a restart: %s", config.issuer, error)

    def _publish(self) -> None:
        """Hand out all keys, their age bounds told in the wall clock's terms."""
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        self._clock_offset_s = wall_s - now_s
        self._publish_to(
            tuple(
                PublishedKeys(entry.config, entry.handles, _usable_until_s(entry, now_s, wall_s))
                for entry in self._entries
            )
        )

    def _tell(self, entry: _Entry, now_s: float) -> None:
        status = _status(entry, now_s)
        if status == entry.status or not entry.settled:
            return
        entry.status = status
        level = logging.INFO if status == "ok" else logging.WARNING if status == "stale" else logging.ERROR
        logger.log(
            level, "keys of `%s` are %s %s", entry.config.issuer, status, f"({entry.error})" if entry.error else ""
        )


def _status(entry: _Entry, now_s: float) -> Status:
    if not entry.is_usable(now_s):
        return "unavailable" if entry.settled else "starting"
    return "stale" if entry.error or entry.from_disk else "ok"


def _state(entry: _Entry, now_s: float, wall_s: float) -> IssuerState:
    age_s = entry.age_s(now_s)
    return IssuerState(
        issuer=entry.config.issuer,
        status=_status(entry, now_s),
        keys=len(entry.handles),
        age_s=age_s,
        fetched_at_s=None if age_s is None else wall_s - age_s,
        error=entry.error,
        faults=entry.faults,
        failures=entry.failures,
        fetched=entry.fetched,
        failed=entry.failed,
        too_large=entry.too_large,
        held_back=entry.held_back,
    )


def _usable_until_s(entry: _Entry, now_s: float, wall_s: float) -> int:
    age_s = entry.age_s(now_s)
    if age_s is None:
        return 0
    return FOREVER_S if entry.is_lasting() else int(wall_s + entry.config.stale_s - age_s)


def _place_of(config: IssuerConfig) -> tuple[object, ...]:
    """Return what decides which keys an issuer has; the rest of its settings may change under them."""
    return config.issuer, config.jwks_uri, config.jwks_file, config.secret, config.algorithms
