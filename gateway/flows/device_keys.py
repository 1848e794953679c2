"""Keys that a browser keeps and cannot give away, and proofs that it has one.

A proof is a JWS (RFC 7515) in compact form, ES256, of the type `device-proof+jwt`. It says what it is for (`act`), to
whom (`aud`, the page's origin), of which device (`sub`), and the challenge that it answers (`nonce`); where a device
is being bound, its header holds the public key, as in a DPoP proof (RFC 9449 §4.2). A challenge is good once, for a
while, for one log-in or browser, one origin and one device. Whatever is wrong, who sent it learns the same words; the
audit trail has the reason.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from gateway._native import base64url
from gateway._native.json_scan import JsonRefused, scan
from gateway.errors import GatewayError, KeyInvalid
from gateway.stores.grants import Grant, TokenStore
from gateway.tokens.jws import split_compact
from gateway.tokens.keys import load_jwk
from gateway.types import Clock

PROOF_BYTES_MAX: Final = 4096
CHALLENGE_S: Final = 120
CHALLENGE_BYTES: Final = 32
TYPE: Final = "device-proof+jwt"
ALGORITHM: Final = "ES256"
_KEY_MEMBERS: Final = ("crv", "kty", "x", "y")  # of an EC key (RFC 7518 §6.2), no others are kept

Act = Literal["bind", "log_in", "carry"]
Reason = Literal[
    "malformed",  # no such proof
    "challenge_absent",  # ours never was, or is over
    "challenge_spent",  # it was answered before
    "challenge_foreign",  # of another log-in, browser, tenant, or for something else
    "origin",  # of another page
    "device",  # of another device
    "key",  # no key that may be used
    "signature",  # by another key
    "device_unknown",  # forgotten, over, another user's, or there never was such a one
    "device_unbound",  # known by its cookie alone
    "not_enough",  # the log-in needs another factor in any case
    "voucher_absent",
    "voucher_invalid",
    "voucher_over",
    "device_revoked",
    "user_revoked",
    "revocations_unknown",
]


class DeviceRefused(GatewayError):
    """A device that proves nothing. `reason` is for the audit trail; the message is the same for all of them."""

    code = "device_refused"
    status = 400

    def __init__(self, reason: Reason) -> None:
        super().__init__("this device was not accepted")
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a challenge is for, and whose it is. `holder`: what its log-in or browser is known by."""

    act: Act
    holder: str
    tenant: str
    device_id: str
    origin: str

    @property
    def bound(self) -> str:
        """Give what a store may hold of it."""
        return hashlib.sha256(f"device\0{self.act}\0{self.tenant}\0{self.holder}".encode()).hexdigest()


class DeviceKeys:
    """Asks devices to prove their keys. Methods raise StoreUnavailable."""

    def __init__(self, grants: TokenStore, clock: Clock) -> None:
        """`grants`: in which challenges are kept."""
        self._grants = grants
        self._clock = clock

    async def challenge(self, errand: Errand) -> str:
        """Make a challenge, good for one answer within CHALLENGE_S."""
        made = base64.urlsafe_b64encode(secrets.token_bytes(CHALLENGE_BYTES)).rstrip(b"=").decode()
        body = {"purpose": "device", "bound": errand.bound, "origin": errand.origin, "device": errand.device_id}
        await self._grants.keep(
            Grant(
                kind="challenge",
                key=_hash(made),
                tenant=errand.tenant,
                expires_s=int(self._clock.wall_s()) + CHALLENGE_S,
                body=body,
            )
        )
        return made

    async def check(self, proof: str, errand: Errand, key: str = "") -> str:
        """Return the key that a proof is signed by, as a JWK; with `key`, by that one and no other.

        Without `key` the proof brings it. The challenge is used up, whatever else is wrong. Raises DeviceRefused.
        """
        signed, signature, own_key, claims = _read(proof)
        taken = await self._grants.take("challenge", _hash(str(claims["nonce"])))
        if taken.grant is None:
            raise DeviceRefused("challenge_spent" if taken.found == "spent" else "challenge_absent")
        kept = taken.grant.body
        is_ours = kept.get("purpose") == "device" and hmac.compare_digest(str(kept.get("bound")), errand.bound)
        if not is_ours or claims["act"] != errand.act:
            raise DeviceRefused("challenge_foreign")
        if not errand.origin or {str(claims["aud"]), kept.get("origin")} != {errand.origin}:
            raise DeviceRefused("origin")
        if {str(claims["sub"]), kept.get("device")} != {errand.device_id}:
            raise DeviceRefused("device")
        if bool(own_key) == bool(key):  # whose key is known brings none, and only who is bound does
            raise DeviceRefused("key")
        used = own_key or key
        try:
            handles = load_jwk(orjson.loads(used), (ALGORITHM,))
        except (KeyInvalid, ValueError):
            raise DeviceRefused("key") from None
        if not any(handle.verify(signed, signature) for handle in handles):
            raise DeviceRefused("signature")
        return used


def _read(proof: str) -> tuple[bytes, bytes, str, Mapping[str, Any]]:
    """Return what was signed, the signature, the key that it brings ("" for none), and the claims, all of them texts.

    Nothing is verified. Raises DeviceRefused.
    """
    parts = split_compact(proof) if len(proof) <= PROOF_BYTES_MAX else None
    if parts is None:
        raise DeviceRefused("malformed")
    header, signed, signature = parts
    payload = base64url.decode(signed.partition(b".")[2])
    try:
        scan(header, (b"",))  # refuses what no two readers understand in the same way
        scan(payload, (b"",))
        said, claims = orjson.loads(header), orjson.loads(payload)
    except (JsonRefused, ValueError):
        raise DeviceRefused("malformed") from None
    if said.keys() - {"jwk"} != {"typ", "alg"} or (said["typ"], said["alg"]) != (TYPE, ALGORITHM):
        raise DeviceRefused("malformed")
    if claims.keys() != {"act", "aud", "sub", "nonce"} or not all(isinstance(each, str) for each in claims.values()):
        raise DeviceRefused("malformed")
    return signed, signature, _spelled(said["jwk"]) if "jwk" in said else "", claims


def _spelled(jwk: Any) -> str:
    """Spell a public key in one way. Raises DeviceRefused for what is none."""
    if not isinstance(jwk, dict) or jwk.keys() != set(_KEY_MEMBERS):
        raise DeviceRefused("key")
    if (jwk["kty"], jwk["crv"]) != ("EC", "P-256") or not all(isinstance(each, str) for each in jwk.values()):
        raise DeviceRefused("key")
    return orjson.dumps({name: jwk[name] for name in _KEY_MEMBERS}).decode()


def _hash(challenge: str) -> bytes:
    return hashlib.sha256(b"device challenge\0" + challenge.encode("utf-8", "surrogatepass")).digest()
