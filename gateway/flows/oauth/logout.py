"""Back-channel logout: clients that were told of a session hear that it is over (OIDC Back-Channel Logout 1.0).

Who was told is kept beside the session. When it ends a notice for each of them is promised durably, and sent until the
client takes it; the token in it is made when it is sent, and is good for two minutes.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.errors import AlreadyExists
from gateway.flows.deferred import GaveUp
from gateway.flows.oauth.minting import public_sid
from gateway.flows.oauth.parties import Client, Parties
from gateway.flows.sessions import origin_of
from gateway.stores.deferred import Job
from gateway.stores.grants import Grant, TokenStore
from gateway.tokens.issuer_keys import IssuerKeys
from gateway.types import Clock, Session, Subject

EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
JOB: Final = "oauth.backchannel_logout"
TYP: Final = "logout+jwt"  # §2.4
TOKEN_S: Final = 120  # §2.4: "preferably no more than two minutes"
PARTIES_MAX: Final = 100  # clients of one session
_CHANGES_MAX: Final = 10  # of one list by others, while it is changed

PutJob = Callable[[str, str, Mapping[str, object]], Awaitable[object]]
SendNotice = Callable[[str, Mapping[str, str]], Awaitable[None]]
"""Posts a form to an address. Raises OSError or ValueError where it was not taken."""


class BackchannelLogout:
    """Notes who knows of a session, and tells them when it is over. Methods raise StoreUnavailable."""

    def __init__(
        self,
        grants: TokenStore,
        parties: Parties,
        keys: IssuerKeys,
        *,
        put: PutJob,
        send: SendNotice,
        clock: Clock,
        issuer: str,
        session_s: int,
    ) -> None:
        """`session_s`: how long a session lasts at most."""
        self._grants = grants
        self._parties = parties
        self._keys = keys
        self._put = put
        self._send = send
        self._clock = clock
        self._issuer = issuer
        self._session_s = session_s

    async def note(self, subject: Subject, origin: bytes, client: Client) -> None:
        """Note that a client is told of a session, where it wants to hear of its end."""
        if not client.backchannel_logout_uri or not origin:
            return
        key = _key(origin)
        for _ in range(_CHANGES_MAX):
            found = await self._grants.look("session_parties", key)
            if found is None:
                expires_s = int(self._clock.wall_s()) + self._session_s
                made = Grant(
                    kind="session_parties",
                    key=key,
                    tenant=subject.tenant,
                    expires_s=expires_s,
                    body={"clients": [client.id]},
                )
                try:
                    await self._grants.keep(made)
                except AlreadyExists:
                    continue  # somebody else was faster; or the session is over, and then there is nothing to add to
                return
            known = list(found.body["clients"])
            if client.id in known or len(known) >= PARTIES_MAX:
                return
            changed = replace(found, body={"clients": [*known, client.id]}, version=found.version + 1)
            if await self._grants.change(changed, found.version):
                return

    async def ended(self, session: Session) -> int:
        """Promise a notice to each client that knows of a session which is over; return how many."""
        origin = origin_of(session)
        found = await self._grants.look("session_parties", _key(origin))
        if found is None:
            return 0
        clients = list(found.body["clients"])
        for client_id in clients:
            # The same session's end is told once, however many say that it is over.
            body = {
                "client_id": client_id,
                "tenant": session.subject.tenant,
                "subject": session.subject.id,
                "sid": public_sid(origin),
            }
            name = hashlib.sha256(f"{public_sid(origin)}\0{client_id}".encode()).hexdigest()
            await self._put(JOB, f"logout:{name}", body)
        await self._grants.take("session_parties", _key(origin))
        return len(clients)

    async def deliver(self, job: Job) -> None:
        """Tell one client. Raises GaveUp where it is gone, or wants to hear no more."""
        client = await self._parties.find(str(job.body["client_id"]))
        if client is None or not client.backchannel_logout_uri:
            raise GaveUp("the client is gone, or has no address for it")
        await self._send(client.backchannel_logout_uri, {"logout_token": self.token(client, job.body)})

    def token(self, client: Client, notice: Mapping[str, Any]) -> str:
        """Make a logout token (§2.4). It has no nonce, so that it can never pass for an id token."""
        now_s = int(self._clock.wall_s())
        claims = {
            "iss": self._issuer,
            "sub": str(notice["subject"]),
            "aud": client.id,
            "iat": now_s,
            "exp": now_s + TOKEN_S,
            "jti": secrets.token_urlsafe(16),
            "events": {EVENT: {}},
            "sid": str(notice["sid"]),
        }
        return self._keys.sign(claims, typ=TYP)


def _key(origin: bytes) -> bytes:
    return hashlib.sha256(b"session parties\0" + origin).digest()
