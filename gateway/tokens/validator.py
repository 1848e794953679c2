"""The library's door to the token judge: issuers with their keys in, claims or TokenError out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from gateway._native.token import IssuerRules, KeySnapshot
from gateway._native.token import TokenValidator as NativeTokenValidator
from gateway._native.verify import KeyHandle
from gateway.errors import KeyInvalid
from gateway.tokens.claims import Claims
from gateway.tokens.keys import KeyFault, load_jwks, load_secret
from gateway.tokens.reasons import TokenError

ALWAYS_S = 2**62  # keys that were handed over, not fetched, do not age
LEEWAY_S = 30


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who may issue tokens, with which keys and under which rules (`gateway/config.py`, IssuerConfig, has the same).

    `jwks` is a JWK Set; `secret` an HMAC key instead, which allows HS256, HS384 and HS512 only. `algorithms` are the
    only ones that a token may use, whatever the keys could do. No `audiences` is refused unless `any_audience`.
    `types` are the accepted `typ` values, "" for its absence; RFC 9068 §4 accepts "at+jwt" alone. `leeway_s` None:
    the validator's.
    """

    issuer: str
    audiences: Sequence[str] = ()
    algorithms: Sequence[str] = ("RS256",)
    jwks: Mapping[str, object] | None = None
    secret: bytes | None = None
    any_audience: bool = False
    types: Sequence[str] = ("at+jwt", "JWT", "")
    required_claims: Sequence[str] = ()
    allow_sender_constrained: bool = False
    lifetime_max_s: int = 0
    leeway_s: int | None = None

    def __repr__(self) -> str:  # without the secret
        return f"Issuer({self.issuer!r}, audiences={self.audiences!r}, algorithms={self.algorithms!r})"

    def rules(self, leeway_s: int = LEEWAY_S) -> IssuerRules:
        """Return these settings as the judge takes them. Raises ValueError for settings that could never work."""
        return IssuerRules(
            self.issuer.encode(),
            audiences=_encoded(self.audiences, "audiences"),
            any_audience=self.any_audience,
            algorithms=self.algorithms,
            leeway_s=leeway_s if self.leeway_s is None else self.leeway_s,
            types=_encoded(self.types, "types"),
            required_claims=_encoded(self.required_claims, "required_claims"),
            allow_sender_constrained=self.allow_sender_constrained,
            lifetime_max_s=self.lifetime_max_s,
        )


class TokenValidator(NativeTokenValidator):
    """Judge tokens of some issuers: `validate` gives the claims, or raises TokenError.

    Verified tokens are kept (`cache_entries` at most, each for `cache_ttl_s` at most), and a kept verdict is as
    strict as a new one: times, keys and revocations are checked each time. `cache=False` keeps none. One object
    serves all threads. Raises KeyInvalid where an issuer has no usable key, ValueError for settings that could never
    work; `key_faults` lists keys that are not used, by issuer.
    """

    key_faults: Mapping[str, tuple[KeyFault, ...]]
    _leeway_s: int
    _handles: Mapping[str, tuple[KeyHandle, ...]]

    def __new__(
        cls,
        issuers: Iterable[Issuer],
        *,
        leeway_s: int = LEEWAY_S,
        cache: bool = True,
        cache_entries: int = 16_384,
        cache_ttl_s: float = 60.0,
        token_bytes_max: int = 8192,
    ) -> Self:
        self = super().__new__(
            cls,
            entries=cache_entries if cache else 0,
            ttl_s=cache_ttl_s,
            token_bytes_max=token_bytes_max,
            claims_factory=Claims,
            error_factory=TokenError,
        )
        self._leeway_s = leeway_s
        self._handles = {}
        self.publish_issuers(issuers)
        return self

    if TYPE_CHECKING:  # the method itself is the compiled one: nothing stands before it

        def validate(self, token: bytes | str, *, now: float | None = None) -> Claims:
            """Return the claims of `token`, or raise TokenError with the reason as its `code`.

            `now` is Unix time in seconds, the machine's clock by default.
            """

    def publish_issuers(self, issuers: Iterable[Issuer]) -> None:
        """Judge by these issuers and keys from now on; verdicts that rest on what is gone are dropped.

        Raises as the constructor does, and then leaves everything as it was.
        """
        handles: dict[str, tuple[KeyHandle, ...]] = {}
        faults: dict[str, tuple[KeyFault, ...]] = {}
        rules = []
        for issuer in issuers:
            rules.append(issuer.rules(self._leeway_s))
            handles[issuer.issuer], faults[issuer.issuer] = self._load(issuer)
        if not rules:
            raise ValueError("no issuers: there is nobody whose tokens could be accepted")
        self.publish(KeySnapshot(rules, handles.values(), [ALWAYS_S] * len(rules)))
        self._handles = handles
        self.key_faults = faults

    def _load(self, issuer: Issuer) -> tuple[tuple[KeyHandle, ...], tuple[KeyFault, ...]]:
        previous = self._handles.get(issuer.issuer, ())
        if (issuer.jwks is None) == (issuer.secret is None):
            raise KeyInvalid(f"the issuer `{issuer.issuer}` needs either `jwks` or `secret`")
        if issuer.secret is not None:
            loaded = load_secret(issuer.secret, b"", issuer.algorithms)
            known = {(old.algorithm, old.material): old for old in previous}
            return tuple(known.get((new.algorithm, new.material), new) for new in loaded), ()
        found = load_jwks(issuer.jwks or {}, issuer.algorithms, previous)
        if not found.handles:
            problems = "; ".join(f"`{fault.kid}`: {fault.problem}" for fault in found.faults) or "the set is empty"
            raise KeyInvalid(f"the issuer `{issuer.issuer}` has no usable key: {problems}")
        return found.handles, found.faults


def _encoded(texts: Sequence[str], name: str) -> tuple[bytes, ...]:
    if isinstance(texts, str | bytes):
        raise TypeError(f"`{name}` is a sequence of texts, not one text")
    return tuple(text.encode() for text in texts)


__all__ = ["Claims", "Issuer", "TokenError", "TokenValidator"]
