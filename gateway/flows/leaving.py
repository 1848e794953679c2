"""How everything that a user has ends at once: sessions, what was granted, and tokens that are out in the world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from gateway.flows.revoked_devices import ISSUER, user_value
from gateway.flows.sessions import Sessions
from gateway.flows.trail import NOBODY, Caller
from gateway.stores.base import RevocationKind
from gateway.stores.directory import Directory
from gateway.types import Clock, Subject

TOKENS_S: Final = 86_400  # tokens of other issuers are taken to live no longer than this


class Revoke(Protocol):
    """Refuses tokens at every worker and gateway within a second."""

    async def __call__(
        self, kind: RevocationKind, issuer: str, value: str, *, until_s: int, issued_before_s: int = 0
    ) -> object: ...


class Leaving:
    """Ends what users have. Ending what is over already is harmless, so whoever was interrupted does it again.

    To be called when the user was made inactive, or is gone: who can still log in begins something new meanwhile.
    """

    def __init__(
        self,
        directory: Directory,
        revoke: Revoke,
        *,
        clock: Clock,
        sessions: Sessions | None = None,
        end_grants: Callable[[Subject], Awaitable[int]] | None = None,
        issuer: str = "",
        devices: bool = False,
    ) -> None:
        """`end_grants` ends what the token service gave a subject; `issuer` is its name.

        `devices`: devices were given something that counts while the directory is away.
        """
        self._devices = devices
        self._directory = directory
        self._revoke = revoke
        self._clock = clock
        self._sessions = sessions
        self._end_grants = end_grants
        self._issuer = issuer

    async def end_all(self, subject: Subject, *, reason: str, actor: str, caller: Caller = NOBODY) -> int:
        """End everything; return how many sessions. Raises StoreUnavailable where not all of it is known to be over."""
        identities = await self._directory.identities_of(subject.tenant, subject.id)
        await self.end_tokens(subject, tuple((each.issuer, each.subject) for each in identities))
        if self._sessions is None:
            return 0
        return await self._sessions.end_all(subject, reason=reason, actor=actor, caller=caller)

    async def end_tokens(self, subject: Subject, others: tuple[tuple[str, str], ...] = ()) -> None:
        """End tokens; `others`: issuers, and what they call the user."""
        now_s = int(self._clock.wall_s())
        own = ((self._issuer, subject.id),) if self._issuer else ()
        devices = ((ISSUER, user_value(subject.tenant, subject.id)),) if self._devices else ()
        for issuer, name in (*own, *devices, *others):
            await self._revoke("sub", issuer, name, until_s=now_s + TOKENS_S, issued_before_s=now_s + 1)
        if self._end_grants is not None:
            await self._end_grants(subject)
