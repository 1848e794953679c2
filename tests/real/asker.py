"""Whoever asks a gateway's forward-auth again and again, as one user, on one connection: so at one worker."""

from __future__ import annotations

import time

from tests.real.gateway import bearer, mint
from tests.real.http import Connection

SECONDS_MAX = 10.0


class Asker:
    """Asks for paths of `app.test`; the token is good."""

    def __init__(self, connection: Connection, subject: str = "alice") -> None:
        self.connection = connection
        self.token = bearer(mint(sub=subject))

    def status(self, path: str = "/docs/1") -> int:
        told = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", path), ("X-Forwarded-Host", "app.test")]
        return self.connection.request("GET", "/auth/forward", [*told, self.token]).status

    def until(self, status: int, path: str = "/docs/1") -> float:
        """Ask until the answer is this one; give the time at which it was."""
        given_up_s = time.monotonic() + SECONDS_MAX
        while self.status(path) != status:
            assert time.monotonic() < given_up_s, f"never {status}"
        return time.monotonic()
