"""Second factors: codes of an authenticator app (TOTP, RFC 6238) and recovery codes.

A code counts once: the directory remembers the last time step of which one was taken, and takes no earlier one either.
A recovery code is kept as a hash that only its user's id opens, is shown once, and works once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final, Literal

import pyotp

from gateway.flows.trail import AuditTrail, Caller
from gateway.stores.directory import Directory, TOTPDevice
from gateway.types import Clock

STEP_S: Final = 30  # RFC 6238 §5.2
DRIFT_STEPS: Final = 1  # a clock may be wrong by so many steps, either way
DIGITS: Final = 6
SECRET_BYTES: Final = 20  # RFC 4226 §4: 160 bits are recommended
CODES: Final = 10  # recovery codes of one user
_CODE_BYTES: Final = 10  # 80 bits: a hash of one cannot be turned back
_GROUP: Final = 4

FactorKind = Literal["totp", "recovery"]


@dataclass(frozen=True, slots=True)
class Factors:
    """Which second factors a user has."""

    totp: tuple[TOTPDevice, ...] = ()  # confirmed ones
    passkeys: int = 0  # that can be asked for as one
    recovery_codes: int = 0

    @property
    def any(self) -> bool:
        """Whether there is one to ask for. Recovery codes stand in for one, and are none themselves."""
        return bool(self.totp) or self.passkeys > 0


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An authenticator app that is being set up: what it must be told."""

    device_id: str
    secret: str  # base32, to type
    uri: str  # to scan


class SecondFactors:
    """Sets up, verifies and removes second factors. Every method raises StoreUnavailable."""

    def __init__(
        self, directory: Directory, clock: Clock, trail: AuditTrail, *, issuer: str, passkeys: bool = False
    ) -> None:
        """`issuer`: by which an app shows whose code it is. `passkeys`: they are second factors, too."""
        self._passkeys = passkeys
        self._directory = directory
        self._clock = clock
        self._trail = trail
        self._issuer = issuer

    async def of(self, user_id: str) -> Factors:
        """Give what a user has."""
        kept = await self._directory.factors_of(user_id)
        confirmed = tuple(each for each in kept.totps if each.confirmed)
        return Factors(confirmed, kept.passkeys if self._passkeys else 0, kept.recovery_codes)

    async def verify(self, user_id: str, code: str) -> FactorKind | None:
        """Take a code of whichever kind; say which it was, None for one that does not count."""
        typed = "".join(code.split()).replace("-", "").lower()
        if len(typed) == DIGITS and typed.isascii() and typed.isdigit():
            return "totp" if await self._take_totp(user_id, typed) else None
        if 0 < len(typed) <= 2 * _CODE_BYTES and typed.isascii():
            used = await self._directory.use_recovery_code(user_id, _hash_of(user_id, typed), self._clock.wall_s())
            return "recovery" if used else None
        return None

    async def begin(self, user_id: str, user_name: str, name: str = "") -> Enrolment:
        """Begin to set up an app. What was begun before, and never confirmed, is forgotten."""
        for device in await self._directory.totps_of(user_id):
            if not device.confirmed:
                await self._directory.remove_totp(user_id, device.id)
        made = TOTPDevice(
            id=f"otp_{_base32(secrets.token_bytes(16))}",
            user_id=user_id,
            secret=secrets.token_bytes(SECRET_BYTES),
            name=name,
            created_s=self._clock.wall_s(),
        )
        await self._directory.add_totp(made)
        return self._enrolment(made, user_name)

    async def begun(self, user_id: str, user_name: str) -> Enrolment | None:
        """Give what was begun last and is not confirmed, to be shown again."""
        for device in await self._directory.totps_of(user_id):
            if not device.confirmed:
                return self._enrolment(device, user_name)
        return None

    async def confirm(self, tenant: str, user_id: str, code: str, caller: Caller) -> bool:
        """Have the app that was begun count from now on, once it shows that it knows the secret."""
        typed = "".join(code.split())
        for device in await self._directory.totps_of(user_id):
            if not device.confirmed and await self._take(device, typed):
                self._trail.tell(
                    "mfa.enrol", "success", caller=caller, tenant=tenant, actor=user_id, target=device.id, kind="totp"
                )
                return True
        self._trail.tell("mfa.enrol", "failure", caller=caller, tenant=tenant, actor=user_id, reason="code")
        return False

    async def remove(self, tenant: str, user_id: str, device_id: str, caller: Caller) -> bool:
        """Remove an app; with the last one the recovery codes go."""
        removed = await self._directory.remove_totp(user_id, device_id)
        if removed:
            if not (await self.of(user_id)).any:
                await self._directory.set_recovery_codes(user_id, ())
            self._trail.tell("mfa.remove", "success", caller=caller, tenant=tenant, actor=user_id, target=device_id)
        return removed

    async def new_codes(self, tenant: str, user_id: str, caller: Caller) -> tuple[str, ...]:
        """Make recovery codes in place of all that there were. They are shown now, and never again."""
        codes = tuple(_grouped(_base32(secrets.token_bytes(_CODE_BYTES))) for _ in range(CODES))
        await self._directory.set_recovery_codes(user_id, [_hash_of(user_id, code.replace("-", "")) for code in codes])
        self._trail.tell("mfa.codes", "success", caller=caller, tenant=tenant, actor=user_id, target=user_id)
        return codes

    async def _take_totp(self, user_id: str, typed: str) -> bool:
        for device in await self._directory.totps_of(user_id):
            if device.confirmed and await self._take(device, typed):
                return True
        return False

    async def _take(self, device: TOTPDevice, typed: str) -> bool:
        """Take a code of a device for the step that it belongs to, at most DRIFT_STEPS away from now."""
        now = int(self._clock.wall_s()) // STEP_S
        generator = pyotp.HOTP(base64.b32encode(device.secret).decode(), digits=DIGITS)
        found = 0
        for step in range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1):
            if hmac.compare_digest(generator.at(step).encode(), typed.encode("utf-8", "surrogatepass")):
                found = step
        return found > device.last_step and await self._directory.use_totp(device.user_id, device.id, found)

    def _enrolment(self, device: TOTPDevice, user_name: str) -> Enrolment:
        secret = base64.b32encode(device.secret).decode()
        uri = pyotp.TOTP(secret, digits=DIGITS, interval=STEP_S).provisioning_uri(
            name=user_name, issuer_name=self._issuer
        )
        return Enrolment(device.id, secret, uri)


def _hash_of(user_id: str, code: str) -> bytes:
    return hashlib.sha256(f"recovery\0{user_id}\0{code}".encode()).digest()


def _grouped(text: str) -> str:
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).rstrip(b"=").decode().lower()
