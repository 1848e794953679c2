"""Browsers that came before. None of them is anybody's proof: a browser that is known makes less trouble, no more.

A *known* browser holds a signed note that a user once logged in from it: failures from there are counted apart, and
a login is no news. Nothing is kept of it. A *remembered* device was named by its user after two factors: it has a row
in the directory, and need not show a second factor for a while, unless something is odd, or more is asked for. It is
known by a secret in a cookie and, where its browser could make one, by a key that never leaves it: who copied the
cookie has nothing then.
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

from gateway.flows.device_keys import Act, DeviceKeys, DeviceRefused, Errand
from gateway.flows.leaving import Revoke
from gateway.flows.revoked_devices import ISSUER, user_value
from gateway.flows.trail import AuditTrail, Caller
from gateway.flows.vouchers import VOUCHER_S_MAX, Vouchers
from gateway.stores.directory import Device, Directory
from gateway.types import Clock, Subject

_KNOWN: Final = re.compile(r"([a-z2-7]{26})\.([a-z2-7]{26})")
_REMEMBERED: Final = re.compile(r"(dev_[a-z2-7]{26})\.([a-z2-7]{52})")
_ID: Final = re.compile(r"dev_[a-z2-7]{26}")
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


@dataclass(frozen=True, slots=True)
class DeviceOffer:
    """What a device is asked: to answer the challenge with the key of this id."""

    device_id: str
    challenge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """A log-in that is under way, and whose. `login`: what it is known by; `origin`: of the page that asks."""

    login: str
    tenant: str
    user_id: str
    origin: str

    def errand(self, act: Act, device_id: str) -> Errand:
        holder = f"{self.user_id}\0{self.login}"
        return Errand(act=act, holder=holder, tenant=self.tenant, device_id=device_id, origin=self.origin)


class RememberedDevices:
    """Remembers, recognises and forgets devices. Every method raises StoreUnavailable."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        trail: AuditTrail,
        *,
        lifetime_s: int,
        keys: DeviceKeys | None = None,
        vouchers: Vouchers | None = None,
        revoke: Revoke | None = None,
    ) -> None:
        """`lifetime_s` 0: no device is remembered. `keys`: asks for proofs; without it none is bound to a key.

        `vouchers`: what bound devices are given; `revoke` ends those that are out. The two go together.
        """
        self._directory = directory
        self._clock = clock
        self._trail = trail
        self._keys = keys
        self._revoke = revoke
        self.vouchers = vouchers
        self.lifetime_s = lifetime_s

    async def remember(self, tenant: str, user_id: str, name: str, caller: Caller) -> Remembered:
        """Remember the device that has just shown two factors of its user, by a secret."""
        return await self._add(_new_id(), "", Subject(tenant, user_id), name, caller)

    async def _add(self, device_id: str, key: str, owner: Subject, name: str, caller: Caller) -> Remembered:
        now_s = self._clock.wall_s()
        secret = _base32(secrets.token_bytes(32))
        device = Device(
            id=device_id,
            tenant=owner.tenant,
            user_id=owner.id,
            secret_hash=hashlib.sha256(secret.encode()).digest(),
            public_key=key,
            name=_cut(name),
            created_s=now_s,
            seen_s=now_s,
            expires_s=now_s + self.lifetime_s,
        )
        await self._directory.add_device(device)
        self._trail.tell(
            "device.remember",
            "success",
            caller=caller,
            tenant=owner.tenant,
            actor=owner.id,
            target=device.id,
            kind="key" if key else "cookie",
        )
        return Remembered(f"{device.id}.{secret}", device)

    # -- by a key -----------------------------------------------------------------------------------------------------

    async def offer_binding(self, whose: Whose) -> DeviceOffer:
        """Ask a browser for a key by which its device will be known. Raises DeviceRefused where none is taken."""
        if self._keys is None or not self.lifetime_s:
            raise DeviceRefused("not_enough")
        device_id = _new_id()
        return DeviceOffer(device_id, await self._keys.challenge(whose.errand("bind", device_id)))

    async def bind(self, proof: str, device_id: str, whose: Whose, name: str, caller: Caller) -> Remembered | None:
        """Remember the device that has just shown two factors of its user, by the key that it proves to have.

        None, and it is not remembered at all, for one that proves nothing: the audit trail says why.
        """
        try:
            if self._keys is None or _ID.fullmatch(device_id) is None:
                raise DeviceRefused("malformed")
            key = await self._keys.check(proof, whose.errand("bind", device_id))
        except DeviceRefused as refused:
            self._refused("device.remember", whose, device_id, refused, caller)
            return None
        return await self._add(device_id, key, Subject(whose.tenant, whose.user_id), name, caller)

    def names_one(self, value: str) -> bool:
        """Tell whether a cookie looks like that of a device."""
        return bool(self.lifetime_s) and _REMEMBERED.fullmatch(value) is not None

    async def offer_use(self, value: str, whose: Whose) -> DeviceOffer:
        """Ask the device of a cookie's value to prove its key. Raises DeviceRefused for one that has none."""
        device = await self._bound(value, whose)
        assert self._keys is not None
        return DeviceOffer(device.id, await self._keys.challenge(whose.errand("log_in", device.id)))

    async def prove(self, value: str, proof: str, whose: Whose, caller: Caller) -> Device:
        """Give the device of a cookie's value, which has just proved its key. Raises DeviceRefused."""
        device_id = value.partition(".")[0]
        try:
            device = await self._bound(value, whose)
            assert self._keys is not None
            await self._keys.check(proof, whose.errand("log_in", device.id), device.public_key)
            if not await self._directory.touch_device(device.tenant, device.id, self._clock.wall_s()):
                raise DeviceRefused("device_unknown")
        except DeviceRefused as refused:
            self._refused("device.use", whose, device_id, refused, caller)
            raise
        self._trail.tell(
            "device.use",
            "success",
            caller=caller,
            tenant=whose.tenant,
            actor=whose.user_id,
            target=device.id,
            kind="key",
        )
        return device

    async def _bound(self, value: str, whose: Whose) -> Device:
        device = await self._named(value, whose.tenant, whose.user_id)
        if device is None:
            raise DeviceRefused("device_unknown")
        if self._keys is None or not device.public_key:
            raise DeviceRefused("device_unbound")
        return device

    def _refused(self, action: str, whose: Whose, device_id: str, refused: DeviceRefused, caller: Caller) -> None:
        self._trail.tell(
            action,
            "refused",
            caller=caller,
            tenant=whose.tenant,
            actor=whose.user_id,
            target=device_id if _ID.fullmatch(device_id) else "",
            reason=refused.reason,
            kind="key",
        )

    # -- by a secret --------------------------------------------------------------------------------------------------

    async def recognise(self, value: str, tenant: str, user_id: str) -> Device | None:
        """Give the device of a cookie's value, None for one that is over, was forgotten, or is another user's.

        Nor is one given that is bound to a key: it proves that instead.
        """
        device = await self._named(value, tenant, user_id)
        if device is None or device.public_key:
            return None
        await self._directory.touch_device(tenant, device.id, self._clock.wall_s())
        return device

    async def _named(self, value: str, tenant: str, user_id: str) -> Device | None:
        match = _REMEMBERED.fullmatch(value) if self.lifetime_s else None
        if match is None:
            return None
        device = await self._directory.get_device(tenant, match[1])
        given = hashlib.sha256(match[2].encode()).digest()
        if device is None or device.user_id != user_id or not hmac.compare_digest(device.secret_hash, given):
            return None
        return device if self._clock.wall_s() < device.expires_s else None

    # -- while the directory is away ----------------------------------------------------------------------------------

    def voucher(self, device: Device | None, kept: str, tenant: str, user_id: str) -> str | None:
        """Give what a browser keeps from now on whose user has just logged in; None: what it has already, if anything.

        `device`: that was just bound, or proved its key. Nobody keeps another one's.
        """
        made = "" if self.vouchers is None or device is None else self.vouchers.issue(device)
        if made:
            return made
        if not kept or (self.vouchers is not None and self.vouchers.is_of(kept, tenant, user_id)):
            return None
        return ""

    # -- for their users ----------------------------------------------------------------------------------------------

    async def list_of(self, tenant: str, user_id: str) -> Sequence[Device]:
        """Give a user's devices that are not over, the one seen last first."""
        now_s = self._clock.wall_s()
        found = [each for each in await self._directory.devices_of(tenant, user_id) if each.expires_s > now_s]
        return sorted(found, key=lambda each: -each.seen_s)

    async def forget(self, tenant: str, user_id: str, device_id: str, caller: Caller, *, actor: str = "") -> bool:
        """Forget a device; it shows a second factor again from now on, and what it was given counts no more.

        `actor`: who has it forgotten, where that is not its user.
        """
        if self._revoke is not None and await self._is_of(tenant, user_id, device_id):
            # First: who is interrupted here does it again, and no voucher outlives its device.
            await self._revoke("jti", ISSUER, device_id, until_s=int(self._clock.wall_s()) + VOUCHER_S_MAX)
        gone = await self._directory.remove_device(tenant, user_id, device_id)
        if gone:
            who = actor or user_id
            self._trail.tell("device.forget", "success", caller=caller, tenant=tenant, actor=who, target=device_id)
        return gone

    async def forget_all(self, tenant: str, user_id: str) -> int:
        """Forget all of a user's devices, as after a password was reset."""
        await self.void(tenant, user_id)
        return await self._directory.remove_devices(tenant, user_id)

    async def void(self, tenant: str, user_id: str) -> None:
        """Let nothing count that a user's devices were given to show while the directory is away."""
        if self._revoke is not None:
            now_s = int(self._clock.wall_s())
            value = user_value(tenant, user_id)
            await self._revoke("sub", ISSUER, value, until_s=now_s + VOUCHER_S_MAX, issued_before_s=now_s + 1)

    async def _is_of(self, tenant: str, user_id: str, device_id: str) -> bool:
        device = await self._directory.get_device(tenant, device_id)
        return device is not None and device.user_id == user_id


def _new_id() -> str:
    return f"dev_{_base32(secrets.token_bytes(16))}"


def _base32(data: bytes) -> str:
    return base64.b32encode(data).rstrip(b"=").decode().lower()


def _cut(name: str) -> str:
    return name.encode("utf-8", "ignore")[:NAME_BYTES_MAX].decode("utf-8", "ignore")
