from __future__ import annotations

import gc
import hashlib
import hmac
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway._native import cache as native_cache
from gateway._native import token as native
from gateway._native.token import Identity, IssuerRules, KeySnapshot, TokenValidator
from gateway._native.verify import KeyHandle
from tests import forge
from tests.oracle import token as oracle

NOW = 1_800_000_000
HOME = "https://idp.example.com"
AWAY = "https://other.example.com/realms/ünicode"
CLAIMS: dict[str, Any] = {
    "iss": HOME,
    "sub": "alice",
    "aud": ["api", "account"],
    "exp": NOW + 300,
    "iat": NOW - 400,
    "nbf": NOW - 400,
    "jti": "id-1",
    "sid": "session-1",
    "scope": "orders:read orders:write",
}
ONE = forge.hs_signer("one", b"1" * 64)
TWO = forge.hs_signer("two", b"2" * 64, "HS512")
THREE = forge.hs_signer("", b"3" * 64)


def key_of(signer: forge.Signer) -> oracle.Key:
    digest = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}[signer.algorithm]

    def verify(signed: bytes, signature: bytes) -> bool:
        return hmac.new(signer.secret, signed, digest).digest() == signature

    return oracle.Key(signer.kid, signer.algorithm, verify)


def rules_of(issuer: oracle.Issuer) -> IssuerRules:
    return IssuerRules(
        issuer.name.encode(),
        audiences=[one.encode() for one in issuer.audiences],
        any_audience=issuer.any_audience,
        algorithms=issuer.algorithms,
        leeway_s=issuer.leeway_s,
        types=[one.encode() for one in issuer.types],
        required_claims=[one.encode() for one in issuer.required_claims],
        allow_sender_constrained=issuer.allow_sender_constrained,
        lifetime_max_s=issuer.lifetime_max_s,
        opaque=issuer.opaque,
    )


HANDLES = {signer.kid: signer.handle() for signer in (ONE, TWO, THREE)}


def snapshot_of(*issuers: oracle.Issuer) -> KeySnapshot:
    return KeySnapshot(
        [rules_of(issuer) for issuer in issuers],
        [[HANDLES[key.kid] for key in issuer.keys] for issuer in issuers],
        [issuer.usable_until_s for issuer in issuers],
    )


def validator_of(world: oracle.World, **settings: Any) -> TokenValidator:
    validator = TokenValidator(
        token_bytes_max=world.token_bytes_max,
        header_claims=[(b"x-claim-%d" % n, name.encode()) for n, name in enumerate(world.mapped_claims)],
        **settings,
    )
    validator.publish(snapshot_of(*world.issuers))
    for row in world.revocations:
        validator.revoke(
            row.kind,
            row.issuer.encode(),
            row.value.encode(),
            until_s=row.until_s,
            issued_before_s=row.issued_before_s,
            now_s=NOW,
        )
    return validator


def as_verdict(identity: Identity | None, reason: str) -> oracle.Verdict:
    if identity is None:
        return oracle.Verdict(reason)
    names = [name for name, _ in identity.headers]
    values = [value for _, value in identity.headers]
    assert names[:3] == [b"x-auth-subject", b"x-auth-issuer", b"x-auth-scopes"]
    assert values[:3] == [identity.subject, identity.issuer, b" ".join(identity.scopes)]
    return oracle.Verdict(
        reason,
        identity.issuer.decode(),
        identity.subject.decode(),
        tuple(scope.decode() for scope in identity.scopes),
        tuple(values[3:]),
        identity.expires_at_s,
    )


HOME_ISSUER = oracle.Issuer(HOME, ("api",), algorithms=("HS256", "HS512"), keys=(key_of(ONE), key_of(TWO)))
PLAIN = oracle.World((HOME_ISSUER,))


# --- the oracle -------------------------------------------------------------------------------------------------------

texts = st.sampled_from(["", "a", "api", "at+jwt", "a b", " a", "a,b", "ü", "a\nb", "\x7f", "\U0001f600", HOME, AWAY])
times = st.sampled_from([-301, -31, -30, -29, -1, 0, 1, 29, 30, 31, 300]).map(lambda away: NOW + away)
odd_numbers = st.sampled_from(
    [0, -1, True, 1e300, 2**53 + 0.0, 2**53 + 2.0, 2**63 - 1, 2**63, -(2**63), NOW + 0.5, 10**70]
)
scalars = st.one_of(texts, times, odd_numbers, st.none(), st.booleans())
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2), max_leaves=5
)
MAPPED = ("name", "roles", "sub", "deep")


@st.composite
def payloads(draw: st.DrawFn) -> dict[str, Any]:
    """Good claims, with up to four of them changed, removed or added."""
    claims = dict(CLAIMS)
    for name in draw(
        st.lists(st.sampled_from([*CLAIMS, "scp", "client_id", "cnf", "name", "roles", "deep"]), max_size=2)
    ):
        change = draw(st.sampled_from(["likely", "likely", "any", "gone"]))
        if change == "gone":
            claims.pop(name, None)
        elif change == "any":
            claims[name] = draw(values)
        elif name in ("exp", "iat", "nbf"):
            claims[name] = draw(times) + draw(st.sampled_from([0, 0, 0.5]))
        elif name == "iss":
            claims[name] = draw(st.sampled_from([HOME, AWAY, HOME + "/"]))
        else:
            claims[name] = draw(texts | st.lists(texts, max_size=3))
    return claims


@st.composite
def headers(draw: st.DrawFn) -> dict[str, Any]:
    """None removes a member; most headers are left as they are."""
    header: dict[str, Any] = {}
    if draw(st.integers(0, 3)):
        return header
    for name in draw(
        st.lists(
            st.sampled_from(["alg", "kid", "typ", "cty", "crit", "x5t", "jku", "zip", "b64"]), min_size=1, max_size=2
        )
    ):
        likely = {
            "alg": st.sampled_from(["none", "None", "HS256", "HS512", "RS256", "Ed25519", "hs256", ""]),
            "kid": st.sampled_from([None, "one", "two", "", "three", "../one", "k" * 1024, "k" * 1025]),
            "typ": st.sampled_from([None, "", "at+jwt", "AT+JWT", "application/at+jwt", "APPLICATION/JWT", "a/b/c"]),
            "cty": st.sampled_from(["JWT", "application/jwt", "json", "x" * 129]),
        }
        header[name] = draw(st.one_of(likely.get(name, scalars), likely.get(name, scalars), values))
    return header


def write_json(value: dict[str, Any], style: int) -> bytes:
    text = json.dumps(value, ensure_ascii=bool(style & 1), separators=(",", ":") if style & 2 else (" , ", "\t: "))
    if style & 4:  # an escape where none is needed
        text = text.replace('"aud"', '"\\u0061ud"').replace("alice", "al\\u0069ce").replace("https:", "https\\u003a")
    return text.encode()


@st.composite
def tokens(draw: st.DrawFn) -> bytes:
    signer = draw(st.sampled_from([ONE, ONE, TWO, THREE]))
    members = {"alg": signer.algorithm, "kid": signer.kid or None, "typ": "JWT", **draw(headers())}
    style = st.integers(0, 7)
    header = write_json({name: value for name, value in members.items() if value is not None}, draw(style))
    payload = write_json(draw(payloads()), draw(style))
    signed = forge.segment(header) + b"." + forge.segment(payload)
    token = signed + b"." + forge.b64(signer.sign(signed))
    if draw(st.integers(0, 7)) == 7:
        token = draw(damaged(token))
    return token


def damaged(token: bytes) -> st.SearchStrategy[bytes]:
    places = st.integers(0, len(token))
    pieces = st.sampled_from(
        [b"", b".", b"=", b" ", b"A", b"-", b"_", b"+", b"/", b"\x00", b"\xff", b"\n", b"..", b"{}"]
    )
    return st.tuples(places, places, pieces).map(
        lambda cut: token[: cut[0]] + cut[2] + token[cut[0] + min(cut[1] % 3, 1) :]
    )


@st.composite
def issuers(draw: st.DrawFn, name: str) -> oracle.Issuer:
    keys = draw(st.sampled_from([(ONE, TWO)] * 4 + [(ONE, TWO, THREE), (THREE,), (TWO,), (), (ONE,)]))
    return oracle.Issuer(
        name,
        draw(st.sampled_from([("api",), ("account", "ü"), ("a b", "api"), ("b",)])),
        draw(st.booleans()),
        draw(st.sampled_from([("HS256", "HS512")] * 3 + [("HS256",), ("RS256", "HS512", "EdDSA")])),
        draw(st.sampled_from([30, 0, 60])),
        draw(st.sampled_from([("at+jwt", "jwt", "")] * 3 + [("at+jwt",), ("JWT", "application/AT+jwt")])),
        draw(st.sampled_from([(), (), (), ("sub", "jti"), ("client_id",), ("name", "sub")])),
        draw(st.booleans()),
        draw(st.sampled_from([0, 0, 0, 700, 699, 3600])),
        draw(st.sampled_from([False, False, True])),
        tuple(key_of(signer) for signer in keys),
        draw(st.sampled_from([2**61] * 4 + [NOW, NOW - 1, NOW + 200, 0])),
    )


revocations = st.builds(
    oracle.Revocation,
    st.sampled_from(["jti", "sub", "sid"]),
    st.sampled_from([HOME, AWAY]),
    st.sampled_from(["id-1", "alice", "session-1", "a"]),
    st.sampled_from([NOW - 31, NOW - 30, NOW, NOW + 1000]),
    st.sampled_from([0, NOW - 400, NOW - 399, NOW]),
)


@st.composite
def worlds(draw: st.DrawFn) -> oracle.World:
    return oracle.World(
        (draw(issuers(HOME)), draw(issuers(AWAY))),
        tuple(draw(st.lists(st.sampled_from(MAPPED), max_size=3))),
        draw(st.sampled_from([8192] * 4 + [400])),
        tuple(draw(st.lists(revocations, max_size=2))),
    )


@settings(max_examples=400)
@given(worlds(), st.lists(tokens(), min_size=1, max_size=4), times, times)
def test_judge_equals_the_oracle_new_and_kept_and_in_batches(
    world: oracle.World, texts: list[bytes], first_s: int, second_s: int
) -> None:
    validator = validator_of(world, entries=4)
    for now_s in (first_s, first_s, second_s):  # new, known, and known at another time: also back in time
        expected = [oracle.judge(world, text, now_s) for text in texts]
        assert [as_verdict(*validator.judge_token(text, now_s)) for text in texts] == expected
        assert validator.judge_batch(texts, now_s) == [verdict.reason for verdict in expected]


@given(worlds(), worlds(), tokens(), times)
def test_a_kept_verdict_equals_the_oracle_after_a_new_snapshot_and_new_revocations(
    before: oracle.World, after: oracle.World, text: bytes, now_s: int
) -> None:
    after = replace(after, mapped_claims=before.mapped_claims, token_bytes_max=before.token_bytes_max)
    both = replace(after, revocations=before.revocations + after.revocations)
    validator = validator_of(before)
    validator.judge_token(text, now_s)
    validator.publish(snapshot_of(*after.issuers))
    for row in after.revocations:
        validator.revoke_many(
            [(row.kind, row.issuer.encode(), row.value.encode(), row.until_s, row.issued_before_s)], NOW
        )
    assert as_verdict(*validator.judge_token(text, now_s)) == oracle.judge(both, text, now_s)


@given(st.binary(max_size=200))
@example(b"..")
@example(b".....")
def test_any_bytes_get_the_oracles_verdict(text: bytes) -> None:
    for world in (PLAIN, oracle.World((replace(HOME_ISSUER, opaque=True),))):
        assert as_verdict(*validator_of(world).judge_token(text, NOW)) == oracle.judge(world, text, NOW)


# --- what an identity holds -------------------------------------------------------------------------------------------


def judge_one(claims: dict[str, Any], *, now_s: int = NOW, **settings: Any) -> tuple[Identity | None, str]:
    validator = TokenValidator(**settings)
    validator.publish(snapshot_of(HOME_ISSUER))
    return validator.judge_token(ONE.token({**CLAIMS, **claims}), now_s)


def accepted(claims: dict[str, Any], **settings: Any) -> Identity:
    identity, reason = judge_one(claims, **settings)
    assert identity is not None, reason
    return identity


def test_an_identity_carries_the_claims_as_headers() -> None:
    identity = accepted(
        {"sub": "zoë", "tenant": "blue"}, header_claims=[(b"x-tenant", b"tenant"), (b"x-gone", b"gone")]
    )
    assert identity.headers == (
        (b"x-auth-subject", "zoë".encode()),
        (b"x-auth-issuer", HOME.encode()),
        (b"x-auth-scopes", b"orders:read orders:write"),
        (b"x-tenant", b"blue"),
        (b"x-gone", b""),
    )
    assert (identity.expires_at_s, identity.issuer_index, identity.claims) == (NOW + 300, 0, None)


def test_header_names_are_there_without_the_claims() -> None:
    validator = validator_of(PLAIN)
    identity, _ = validator.judge_token(ONE.token({"iss": HOME, "aud": "api", "exp": NOW + 1}), NOW)
    assert identity is not None
    assert identity.headers == ((b"x-auth-subject", b""), (b"x-auth-issuer", HOME.encode()), (b"x-auth-scopes", b""))
    assert identity.scopes == ()


@pytest.mark.parametrize(
    ("value", "header"),
    [
        (17, b"17"),
        (1.50, b"1.5"),
        (True, b"true"),
        (None, b""),
        ([], b""),
        (["a", "b"], b"a,b"),
        ([1, True, "x"], b"1,true,x"),
        ({"a": [1, 2]}, b'{"a":[1,2]}'),
        ([["a"], "b"], b'[["a"],"b"]'),
        ("Müller, Zoë", "Müller, Zoë".encode()),
        ({"sp ace": '"\\ \\" '}, b'{"sp ace":"\\"\\\\ \\\\\\" "}'),
    ],
)
def test_a_mapped_claim_becomes(value: object, header: bytes) -> None:
    assert accepted({"mapped": value}, header_claims=[(b"x-mapped", b"mapped")]).headers[3] == (b"x-mapped", header)


@pytest.mark.parametrize(
    "value", ["a\r\nx-admin: 1", "a\x00", "\x7f", "a\tb", " a", "a ", ["a,b"], ["a", ""], [" a"], [None]]
)
def test_a_mapped_claim_that_cannot_be_carried_refuses_the_token(value: object) -> None:
    assert judge_one({"mapped": value}, header_claims=[(b"x-mapped", b"mapped")])[1] == "claim_invalid"
    assert judge_one({"mapped": value})[1] == "ok"  # nobody carries it


@pytest.mark.parametrize("subject", ["a\nb", "a\x00b", "\x7f", " alice", "alice ", 7, None, ["alice"]])
def test_a_subject_that_cannot_be_carried_refuses_the_token(subject: object) -> None:
    assert judge_one({"sub": subject})[1] == "claim_invalid"


def test_white_space_in_mapped_json_is_left_out() -> None:
    validator = validator_of(replace(PLAIN, mapped_claims=("deep",)))
    text = json.dumps({**CLAIMS, "deep": {"a": [1, {"b": "c d"}]}}, indent=2).encode()
    identity, _ = validator.judge_token(ONE.token(text), NOW)
    assert identity is not None
    assert identity.headers[3][1] == b'{"a":[1,{"b":"c d"}]}'


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "b a b"}, (b"b", b"a", b"b")),
        ({"scope": "  a   b "}, (b"a", b"b")),
        ({"scope": ""}, ()),
        ({"scope": ["a", "b"]}, (b"a", b"b")),
        ({"scope": "a", "scp": "b"}, (b"a",)),
    ],
)
def test_scopes_are_read(claims: dict[str, Any], scopes: tuple[bytes, ...]) -> None:
    identity = accepted(claims)
    assert identity.scopes == scopes
    assert dict(identity.headers)[b"x-auth-scopes"] == b" ".join(scopes)


@pytest.mark.parametrize("scp", ["a b", ["a", "b"]])
def test_scp_counts_where_scope_is_absent(scp: object) -> None:
    claims = {name: value for name, value in CLAIMS.items() if name != "scope"}
    identity, _ = validator_of(PLAIN).judge_token(ONE.token({**claims, "scp": scp}), NOW)
    assert identity is not None
    assert identity.scopes == (b"a", b"b")


@pytest.mark.parametrize("scope", [7, None, {"a": 1}, ["a b"], [""], ["a", 1], "a\nb", "\x7f"])
def test_scopes_of_another_form_refuse_the_token(scope: object) -> None:
    assert judge_one({"scope": scope})[1] == "claim_invalid"


def test_equal_scopes_are_one_object() -> None:
    validator = validator_of(PLAIN)
    first, _ = validator.judge_token(ONE.token(CLAIMS), NOW)
    second, _ = validator.judge_token(ONE.token({**CLAIMS, "jti": "id-2"}), NOW)
    assert first is not None
    assert second is not None
    assert first is not second
    assert first.scopes is second.scopes


def test_nobody_but_a_validator_makes_an_identity() -> None:
    with pytest.raises(TypeError, match="a TokenValidator makes identities"):
        Identity()


def test_a_claims_factory_gets_the_payload() -> None:
    claims = accepted({}, claims_factory=json.loads).claims
    assert claims == CLAIMS


def test_a_fault_of_ours_while_judging_denies_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    def broken(payload: bytes) -> object:
        raise ZeroDivisionError

    assert judge_one({}, claims_factory=broken) == (None, "keys_unavailable")
    assert [report.exc_type for report in seen] == [ZeroDivisionError]


# --- keys and issuers -------------------------------------------------------------------------------------------------


def test_before_the_first_snapshot_nothing_is_accepted() -> None:
    validator = TokenValidator()
    assert validator.judge_token(ONE.token(CLAIMS), NOW) == (None, "keys_unavailable")
    assert validator.judge_batch([ONE.token(CLAIMS)], NOW) == ["keys_unavailable"]
    with pytest.raises(IndexError):
        validator.remember(b"opaque", issuer_index=0, subject=b"", scopes=(), expires_at_s=NOW, claims={})


def test_issuers_are_found_among_many() -> None:
    names = [f"https://idp-{n}.example.com" for n in range(200)]
    issuers = [replace(HOME_ISSUER, name=name) for name in names]
    validator = validator_of(oracle.World(tuple(issuers)))
    for number in (0, 1, 99, 100, 198, 199):
        identity, reason, index, _ = validator.judge_closely(ONE.token({**CLAIMS, "iss": names[number]}), NOW)
        assert (reason, index) == ("ok", number)
        assert identity is not None
        assert identity.issuer == names[number].encode()
    assert validator.judge_closely(ONE.token({**CLAIMS, "iss": names[0][:-1]}), NOW)[1:3] == ("issuer_unknown", -1)


def test_an_unknown_kid_names_its_issuer_so_that_its_keys_can_be_fetched() -> None:
    validator = validator_of(oracle.World((replace(HOME_ISSUER, name=AWAY), HOME_ISSUER)))
    assert validator.judge_closely(ONE.token(CLAIMS, {"kid": "new"}), NOW)[1:3] == ("kid_unknown", 1)


def test_keys_are_found_among_many_by_exact_kid() -> None:
    signers = [forge.hs_signer(f"key-{n:03}", b"%064d" % n) for n in range(100)]
    snapshot = KeySnapshot([rules_of(HOME_ISSUER)], [[one.handle() for one in signers]], [2**61])
    validator = TokenValidator()
    validator.publish(snapshot)
    for signer in signers:
        assert validator.judge_token(signer.token(CLAIMS), NOW)[1] == "ok"
        assert validator.judge_token(signer.token(CLAIMS, {"kid": signer.kid[:-1]}), NOW)[1] == "kid_unknown"


def test_keys_with_one_kid_and_algorithm_are_each_tried() -> None:
    signers = [forge.hs_signer("same", b"%064d" % n) for n in range(5)]
    validator = TokenValidator()
    validator.publish(KeySnapshot([rules_of(HOME_ISSUER)], [[one.handle() for one in signers]], [2**61]))
    reasons = [validator.judge_token(signer.token(CLAIMS), NOW)[1] for signer in signers]
    assert reasons == ["ok"] * 4 + ["signature"]  # SAME_KID_MAX


@pytest.mark.parametrize(
    ("usable_until_s", "reason"), [(NOW, "ok"), (NOW - 1, "keys_unavailable"), (0, "keys_unavailable")]
)
def test_keys_are_not_used_beyond_their_age_bound(usable_until_s: int, reason: str) -> None:
    world = oracle.World((replace(HOME_ISSUER, usable_until_s=usable_until_s),))
    assert validator_of(world).judge_closely(ONE.token(CLAIMS), NOW)[1:3] == (reason, 0)


def test_key_age_is_checked_on_kept_verdicts() -> None:
    validator = validator_of(oracle.World((replace(HOME_ISSUER, usable_until_s=NOW + 10),)))
    token = ONE.token(CLAIMS)
    assert validator.judge_closely(token, NOW + 10)[1:] == ("ok", 0, False)
    assert validator.judge_closely(token, NOW + 11)[1:] == ("keys_unavailable", 0, True)
    assert validator.judge_closely(token, NOW + 10)[1:] == ("ok", 0, True)


def test_a_kept_verdict_outlives_a_refresh_that_changes_nothing() -> None:
    validator = validator_of(PLAIN)
    token = ONE.token(CLAIMS)
    validator.judge_token(token, NOW)
    validator.publish(snapshot_of(HOME_ISSUER))  # equal rules, same handles
    assert validator.judge_closely(token, NOW)[1:] == ("ok", 0, True)


@pytest.mark.parametrize(
    ("handles", "reason"),
    [
        ([HANDLES["two"]], "kid_unknown"),  # removed
        ([forge.hs_signer("one", b"x" * 64).handle()], "signature"),  # same kid, another key
        ([ONE.handle()], "ok"),  # the same key, loaded again: judged anew
    ],
)
def test_a_kept_verdict_rests_on_its_very_key(handles: list[KeyHandle], reason: str) -> None:
    validator = validator_of(PLAIN)
    token = ONE.token(CLAIMS)
    assert validator.judge_token(token, NOW)[1] == "ok"
    validator.publish(KeySnapshot([rules_of(HOME_ISSUER)], [handles], [2**61]))
    assert validator.judge_closely(token, NOW)[1:] == (reason, 0, False)
    validator.publish(snapshot_of(HOME_ISSUER))
    assert validator.judge_closely(token, NOW)[1] == "ok"


def test_a_key_that_comes_back_does_not_revive_a_verdict() -> None:
    validator = validator_of(PLAIN)
    token = ONE.token(CLAIMS)
    validator.judge_token(token, NOW)
    validator.publish(snapshot_of(replace(HOME_ISSUER, keys=())))
    validator.publish(snapshot_of(HOME_ISSUER))
    assert validator.judge_closely(token, NOW)[1:] == ("ok", 0, False)


def test_a_kept_verdict_rests_on_its_rules() -> None:
    validator = validator_of(PLAIN)
    token = ONE.token(CLAIMS)
    validator.judge_token(token, NOW)
    validator.publish(snapshot_of(replace(HOME_ISSUER, audiences=("other",))))
    assert validator.judge_closely(token, NOW)[1:] == ("audience", 0, False)


def test_a_kept_verdict_moves_with_its_issuer() -> None:
    validator = validator_of(PLAIN)
    token = ONE.token(CLAIMS)
    validator.judge_token(token, NOW)
    validator.publish(snapshot_of(replace(HOME_ISSUER, name=AWAY), HOME_ISSUER))
    identity, reason, index, _ = validator.judge_closely(token, NOW)
    assert (reason, index) == ("ok", 1)
    assert identity is not None
    assert identity.issuer_index == 1


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "now_s", "reason"),
    [
        ({"exp": NOW}, NOW + 29, "ok"),
        ({"exp": NOW}, NOW + 30, "expired"),
        ({"exp": NOW + 0.9}, NOW + 30, "expired"),
        ({"exp": -1}, NOW, "expired"),
        ({"exp": 2**63 - 1}, NOW, "ok"),
        ({"exp": 2**63}, NOW, "claim_invalid"),
        ({"exp": float(2**53)}, NOW, "ok"),
        ({"exp": 2.0**53 + 2}, NOW, "claim_invalid"),
        ({"nbf": NOW + 30}, NOW, "ok"),
        ({"nbf": NOW + 30.1}, NOW, "not_yet_valid"),
        ({"iat": NOW + 30}, NOW, "ok"),
        ({"iat": NOW + 30.1}, NOW, "issued_in_future"),
        ({"nbf": -(2**63), "iat": -(2**63)}, NOW, "ok"),
        ({"exp": True}, NOW, "claim_invalid"),
        ({"exp": str(NOW + 300)}, NOW, "claim_invalid"),
        ({"exp": None}, NOW, "claim_invalid"),
    ],
)
def test_times_are_judged_with_leeway(claims: dict[str, Any], now_s: int, reason: str) -> None:
    assert judge_one(claims, now_s=now_s)[1] == reason


@pytest.mark.parametrize("now_s", [-(2**63), 2**63 - 1])
def test_clocks_at_the_ends_of_time_do_no_harm(now_s: int) -> None:
    assert judge_one({}, now_s=now_s)[1] in ("expired", "issued_in_future")


def test_a_kept_verdict_ends_with_exp_and_leeway() -> None:
    validator = validator_of(PLAIN)
    token = ONE.token(CLAIMS)
    assert validator.judge_closely(token, NOW)[1:] == ("ok", 0, False)
    assert validator.judge_closely(token, NOW + 329)[1:] == ("ok", 0, True)
    assert validator.judge_closely(token, NOW + 330)[1:] == ("expired", 0, False)


def test_a_kept_verdict_waits_for_nbf_when_the_clock_is_set_back() -> None:
    validator = validator_of(PLAIN)
    token = ONE.token({**CLAIMS, "nbf": NOW - 5})
    assert validator.judge_token(token, NOW)[1] == "ok"
    assert validator.judge_closely(token, NOW - 36)[1:] == ("not_yet_valid", 0, False)


def test_a_kept_verdict_ages_whatever_the_wall_clock_says() -> None:
    validator = validator_of(PLAIN, ttl_s=60.0)
    token = ONE.token(CLAIMS)
    validator.judge_token(token, NOW)
    validator._advance(59)
    assert validator.judge_closely(token, NOW - 300)[3] is True
    validator._advance(2)
    assert validator.judge_closely(token, NOW - 300)[3] is False


def test_the_machines_clock_is_the_default() -> None:
    now_s = int(time.time())
    validator = validator_of(PLAIN)
    good, bad = (ONE.token({"iss": HOME, "aud": "api", "exp": now_s + away}) for away in (100, -100))
    assert validator.judge_token(good)[1] == "ok"
    assert validator.judge_token(bad)[1] == "expired"
    assert validator.judge_batch([good, bad]) == ["ok", "expired"]


# --- revocation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "value"), [("jti", b"id-1"), ("sub", b"alice"), ("sid", b"session-1")])
def test_a_revocation_reaches_new_and_kept_tokens_at_once(kind: str, value: bytes) -> None:
    validator = validator_of(PLAIN)
    kept, new = ONE.token(CLAIMS), ONE.token({**CLAIMS, "extra": 1})
    validator.judge_token(kept, NOW)
    validator.revoke(kind, HOME.encode(), value, until_s=NOW + 300, now_s=NOW)
    assert validator.judge_closely(kept, NOW)[1:] == ("revoked", 0, True)
    assert validator.judge_closely(new, NOW)[1:] == ("revoked", 0, False)
    assert validator.judge_batch([kept], NOW) == ["revoked"]
    validator.forget_all()
    assert validator.judge_token(kept, NOW)[1] == "revoked"


@pytest.mark.parametrize(
    ("kind", "issuer", "value"),
    [("sub", HOME, "bob"), ("sub", AWAY, "alice"), ("jti", HOME, "alice"), ("sid", HOME, "id-1")],
)
def test_a_revocation_of_something_else_spares_the_token(kind: str, issuer: str, value: str) -> None:
    validator = validator_of(PLAIN)
    validator.judge_token(ONE.token(CLAIMS), NOW)
    validator.revoke(kind, issuer.encode(), value.encode(), until_s=NOW + 300, now_s=NOW)
    assert validator.judge_closely(ONE.token(CLAIMS), NOW)[1:] == ("ok", 0, True)


@pytest.mark.parametrize(
    ("iat", "reason"), [(NOW - 101, "revoked"), (NOW - 100, "ok"), (NOW - 100.5, "revoked"), (None, "revoked")]
)
def test_a_subject_is_revoked_up_to_a_moment(iat: float | None, reason: str) -> None:
    claims = {**CLAIMS, "iat": iat}
    if iat is None:
        del claims["iat"]
    validator = validator_of(PLAIN)
    validator.revoke("sub", HOME.encode(), b"alice", until_s=NOW + 300, issued_before_s=NOW - 100, now_s=NOW)
    assert validator.judge_token(ONE.token(claims), NOW)[1] == reason
    assert validator.judge_token(ONE.token(claims), NOW)[1] == reason


def test_a_revocation_lasts_as_long_as_the_token_with_its_leeway() -> None:
    validator = validator_of(PLAIN)
    validator.revoke("jti", HOME.encode(), b"id-1", until_s=NOW + 300, now_s=NOW)
    assert validator.judge_token(ONE.token(CLAIMS), NOW + 329)[1] == "revoked"
    assert validator.judge_token(ONE.token({**CLAIMS, "exp": NOW + 900}), NOW + 331)[1] == "ok"


def test_two_revocations_of_one_thing_add_up() -> None:
    validator = validator_of(PLAIN)
    for until_s, issued_before_s in ((NOW + 100, 0), (NOW + 200, NOW - 500)):
        validator.revoke("sub", HOME.encode(), b"alice", until_s=until_s, issued_before_s=issued_before_s, now_s=NOW)
    assert validator.judge_token(ONE.token(CLAIMS), NOW + 200)[1] == "revoked"
    assert validator.stats()["revocations"] == 1


def test_a_revocation_that_is_over_gives_way_to_a_new_one() -> None:
    validator = validator_of(PLAIN)
    validator.revoke("sub", HOME.encode(), b"alice", until_s=NOW - 3700, now_s=NOW - 3700)
    validator.revoke("sub", HOME.encode(), b"alice", until_s=NOW + 300, issued_before_s=NOW - 900, now_s=NOW)
    assert validator.judge_token(ONE.token(CLAIMS), NOW)[1] == "ok"


def test_revocations_that_are_over_make_room() -> None:
    validator = validator_of(PLAIN)
    validator.revoke_many(((("jti", HOME.encode(), b"%d" % n, NOW - 5000, 0)) for n in range(1000)), NOW - 5000)
    assert validator.stats()["revocations"] == 1000
    validator.revoke_many(((("jti", HOME.encode(), b"new %d" % n, NOW + 300, 0)) for n in range(25)), NOW)
    assert validator.stats()["revocations"] <= 1000 + 24
    validator.revoke_many(((("jti", HOME.encode(), b"more %d" % n, NOW + 300, 0)) for n in range(1000)), NOW)
    assert validator.stats()["revocations"] == 1025


@pytest.mark.parametrize(("kind", "issuer", "value"), [("iss", b"a", b"b"), ("jti", b"", b"b"), ("jti", b"a", b"")])
def test_a_revocation_that_names_nothing_is_refused(kind: str, issuer: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="revocation"):
        TokenValidator().revoke(kind, issuer, value, until_s=NOW)


def test_one_revocation_too_many_is_an_error_and_forgets_none() -> None:
    validator = validator_of(PLAIN)
    limit = 1 << 20  # REVOCATIONS_MAX
    rows = (("jti", HOME.encode(), b"%d" % n, NOW + 300, 0) for n in range(limit))
    validator.revoke_many(rows, NOW)
    with pytest.raises(OverflowError, match="1048576 revocations"):
        validator.revoke("jti", HOME.encode(), b"one more", until_s=NOW + 300, now_s=NOW)
    assert validator.stats()["revocations"] == limit
    for value in ("0", str(limit // 2), str(limit - 1)):
        assert validator.judge_token(ONE.token({**CLAIMS, "jti": value}), NOW)[1] == "revoked"
    validator.revoke("jti", HOME.encode(), b"one more", until_s=NOW + 9999, now_s=NOW + 300 + 3601)
    assert validator.stats()["revocations"] == 1


# --- caches -----------------------------------------------------------------------------------------------------------


def test_tokens_whose_cache_keys_collide_keep_their_own_verdicts() -> None:
    validator = validator_of(PLAIN, hash_bits=0)
    texts = {name: ONE.token({**CLAIMS, "sub": name}) for name in ("alice", "bobby", "carol", "david")}
    for _ in range(2):
        for name, text in texts.items():
            identity, reason = validator.judge_token(text, NOW)
            assert identity is not None, reason
            assert identity.subject == name.encode()
    assert validator.stats()["hits"] == len(texts)
    for text in texts.values():  # same place, same length, one byte off: never a hit
        for place in (0, 40, len(text) // 2, len(text) - 1):
            twisted = text[:place] + (b"A" if text[place : place + 1] != b"A" else b"B") + text[place + 1 :]
            assert validator.judge_closely(twisted, NOW)[0] is None


def test_refusals_are_never_kept() -> None:
    validator = validator_of(PLAIN)
    for text in (ONE.token(CLAIMS)[:-2], ONE.token({**CLAIMS, "exp": 1}), TWO.token(CLAIMS, {"kid": "one"}), b"x"):
        validator.judge_token(text, NOW)
    assert validator.stats()["entries"] == 0
    assert validator.stats()["structures"] == 0


def test_the_cache_never_holds_more_than_its_entries() -> None:
    for entries in (1, 2, 7, 15, 100):
        validator = validator_of(PLAIN, entries=entries)
        for number in range(3 * entries):
            assert validator.judge_token(ONE.token({**CLAIMS, "jti": str(number)}), NOW)[1] == "ok"
            assert validator.stats()["entries"] <= entries
        assert validator.stats()["evictions"] >= 2 * entries


def test_a_flood_of_tokens_seen_once_does_not_push_out_those_in_use() -> None:
    validator = validator_of(PLAIN, entries=200)
    hot = [ONE.token({**CLAIMS, "jti": f"hot {n}"}) for n in range(50)]
    for _ in range(3):
        for text in hot:
            validator.judge_token(text, NOW)
    missed = 0
    for number in range(2000):
        validator.judge_token(ONE.token({**CLAIMS, "jti": f"once {number}"}), NOW)
        missed += not validator.judge_closely(hot[number % 50], NOW)[3]
    assert missed <= 100  # of 2,000; first in, first out would miss 660


def test_without_entries_nothing_is_kept() -> None:
    validator = validator_of(PLAIN, entries=0, structures=0)
    for _ in range(2):
        assert validator.judge_closely(ONE.token(CLAIMS), NOW)[1:] == ("ok", 0, False)
    assert validator.stats()["entries"] == 0
    validator.forget_all()


def test_headers_are_kept_only_after_a_good_signature_and_in_bounds() -> None:
    validator = validator_of(PLAIN, structures=10)
    for number in range(50):
        forged = ONE.token(CLAIMS, {"x": number})[:-3] + b"AAA"
        validator.judge_token(forged, NOW)
    assert validator.stats()["structures"] == 0
    for number in range(50):
        assert validator.judge_token(ONE.token(CLAIMS, {"x": number}), NOW)[1] == "ok"
        assert validator.stats()["structures"] <= 10
    before = validator.stats()["structure_hits"]
    assert validator.judge_token(ONE.token({**CLAIMS, "jti": "other"}, {"x": 49}), NOW)[1] == "ok"
    assert validator.stats()["structure_hits"] == before + 1


def test_a_kept_header_is_judged_by_each_issuers_own_rules() -> None:
    strict = replace(HOME_ISSUER, name=AWAY, types=("at+jwt",), algorithms=("HS512",))
    validator = validator_of(oracle.World((HOME_ISSUER, strict)))
    assert validator.judge_token(ONE.token(CLAIMS), NOW)[1] == "ok"
    assert validator.judge_token(ONE.token({**CLAIMS, "iss": AWAY}), NOW)[1] == "algorithm"
    assert validator.judge_token(TWO.token(CLAIMS), NOW)[1] == "ok"
    assert validator.judge_token(TWO.token({**CLAIMS, "iss": AWAY}), NOW)[1] == "type"


def test_a_kept_token_takes_no_more_than_its_share_of_memory() -> None:
    """design §15: 1.2 kB a token of 700 to 900 bytes, everything included."""
    count = 2000
    texts = [
        ONE.token({**CLAIMS, "sub": f"5e6c6fb4-2d0a-4b53-8b4a-{number:012}", "filling": "x" * 300})
        for number in range(count)
    ]
    assert all(790 <= len(text) <= 810 for text in texts)
    # A secret decides which places a token may take: an unlucky one leaves a hundredth of them without.
    for _ in range(5):
        validator = validator_of(PLAIN, entries=count)
        identities = [validator.judge_token(text, NOW)[0] for text in texts]
        stats = validator.stats()
        if stats["entries"] >= 0.99 * count:
            break
    assert stats["entries"] >= 0.99 * count
    shared: set[int] = set()

    def size_of(thing: object) -> int:
        if id(thing) in shared:
            return 0
        shared.add(id(thing))
        inside = sum(map(size_of, thing)) if isinstance(thing, tuple) else 0
        return (sys.getsizeof(thing) + 15) // 16 * 16 + inside

    sizes = []
    for identity in identities:
        assert identity is not None
        sizes.append(
            sum(map(size_of, (identity, identity.subject, identity.issuer, identity.scopes, identity.headers)))
        )
    malloc_bytes = 16  # its own head and rounding
    table_bytes = 64 * 512
    assert sum(sizes) / count + (stats["entry_bytes"] + table_bytes) / stats["entries"] + malloc_bytes <= 1200


# --- opaque tokens ----------------------------------------------------------------------------------------------------

OPAQUE_ISSUER = replace(HOME_ISSUER, opaque=True)


def remembered(validator: TokenValidator, token: bytes = b"opaque-1", **changes: Any) -> Identity | None:
    settings: dict[str, Any] = {
        "issuer_index": 0,
        "subject": b"alice",
        "scopes": (b"a", b"b"),
        "expires_at_s": NOW + 100,
        "claims": {"tenant": "blue"},
        "now_s": NOW,
    }
    return validator.remember(token, **{**settings, **changes})


def test_an_opaque_token_asks_until_it_is_remembered() -> None:
    validator = validator_of(oracle.World((OPAQUE_ISSUER,), ("tenant",)))
    assert validator.judge_token(b"opaque-1", NOW) == (None, "opaque")
    identity = remembered(validator)
    assert identity is not None
    assert identity.headers[3] == (b"x-claim-0", b"blue")
    assert validator.judge_closely(b"opaque-1", NOW) == (identity, "ok", 0, True)
    assert validator.judge_token(b"opaque-2", NOW)[1] == "opaque"
    assert validator.judge_token(b"opaque-1", NOW + 130)[1] == "opaque"


def test_no_token_is_opaque_where_nobody_introspects() -> None:
    validator = validator_of(PLAIN)
    remembered(validator)
    assert validator.judge_token(b"opaque-1", NOW)[1] == "malformed"


@pytest.mark.parametrize("text", [b"a b", b"a=b", b"=", b"", b"\xff", b"a\x00", b"e30.e30.e30.e30.e30"])
def test_what_cannot_be_a_bearer_token_never_asks(text: bytes) -> None:
    assert validator_of(oracle.World((OPAQUE_ISSUER,))).judge_token(text, NOW)[1] == "malformed"


def test_a_remembered_token_obeys_revocation_rules_and_keys_do_not_matter() -> None:
    validator = validator_of(oracle.World((OPAQUE_ISSUER,)))
    remembered(validator, jti=b"id-7", sid=b"s-7", issued_at_s=NOW - 50)
    validator.publish(snapshot_of(replace(OPAQUE_ISSUER, keys=(), usable_until_s=0)))
    assert validator.judge_token(b"opaque-1", NOW)[1] == "ok"
    validator.revoke("sid", HOME.encode(), b"s-7", until_s=NOW + 100, issued_before_s=NOW - 50, now_s=NOW)
    assert validator.judge_token(b"opaque-1", NOW)[1] == "ok"
    validator.revoke("jti", HOME.encode(), b"id-7", until_s=NOW + 100, now_s=NOW)
    assert validator.judge_token(b"opaque-1", NOW)[1] == "revoked"
    assert remembered(validator, jti=b"id-7") is None
    assert remembered(validator, b"opaque-3", expires_at_s=NOW - 30) is None
    validator.publish(snapshot_of(replace(OPAQUE_ISSUER, leeway_s=0)))
    assert validator.judge_token(b"opaque-1", NOW)[1] == "opaque"


@pytest.mark.parametrize(
    "changes", [{"subject": b"a\nb"}, {"scopes": (b"a", b"")}, {"scopes": (b"a\r",)}, {"claims": {"tenant": "a\nb"}}]
)
def test_what_cannot_stand_in_a_header_is_not_remembered(changes: dict[str, Any]) -> None:
    validator = validator_of(oracle.World((OPAQUE_ISSUER,), ("tenant",)))
    with pytest.raises(ValueError, match="header"):
        remembered(validator, **changes)
    assert validator.judge_token(b"opaque-1", NOW)[1] == "opaque"


def test_a_token_above_the_limit_is_remembered_by_nobody() -> None:
    validator = validator_of(oracle.World((OPAQUE_ISSUER,), token_bytes_max=64))
    assert remembered(validator, b"x" * 65) is not None
    assert validator.stats()["entries"] == 0
    assert validator.judge_token(b"x" * 65, NOW)[1] == "too_large"


# --- threads ----------------------------------------------------------------------------------------------------------


def test_judging_goes_on_while_a_key_runs_python() -> None:
    """A key of the `cryptography` backend may let other threads in: they must not share its memory."""
    meeting = threading.Barrier(2, timeout=30)

    def slow_verify(signature: bytes, signed: bytes) -> bool:
        meeting.wait()
        return hmac.new(ONE.secret, signed, hashlib.sha256).digest() == signature

    handle = KeyHandle(b"one", "HS256", python_verify=slow_verify)
    validator = TokenValidator()
    validator.publish(KeySnapshot([rules_of(HOME_ISSUER)], [[handle]], [2**61]))
    found: dict[str, Identity | None] = {}

    def judge(name: str) -> None:
        found[name] = validator.judge_token(ONE.token({**CLAIMS, "sub": name}), NOW)[0]

    names = ("alice", "bob")
    threads = [threading.Thread(target=judge, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    subjects = {name: identity.subject for name, identity in found.items() if identity is not None}
    assert subjects == {name: name.encode() for name in names}


def test_batches_see_whole_snapshots_and_tables_while_both_change() -> None:
    validator = validator_of(PLAIN)
    texts = [ONE.token({**CLAIMS, "jti": str(n)}) for n in range(50)]
    done = threading.Event()
    reasons: list[str] = []

    def judge() -> None:
        while not done.is_set():
            reasons.extend(validator.judge_batch(texts, NOW))

    threads = [threading.Thread(target=judge) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(300):
        validator.publish(snapshot_of(HOME_ISSUER if number % 2 else replace(HOME_ISSUER, keys=(key_of(TWO),))))
        validator.revoke_many([("jti", AWAY.encode(), b"%d" % (number * 50 + n), NOW, 0) for n in range(50)], NOW)
    done.set()
    for thread in threads:
        thread.join()
    assert set(reasons) <= {"ok", "kid_unknown"}
    validator.publish(snapshot_of(HOME_ISSUER))
    assert validator.judge_batch(texts, NOW) == ["ok"] * 50
    assert validator.stats()["revocations"] == 300 * 50


# --- settings and limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"entries": -1}, "entries"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"structures": -1}, "structures"),
        ({"token_bytes_max": 63}, "token_bytes_max"),
        ({"token_bytes_max": (1 << 20) + 1}, "token_bytes_max"),
        ({"scope_names": [b"s%d" % n for n in range(65)]}, "65 scopes are named; 64 are possible"),
        ({"scope_names": [b"a b"]}, "without spaces"),
        ({"header_claims": [(b"x-%d" % n, b"c") for n in range(33)]}, "33 claims are mapped; 32 are possible"),
        ({"header_claims": [(b"X-Upper", b"c")]}, "identity header"),
        ({"header_claims": [(b"x_y", b"c")]}, "identity header"),
        ({"header_claims": [(b"x-auth-subject", b"c")]}, "comes twice"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TokenValidator(**settings)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": ""}, "issuer"),
        ({"name": "a\n"}, "issuer"),
        ({"audiences": ()}, "audiences"),
        ({"algorithms": ()}, "algorithms"),
        ({"algorithms": ("none",)}, "unknown algorithm `none`"),
        ({"leeway_s": -1}, "leeway_s"),
        ({"leeway_s": 3601}, "leeway_s"),
        ({"lifetime_max_s": -1}, "lifetime_max_s"),
        ({"types": ()}, "types"),
        ({"types": ("x" * 129,)}, "128 bytes"),
    ],
)
def test_rules_that_make_no_sense_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        rules_of(replace(HOME_ISSUER, **changes))


def test_equal_rules_are_equal() -> None:
    assert rules_of(HOME_ISSUER) == rules_of(HOME_ISSUER)
    assert hash(rules_of(HOME_ISSUER)) == hash(rules_of(HOME_ISSUER))
    assert rules_of(HOME_ISSUER) != rules_of(replace(HOME_ISSUER, leeway_s=29))
    assert rules_of(HOME_ISSUER) != HOME


def test_snapshots_that_make_no_sense_are_refused() -> None:
    rules = rules_of(HOME_ISSUER)
    with pytest.raises(ValueError, match="equally long"):
        KeySnapshot([rules], [], [0])
    with pytest.raises(ValueError, match=f"`{HOME}` comes twice"):
        KeySnapshot([rules, rules_of(replace(HOME_ISSUER, leeway_s=1))], [[], []], [0, 0])
    with pytest.raises(TypeError, match="KeyHandles, not str"):
        KeySnapshot([rules], [["key"]], [0])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="IssuerRules, not str"):
        KeySnapshot(["rules"], [[]], [0])  # type: ignore[list-item]


def test_more_claims_than_one_scan_can_find_are_refused_and_the_old_snapshot_stays() -> None:
    validator = validator_of(PLAIN)
    fits = replace(HOME_ISSUER, required_claims=tuple(f"c{n}" for n in range(52)))
    validator.publish(snapshot_of(fits))
    assert validator.judge_token(ONE.token(CLAIMS), NOW)[1] == "claim_missing"
    assert validator.judge_token(ONE.token({**CLAIMS, **{f"c{n}": 1 for n in range(52)}}), NOW)[1] == "ok"
    with pytest.raises(ValueError, match="65 different claims"):
        validator.publish(snapshot_of(replace(HOME_ISSUER, required_claims=tuple(f"c{n}" for n in range(53)))))
    assert validator.judge_token(ONE.token(CLAIMS), NOW)[1] == "claim_missing"


@pytest.mark.parametrize("limit", [700, 8192, 1 << 20])
def test_a_token_at_the_limit_is_read_and_one_byte_more_is_not(limit: int) -> None:
    validator = validator_of(replace(PLAIN, token_bytes_max=limit))
    for filling in range(limit * 3 // 4 - 500, limit):
        token = ONE.token({**CLAIMS, "f": "x" * filling})
        if len(token) >= limit - 1:
            break
    reasons = {len(text): validator.judge_token(text, NOW)[1] for text in (token + b"A" * n for n in range(3))}
    assert reasons[limit] in ("ok", "malformed", "signature")
    assert reasons[limit + 1] == "too_large"
    assert validator.judge_batch([token + b"A" * 3], NOW) == ["too_large"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"kid": "k" * 1024}, "kid_unknown"),
        ({"kid": "k" * 1025}, "header_invalid"),
        ({"typ": "t" * 128}, "type"),
        ({"typ": "t" * 129}, "header_invalid"),
        ({"cty": "c" * 128}, "ok"),
        ({"cty": "c" * 129}, "header_invalid"),
        ({"x": "y" * 5000}, "ok"),  # above STRUCTURE_BYTES_MAX: parsed each time
    ],
)
def test_header_members_have_limits(header: dict[str, Any], reason: str) -> None:
    assert validator_of(PLAIN).judge_token(ONE.token(CLAIMS, header), NOW)[1] == reason


@pytest.mark.parametrize("form", [" ".join, list])
def test_scopes_have_a_limit(form: Callable[[list[str]], object]) -> None:
    names = [f"s{n}" for n in range(257)]
    assert len(accepted({"scope": form(names[:256])}).scopes) == 256
    assert judge_one({"scope": form(names)})[1] == "claim_invalid"


def test_a_thousand_scope_texts_are_shared_and_one_more_is_no_harm() -> None:
    validator = validator_of(PLAIN)
    for number in range(1030):
        identity, _ = validator.judge_token(ONE.token({**CLAIMS, "scope": f"s{number}"}), NOW)
        assert identity is not None
        assert identity.scopes == (b"s%d" % number,)


def test_validate_takes_bytes_and_text_and_nothing_else() -> None:
    validator = validator_of(PLAIN, error_factory=LookupError)
    token = ONE.token(CLAIMS)
    assert validator.validate(token, now=NOW) is validator.validate(token.decode(), now=NOW + 0.5)
    for bad in (b"", "", "ü.ü.ü", "\ud800", token[:-1]):
        with pytest.raises(LookupError, match="malformed"):
            validator.validate(bad, now=NOW)
    with pytest.raises(TypeError, match="not int"):
        validator.validate(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not str"):
        validator.judge_batch(["text"])  # type: ignore[list-item]


def test_the_reasons_are_named_once_each() -> None:
    assert len(set(native.REASONS)) == len(native.REASONS) == 19
    assert native.REASONS[0] == "ok"


def test_everything_that_was_made_is_freed() -> None:
    if native.live_blocks() < 0:
        pytest.skip("live objects are counted in a debug build (PORTCULLIS_DEBUG=1)")
    gc.collect()
    before = native.live_blocks(), native_cache.live_entries()
    for _ in range(20):
        validator = validator_of(oracle.World((OPAQUE_ISSUER,)), entries=5)
        for number in range(20):
            validator.judge_token(ONE.token({**CLAIMS, "jti": str(number)}), NOW)
        validator.judge_batch([ONE.token(CLAIMS)] * 3, NOW)
        remembered(validator)
        validator.revoke_many([("jti", b"i", b"%d" % n, NOW, 0) for n in range(200)], NOW)
        validator.publish(snapshot_of(HOME_ISSUER))
    del validator
    gc.collect()
    assert (native.live_blocks(), native_cache.live_entries()) == before
