"""Passwords: argon2id, computed on the threads that are there for it, with the same work whether a user exists or not.

RFC 9106; parameters as OWASP's cheat sheet has them (19 MiB, 2 passes, 1 lane). A hash that was made with less is made
anew when its user logs in: only then is the password at hand.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import unicodedata
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from gateway.flows.breached import LeakedPasswords

PASSWORD_BYTES_MAX: Final = 1024  # more is no password, and would only cost time
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_PHC: Final = re.compile(r"\$argon2id\$v=19\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,9})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")

PasswordProblem = Literal["too_short", "too_long", "like_name", "leaked", "same"]


class Compute(Protocol):
    """Where hashes are computed: `WorkThreads.run`."""

    def __call__(self, work: Callable[[], Any]) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class HashParameters:
    """What one hash costs: memory in KiB, passes over it, lanes."""

    memory_kib: int = 19_456
    passes: int = 2
    lanes: int = 1


class PasswordHasher:
    """Makes and checks hashes. `computed` counts both."""

    def __init__(self, compute: Compute, parameters: HashParameters | None = None) -> None:
        self._compute = compute
        self._parameters = parameters or HashParameters()
        self._decoy = self._spelled(os.urandom(_SALT_BYTES), os.urandom(_HASH_BYTES))
        self.computed = 0

    async def hash(self, password: str) -> str:
        """Hash a password, in PHC form. Raises ResourceExhaustedError, DeadlineExceededError."""
        parameters = self._parameters
        argon2 = Argon2id(
            salt=os.urandom(_SALT_BYTES),
            length=_HASH_BYTES,
            iterations=parameters.passes,
            lanes=parameters.lanes,
            memory_cost=parameters.memory_kib,
        )
        made: str = await self._on_thread(lambda: argon2.derive_phc_encoded(_bytes_of(password)))
        return made

    async def verify(self, password: str, kept: str | None) -> bool:
        """Tell whether `kept` is the hash of a password. None: whose it would be has none, and never has.

        The work is the same for None: one hash with the parameters in force. Raises as `hash` does.
        """
        against = self._decoy if kept is None else kept
        given = _bytes_of(password)
        fits: bool = await self._on_thread(lambda: _fits(given, against))
        return fits and kept is not None

    def outdated(self, kept: str) -> bool:
        """Tell whether a hash was made with less than is asked for now."""
        match = _PHC.fullmatch(kept)
        if match is None:
            return True
        memory_kib, passes, lanes = map(int, match.groups())
        wanted = self._parameters
        return memory_kib < wanted.memory_kib or passes < wanted.passes or lanes < wanted.lanes

    async def _on_thread(self, work: Callable[[], Any]) -> Any:
        self.computed += 1
        return await self._compute(work)

    def _spelled(self, salt: bytes, digest: bytes) -> str:
        made = self._parameters
        cost = f"m={made.memory_kib},t={made.passes},p={made.lanes}"
        return f"$argon2id$v=19${cost}${_base64(salt)}${_base64(digest)}"


@dataclass(frozen=True, slots=True)
class PasswordRules:
    """What a new password must be: long enough, and in no list of leaked ones (NIST SP 800-63B §3.1.1.2)."""

    leaked: LeakedPasswords
    characters_min: int = 12

    def problem(self, password: str, user_name: str = "") -> PasswordProblem | None:
        """Say what is wrong with a password, None where nothing is."""
        text = _normal(password)
        if len(text) < self.characters_min:
            return "too_short"
        if len(text.encode("utf-8", "surrogatepass")) > PASSWORD_BYTES_MAX:
            return "too_long"
        name = _normal(user_name).casefold()
        if name and (name in text.casefold() and len(name) * 2 >= len(text)):
            return "like_name"
        return "leaked" if text in self.leaked else None


def same(one: str, other: str) -> bool:
    """Compare two passwords in constant time."""
    return hmac.compare_digest(_bytes_of(one), _bytes_of(other))


def _normal(password: str) -> str:
    """The same characters are one password, whatever keyboard wrote them (NIST SP 800-63B §3.1.1.2: NFKC or NFKD)."""
    return unicodedata.normalize("NFKC", password)


def _bytes_of(password: str) -> bytes:
    if len(password) > PASSWORD_BYTES_MAX:
        return b""  # nobody has it: it could not have been set
    given = _normal(password).encode("utf-8", "surrogatepass")
    return given if len(given) <= PASSWORD_BYTES_MAX else b""


def _fits(given: bytes, kept: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(given, kept)
    except InvalidKey:
        return False
    return bool(given)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode()


__all__ = ["HashParameters", "PasswordHasher", "PasswordProblem", "PasswordRules", "same"]
