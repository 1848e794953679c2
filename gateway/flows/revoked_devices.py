"""Devices that are no longer their users', as every worker hears of it: by rows in the log of revocations.

What a device was given to show while the directory is away (a voucher) is judged without it. So whatever ends a device
is also said there: by the device's id, or for all of a user's devices by when their vouchers were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

from gateway.stores.base import PURGE_SLACK_S
from gateway.types import Clock

ISSUER: Final = "urn:portcullis:devices"  # of such rows; no issuer of tokens is called so
ROWS_MAX: Final = 100_000  # that are kept; beyond, nothing can be said of any device

Ended = Literal["", "device_revoked", "user_revoked", "revocations_unknown"]


def user_value(tenant: str, user_id: str) -> str:
    """Give what a row says where it is about all devices of a user."""
    return f"{len(tenant)}:{tenant}:{user_id}"


class RevokedDevices:
    """Hears of revocations beside the validators (a `RevocationSink`). Belongs to one event loop."""

    def __init__(self, clock: Clock, trusted: Callable[[], bool] = lambda: True) -> None:
        """`trusted`: whether the log was read, so that what is not here is not revoked."""
        self._clock = clock
        self._trusted = trusted
        self._devices: dict[bytes, int] = {}  # until when
        self._users: dict[bytes, tuple[int, int]] = {}  # vouchers given before, until when

    def revoke_many(self, rows: Iterable[tuple[str, bytes, bytes, int, int]]) -> None:
        """Take rows; those of tokens are none of ours. Raises OverflowError where there is no room."""
        for kind, issuer, value, until_s, issued_before_s in rows:
            if issuer != ISSUER.encode():
                continue
            if len(self._devices) + len(self._users) >= ROWS_MAX:
                self._forget()
            if kind == "jti":
                self._devices[value] = max(until_s, self._devices.get(value, 0))
            elif kind == "sub":
                before_s, kept_s = self._users.get(value, (0, 0))
                self._users[value] = max(issued_before_s, before_s), max(until_s, kept_s)

    def ended(self, tenant: str, user_id: str, device_id: str, given_s: int) -> Ended:
        """Say why what a device was given at `given_s` counts no more, "" where it does."""
        if not self._trusted():
            return "revocations_unknown"
        if device_id.encode() in self._devices:
            return "device_revoked"
        before_s, _ = self._users.get(user_value(tenant, user_id).encode(), (0, 0))
        return "user_revoked" if given_s < before_s else ""

    def _forget(self) -> None:
        over_s = self._clock.wall_s() - PURGE_SLACK_S
        self._devices = {value: until_s for value, until_s in self._devices.items() if until_s >= over_s}
        self._users = {value: row for value, row in self._users.items() if row[1] >= over_s}
        if len(self._devices) + len(self._users) >= ROWS_MAX:
            raise OverflowError(f"there are {ROWS_MAX} revocations of devices already")
