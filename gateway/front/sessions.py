"""Sessions at the doors: what the hot path keeps of them, and where it asks for those that it does not know.

The hot path keeps an identity by the cookie's value for `keep_s` at most, in a validator of its own. Every change in
the store's log makes what was kept of that session void at once; a session that is over stays over. While the store is
away nobody can be told anything new: sessions that were read less than `offline_s` ago go on, if no revocation of them
was seen and their time is not over, and others are refused. Nobody is let in who was not before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway.config import SessionsConfig, resolve_secret, resolve_store_url
from gateway.errors import BulkheadFullError, GatewayError, OverloadedError, StoreUnavailable
from gateway.flows.sessions import SessionLimits, SessionNames, Sessions
from gateway.flows.trail import Auditor, AuditTrail
from gateway.front.in_force import first_look
from gateway.front.own_keys import own_key
from gateway.resilience import Resilience, detached, guarded
from gateway.stores import Connections, open_session_store
from gateway.stores.base import ORIGIN, Revision
from gateway.stores.following import Following
from gateway.stores.sessions import SessionStore
from gateway.types import SESSION_EPOCH, Clock, Secret, Session

_log = logging.getLogger("portcullis.sessions")

KEY_FILE: Final = "sessions.key"  # in run_dir, where the config names none
PAGE: Final = 500  # changes read at once
HEARTBEAT_S: Final = 0.25
LEASE_S: Final = 1.0
KEPT_MAX: Final = 100_000  # sessions remembered for an outage of the store
READS_MAX: Final = 3  # of one session that changes while it is read
UNTRUSTED_S: Final = 1  # what the hot path keeps while revocations are not heard of
REFUSED_S: Final = 120  # a revocation is held against what was kept for longer than anything is
_HASH_BYTES: Final = 32
_PART: Final = "sessions"  # as which the store's health is watched
_READS: Final = ("get", "list_of")  # may be repeated
_ASKED: Final = (  # by requests; what follows the log has a lease, and comes back by itself
    *_READS,
    *("create", "touch", "replace", "rotate", "join", "revoke", "revoke_subject", "revoke_client"),
)
_NEVER_S: Final = 1 << 40
_EPOCHS: Final = 1 << 7  # failovers of a region
_COUNTS: Final = (1 << 24) - 1  # changes of one session
_SCOPE: Final = "scope"  # attribute of a session whose words are its scopes

INVALID: Final = "session_invalid"
UNAVAILABLE: Final = "session_unavailable"


@dataclass(frozen=True, slots=True)
class SessionState:
    """How sessions stand, for probes and metrics."""

    status: str
    trusted: bool  # whether revocations are seen as they happen
    behind_s: float | None
    error: str
    kept: int
    # totals since start
    learned: int
    refused: int
    offline: int  # requests that went on by what was read before the store was away
    revoked: int


@dataclass(frozen=True, slots=True)
class _Kept:
    session: Session
    read_at_s: float  # monotonic


class SessionLearner:
    """Learns sessions for the doors, and forgets what changed. Belongs to one event loop."""

    def __init__(
        self,
        sessions: Sessions,
        store: SessionStore,
        names: SessionNames,
        validator: TokenValidator,
        *,
        issuer: str,
        clock: Clock,
        keep_s: int = 60,
        offline_s: int = 300,
        serving: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        """`validator` judges the cookies' values, and nothing else. `issuer` is whom identity headers name.

        `serving()` gives a place in the pool that a question waits in.
        """
        self._serving = serving
        self._sessions = sessions
        self._store = store
        self._names = names
        self._validator = validator
        self._issuer = issuer.encode()
        self._clock = clock
        self._keep_s = keep_s
        self._offline_s = offline_s
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # the one read longest ago first
        self._flights: dict[bytes, asyncio.Task[str | None]] = {}  # cookie's value -> the asking about it
        self._revision: Revision = ORIGIN
        self._learned = self._refused = self._offline = self._revoked = 0
        rules = IssuerRules(self._issuer, audiences=(), any_audience=True, algorithms=(), opaque=True, leeway_s=0)
        validator.publish(KeySnapshot((rules,), ((),), (_NEVER_S,)))
        self._following = Following(
            "changes of sessions",
            read=self._read,
            wait=lambda timeout_s: store.wait(self._revision, timeout_s),
            purge=store.purge,
            clock=clock,
            on_trust=self._turned,
            heartbeat_s=HEARTBEAT_S,
            behind_s_max=LEASE_S,
        )

    async def start(self) -> None:
        """Begin to follow the changes; return after the first look, whether or not it succeeded."""
        await self._following.start()

    async def stop(self) -> None:
        """Stop following, and asking; the store stays open."""
        await self._following.stop()
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def state(self) -> SessionState:
        """Say how sessions stand."""
        return SessionState(
            status=self._following.status,
            trusted=self._following.trusted,
            behind_s=self._following.behind_s,
            error=self._following.error,
            kept=len(self._kept),
            learned=self._learned,
            refused=self._refused,
            offline=self._offline,
            revoked=self._revoked,
        )

    async def ask(self, value: bytes) -> str | None:
        """Learn the session of a cookie's value; give None for "judge again", or the reason to refuse. Never raises."""
        text = value.decode("ascii", "replace")
        name = self._names.read(text)
        if name is None:
            self._refused += 1
            return INVALID
        # A page asks for fifty things at once: the first question is the answer to all.
        flight = self._flights.get(value)
        if flight is None:
            flight = detached(self._asked(value, text, name.id_hash), name="session", keep_pool=True)
            self._flights[value] = flight
            flight.add_done_callback(lambda _: self._flights.pop(value))
        await asyncio.wait((flight,))
        return UNAVAILABLE if flight.cancelled() else flight.result()

    async def _asked(self, value: bytes, text: str, id_hash: bytes) -> str | None:
        try:
            async with self._serving():
                return await self._look_up(value, text, id_hash)
        except (StoreUnavailable, BulkheadFullError, OverloadedError) as error:
            return self._go_on(value, id_hash, error)

    async def _look_up(self, value: bytes, text: str, id_hash: bytes) -> str | None:
        """Read the session, and have the hot path know it; as `ask`, but raises what goes wrong."""
        for _ in range(READS_MAX):
            session = await self._sessions.find(text)
            if session is None:
                break
            self._keep(session)
            if self._remember(value, session):
                return None
        self._kept.pop(id_hash, None)
        self._refused += 1
        return INVALID

    # --- what is kept

    def _keep(self, session: Session) -> None:
        self._learned += 1
        self._kept[session.id_hash] = _Kept(session, self._clock.monotonic_s())
        self._kept.move_to_end(session.id_hash)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def _go_on(self, value: bytes, id_hash: bytes, error: GatewayError) -> str | None:
        """Let a session go on that was read before the store was away."""
        kept = self._kept.get(id_hash)
        if kept is None or self._clock.monotonic_s() - kept.read_at_s > self._offline_s:
            _log.warning("a session cannot be looked up: %s", error)
            return UNAVAILABLE
        if kept.session.ended(self._clock.wall_s()):
            return INVALID
        self._offline += 1
        return None if self._remember(value, kept.session) else INVALID

    def _remember(self, value: bytes, session: Session) -> bool:
        """Have the hot path know the session; False where a later state of it was heard of meanwhile."""
        now_s = int(self._clock.wall_s())
        try:
            identity = self._validator.remember(
                value,
                issuer_index=0,
                subject=session.subject.id.encode(),
                scopes=[word.encode() for word in session.attributes.get(_SCOPE, "").split()],
                expires_at_s=min(session.ends_s, now_s + (self._keep_s if self._following.trusted else UNTRUSTED_S)),
                claims=claims_of(session),
                sid=session.id_hash.hex().encode(),
                issued_at_s=_order_of(session.version),  # what was kept of an older version is void: see `_void`
                now_s=now_s,
            )
        except ValueError as error:
            _log.error("a session cannot be shown to upstreams: %s", error)
            return False
        return identity is not None

    # --- what changes

    async def _read(self) -> float:
        """Read to the log's end; give when the look began that found it."""
        more = True
        while more:
            asked_at_s = self._clock.monotonic_s()
            changes = await self._store.read_after(self._revision, PAGE)
            if changes.lost:
                self._forget("changes may have been missed")
            for change in changes.changes:
                self._void(change.id_hash, 0 if change.revoked else change.version)
                if change.revoked:
                    self._revoked += 1
                    self._kept.pop(change.id_hash, None)
            self._revision, more = changes.revision, changes.more
        return asked_at_s

    def _void(self, id_hash: bytes, before_version: int) -> None:
        """Let nothing count that was kept of a session before this version of it; 0: nothing at all."""
        until_s = int(self._clock.wall_s()) + self._keep_s + REFUSED_S
        self._validator.revoke(
            "sid",
            self._issuer,
            id_hash.hex().encode(),
            until_s=until_s,
            issued_before_s=_order_of(before_version) if before_version else 0,
        )

    def _forget(self, why: str) -> None:
        _log.warning("everything kept of sessions is forgotten: %s", why)
        self._validator.forget_all()
        self._kept.clear()

    def _turned(self) -> None:
        """Without news of revocations the hot path keeps nothing: each session is asked for again, every second."""
        if not self._following.trusted:
            self._validator.forget_all()


@dataclass(frozen=True, slots=True)
class SessionWish:
    """What sessions are made for. `shape` is what their validator must know, `new_validator` makes it."""

    config: SessionsConfig
    issuer: str
    shape: tuple[object, ...]
    new_validator: Callable[[], TokenValidator] = field(compare=False)


class OpenedSessions:
    """The sessions of one config: their store, what begins and ends them, and what the doors learn them by."""

    def __init__(
        self,
        wish: SessionWish,
        *,
        base_dir: Path,
        run_dir: Path,
        clock: Clock,
        auditor: Auditor,
        resilience: Resilience,
        connections: Connections | None = None,
    ) -> None:
        """Connects to nothing. Raises ValueError for an address or a key that cannot be used."""
        config = wish.config
        address = resolve_store_url(config.url, base_dir).reveal().decode()
        key = resolve_secret(config.key, base_dir) if config.key else Secret(own_key(run_dir, KEY_FILE))
        names = SessionNames(config.region, key)
        self.cookie = config.cookie
        self.validator = wish.new_validator()
        self._store = open_session_store(
            "" if address == "embedded" else address, run_dir, clock, connections=connections
        )
        self._resilience = resilience
        self._dependency: Literal["cache", "database"] = (
            "cache" if address.startswith(("redis", "unix")) else "database"
        )
        self.sessions = Sessions(
            guarded(self._store, resilience, self._dependency, name="sessions", only=_ASKED, reads=_READS),
            names,
            clock=clock,
            trail=AuditTrail(auditor, clock),
            limits=SessionLimits(config.idle_s, config.absolute_s),
        )
        self.learner = SessionLearner(
            self.sessions,
            self._store,
            names,
            self.validator,
            issuer=wish.issuer,
            clock=clock,
            keep_s=config.keep_s,
            offline_s=config.offline_s,
            serving=lambda: resilience.bulkheads.pool("token_validation"),
        )

    async def start(self) -> None:
        """Begin to follow changes; wait for the first look, FIRST_LOOK_S at most."""
        await first_look(self.learner.start())
        # Not before: to load the driver takes longer than a probe may, and is no outage.
        self._resilience.watch(self._dependency, self._probe, part=_PART)

    async def stop(self) -> None:
        """End the following, and close the store."""
        self._resilience.unwatch(self._dependency, part=_PART, probe=self._probe)
        await self.learner.stop()
        await self._store.close()

    async def _probe(self) -> None:
        """Look for a session that nobody has: all of the store's way is gone, and nothing is found."""
        await self._store.get(bytes(_HASH_BYTES))


def _order_of(version: int) -> int:
    """Give a number of 31 bits that grows as versions do: the validator compares it as it would a time of issue."""
    epoch, count = divmod(version, SESSION_EPOCH)
    return 1 + (min(epoch, _EPOCHS - 1) * _COUNTS + min(count, _COUNTS - 1))


def claims_of(session: Session) -> dict[str, object]:
    """Give what identity headers and policies may see of a session, by the names that tokens have for it."""
    claims: dict[str, object] = {
        "sub": session.subject.id,
        "auth_time": session.authenticated_s,
        "amr": list(session.amr),
        **session.attributes,
    }
    if session.subject.tenant:
        claims["tenant"] = session.subject.tenant
    if session.acr:
        claims["acr"] = session.acr
    if session.provisional:
        claims["provisional"] = True
    if session.requires_reauth:
        claims["requires_reauth"] = True
    return claims
