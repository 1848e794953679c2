"""Passwords that a provisioning service sets: held to the same rules as those that people choose."""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.flows.password import PasswordHasher, PasswordRules
from gateway.stores.directory import Directory, PasswordHash
from gateway.types import Clock

HASHES_MAX: Final = 1  # at once in a worker: the threads are there for people who log in
_PROBLEMS: Final = {
    "too_short": "it is too short",
    "too_long": "it is too long",
    "like_name": "it is much like the user's name",
    "leaked": "it was leaked somewhere",
}


class DirectoryPasswords:
    """The PasswordSetter over the directory."""

    def __init__(self, directory: Directory, hasher: PasswordHasher, rules: PasswordRules, clock: Clock) -> None:
        self._directory = directory
        self._hasher = hasher
        self._rules = rules
        self._clock = clock
        self._turn = asyncio.Semaphore(HASHES_MAX)

    async def prepare(self, password: str, user_name: str) -> str:
        """Give the hash to keep. Raises ValueError for a password that nobody may have."""
        problem = self._rules.problem(password, user_name)
        if problem is not None:
            raise ValueError(f"the password is not taken: {_PROBLEMS.get(problem, problem)}")
        async with self._turn:
            return await self._hasher.hash(password)

    async def keep(self, user_id: str, made: str) -> None:
        """Let a hash that `prepare` made be the user's."""
        await self._directory.set_password(PasswordHash(user_id=user_id, hash=made, changed_s=self._clock.wall_s()))
