"""A browser that remembers by a key, in software. Everything that it says can be told to be something else."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.real.authenticator import b64url


class SoftDevice:
    """One key pair of a page at `origin`."""

    def __init__(self, origin: str = "https://auth.example") -> None:
        self.origin = origin
        self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, str]:
        numbers = self.key.public_key().public_numbers()
        x, y = (b64url(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    def prove(self, act: str, device: str, challenge: str, /, **forged: Any) -> str:
        """Answer a challenge. `forged`: claims, `header`, which is put over the usual one, or `signature`."""
        bound = {"jwk": self.jwk} if act == "bind" else {}
        header = {"typ": "device-proof+jwt", "alg": "ES256", **bound, **forged.pop("header", {})}
        signature = forged.pop("signature", None)
        claims = {"act": act, "aud": self.origin, "sub": device, "nonce": challenge, **forged}
        signed = ".".join(b64url(json.dumps(each).encode()) for each in (header, claims))
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        made = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return f"{signed}.{b64url(made if signature is None else signature)}"
