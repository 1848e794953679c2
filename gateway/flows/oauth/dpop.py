"""Proof of possession (RFC 9449): a request is signed by the key that its token is bound to.

A proof counts once: its `jti` is remembered for as long as the proof could be accepted. Nonces are made from the time
and a key that all processes have, so that nobody has to keep them; they bound how long before its use a proof can have
been made.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import orjson

from gateway._native import base64url
from gateway._native.json_scan import JsonRefused, scan
from gateway.errors import KeyInvalid
from gateway.flows.oauth.errors import OAuthRefused
from gateway.tokens.jws import split_compact
from gateway.tokens.keys import load_jwk
from gateway.tokens.signing import thumbprint
from gateway.types import Clock

PROOF_BYTES_MAX: Final = 8 * 1024
JTI_BYTES_MAX: Final = 256
# RFC 9449 §4.3 (5): no `none`, nothing symmetric.
ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
FUTURE_S: Final = 5  # clocks differ; a proof is not made for later

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_NONCE_FORMAT: Final = struct.Struct(">Q16s")
# No extension is understood, and a proof says its key by `jwk` alone.
_REFUSED_MEMBERS: Final = (b"crit", b"b64", b"enc", b"zip", b"jku", b"x5u", b"x5c")

FirstUse = Callable[[bytes, int], Awaitable[bool]]
"""`first_use(key, expires_s)`: whether this key comes for the first time, across all processes."""


class Nonces:
    """Nonces that every process with the same `key` makes and knows (RFC 9449 §8)."""

    def __init__(self, key: bytes, clock: Clock, *, lifetime_s: int) -> None:
        """One is accepted for `lifetime_s` at least, and twice as long at most."""
        self._key = key
        self._clock = clock
        self._lifetime_s = lifetime_s

    def current(self) -> str:
        """Return the nonce to give out now."""
        return self._of(self._period())

    def accepts(self, nonce: str) -> bool:
        """Tell whether we gave out `nonce` lately."""
        period = self._period()
        return any(hmac.compare_digest(self._of(each).encode(), nonce.encode()) for each in (period, period - 1))

    def _period(self) -> int:
        return int(self._clock.wall_s()) // self._lifetime_s

    def _of(self, period: int) -> str:
        mac = hmac.digest(self._key, struct.pack(">Q", period), "sha256")[:16]
        return base64.urlsafe_b64encode(_NONCE_FORMAT.pack(period, mac)).decode()


@dataclass(frozen=True, slots=True)
class _Proof:
    jkt: str
    jti: bytes
    method: bytes
    url: bytes
    issued_at_s: float
    nonce: str
    token_hash: bytes  # `ath`; b"" where absent


class DPoPChecker:
    """Check proofs of requests, at the token endpoint and at doors alike."""

    def __init__(self, first_use: FirstUse, clock: Clock, *, nonces: Nonces | None, lifetime_s: int = 60) -> None:
        """`nonces`: proofs must hold one of them; None takes proofs without. `lifetime_s`: how old a proof may be."""
        self._first_use = first_use
        self._clock = clock
        self._nonces = nonces
        self._lifetime_s = lifetime_s

    def nonce(self) -> str:
        """Return the nonce to send with the next answer, "" where none is asked for."""
        return "" if self._nonces is None else self._nonces.current()

    async def check(
        self, proofs: Sequence[str], method: str, url: str, *, token: str | None = None, jkt: str = ""
    ) -> str:
        """Return the thumbprint of the key that signed the proof of this request.

        `proofs`: all values of the header `DPoP`. `token`: the access token that comes with the request; `jkt`: the
        key that it, or what is traded for it, is bound to. Raises OAuthRefused: `invalid_dpop_proof`, or
        `use_dpop_nonce` for a proof that only lacks a fresh nonce; such a one is not used up.
        """
        if len(proofs) != 1 or "," in proofs[0]:
            raise _invalid("exactly one proof is sent with a request", "dpop_count")
        proof = _read(proofs[0])
        if proof.method != method.encode():
            raise _invalid("the proof is for another method", "dpop_method")
        if _comparable(proof.url.decode("utf-8", "replace")) != _comparable(url):
            raise _invalid("the proof is for another address", "dpop_url")
        if token is not None and not hmac.compare_digest(proof.token_hash, _sha256_b64(token.encode())):
            raise _invalid("the proof is for another access token", "dpop_token")
        if jkt and not hmac.compare_digest(proof.jkt.encode(), jkt.encode()):
            raise _invalid("the proof is signed by another key", "dpop_key")
        if self._nonces is not None and not self._nonces.accepts(proof.nonce):
            raise OAuthRefused("use_dpop_nonce", "the proof must hold the nonce of the header DPoP-Nonce")
        age_s = self._clock.wall_s() - proof.issued_at_s
        # With a fresh nonce the client's clock need not be right, within reason (RFC 9449 §11.1).
        leeway_s = self._lifetime_s if self._nonces is not None else FUTURE_S
        if not -leeway_s <= age_s <= self._lifetime_s + leeway_s:
            raise _invalid("the proof was not made just now", "dpop_time")
        used = hashlib.sha256(proof.jkt.encode() + b"\0" + proof.jti).digest()
        expires_s = int(self._clock.wall_s()) + 2 * (self._lifetime_s + leeway_s) + 1
        if not await self._first_use(used, expires_s):
            raise _invalid("the proof was used before", "dpop_replayed")
        return proof.jkt


def _read(text: str) -> _Proof:
    """Read a proof and verify its signature (RFC 9449 §4.3). Raises OAuthRefused."""
    if len(text) > PROOF_BYTES_MAX:
        raise _invalid("the proof is too long", "dpop_malformed")
    parts = split_compact(text)
    if parts is None:
        raise _invalid("the proof is no JWT", "dpop_malformed")
    header, signed, signature = parts
    algorithm, jwk = _read_header(header)
    try:
        handles = load_jwk({name: value for name, value in jwk.items() if name != "kid"}, (algorithm,))
        jkt = thumbprint(jwk)
    except (KeyInvalid, KeyError):
        raise _invalid("the key of the proof cannot be used", "dpop_key_invalid") from None
    if not any(handle.verify(signed, signature) for handle in handles):
        raise _invalid("the proof is not signed by its key", "dpop_signature")
    return _read_claims(base64url.decode(signed.partition(b".")[2]), jkt)


def _read_header(header: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        kind, algorithm, key, *refused = scan(header, (b"typ", b"alg", b"jwk", *_REFUSED_MEMBERS))
    except JsonRefused:
        raise _invalid("the header of the proof cannot be read", "dpop_malformed") from None
    if any(there != "absent" for there, _ in refused):
        raise _invalid("the header of the proof asks for what is not understood", "dpop_malformed")
    if kind[0] != "string" or not isinstance(kind[1], bytes) or kind[1].lower() != b"dpop+jwt":
        raise _invalid("the type of the proof is not dpop+jwt", "dpop_type")
    if algorithm[0] != "string" or not isinstance(algorithm[1], bytes):
        raise _invalid("the proof names no algorithm", "dpop_algorithm")
    name = algorithm[1].decode("utf-8", "replace")
    name = "EdDSA" if name == "Ed25519" else name
    if name not in ALGORITHMS:
        raise _invalid("the algorithm of the proof is not accepted", "dpop_algorithm")
    if key[0] != "object" or not isinstance(key[1], bytes):
        raise _invalid("the proof holds no key", "dpop_key_invalid")
    try:
        scan(key[1], (b"kty",))  # refuses a member that stands there twice
    except JsonRefused:
        raise _invalid("the key of the proof cannot be read", "dpop_key_invalid") from None
    jwk: dict[str, Any] = orjson.loads(key[1])
    return name, jwk


def _read_claims(payload: bytes, jkt: str) -> _Proof:
    try:
        found = scan(payload, (b"jti", b"htm", b"htu", b"iat", b"nonce", b"ath"))
    except JsonRefused:
        raise _invalid("the claims of the proof cannot be read", "dpop_malformed") from None
    jti, method, url, issued_at, nonce, token_hash = found
    texts = [value for kind, value in (jti, method, url) if kind == "string" and isinstance(value, bytes)]
    if len(texts) != 3 or not 0 < len(texts[0]) <= JTI_BYTES_MAX:
        raise _invalid("the proof lacks jti, htm or htu", "dpop_malformed")
    if issued_at[0] not in ("int", "double") or not isinstance(issued_at[1], int | float):
        raise _invalid("the proof lacks iat", "dpop_malformed")
    if any(kind not in ("absent", "string") for kind, _ in (nonce, token_hash)):
        raise _invalid("the claims of the proof cannot be read", "dpop_malformed")
    return _Proof(
        jkt=jkt,
        jti=texts[0],
        method=texts[1],
        url=texts[2],
        issued_at_s=issued_at[1],
        nonce=nonce[1].decode("utf-8", "replace") if isinstance(nonce[1], bytes) else "",
        token_hash=token_hash[1] if isinstance(token_hash[1], bytes) else b"",
    )


def _comparable(url: str) -> tuple[object, ...]:
    """Return what is compared of an address: neither query nor fragment (RFC 9449 §4.3), normalised by RFC 3986 §6."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return ("unreadable", url)
    return parts.scheme, parts.hostname, port, unquote(parts.path) or "/", parts.username


def _sha256_b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")


def _invalid(message: str, reason: str) -> OAuthRefused:
    return OAuthRefused("invalid_dpop_proof", message, reason=reason)
