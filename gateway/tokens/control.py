"""The control plane of tokens, as one part for the application: keys, revocations and introspection behind a validator.

The validator judges alone as long as it can. What it cannot know it asks here (`ask`), and judges again. Everything
that is learned reaches it by `publish`, `revoke_many` and `remember`, whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from gateway._native import base64url
from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway.config import Config, IssuerConfig, StoreConfig, resolve_secret, resolve_store_url
from gateway.errors import StoreUnavailable
from gateway.resilience import Resilience
from gateway.stores import RevocationStore, open_store
from gateway.stores.base import Revision, RevocationKind
from gateway.stores.fetch import Fetcher
from gateway.tokens.introspection import ActiveToken, OpaqueIntrospector, Outcome
from gateway.tokens.issuer_calls import GuardedCalls
from gateway.tokens.jwks import IssuerState, JWKSCache, PublishedKeys
from gateway.tokens.revocation import RevocationList, RevocationSink, RevocationState
from gateway.tokens.snapshots import KeySetSnapshots
from gateway.types import Clock, Secret, SystemClock

FIRST_LOAD_TIMEOUT_S = 5.0  # start waits this long for the log of revocations; then it goes on, not ready
KEYS_FOLDER = "keys"  # in run_dir


@dataclass(frozen=True, slots=True)
class ControlState:
    """How everything that tokens depend on stands."""

    issuers: tuple[IssuerState, ...]
    revocations: RevocationState
    introspections: Mapping[tuple[str, Outcome], int]  # by issuer, since start or reload
    introspections_shed: int

    @property
    def ready(self) -> bool:
        """Whether tokens can be judged: the log of revocations was read, and every issuer was at least tried.

        An issuer that is down does not make the gateway unready: it would be unready everywhere at once.
        """
        return self.revocations.trusted and all(issuer.status != "starting" for issuer in self.issuers)


class TokenControl:
    """Keep `validators` supplied. Belongs to one event loop; `start` it there and `stop` it at the end.

    `base_dir` is where relative paths of the configuration begin; `run_dir` is private to this user and outlives the
    process. Until the log of revocations was read whole, no key is published and every token is refused as
    `keys_unavailable` (design §13.1). Raises SecretUnresolved (a ValueError) for a secret that cannot be read.
    """

    def __init__(
        self,
        config: Config,
        *,
        base_dir: Path,
        run_dir: Path,
        validators: Sequence[TokenValidator],
        clock: Clock | None = None,
        fetcher: Fetcher | None = None,
        store: RevocationStore | None = None,
        resilience: Resilience | None = None,
        sinks: Sequence[RevocationSink] = (),
    ) -> None:
        """`store` is one that is open already, for a successor with the same `[store]`: its log goes on.

        `sinks` hear of revocations beside the validators.

        `resilience` is the worker's, whose pools and breakers issuers are asked behind; None makes one for this alone.
        """
        self._base_dir = base_dir
        self._run_dir = run_dir
        self._validators = validators
        self._sinks = sinks
        self._clock = clock or SystemClock()
        self._fetcher = fetcher or Fetcher()
        self._calls = GuardedCalls(resilience or Resilience(config.resilience, clock=self._clock))
        self._parts: tuple[PublishedKeys, ...] = ()
        self._rules: dict[str, IssuerRules] = {}
        self._reloading = asyncio.Lock()
        self._introspector = self._new_introspector(config)
        self._store_config = config.store
        self._store = self._new_store(config.store) if store is None else store
        self._revocations = self._new_revocations(self._store)
        self._keys = JWKSCache(
            config.issuers,
            publish=self._take,
            fetcher=self._fetcher,
            clock=self._clock,
            base_dir=base_dir,
            snapshots=KeySetSnapshots(run_dir / KEYS_FOLDER),
            read_secret=self._read_secret,
            calls=self._calls,
        )

    async def start(self) -> None:
        """Begin to follow revocations and to fetch keys; waits for no issuer, and briefly for the store."""
        await self._first_load(self._revocations)
        await self._keys.start()

    @property
    def trusted(self) -> bool:
        """Whether it is known what is revoked."""
        return self._revocations.trusted

    @property
    def store(self) -> RevocationStore:
        """The open store of revocations, for a successor."""
        return self._store

    async def stop(self, *, keep_store: bool = False) -> None:
        """End everything, but for the store where a successor has it. The validators keep what they have."""
        await self._keys.stop()
        await self._introspector.stop()
        await self._revocations.stop()
        if not keep_store:
            await self._store.close()
        await self._fetcher.aclose()

    async def ask(self, reason: str, issuer_index: int, token: bytes) -> str | None:
        """Learn what is missing to judge `token`; return None for "judge again", or the reason to refuse.

        `reason` is what the validator said: `kid_unknown`, `opaque` or `keys_unavailable`. Judging again may give the
        same reason once more; that is then the verdict. Never raises, and ends within the deadlines of the
        configuration. `issuer_index` (-1 = unknown) serves only where the token itself does not tell.
        """
        if not self._revocations.trusted:
            return "keys_unavailable"
        if reason == "opaque":
            introspector = self._introspector
            refusal = await introspector.introspect(token)
            if refusal == "introspection_unavailable" and introspector is not self._introspector:
                refusal = await self._introspector.introspect(token)  # a reload ended the first asking
            return refusal
        claimed = claimed_key(token)
        if claimed is None:
            if not 0 <= issuer_index < len(self._parts):
                return reason
            claimed = self._parts[issuer_index].config.issuer, b""
        learned = await self._keys.learn(*claimed)
        return None if learned == "again" else learned

    async def revoke(
        self, kind: RevocationKind, issuer: str, value: str, *, until_s: int, issued_before_s: int = 0
    ) -> Revision:
        """Refuse tokens here at once and everywhere within a second; see RevocationList.revoke."""
        return await self._revocations.revoke(kind, issuer, value, until_s=until_s, issued_before_s=issued_before_s)

    async def reload(self, config: Config) -> None:
        """Serve another configuration from now on; what did not change keeps its keys and its kept verdicts.

        Raises SecretUnresolved, or StoreUnavailable for another store whose log cannot be read; then nothing changed.
        """
        async with self._reloading:
            introspector = self._new_introspector(config)
            store, revocations = self._store, self._revocations
            if config.store != self._store_config:
                store = self._new_store(config.store)
                revocations = self._new_revocations(store)
            try:
                if revocations is not self._revocations:
                    await self._first_load(revocations)
                    if not revocations.trusted:
                        raise StoreUnavailable("the log of revocations of the new store cannot be read")
                await self._keys.reload(config.issuers)
            except BaseException:
                if revocations is not self._revocations:
                    await revocations.stop()
                    await store.close()
                raise
            former = self._introspector, self._revocations, self._store
            self._introspector, self._revocations, self._store = introspector, revocations, store
            self._store_config = config.store
            self._hand_out()
            await former[0].stop()
            if former[1] is not revocations:
                await former[1].stop()
                await former[2].close()

    def state(self) -> ControlState:
        """Say how everything stands, for `/readyz` and metrics."""
        return ControlState(
            issuers=self._keys.states(),
            revocations=self._revocations.state(),
            introspections=dict(self._introspector.asked),
            introspections_shed=self._introspector.shed,
        )

    # -- parts

    def _read_secret(self, reference: str) -> Secret:
        return resolve_secret(reference, self._base_dir)

    def _new_introspector(self, config: Config) -> OpaqueIntrospector:
        return OpaqueIntrospector(
            config.issuers,
            fetcher=self._fetcher,
            clock=self._clock,
            remember=self._remember,
            read_secret=self._read_secret,
            calls=self._calls,
        )

    def _new_store(self, config: StoreConfig) -> RevocationStore:
        address = resolve_store_url(config.url, self._base_dir).reveal().decode()
        return open_store(address, self._run_dir, poll_ms=config.poll_ms)

    def _new_revocations(self, store: RevocationStore) -> RevocationList:
        return RevocationList(store, (*self._validators, *self._sinks), clock=self._clock, on_trust=self._hand_out)

    async def _first_load(self, revocations: RevocationList) -> None:
        loading = asyncio.ensure_future(revocations.start())
        _, pending = await asyncio.wait((loading,), timeout=FIRST_LOAD_TIMEOUT_S)
        for task in pending:
            task.cancel()  # the following goes on; only the waiting ends

    # -- what was learned

    def _take(self, parts: tuple[PublishedKeys, ...]) -> None:
        self._parts = parts
        self._hand_out()

    def _hand_out(self) -> None:
        """Publish all keys, or none of them while it is not known what is revoked."""
        parts = self._parts
        rules = [self._rules_of(part.config) for part in parts]
        self._rules = dict(zip((part.config.issuer for part in parts), rules, strict=True))
        is_open = self._revocations.trusted
        snapshot = KeySnapshot(
            rules,
            [part.handles for part in parts],
            [part.usable_until_s if is_open else 0 for part in parts],
        )
        for validator in self._validators:
            validator.publish(snapshot)
            if not is_open:
                validator.forget_all()  # introspected tokens have no key that would be missing

    def _rules_of(self, config: IssuerConfig) -> IssuerRules:
        rules = rules_of(config)
        known = self._rules.get(config.issuer)
        return known if known == rules else rules

    def _remember(self, token: bytes, active: ActiveToken) -> str | None:
        """Keep an introspected token in every validator; return None, or why it is refused all the same."""
        index = next((i for i, part in enumerate(self._parts) if part.config.issuer == active.issuer), None)
        if index is None or not self._revocations.trusted:
            return "keys_unavailable"
        # The validator adds the issuer's leeway to every `exp`; this bound is meant as it stands.
        expires_at_s = active.keep_until_s - self._parts[index].config.leeway_s
        for validator in self._validators:
            try:
                identity = validator.remember(
                    token,
                    issuer_index=index,
                    subject=active.subject,
                    scopes=active.scopes,
                    expires_at_s=expires_at_s,
                    claims=active.claims,
                    jti=active.jti,
                    sid=active.sid,
                    issued_at_s=active.issued_at_s,
                    now_s=int(self._clock.wall_s()),
                )
            except ValueError:
                return "claim_invalid"
            if identity is None:
                return "revoked"
        return None


def rules_of(config: IssuerConfig) -> IssuerRules:
    """Return an issuer's settings as the judge takes them. Raises ValueError for settings that could never work."""
    return IssuerRules(
        config.issuer.encode(),
        audiences=[audience.encode() for audience in config.audiences],
        any_audience=config.any_audience,
        algorithms=config.algorithms,
        leeway_s=config.leeway_s,
        types=[kind.encode() for kind in config.types],
        required_claims=[name.encode() for name in config.required_claims],
        allow_sender_constrained=config.allow_sender_constrained,
        lifetime_max_s=config.lifetime_max_s,
        opaque=bool(config.introspection_endpoint),
    )


def claimed_key(token: bytes) -> tuple[str, bytes] | None:
    """Return the issuer and `kid` that a token claims, or None where it claims neither in a readable way.

    Nothing of it is verified. It may choose among configured issuers whose keys to refresh, within their rate limit,
    and nothing else (design §13.4).
    """
    parts = token.split(b".")
    if len(parts) != 3:
        return None
    try:
        header, payload = orjson.loads(base64url.decode(parts[0])), orjson.loads(base64url.decode(parts[1]))
        issuer, kid = payload["iss"], header.get("kid", "")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return (issuer, kid.encode()) if isinstance(issuer, str) and isinstance(kid, str) else None
