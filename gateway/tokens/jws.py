"""One signature, judged for a caller who has the key: `verify_jws`. No claims, no issuers, no cache.

The doors judge tokens by `gateway._native.token`; this is the same law for signature and header, as one slow function.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gateway._native import base64url
from gateway._native.json_scan import JsonRefused, scan
from gateway._native.verify import BACKEND
from gateway.errors import KeyInvalid
from gateway.tokens.keys import KID_BYTES_MAX, LoadedKeys, load_jwk, load_jwks

JWS_BYTES_MAX = 1024 * 1024  # a longer text is refused unread
TYPE_BYTES_MAX = 128  # of `typ` and `cty`; as in token.pxd

# crit and b64: no extension is understood (RFC 7515 §4.1.11, RFC 7797). enc and zip: a JWE. jku, x5u, x5c, jwk: a token
# never says where its key is (RFC 8725 §3.10). All refuse by being there.
_REFUSED_MEMBERS = (b"crit", b"b64", b"enc", b"zip", b"jku", b"x5u", b"x5c", b"jwk")


def verify_jws(
    compact: str | bytes, jwk: Mapping[str, object], algorithms: Collection[str], *, backend: str = BACKEND
) -> bool:
    """Say whether `compact` is a JWS in compact form (RFC 7515 §7.1) that `jwk` verifies under one of `algorithms`.

    `jwk` is a JWK or a JWK Set. The key decides: its own `alg`, kind, curve, `use` and `key_ops` must allow what the
    header names, and a `kid` in the header must be the key's, where that has one. The payload may be anything.
    False, never an exception, for whatever the three hold. `backend` is for tests.
    """
    parts = split_compact(compact)
    if parts is None:
        return False
    header, signed, signature = parts
    algorithm, kid = _read_header(header)
    if not algorithm:
        return False
    try:
        loaded = (
            load_jwks(jwk, algorithms, backend=backend)
            if "keys" in jwk
            else LoadedKeys(load_jwk(jwk, algorithms, backend=backend), ())
        )
    except KeyInvalid:
        return False
    return any(
        handle.verify(signed, signature)
        for handle in loaded.handles
        if handle.algorithm == algorithm and (not kid or not handle.kid or handle.kid == kid)
    )


def split_compact(compact: str | bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return the header's JSON, what was signed, and the signature; None for what is no compact JWS."""
    try:
        text = compact.encode("ascii") if isinstance(compact, str) else compact
        if len(text) > JWS_BYTES_MAX or text.count(b".") != 2:
            return None
        signed, _, signature = text.rpartition(b".")
        header, _, payload = signed.partition(b".")
        base64url.decode(payload)
        return base64url.decode(header), signed, base64url.decode(signature)
    except ValueError:
        return None


def _read_header(header: bytes) -> tuple[str, bytes]:
    """Return `alg` under the name that handles have, and `kid` (b"" where absent); "" for a header that is refused."""
    try:
        (alg_kind, alg), *optional = scan(header, (b"alg", b"kid", b"typ", b"cty", *_REFUSED_MEMBERS))
    except JsonRefused:
        return "", b""
    if any(kind != "absent" for kind, _ in optional[3:]) or any(
        kind not in ("string", "absent") for kind, _ in optional[:3]
    ):
        return "", b""
    kid, media_type, content_type = (value if isinstance(value, bytes) else b"" for _, value in optional[:3])
    if len(kid) > KID_BYTES_MAX or max(len(media_type), len(content_type)) > TYPE_BYTES_MAX:
        return "", b""
    # An empty `typ` is no media type; a nested JWT (RFC 7519 §5.2) is not judged by its envelope. RFC 7515 §4.1.10:
    # "application/" may be left out.
    if optional[1] == ("string", b"") or content_type.lower().removeprefix(b"application/") == b"jwt":
        return "", b""
    if not isinstance(alg, bytes) or alg_kind != "string":
        return "", b""
    return ("EdDSA" if alg == b"Ed25519" else alg.decode()), kid
