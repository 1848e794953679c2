"""Vouchers: what a device that is bound by a key may show while the directory is away. Off by default.

The gateway seals one for the device at a whole log-in: whose it is, the key, when the user proved who they are, and
until when it counts. Nobody but a gateway with the same key reads or makes one, and alone it opens nothing: it says
which key a fresh proof has to be signed by. Whatever ends the device, or all that its user has, ends it too, by rows
that every worker follows (`RevokedDevices`), and again where its session is to begin (`SessionStore.create`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from gateway._native import base64url
from gateway.errors import KeyInvalid
from gateway.flows.device_keys import DeviceRefused
from gateway.flows.revoked_devices import RevokedDevices
from gateway.stores.directory import Device, Encrypter
from gateway.types import Clock

VOUCHER_BYTES_MAX: Final = 2048
VOUCHER_S_MAX: Final = 86_400  # what ended a device is told for so long
_CONTEXT: Final = b"device voucher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """What a gateway says of a device. Times are Unix seconds."""

    tenant: str
    user: str
    device: str
    key: str  # a JWK
    proved_s: int  # when the user proved more than to hold the device
    expires_s: int


class Vouchers:
    """Makes and reads vouchers. All gateways that share a directory have the same key."""

    def __init__(self, encrypter: Encrypter, clock: Clock, revoked: RevokedDevices, *, lifetime_s: int) -> None:
        """`lifetime_s` 0: none is made, and none is taken."""
        self._encrypter = encrypter
        self._clock = clock
        self._revoked = revoked
        self.lifetime_s = lifetime_s

    def issue(self, device: Device) -> str:
        """Make one for a device whose user has just logged in; "" where none is made."""
        if not self.lifetime_s or not device.public_key:
            return ""
        now_s = int(self._clock.wall_s())
        made = Voucher(
            tenant=device.tenant,
            user=device.user_id,
            device=device.id,
            key=device.public_key,
            proved_s=now_s,
            expires_s=min(now_s + self.lifetime_s, int(device.expires_s)),
        )
        sealed = self._encrypter.encrypt(orjson.dumps(asdict(made)), _CONTEXT)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def read(self, value: str) -> Voucher:
        """Give what a voucher says that counts now. Raises DeviceRefused."""
        if not value or not self.lifetime_s:
            raise DeviceRefused("voucher_absent")
        found = self._opened(value)
        if self._clock.wall_s() >= min(found.expires_s, found.proved_s + self.lifetime_s):
            raise DeviceRefused("voucher_over")
        ended = self._revoked.ended(found.tenant, found.user, found.device, found.proved_s)
        if ended:
            raise DeviceRefused(ended)
        return found

    def is_of(self, value: str, tenant: str, user_id: str) -> bool:
        """Tell whether a voucher is a user's, and counts."""
        try:
            found = self.read(value)
        except DeviceRefused:
            return False
        return (found.tenant, found.user) == (tenant, user_id)

    def _opened(self, value: str) -> Voucher:
        if len(value) > VOUCHER_BYTES_MAX or not value.isascii():
            raise DeviceRefused("voucher_invalid")
        try:
            said: Mapping[str, Any] = orjson.loads(self._encrypter.decrypt(base64url.decode(value.encode()), _CONTEXT))
            return Voucher(**said)
        except (KeyInvalid, ValueError, TypeError):  # none of ours, or of another version
            raise DeviceRefused("voucher_invalid") from None
