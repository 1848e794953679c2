"""One JWT judged in plain Python, rule by rule, with the laws of `_native/token.pyx`: slow, obvious, no caches.

Signatures are checked by what each key brings along; JSON and base64url by their own oracles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.oracle import base64url, json_scan
from tests.oracle.json_scan import Node

KID_BYTES_MAX = 1024
TYPE_BYTES_MAX = 128
SCOPES_MAX = 256
LEEWAY_DEFAULT_S = 30
EXPIRY_SHOWN_MAX_S = 2**60  # a later `exp` is shown as this
ALGORITHMS = {f"{family}{bits}" for family in ("RS", "PS", "ES", "HS") for bits in (256, 384, 512)} | {"EdDSA"}
REFUSED_MEMBERS = ("crit", "b64", "enc", "zip", "jku", "x5u", "x5c", "jwk")
OPAQUE = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
ABSENT = Node("absent")


class Refused(Exception):
    pass


@dataclass(frozen=True)
class Key:
    kid: str
    algorithm: str
    verify: Callable[[bytes, bytes], bool]  # (signed, signature)


@dataclass(frozen=True)
class Issuer:
    """The settings of IssuerRules, with the keys and their age bound."""

    name: str
    audiences: tuple[str, ...] = ()
    any_audience: bool = False
    algorithms: tuple[str, ...] = ("HS256",)
    leeway_s: int = 30
    types: tuple[str, ...] = ("at+jwt", "jwt", "")
    required_claims: tuple[str, ...] = ()
    allow_sender_constrained: bool = False
    lifetime_max_s: int = 0
    opaque: bool = False
    keys: tuple[Key, ...] = ()
    usable_until_s: int = 2**61


@dataclass(frozen=True)
class Revocation:
    kind: str  # jti, sub, sid
    issuer: str
    value: str
    until_s: int
    issued_before_s: int = 0


@dataclass(frozen=True)
class World:
    issuers: tuple[Issuer, ...]
    mapped_claims: tuple[str, ...] = ()
    token_bytes_max: int = 8192
    revocations: tuple[Revocation, ...] = ()


@dataclass
class Verdict:
    reason: str
    issuer: str = ""
    subject: str = ""
    scopes: tuple[str, ...] = ()
    mapped: tuple[bytes, ...] = field(default=())
    expires_at_s: int = 0


def judge(world: World, token: bytes, now_s: int) -> Verdict:
    """Return the verdict that a TokenValidator must give."""
    verdict = Verdict("ok")
    try:
        judge_token(world, token, now_s, verdict)
    except Refused as refusal:
        return Verdict(str(refusal))
    return verdict


def judge_token(world: World, token: bytes, now_s: int, verdict: Verdict) -> None:
    if len(token) > world.token_bytes_max:
        raise Refused("too_large")
    segments = token.split(b".")
    if len(segments) != 3:
        may_be_opaque = any(issuer.opaque for issuer in world.issuers) and len(segments) != 5
        raise Refused("opaque" if may_be_opaque and OPAQUE.fullmatch(token) else "malformed")
    algorithm, kid, kind = read_header(segments[0])
    claims = read_object(segments[1])
    issuer = judge_claims(world, claims, algorithm, kind, now_s, verdict)
    if now_s > issuer.usable_until_s:
        raise Refused("keys_unavailable")
    keys = choose_keys(issuer, algorithm, kid)
    signature = base64url.decode(segments[2])
    if signature is None:
        raise Refused("malformed")
    signed = segments[0] + b"." + segments[1]
    if not any(key.verify(signed, signature) for key in keys):
        raise Refused("signature")
    judge_revocation(world, issuer, claims, now_s)


def read_object(segment: bytes) -> dict[str, Node]:
    text = base64url.decode(segment)
    if text is None:
        raise Refused("malformed")
    try:
        return dict(json_scan.read(text).members)
    except json_scan.Refused:
        raise Refused("malformed") from None


def text_of(node: Node, refusal: str) -> str:
    """Return a string's text, "" for an absent one; refuse any other type."""
    if node.kind == "absent":
        return ""
    if node.kind != "string":
        raise Refused(refusal)
    assert isinstance(node.value, str)
    return node.value


def media_type(text: str) -> str:
    """Lower the ASCII letters and leave out "application/"."""
    lower = "".join(c.lower() if c.isascii() else c for c in text)
    if lower.startswith("application/") and len(lower) > 12 and "/" not in lower[12:]:
        return lower[12:]
    return lower


def read_header(segment: bytes) -> tuple[str, str, str]:
    header = read_object(segment)
    if any(name in header for name in REFUSED_MEMBERS):
        raise Refused("header_invalid")
    if "alg" not in header:
        raise Refused("header_invalid")
    algorithm = text_of(header["alg"], "header_invalid")
    kid = text_of(header.get("kid", ABSENT), "header_invalid")
    if len(kid.encode()) > KID_BYTES_MAX:
        raise Refused("header_invalid")
    content = text_of(header.get("cty", ABSENT), "header_invalid")
    if len(content.encode()) > TYPE_BYTES_MAX or media_type(content) == "jwt":
        raise Refused("header_invalid")
    kind = text_of(header.get("typ", ABSENT), "header_invalid")
    if len(kind.encode()) > TYPE_BYTES_MAX or ("typ" in header and not kind):
        raise Refused("header_invalid")
    algorithm = "EdDSA" if algorithm == "Ed25519" else algorithm
    if algorithm not in ALGORITHMS:
        raise Refused("algorithm")
    return algorithm, kid, media_type(kind)


def seconds(node: Node) -> int | float | None:
    """Return a NumericDate as it stands, None for an absent one."""
    if node.kind == "absent":
        return None
    if node.kind == "int":
        assert isinstance(node.value, int)
        return node.value
    if node.kind == "double":
        assert isinstance(node.value, float)
        if abs(node.value) <= 2**53:
            return node.value
    raise Refused("claim_invalid")


def judge_claims(
    world: World, claims: dict[str, Node], algorithm: str, kind: str, now_s: int, verdict: Verdict
) -> Issuer:
    def claim(name: str) -> Node:
        return claims.get(name, ABSENT)

    issuer = next((one for one in world.issuers if claim("iss") == Node("string", one.name, claim("iss").raw)), None)
    leeway_s = LEEWAY_DEFAULT_S if issuer is None else issuer.leeway_s
    expires = seconds(claim("exp"))
    if expires is None:
        raise Refused("claim_missing")
    if now_s >= math.floor(expires) + leeway_s:
        raise Refused("expired")
    issued = seconds(claim("iat"))
    if issued is not None and issued > now_s + leeway_s:
        raise Refused("issued_in_future")
    if issuer is None:
        by_kind = {"absent": "claim_missing", "string": "issuer_unknown"}
        raise Refused(by_kind.get(claim("iss").kind, "claim_invalid"))
    if algorithm not in issuer.algorithms:
        raise Refused("algorithm")
    judge_audience(issuer, claim("aud"))
    not_before = seconds(claim("nbf"))
    if not_before is not None and not_before > now_s + leeway_s:
        raise Refused("not_yet_valid")
    if kind not in [media_type(one) for one in issuer.types]:
        raise Refused("type")
    verdict.issuer = issuer.name
    verdict.expires_at_s = min(math.floor(expires), EXPIRY_SHOWN_MAX_S)
    verdict.subject = text_of(claim("sub"), "claim_invalid")
    check_header_safe(verdict.subject)
    for name in ("jti", "sid", "client_id"):
        text_of(claim(name), "claim_invalid")
    verdict.scopes = read_scopes(claim("scope") if "scope" in claims else claim("scp"))
    for name in issuer.required_claims:
        if claim(name).kind in ("absent", "null"):
            raise Refused("claim_missing")
    if issuer.lifetime_max_s:
        if issued is None:
            raise Refused("claim_missing")
        if math.floor(expires) - math.floor(issued) > issuer.lifetime_max_s:
            raise Refused("claim_invalid")
    if "cnf" in claims and not issuer.allow_sender_constrained:
        raise Refused("sender_constrained")
    verdict.mapped = tuple(render(claim(name)) for name in world.mapped_claims)
    return issuer


def judge_audience(issuer: Issuer, node: Node) -> None:
    if node.kind not in ("absent", "string", "array"):
        raise Refused("claim_invalid")
    items = node.items if node.kind == "array" else (node,) if node.kind == "string" else ()
    if any(item.kind != "string" for item in items):
        raise Refused("claim_invalid")
    if not issuer.any_audience and not any(item.value in issuer.audiences for item in items):
        raise Refused("audience")


def check_header_safe(text: str) -> None:
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in text) or text != text.strip(" "):
        raise Refused("claim_invalid")


def read_scopes(node: Node) -> tuple[str, ...]:
    if node.kind == "array":
        scopes = [text_of(item, "claim_invalid") for item in node.items]
        if any(not scope or " " in scope for scope in scopes):
            raise Refused("claim_invalid")
    else:
        scopes = [scope for scope in text_of(node, "claim_invalid").split(" ") if scope]
    for scope in scopes:
        check_header_safe(scope)
    if len(scopes) > SCOPES_MAX:
        raise Refused("claim_invalid")
    return tuple(scopes)


def render(node: Node) -> bytes:
    """Return the header value that a mapped claim becomes."""
    if node.kind in ("absent", "null"):
        return b""
    if node.kind == "string":
        text = text_of(node, "")
        check_header_safe(text)
        return text.encode()
    if node.kind not in ("array", "object"):
        return node.raw
    if node.kind == "array":
        parts = []
        for item in node.items:
            if item.kind in ("array", "object"):
                break
            part = render(item)
            if not part or b"," in part:
                raise Refused("claim_invalid")
            parts.append(part)
        else:
            return b",".join(parts)
    compact = re.sub(rb'("(?:[^"\\]|\\.)*")|[ \t\n\r]+', lambda found: found[1] or b"", node.raw)
    check_header_safe(compact.decode())
    return compact


def choose_keys(issuer: Issuer, algorithm: str, kid: str) -> list[Key]:
    if not kid or (issuer.keys and not any(key.kid for key in issuer.keys)):
        fitting = [key for key in issuer.keys if key.algorithm == algorithm]
        if len(fitting) != 1:
            raise Refused("kid_unknown")
        return fitting
    named = [key for key in issuer.keys if key.kid == kid]
    if not named:
        raise Refused("kid_unknown")
    fitting = [key for key in named if key.algorithm == algorithm]
    if not fitting:
        raise Refused("algorithm")
    return fitting


def judge_revocation(world: World, issuer: Issuer, claims: dict[str, Node], now_s: int) -> None:
    """A thing that was revoked more than once is revoked as far as any of its rows, or all of them together, say."""
    for kind in ("jti", "sub", "sid"):
        value = text_of(claims.get(kind, ABSENT), "claim_invalid")
        rows = [row for row in world.revocations if (row.kind, row.issuer, row.value) == (kind, issuer.name, value)]
        if not value or not rows or now_s > max(row.until_s for row in rows) + issuer.leeway_s:
            continue
        issued = seconds(claims.get("iat", ABSENT))
        spare_all = kind != "jti" and all(row.issued_before_s for row in rows)
        if not spare_all or issued is None or math.floor(issued) < max(row.issued_before_s for row in rows):
            raise Refused("revoked")
