"""Browsers that came before. None of them is anybody's proof: a browser that is known makes less trouble, no more.

A *known* browser holds a signed note that a user once logged in from it: failures from there are counted apart, and
a login is no news. Nothing is kept of it. A *remembered* device was named by its user after two factors: it has a row
in the directory, and need not show a second factor for a while, unless something is odd, or more is asked for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.flows.trail import AuditTrail, Caller
from gateway.stores.directory import Device, Directory
from gateway.types import Clock

_KNOWN: Final = re.compile(r"([a-z2-7]{26})\.([a-z2-7]{26})")
_REMEMBERED: Final = re.compile(r"(dev_[a-z2-7]{26})\.([a-z2-7]{52})")
NAME_BYTES_MAX: Final = 128
NOTES_MAX: Final = 8  # users whose notes one browser keeps
_BETWEEN: Final = "~"


class KnownBrowsers:
    """Makes and reads the notes that browsers keep for a user."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def note(self, user_id: str, kept: str = "") -> str:
        """Make the notes of a browser from which a user has just logged in; `kept`: those that it has.

        Several people may share it; the one who came longest ago gives way beyond NOTES_MAX.
        """
        others = [note for note in kept.split(_BETWEEN)[:NOTES_MAX] if not self._reads(note, user_id)]
        nonce = self.read(kept, user_id) or _base32(secrets.token_bytes(16))
        return _BETWEEN.join(
            (f"{nonce}.{self._mac(nonce, user_id)}", *filter(_KNOWN.fullmatch, others[: NOTES_MAX - 1]))
        )

    def read(self, notes: str, user_id: str) -> str:
        """Give what tells this browser from others, "" where it holds no note of this user."""
        return next(filter(None, (self._reads(note, user_id) for note in notes.split(_BETWEEN)[:NOTES_MAX])), "")

    def _reads(self, note: str, user_id: str) -> str:
        match = _KNOWN.fullmatch(note)
        if match is None or not hmac.compare_digest(match[2], self._mac(match[1], user_id)):
            return ""
        return match[1]

    def _mac(self, nonce: str, user_id: str) -> str:
        return _base32(hmac.digest(self._key, f"known\0{nonce}\0{user_id}".encode(), "sha256")[:16])


@dataclass(frozen=True, slots=True)
class Remembered:
    """A device that is remembered from now on, and the value of its cookie."""

    value: str
    device: Device


class RememberedDevices:
    """Remembers, recognises and forgets devices. Every method raises StoreUnavailable."""

    def __init__(self, directory: Directory, clock: Clock, trail: AuditTrail, *, lifetime_s: int) -> None:
        """`lifetime_s` 0: no device is remembered."""
        self._directory = directory
        self._clock = clock
        self._trail = trail
        self.lifetime_s = lifetime_s

    async def remember(self, tenant: str, user_id: str, name: str, caller: Caller) -> Remembered:
        """Remember the device that has just shown two factors of its user."""
        now_s = self._clock.wall_s()
        secret = _base32(secrets.token_bytes(32))
        device = Device(
            id=f"dev_{_base32(secrets.token_bytes(16))}",
            tenant=tenant,
            user_id=user_id,
            secret_hash=hashlib.sha256(secret.encode()).digest(),
            name=_cut(name),
            created_s=now_s,
            seen_s=now_s,
            expires_s=now_s + self.lifetime_s,
        )
        await self._directory.add_device(device)
        self._trail.tell("device.remember", "success", caller=caller, tenant=tenant, actor=user_id, target=device.id)
        return Remembered(f"{device.id}.{secret}", device)

    async def recognise(self, value: str, tenant: str, user_id: str) -> Device | None:
        """Give the device of a cookie's value, None for one that is over, was forgotten, or is another user's."""
        match = _REMEMBERED.fullmatch(value) if self.lifetime_s else None
        if match is None:
            return None
        device = await self._directory.get_device(tenant, match[1])
        given = hashlib.sha256(match[2].encode()).digest()
        if device is None or device.user_id != user_id or not hmac.compare_digest(device.secret_hash, given):
            return None
        now_s = self._clock.wall_s()
        if now_s >= device.expires_s:
            return None
        await self._directory.touch_device(tenant, device.id, now_s)
        return device

    async def list_of(self, tenant: str, user_id: str) -> Sequence[Device]:
        """Give a user's devices that are not over, the one seen last first."""
        now_s = self._clock.wall_s()
        found = [each for each in await self._directory.devices_of(tenant, user_id) if each.expires_s > now_s]
        return sorted(found, key=lambda each: -each.seen_s)

    async def forget(self, tenant: str, user_id: str, device_id: str, caller: Caller) -> bool:
        """Forget a device; it shows a second factor again from now on."""
        gone = await self._directory.remove_device(tenant, user_id, device_id)
        if gone:
            self._trail.tell("device.forget", "success", caller=caller, tenant=tenant, actor=user_id, target=device_id)
        return gone

    async def forget_all(self, tenant: str, user_id: str) -> int:
        """Forget all of a user's devices, as after a password was reset."""
        return await self._directory.remove_devices(tenant, user_id)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).rstrip(b"=").decode().lower()


def _cut(name: str) -> str:
    return name.encode("utf-8", "ignore")[:NAME_BYTES_MAX].decode("utf-8", "ignore")
