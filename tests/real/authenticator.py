"""A software authenticator: ES256, no attestation. Every byte that a real one would sign can be told to be another."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class SoftCredential:
    """One key pair in an authenticator."""

    rp_id: str
    user_handle: bytes
    id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    sign_count: int = 0


class SoftAuthenticator:
    """Make and use discoverable credentials, as a browser at `origin` would let it."""

    def __init__(self, origin: str = "https://auth.example", *, verifies: bool = True, counts: bool = True) -> None:
        self.origin = origin
        self.verifies = verifies
        self.counts = counts
        self.credentials: list[SoftCredential] = []

    def create(self, options: Mapping[str, Any], **forged: Any) -> dict[str, Any]:
        """Answer PublicKeyCredentialCreationOptions (as JSON) with RegistrationResponseJSON."""
        credential = SoftCredential(options["rp"]["id"], unb64url(options["user"]["id"]))
        self.credentials.append(credential)
        client_data = self._client_data("webauthn.create", options["challenge"], forged)
        numbers = credential.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + len(credential.id).to_bytes(2, "big") + credential.id + cbor2.dumps(cose)
        data = self._auth_data(credential, AT, forged) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        response = {
            "clientDataJSON": b64url(client_data),
            "attestationObject": b64url(attestation),
            "transports": ["internal", "hybrid"],
        }
        return self._credential(credential, response)

    def get(
        self, options: Mapping[str, Any], credential: SoftCredential | None = None, **forged: Any
    ) -> dict[str, Any]:
        """Answer PublicKeyCredentialRequestOptions (as JSON) with AuthenticationResponseJSON."""
        allowed = {unb64url(each["id"]) for each in options.get("allowCredentials", [])}
        chosen = credential or next(each for each in self.credentials if not allowed or each.id in allowed)
        client_data = self._client_data("webauthn.get", options["challenge"], forged)
        data = self._auth_data(chosen, 0, forged)
        signature = chosen.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": b64url(client_data),
            "authenticatorData": b64url(data),
            "signature": b64url(forged.get("signature", signature)),
            "userHandle": b64url(forged.get("user_handle", chosen.user_handle)),
        }
        return self._credential(chosen, response)

    def _client_data(self, kind: str, challenge: str, forged: Mapping[str, Any]) -> bytes:
        members = {
            "type": forged.get("type", kind),
            "challenge": forged.get("challenge", challenge),
            "origin": forged.get("origin", self.origin),
            "crossOrigin": forged.get("cross_origin", False),
        }
        return json.dumps(members).encode()

    def _auth_data(self, credential: SoftCredential, flags: int, forged: Mapping[str, Any]) -> bytes:
        if self.counts:
            credential.sign_count += 1
        count = forged.get("sign_count", credential.sign_count)
        usual = UP | (UV if self.verifies else 0)
        rp_hash = hashlib.sha256(forged.get("rp_id", credential.rp_id).encode()).digest()
        return rp_hash + bytes([forged.get("flags", usual) | flags]) + int(count).to_bytes(4, "big")

    @staticmethod
    def _credential(credential: SoftCredential, response: dict[str, Any]) -> dict[str, Any]:
        name = b64url(credential.id)
        return {
            "id": name,
            "rawId": name,
            "type": "public-key",
            "response": response,
            "clientExtensionResults": {"credProps": {"rk": True}},
            "authenticatorAttachment": "platform",
        }


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
