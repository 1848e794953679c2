"""The same verdict as PyJWT on generated tokens, but for differences that are listed with their reasons.

100,000 tokens, made from good ones by up to two named changes each (10,000 where PORTCULLIS_HYPOTHESIS is "quick";
PORTCULLIS_DIFFERENTIAL asks for another number). PyJWT is used as its manual shows: a key set, an algorithm list,
issuer, audience, leeway, required claims.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from random import Random
from typing import Any

import jwt
import jwt.api_jwt
import pytest

from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway._native.verify import ALGORITHMS
from gateway.tokens import Claims, TokenError
from tests import forge

QUICK = os.environ.get("PORTCULLIS_HYPOTHESIS") == "quick"
COUNT = int(os.environ.get("PORTCULLIS_DIFFERENTIAL", "10000" if QUICK else "100000"))
NOW = 1_800_000_000
HOME = "https://idp.example.com"
SIGNERS = [forge.hs_signer("hs", b"h" * 64), forge.ed_signer("ed"), forge.ec_signer("ec")]
WEIGHTS = (90, 5, 5)  # the dear ones seldom
USED = ["HS256", "EdDSA", "ES256"]


class Draft:
    """A token in the making."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.signer = random.choices(SIGNERS, WEIGHTS)[0]
        self.header: dict[str, Any] = {"alg": self.signer.algorithm, "kid": self.signer.kid, "typ": "JWT"}
        self.claims: dict[str, Any] = {
            "iss": HOME,
            "sub": f"user-{random.randrange(1000)}",
            "aud": random.choice(["api", ["api"], ["web", "api"]]),
            "exp": NOW + random.randrange(1, 3600),
            "iat": NOW - random.randrange(3600),
            "scope": "read write",
            "name": random.choice(["Zoë", "Bob", "\U0001f600", 'a"b\\c', "tab\there"]),
        }
        self.header_text: Callable[[bytes], bytes] = bytes
        self.payload_text: Callable[[bytes], bytes] = bytes
        self.token_text: Callable[[bytes], bytes] = bytes
        self.signature: Callable[[bytes], bytes] = bytes

    def finish(self) -> bytes:
        options: dict[str, Any] = {"ensure_ascii": self.random.random() < 0.5}
        if self.random.random() < 0.5:
            options["separators"] = (",", ":")
        header = self.header_text(json.dumps(self.header, **options).encode(errors="surrogatepass"))
        payload = self.payload_text(json.dumps(self.claims, **options).encode(errors="surrogatepass"))
        signed = forge.b64(header) + b"." + forge.b64(payload)
        return self.token_text(signed + b"." + forge.b64(self.signature(self.signer.sign(signed))))


# --- the changes: what may be wrong with a token
# ----------------------------------------------------------------------

Change = Callable[[Draft], None]
CHANGES: dict[str, Change] = {}


def change(made: Change) -> Change:
    CHANGES[made.__name__.replace("_", " ")] = made
    return made


def claim_change(name: str, *values: Any) -> None:
    """Offer changes of one claim; the value ... removes it."""

    def made(draft: Draft) -> None:
        value = draft.random.choice(values)
        draft.claims[name] = value
        if value is ...:
            del draft.claims[name]

    CHANGES[f"claim {name}" if f"claim {name}" not in CHANGES else f"odd {name}"] = made


def header_change(name: str, *values: Any) -> None:
    def made(draft: Draft) -> None:
        draft.header[name] = draft.random.choice(values)
        if draft.header[name] is ...:
            del draft.header[name]

    CHANGES[f"header {name}" if f"header {name}" not in CHANGES else f"odd header {name}"] = made


edges = [NOW + away for away in (-3600, -31, -30, -29, -1, 0, 1, 29, 30, 31, 3600)]
claim_change("exp", ..., *edges, NOW - 29.5, NOW - 30.0, 1e10, 0, -1)
claim_change("exp", str(NOW + 100), "soon", True, None, [], {}, float(2**60), 2**63, 10**30, "1e10")
claim_change("nbf", *edges)
claim_change("nbf", str(NOW - 100), "x", None, [], float(2**60), 2**63)
claim_change("iat", ..., *edges)
claim_change("iat", str(NOW - 100), "x", None, [], float(2**60), 2**63)
claim_change("iss", ..., "", HOME + "/", HOME.upper(), "https://other.example.com", 7, None, [HOME], {"x": 1})
claim_change("aud", ..., "", "web", "ap", "apis", [], ["web"], ["ap", "i"], 7, None, {"api": 1})
claim_change("aud", ["api", 7], ["api", None], [["api"], "api"])
claim_change("sub", ..., "", "ünï", "\U0001f600" * 3)
claim_change("sub", 7, None, [], {"x": 1}, True)
claim_change("jti", "id-1", "", "\x00")
claim_change("jti", 7, None, [], {})
claim_change("scope", ..., "", "a", "a  b")
header_change("typ", ..., "jwt", "at+jwt", "application/at+jwt", "APPLICATION/JWT")
header_change("alg", "none", "None", "HS512", "RS256", "ES384", "hs256", "", 7, None, ..., ["HS256"])
header_change("kid", "xx", "", 7, None, ["hs"], "hs ", "h\u0455")
header_change("kid", "hs", "ed", "ec")
header_change("crit", ["exp"], ["x"], [], "x", None)
header_change("cty", "json", "text/plain")
header_change("x5t", "AAAA", 7)


@change
def fractions(draft: Draft) -> None:
    draft.claims[draft.random.choice(["nbf", "iat"])] = NOW + draft.random.choice([30.0, 30.5, 31.0, 29.5, -0.5])


@change
def another_typ(draft: Draft) -> None:
    draft.header["typ"] = draft.random.choice(["dpop+jwt", "logout+jwt", "JOSE", "x", "JWT ", "", 7])


@change
def keys_in_the_header(draft: Draft) -> None:
    draft.header[draft.random.choice(["jku", "x5u", "x5c", "jwk"])] = draft.random.choice(
        ["http://127.0.0.1:1/", {}, []]
    )


@change
def members_of_a_jwe(draft: Draft) -> None:
    draft.header[draft.random.choice(["enc", "zip"])] = draft.random.choice(["A256GCM", "DEF", None])


@change
def b64(draft: Draft) -> None:
    draft.header["b64"] = draft.random.choice([True, None, "x"])


@change
def nested(draft: Draft) -> None:
    draft.header["cty"] = draft.random.choice(["JWT", "jwt", "application/jwt"])


@change
def bound_to_its_sender(draft: Draft) -> None:
    draft.claims["cnf"] = draft.random.choice([{"jkt": "x"}, {}, None])


@change
def subject_that_no_header_carries(draft: Draft) -> None:
    draft.claims["sub"] = draft.random.choice(["a\nb", "a\x00", "\x7f", " a", "a "])


@change
def scopes_of_another_form(draft: Draft) -> None:
    draft.claims[draft.random.choice(["scope"])] = draft.random.choice([7, None, {}, ["a b"], [7], "a\nb"])


@change
def names_of_the_wrong_type(draft: Draft) -> None:
    draft.claims[draft.random.choice(["sid", "client_id"])] = draft.random.choice([7, None, [], {}])


@change
def no_kid(draft: Draft) -> None:
    draft.header.pop("kid", None)


@change
def lone_surrogates(draft: Draft) -> None:
    draft.claims["name"] = draft.random.choice(["\ud800", "\udc00x", "a\udfff"])


@change
def deep(draft: Draft) -> None:
    value: Any = 1
    for _ in range(draft.random.choice([30, 31, 32, 33, 200])):
        value = [value] if draft.random.random() < 0.5 else {"d": value}
    draft.claims["deep"] = value


@change
def large(draft: Draft) -> None:
    draft.claims["x"] = "y" * draft.random.choice([4000, 5700, 6500, 20_000])


@change
def duplicates(draft: Draft) -> None:
    more = draft.random.choice(
        [b',"x":1,"x":1}', b',"exp":1900000000}', b',"\\u0065xp":1900000000}', b',"sub":"admin"}']
    )
    draft.payload_text = lambda text: text[:-1] + more


@change
def duplicates_in_the_header(draft: Draft) -> None:
    draft.header_text = lambda text: text[:-1] + b',"\\u0061lg":"' + draft.signer.algorithm.encode() + b'"}'


@change
def numbers_that_are_none(draft: Draft) -> None:
    word = draft.random.choice([b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e999", b"9" * 65])
    draft.payload_text = lambda text: text[:-1] + b',"n":' + word + b"}"


@change
def names_that_python_reads_otherwise(draft: Draft) -> None:
    draft.payload_text = lambda text: draft.random.choice(
        [b"\xef\xbb\xbf" + text, text.decode(errors="replace").encode("utf-16")]
    )


@change
def broken_json(draft: Draft) -> None:
    def broken(text: bytes) -> bytes:
        at = draft.random.randrange(len(text))
        return text[:at] + draft.random.choice([b"", b"}", b"{", b'"', b"\\", b",", b":", b"\x01"]) + text[at + 1 :]

    if draft.random.random() < 0.8:
        draft.payload_text = broken
    else:
        draft.header_text = broken


@change
def no_object(draft: Draft) -> None:
    draft.payload_text = lambda text: draft.random.choice([b"[]", b"1", b'"x"', b"null", b"", b"{}{}", b"{", b"{}"])


@change
def space_around(draft: Draft) -> None:
    draft.payload_text = lambda text: b" \n" + text + b"\t "


@change
def another_key(draft: Draft) -> None:
    draft.signer = forge.hs_signer(draft.signer.kid, b"x" * 64)


@change
def another_signature(draft: Draft) -> None:
    def twisted(signature: bytes) -> bytes:
        kind = draft.random.randrange(5)
        at = draft.random.randrange(len(signature))
        if kind == 0:
            return b""
        if kind == 1:
            return bytes(len(signature))
        if kind == 2:
            return signature + b"\0"
        return signature[:at] + bytes([signature[at] ^ 1 << draft.random.randrange(8)]) + signature[at + 1 :]

    draft.signature = twisted


@change
def another_text(draft: Draft) -> None:
    def twisted(token: bytes) -> bytes:
        at = draft.random.randrange(len(token))
        piece = draft.random.choice([b"", b".", b"A", b"_", b"-", b"\x80", b"~", b"%"])
        return token[:at] + piece + token[at + draft.random.randrange(2) :]

    draft.token_text = twisted


@change
def text_that_decoders_forgive(draft: Draft) -> None:
    """Padding, white space and foreign characters between the characters of base64url; spare bits that are set."""

    def twisted(token: bytes) -> bytes:
        kind = draft.random.randrange(4)
        if kind == 0:
            return token + draft.random.choice([b"=", b"=="])
        if kind == 1 and not token.endswith(b"."):
            alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
            return token[:-1] + alphabet[alphabet.index(token[-1]) | 1 :][:1]
        at = draft.random.randrange(len(token))
        return token[:at] + draft.random.choice([b"=", b" ", b"\n", b"!", b"*", b"\r\n"]) + token[at:]

    draft.token_text = twisted


@change
def segments(draft: Draft) -> None:
    def twisted(token: bytes) -> bytes:
        first, second, third = token.split(b".")
        return draft.random.choice(
            [
                first,
                first + b"." + second,
                token + b".",
                token + b"." + third,
                b"." + token,
                first + b".." + third,
                b"",
                b"..",
            ]
        )

    draft.token_text = twisted


# --- what may differ, and why
# -----------------------------------------------------------------------------------------

# change -> (our codes, why PyJWT accepts what we refuse). Nothing that PyJWT refuses is accepted by us.
TYPED = frozenset({"claim_invalid"})
JUSTIFIED: dict[str, tuple[frozenset[str], str]] = {
    "odd exp": (TYPED, "PyJWT passes `exp` to int(): texts, true and any float become times (RFC 7519 §2)"),
    "odd nbf": (TYPED, "the same for `nbf`"),
    "odd iat": (TYPED, "the same for `iat`"),
    "fractions": (
        frozenset({"not_yet_valid", "issued_in_future"}),
        "PyJWT cuts them off; ours count to the strict side",
    ),
    "another typ": (frozenset({"type", "header_invalid"}), "PyJWT does not look at `typ` (RFC 8725 §3.11)"),
    "broken json": (
        TYPED | {"type", "header_invalid"},
        "damage in a value that PyJWT does not look at, or not so closely",
    ),
    "keys in the header": (frozenset({"header_invalid"}), "PyJWT ignores them; we refuse who tries (design law 4)"),
    "members of a jwe": (frozenset({"header_invalid"}), "PyJWT ignores `enc` and `zip`"),
    "b64": (frozenset({"header_invalid"}), "PyJWT looks at `b64` only if it is false (RFC 7797)"),
    "nested": (frozenset({"header_invalid"}), "PyJWT reads the payload whatever `cty` says"),
    "bound to its sender": (frozenset({"sender_constrained"}), "PyJWT knows no `cnf` (RFC 9449 §7.1)"),
    "subject that no header carries": (TYPED, "our doors put `sub` into a header"),
    "scopes of another form": (TYPED, "PyJWT leaves `scope` to the caller; our doors need it"),
    "names of the wrong type": (TYPED, "PyJWT leaves `sid` and `client_id` to the caller"),
    "lone surrogates": (frozenset({"malformed"}), "json.loads makes texts of them that cannot be encoded again"),
    "deep": (frozenset({"malformed"}), "ours ends at depth 32"),
    "large": (frozenset({"too_large"}), "ours ends at 8,192 bytes"),
    "duplicates": (frozenset({"malformed"}), "json.loads takes the last of two members (RFC 7519 §4)"),
    "duplicates in the header": (frozenset({"malformed"}), "the same"),
    "numbers that are none": (frozenset({"malformed"}), "json.loads reads NaN, Infinity and 1e400"),
    "names that python reads otherwise": (frozenset({"malformed"}), "json.loads guesses UTF-16 (RFC 8725 §3.7)"),
    "text that decoders forgive": (
        frozenset({"malformed"}),
        "Python's decoder skips foreign characters and spare bits",
    ),
    "another text": (frozenset({"malformed"}), "the same"),
}


class FrozenDatetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> FrozenDatetime:
        return cls.fromtimestamp(NOW, tz)


class Reference:
    """PyJWT, used as its manual shows."""

    def __init__(self) -> None:
        self.keys = {signer.kid: jwt.PyJWK(signer.jwk()) for signer in SIGNERS}
        self.sole = {signer.algorithm: signer.kid for signer in SIGNERS}  # for a token without `kid`
        self.options: Any = {"require": ["exp", "iss"]}

    def judge(self, token: bytes) -> dict[str, Any] | None:
        try:
            header = jwt.get_unverified_header(token)
            key = self.keys[header.get("kid") or self.sole.get(header["alg"], "")]
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=USED, audience=["api"], issuer=HOME, leeway=30, options=self.options
            )
            return claims
        except (jwt.PyJWTError, KeyError, TypeError, RecursionError, OverflowError, UnicodeError):
            return None


def make_validator() -> TokenValidator:
    """Return a validator of one issuer with keys of all three kinds, which a published key set would not mix."""
    rules = IssuerRules(HOME.encode(), audiences=[b"api"], algorithms=USED)
    validator = TokenValidator(entries=100, claims_factory=Claims, error_factory=TokenError)
    validator.publish(KeySnapshot([rules], [[signer.handle() for signer in SIGNERS]], [2**61]))
    return validator


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwt.api_jwt, "datetime", FrozenDatetime)
    assert FrozenDatetime.now(UTC).timestamp() == NOW
    assert set(USED) <= set(ALGORITHMS)


def test_verdicts_equal_those_of_pyjwt_but_for_the_listed_differences(frozen: None) -> None:
    random = Random(20_261_123)
    reference = Reference()
    validator = make_validator()
    names = list(CHANGES)
    verdicts: Counter[str] = Counter()
    differing: Counter[str] = Counter()
    for _ in range(COUNT):
        draft = Draft(random)
        changes = random.sample(names, random.choice((0, 0, 1, 1, 1, 2)))
        for name in changes:
            CHANGES[name](draft)
        token = draft.finish()
        expected = reference.judge(token)
        try:
            claims = validator.validate(token, now=NOW)
            code = "ok"
        except TokenError as error:
            code = error.code
        verdicts[
            f"{'accepted' if code == 'ok' else 'refused'}, PyJWT {'refused' if expected is None else 'accepted'}"
        ] += 1
        if code == "ok":
            assert expected is not None, (changes, token)
            assert dict(claims) == expected, (changes, token)
        elif expected is not None:
            reasons = [name for name in changes if name in JUSTIFIED and code in JUSTIFIED[name][0]]
            assert reasons, (code, changes, token)
            differing[reasons[0]] += 1
    assert not verdicts["accepted, PyJWT refused"]
    assert verdicts["accepted, PyJWT accepted"] > COUNT * 0.3
    assert verdicts["refused, PyJWT refused"] > COUNT * 0.2
    if COUNT >= 100_000:
        assert set(differing) == set(JUSTIFIED), "a listed difference that does not occur any more"
