"""What is kept at rest and must not be readable in a copy of it: sealed by a key that the config names."""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import KeyInvalid
from gateway.types import Secret

SECRET_BYTES_MIN: Final = 32  # what AES-256 needs; a passphrase would be guessed from a stolen file
_FORMAT: Final = b"\x01"  # AES-256-GCM, nonce of 96 random bits in front: NIST SP 800-38D allows 2**32 of them a key
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


class Sealer:
    """Seal and open short texts. One secret of the operator gives a key for each purpose (RFC 5869)."""

    __slots__ = ("_aead", "_secret")

    def __init__(self, secret: Secret) -> None:
        """Raises KeyInvalid for a secret of less than 32 bytes."""
        if len(secret.reveal()) < SECRET_BYTES_MIN:
            raise KeyInvalid(f"a key that seals others has {SECRET_BYTES_MIN} bytes at least (`openssl rand -hex 32`)")
        self._secret = secret
        self._aead = AESGCM(self.derive(b"seal"))

    def derive(self, purpose: bytes) -> bytes:
        """Return 32 bytes that only this secret gives, the same in every process; others for every purpose."""
        kdf = HKDF(hashes.SHA256(), 32, salt=None, info=b"portcullis " + purpose)
        return kdf.derive(self._secret.reveal())

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """Seal `plain`; opening it with another `context` fails, so that nothing can be put in another's place."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORMAT + nonce + self._aead.encrypt(nonce, plain, _FORMAT + context)

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `encrypt` sealed. Raises KeyInvalid for what was changed, or sealed otherwise."""
        if sealed[:1] != _FORMAT or len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES:
            raise KeyInvalid("not sealed by us")
        nonce = sealed[1 : 1 + _NONCE_BYTES]
        try:
            return self._aead.decrypt(nonce, sealed[1 + _NONCE_BYTES :], _FORMAT + context)
        except InvalidTag:
            raise KeyInvalid("sealed by another key, for another purpose, or damaged") from None
