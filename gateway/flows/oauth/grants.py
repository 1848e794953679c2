"""What the token service remembers, as values of its own over the store of grants."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.errors import AlreadyExists
from gateway.stores.grants import Client as KeptClient
from gateway.stores.grants import Grant, RefreshFamily, Taken, TokenStore
from gateway.types import Clock, Subject

CODE_REMEMBERED_S: Final = 3600  # for so long a code that comes again ends what it gave
CONSENT_S: Final = 399 * 86_400  # then the user is asked again


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What a user, or nobody but the operator, has allowed a client: the common part of codes and families."""

    client_id: str
    subject: Subject
    scopes: tuple[str, ...]
    resources: tuple[str, ...] = ()
    session: bytes = b""  # the origin of the session in which it was allowed
    auth_time_s: int = 0
    acr: str = ""
    amr: tuple[str, ...] = ()
    requires_reauth: bool = False  # the session has a weaker proof than it should
    provisional: bool = False  # it was given while the directory was away, by an earlier proof


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeGrant:
    """What an authorization code stands for."""

    approval: Approval
    redirect_uri: str
    redirect_given: bool  # whether the request named it: then whoever redeems the code must, too (RFC 6749 §4.1.3)
    challenge: str  # S256
    nonce: str = ""
    dpop_jkt: str = ""  # the key that the code is bound to (RFC 9449 §10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """All refresh tokens that come from one another; the access tokens beside them carry `id` as `sid`."""

    id: str
    approval: Approval
    seed: bytes = field(repr=False)  # random; the tokens are made of it and of a key that is not in the store
    generation: int  # of the token that is to be used next
    rotated_s: int  # when that one was made
    idle_s: int
    expires_s: int  # however much it is used
    offline: bool  # whether it outlives its session
    dpop_jkt: str = ""  # of a public client: tokens work with this key only (RFC 9449 §5)

    @property
    def ends_s(self) -> int:
        return min(self.expires_s, self.rotated_s + self.idle_s) if self.idle_s else self.expires_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a user has allowed a client, so that the question is not put again."""

    scopes: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    version: int = 0  # 0: never given


class Grants:
    """Codes, families, requests, clients and consents, and what may come once only. Raises StoreUnavailable."""

    def __init__(self, store: TokenStore, clock: Clock) -> None:
        self.store = store
        self._clock = clock

    # -- codes

    async def keep_code(self, key: bytes, grant: CodeGrant, lifetime_s: int) -> None:
        """Keep a code for `lifetime_s`, and that it was used for longer."""
        now_s = int(self._clock.wall_s())
        approval = grant.approval
        body = {
            **_approval_body(approval),
            "expires_s": now_s + lifetime_s,
            "redirect_uri": grant.redirect_uri,
            "redirect_given": grant.redirect_given,
            "challenge": grant.challenge,
            "nonce": grant.nonce,
            "dpop_jkt": grant.dpop_jkt,
        }
        await self.store.keep(
            Grant(
                kind="authorization_code",
                key=key,
                tenant=approval.subject.tenant,
                expires_s=now_s + max(lifetime_s, CODE_REMEMBERED_S),
                subject=approval.subject,
                client_id=approval.client_id,
                session=approval.session,
                body=body,
            )
        )

    async def take_code(self, key: bytes) -> CodeGrant | Literal["spent"] | None:
        """Use a code up, and return what it stands for. "spent" for all but the first; None where there is none."""
        return self._code_of(await self.store.take("authorization_code", key))

    def _code_of(self, taken: Taken) -> CodeGrant | Literal["spent"] | None:
        if taken.found == "spent":
            return "spent"
        grant = taken.grant
        if grant is None or grant.subject is None or self._clock.wall_s() >= grant.body["expires_s"]:
            return None
        body = grant.body
        return CodeGrant(
            approval=_approval(grant.client_id, grant.subject, body, grant.session),
            redirect_uri=body["redirect_uri"],
            redirect_given=body["redirect_given"],
            challenge=body["challenge"],
            nonce=body["nonce"],
            dpop_jkt=body["dpop_jkt"],
        )

    # -- families

    async def begin_family(self, family: Family, token_hash: bytes, code_key: bytes) -> bool:
        """Keep a new family. False where what it rests on was ended: its code came twice, its subject is logged out."""
        approval = family.approval
        body = {
            **_approval_body(approval),
            "seed": family.seed,
            "offline": family.offline,
            "dpop_jkt": family.dpop_jkt,
            "session": approval.session,
        }
        kept = RefreshFamily(
            id=family.id,
            tenant=approval.subject.tenant,
            subject=approval.subject,
            client_id=approval.client_id,
            current=token_hash,
            generation=family.generation,
            rotated_s=family.rotated_s,
            session=b"" if family.offline else approval.session,  # by which it ends with the session
            code=code_key,
            scopes=approval.scopes,
            resources=approval.resources,
            authenticated_s=approval.auth_time_s,
            created_s=family.rotated_s,
            expires_s=family.expires_s,
            idle_timeout_s=family.idle_s,
            body=body,
        )
        try:
            await self.store.add_family(kept)
        except AlreadyExists:
            return False
        return True

    async def find_family(self, family_id: str) -> Family | None:
        """Return a family that is not over."""
        kept = await self.store.get_family(family_id)
        return None if kept is None else family_of(kept)

    async def families_of(self, subject: Subject) -> list[Family]:
        """Return the families of a subject that are not over."""
        return [family_of(kept) for kept in await self.store.families_of(subject)]

    # -- requests that were pushed

    async def keep_request(self, key: bytes, parameters: Sequence[tuple[str, str]], lifetime_s: int) -> None:
        """Keep a pushed authorization request (RFC 9126)."""
        body = {"parameters": [list(pair) for pair in parameters]}
        expires_s = int(self._clock.wall_s()) + lifetime_s
        await self.store.keep(Grant(kind="pushed_request", key=key, tenant="", expires_s=expires_s, body=body))

    async def find_request(self, key: bytes) -> Sequence[tuple[str, str]] | None:
        """Return a pushed request that was not answered yet."""
        grant = await self.store.look("pushed_request", key)
        return None if grant is None else tuple((name, value) for name, value in grant.body["parameters"])

    async def take_request(self, key: bytes) -> bool:
        """Use a pushed request up. Of many that try at once, one is told True."""
        return (await self.store.take("pushed_request", key)).found == "first"

    # -- clients that registered themselves

    async def keep_client(self, client_id: str, name: str, metadata: Mapping[str, Any]) -> None:
        """Keep a client that registered itself."""
        created_s = self._clock.wall_s()
        await self.store.add_client(
            KeptClient(tenant="", client_id=client_id, name=name, metadata=dict(metadata), created_s=created_s)
        )

    async def find_client(self, client_id: str) -> Mapping[str, Any] | None:
        """Return the metadata of a client that registered itself."""
        client = await self.store.get_client("", client_id)
        return client.metadata if client is not None and client.active else None

    # -- consents

    async def find_consent(self, subject: Subject, client_id: str) -> Consent:
        """Return what was allowed, perhaps nothing."""
        grant = await self.store.look("consent", _consent_key(subject, client_id))
        if grant is None:
            return Consent()
        body = grant.body
        return Consent(scopes=frozenset(body["scopes"]), resources=frozenset(body["resources"]), version=grant.version)

    async def keep_consent(self, subject: Subject, client_id: str, consent: Consent) -> None:
        """Keep what was allowed in the place of what was read. Where another was faster, the user is asked again."""
        # Without its subject in the grant: logging out everywhere is not taking back what was allowed.
        grant = Grant(
            kind="consent",
            key=_consent_key(subject, client_id),
            tenant=subject.tenant,
            expires_s=int(self._clock.wall_s()) + CONSENT_S,
            body={"scopes": sorted(consent.scopes), "resources": sorted(consent.resources)},
            version=consent.version + 1,
        )
        if consent.version:
            await self.store.change(grant, consent.version)
            return
        try:
            await self.store.keep(grant)
        except AlreadyExists:
            return

    # -- what may come once

    async def first_use(self, kind: Literal["proof", "assertion"], key: bytes, expires_s: int) -> bool:
        """Tell whether this is the first time that `key` comes. Of many that ask at once, one is told True."""
        # A store takes the very same grant twice for one call that was repeated; by `by` no two calls are the same.
        grant = Grant(kind=kind, key=key, tenant="", expires_s=expires_s, body={"by": secrets.token_bytes(8)})
        try:
            await self.store.keep(grant)
        except AlreadyExists:
            return False
        return True


def family_of(kept: RefreshFamily) -> Family:
    """Return the family that a store keeps."""
    body = kept.body
    approval = _approval(kept.client_id, kept.subject, body, body["session"])
    return Family(
        id=kept.id,
        approval=approval,
        seed=body["seed"],
        generation=kept.generation,
        rotated_s=int(kept.rotated_s),
        idle_s=kept.idle_timeout_s,
        expires_s=kept.expires_s,
        offline=body["offline"],
        dpop_jkt=body["dpop_jkt"],
    )


def _approval_body(approval: Approval) -> dict[str, Any]:
    return {
        "scopes": list(approval.scopes),
        "resources": list(approval.resources),
        "authenticated_s": approval.auth_time_s,
        "acr": approval.acr,
        "amr": list(approval.amr),
        "requires_reauth": approval.requires_reauth,
        "provisional": approval.provisional,
    }


def _approval(client_id: str, subject: Subject, body: Mapping[str, Any], session: bytes) -> Approval:
    return Approval(
        client_id=client_id,
        subject=subject,
        scopes=tuple(body["scopes"]),
        resources=tuple(body["resources"]),
        session=session,
        auth_time_s=body["authenticated_s"],
        acr=body["acr"],
        amr=tuple(body["amr"]),
        requires_reauth=body["requires_reauth"],
        provisional=body.get("provisional", False),  # what was kept before there was such a thing has none
    )


def _consent_key(subject: Subject, client_id: str) -> bytes:
    text = f"{len(subject.tenant)}:{subject.tenant}{len(subject.id)}:{subject.id}{client_id}"
    return hashlib.sha256(b"consent\0" + text.encode()).digest()
