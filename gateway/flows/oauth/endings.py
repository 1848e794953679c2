"""How tokens end before their time: a family, all tokens of a session, of a user or of a client, or a single one.

Refresh tokens end in the store. Access tokens are out in the world; they end by the log of revocations, which the
doors of every worker follow within a second: `sid` in them is their family's id, so that one row ends them all.
"""

from __future__ import annotations

from typing import Final

from gateway.flows.oauth.context import RevokeTokens
from gateway.flows.oauth.grants import Family, Grants
from gateway.types import Clock, Subject

SLACK_S: Final = 60  # clocks differ, and a token may be being made at this moment


class Endings:
    """End what was granted. Ending what is over already is harmless, and all of it raises StoreUnavailable."""

    def __init__(
        self, grants: Grants, revoke: RevokeTokens, clock: Clock, *, issuer: str, access_token_s_max: int
    ) -> None:
        self._grants = grants
        self._revoke = revoke
        self._clock = clock
        self._issuer = issuer
        self._access_token_s_max = access_token_s_max

    async def end_family(self, family_id: str) -> bool:
        """End a family and its access tokens; tell whether it was this call that ended it."""
        # The access tokens first: whoever fails in between comes again, and finds the family still there to end.
        await self._revoke("sid", self._issuer, family_id, until_s=self._until_s())
        return await self._grants.store.revoke_family(family_id)

    async def end_code(self, code_key: bytes, family_id: str) -> None:
        """End what a code gave, or is giving at this moment: no family comes of it any more."""
        await self._revoke("sid", self._issuer, family_id, until_s=self._until_s())
        await self._grants.store.revoke_code(code_key)

    async def end_access_token(self, jti: str, expires_s: int) -> None:
        """End a single access token."""
        await self._revoke("jti", self._issuer, jti, until_s=expires_s + SLACK_S)

    async def end_session(self, subject: Subject, origin: bytes) -> int:
        """End what was granted within a session that is over, but what was meant to outlive it; return how many."""
        # Codes that were not redeemed yet need no ending: a code whose session is over gives nothing.
        families = await self._grants.families_of(subject)
        return await self._end([each for each in families if each.approval.session == origin and not each.offline])

    async def end_subject(self, subject: Subject, client_id: str = "") -> int:
        """End everything that a user has granted, or only what one client got of it; return how many families."""
        families = await self._grants.families_of(subject)
        return await self._end([each for each in families if client_id in ("", each.approval.client_id)])

    async def _end(self, families: list[Family]) -> int:
        for family in families:
            await self.end_family(family.id)
        return len(families)

    def _until_s(self) -> int:
        return int(self._clock.wall_s()) + self._access_token_s_max + SLACK_S
