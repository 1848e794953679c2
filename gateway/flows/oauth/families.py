"""Refresh tokens: each is used once and gives the next; one that comes again ends all of them.

    begin ──▶ token 1 ──use──▶ token 2 ──use──▶ token 3 …
                  │                │
                  │                └─ again, within the grace: token 3 once more, and nothing is used up
                  └─ again, when token 3 is out: stolen. The family ends, and its session and access tokens with it

A client that sends one refresh twice at once (two tabs, a repeated request) is no thief: within `grace_s` after the
rotation the former token gives the same successor to whoever asks, in whatever order and on whatever worker they come.
So there is one line of tokens at any time, and a thief and the client cannot both follow it without being noticed.

A token is the family's id, its generation, and a MAC over both made with a key that is not in the store and a seed
that is: neither of the two alone makes tokens, a made-up one cannot end a family, and the store holds no token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from typing import Final, Literal

from gateway.flows.oauth.grants import Approval, Family, Grants, family_of
from gateway.types import Clock

PREFIX: Final = "pcr_"  # lets scanners of leaked secrets know what they found

_TOKEN: Final = re.compile(rf"{PREFIX}([A-Za-z0-9_-]{{22}})\.([1-9][0-9]{{0,8}})\.([A-Za-z0-9_-]{{43}})")

Refusal = Literal["refresh_malformed", "refresh_unknown", "refresh_expired", "refresh_client", "refresh_reused"]


class RefreshRefused(Exception):
    """A refresh token that gives nothing; `family` is there where it was a real one."""

    def __init__(self, reason: Refusal, family: Family | None = None) -> None:
        super().__init__(reason)
        self.reason: Refusal = reason
        self.family = family


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a refresh token gave."""

    family: Family
    token: str  # the next one
    repeated: bool  # somebody had it rotated just before


class Families:
    """Begin, rotate and end families of refresh tokens."""

    def __init__(self, grants: Grants, key: bytes, clock: Clock, *, grace_s: int) -> None:
        self._grants = grants
        self._key = key
        self._clock = clock
        self._grace_s = grace_s

    async def begin(
        self,
        family_id: str,
        approval: Approval,
        *,
        code_key: bytes,
        idle_s: int,
        max_s: int,
        offline: bool,
        dpop_jkt: str = "",
    ) -> str | None:
        """Begin a family and return its first token; None where what it rests on was ended meanwhile."""
        now_s = int(self._clock.wall_s())
        family = Family(
            id=family_id,
            approval=approval,
            seed=secrets.token_bytes(16),
            generation=1,
            rotated_s=now_s,
            idle_s=idle_s,
            expires_s=now_s + max_s,
            offline=offline,
            dpop_jkt=dpop_jkt,
        )
        token = self._token(family)
        return token if await self._grants.begin_family(family, _hash(token), code_key) else None

    async def read(self, token: str) -> tuple[Family, int]:
        """Return the family of a token that we made, and the token's generation. Raises RefreshRefused."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise RefreshRefused("refresh_malformed")
        family = await self._grants.find_family(found[1])
        if family is None:
            raise RefreshRefused("refresh_unknown")
        generation = int(found[2])
        if not hmac.compare_digest(self._mac(family, generation), found[3]) or generation > family.generation:
            raise RefreshRefused("refresh_unknown")
        return family, generation

    def is_current(self, family: Family, generation: int) -> bool:
        """Tell whether a token of this generation can still be used."""
        return self._now_s() < family.ends_s and generation == family.generation

    async def rotate(self, token: str, client_id: str) -> Rotated:
        """Use a token up and return the next. Raises RefreshRefused; `refresh_reused` means: end the family.

        Whoever comes with the same token at the same time, or within the grace, gets the same next one.
        """
        family, generation = await self.read(token)
        if family.approval.client_id != client_id:
            raise RefreshRefused("refresh_client", family)
        now_s = self._now_s()
        if now_s >= family.ends_s:
            raise RefreshRefused("refresh_expired", family)
        following = replace(family, generation=generation + 1)
        successor = self._token(following)
        rotation = await self._grants.store.rotate(
            family.id, _hash(token), _hash(successor), now_s, grace_s=self._grace_s
        )
        if rotation.outcome == "unknown" or rotation.family is None:
            raise RefreshRefused("refresh_unknown")
        now_held = family_of(rotation.family)
        if rotation.outcome == "reused" or now_held.generation != following.generation:
            raise RefreshRefused("refresh_reused", now_held)
        return Rotated(now_held, successor, repeated=rotation.outcome == "grace")

    def _token(self, family: Family) -> str:
        return f"{PREFIX}{family.id}.{family.generation}.{self._mac(family, family.generation)}"

    def _mac(self, family: Family, generation: int) -> str:
        message = b"refresh\0" + family.id.encode() + b"\0" + str(generation).encode() + b"\0" + family.seed
        return _b64(hmac.digest(self._key, message, "sha256"))

    def _now_s(self) -> int:
        return int(self._clock.wall_s())


def family_id_of(code: str) -> str:
    """Return the id of the family that a code begins: whoever sees the code again knows what to end."""
    return _b64(hashlib.sha256(b"family\0" + code.encode()).digest()[:16])


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
