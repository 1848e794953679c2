"""Guessing is slow: what fails often has to wait, twice as long each time, and nobody is locked out by somebody else.

Failures are counted by account and by address. An account that is guessed at makes everybody wait who tries it, but the
browsers from which its user has logged in before: each of them has a count of its own. So a stranger can slow down
strangers only. An attempt at an account is counted before it is judged, so that many at once are no way around it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import unicodedata
from dataclasses import dataclass
from typing import Final

from gateway.stores.directory import Directory, Throttle
from gateway.types import Clock

FORGET_WINDOWS: Final = 2  # a count may be forgotten after so many: strangers choose what is counted


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """From which failure on there is a pause, its length, and the window in which failures add up."""

    account_from: int = 5
    address_from: int = 20
    pause_s: float = 1.0
    window_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: whose account, from where. `wait_s` above 0: it is not to be made before so long."""

    account_key: str
    address_key: str
    wait_s: float = 0.0
    failures: int = 0  # of the account before it


class Throttling:
    """Counts failures in the directory, for all gateways together. Every method raises StoreUnavailable."""

    def __init__(self, directory: Directory, clock: Clock, limits: ThrottleLimits) -> None:
        self._directory = directory
        self._clock = clock
        self._limits = limits

    async def begin(self, what: str, account: str, address: str, *, known: str = "") -> Attempt:
        """Begin an attempt, and count it. `known`: what tells a browser from which the account was used before."""
        account_key = _key(what, account, known)
        address_key = f"address:{network_of(address)}" if address else ""
        now_s = self._clock.wall_s()
        keys = [key for key in (account_key, address_key) if key]
        throttles = await self._directory.get_throttles(keys)
        wait_s = max((each.blocked_until_s - now_s for each in throttles.values()), default=0.0)
        before = throttles.get(account_key)
        failures = before.count if before is not None and now_s < before.since_s + self._limits.window_s else 0
        if wait_s > 0:
            return Attempt(account_key, address_key, wait_s, failures)
        counted = await self._note(account_key, now_s, self._limits.account_from)
        if counted.count > max(failures + 1, self._limits.account_from):  # others came in between, as one of many
            return Attempt(account_key, address_key, max(0.1, counted.blocked_until_s - now_s), failures)
        return Attempt(account_key, address_key, 0.0, failures)

    async def failed(self, attempt: Attempt) -> None:
        """Count a failure of the address, too."""
        if attempt.address_key:
            await self._note(attempt.address_key, self._clock.wall_s(), self._limits.address_from)

    async def succeeded(self, attempt: Attempt) -> None:
        """Forget what failed at the account. What an address did stays: else it would pay to have an account there."""
        await self._directory.forget_failures(attempt.account_key)

    async def forget(self, what: str, account: str) -> None:
        """Forget what failed at an account, as after its password was reset."""
        await self._directory.forget_failures(_key(what, account, ""))

    async def _note(self, key: str, now_s: float, block_from: int) -> Throttle:
        return await self._directory.note_failure(
            key,
            now_s,
            window_s=self._limits.window_s,
            block_from=block_from,
            block_s=self._limits.pause_s,
            expires_s=now_s + FORGET_WINDOWS * self._limits.window_s,
        )


def network_of(address: str) -> str:
    """Give what one client can choose from: of IPv6 a network of 64 bits, of IPv4 the address itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)


def _key(what: str, account: str, known: str) -> str:
    """Names are hashed: a name that does not exist may be anything, also somebody's password."""
    spelled = unicodedata.normalize("NFKC", account).casefold().encode("utf-8", "surrogatepass")
    return f"{what}:{hashlib.sha256(spelled).hexdigest()}" + (f":{known}" if known else "")
