"""`portcullis`, but a password costs nothing to check: what is left of a log-in is the gateway's own.

The bench alone starts this: argon2id takes 20 ms and more of a core by design, and hides what comes on top of it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.exceptions import InvalidKey

from gateway.cli import main
from gateway.flows import password


def hash_of(given: bytes) -> str:
    """Spell a hash as argon2id's are, made by SHA-256."""
    salt, digest = password._base64(b"s" * 16), password._base64(hashlib.sha256(given).digest())
    return f"$argon2id$v=19$m=19456,t=2,p=1${salt}${digest}"


class _Nothing:
    """Stands for `Argon2id`."""

    def __init__(self, **_: Any) -> None: ...

    def derive_phc_encoded(self, given: bytes) -> str:
        return hash_of(given)

    @staticmethod
    def verify_phc_encoded(given: bytes, kept: str) -> None:
        if hash_of(given) != kept:
            raise InvalidKey


if __name__ == "__main__":
    password.Argon2id = _Nothing  # type: ignore[assignment,attr-defined]
    main()
