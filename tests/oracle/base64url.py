"""Strict base64url, one bit at a time (RFC 4648 §5, §3.5)."""

from __future__ import annotations

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def decode(data: bytes) -> bytes | None:
    """Return the decoded bytes, or None for a text that is not canonical."""
    bits = ""
    for byte in data:
        if byte not in ALPHABET:
            return None
        bits += f"{ALPHABET.index(byte):06b}"
    whole, rest = divmod(len(bits), 8)
    if rest == 6 or "1" in bits[whole * 8 :]:
        return None
    return bytes(int(bits[i * 8 : i * 8 + 8], 2) for i in range(whole))


def encode(data: bytes) -> bytes:
    """Return the one canonical text of `data`."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 6)
    return bytes(ALPHABET[int(bits[i : i + 6], 2)] for i in range(0, len(bits), 6))
