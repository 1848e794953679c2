"""JWTs, judged: header, claims, signature and revocation, with a cache of verified tokens.

The order in which faults are found, and so which reason wins, is at the top of `_native/token.pyx`; what each reason
means is in `gateway/tokens/reasons.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self, final

from typing_extensions import disjoint_base

from gateway._native.verify import KeyHandle

REASONS: Final[tuple[str, ...]]
"""The stable names of all verdicts, by their number in `token.pxd`; the first is `ok`."""

@final
class Identity:
    """Who a verified token speaks for, ready for headers. Immutable; made by a TokenValidator only."""

    subject: Final[bytes]
    """`sub`, UTF-8; empty where the token has none."""
    issuer: Final[bytes]
    scopes: Final[tuple[bytes, ...]]
    """In the token's order."""
    headers: Final[tuple[tuple[bytes, bytes], ...]]
    """x-auth-subject, x-auth-issuer, x-auth-scopes and the mapped ones; all names, also with empty values."""
    claims: Final[Any]
    """What the validator's `claims_factory` made of the payload, or None without one."""
    expires_at_s: Final[int]
    """`exp`, Unix time."""
    issuer_index: Final[int]

    def __init__(self, /, *args: object, **kwargs: object) -> None: ...

@final
class IssuerRules:
    """How the tokens of one issuer are judged. Immutable; equal settings make equal rules.

    `audiences`: one of them must be in `aud`; none is refused unless `any_audience`. `algorithms`: names of RFC 7518
    and 8037; the only ones that a token may use. `types`: accepted `typ` values, b"" for its absence (RFC 9068 §4:
    only `at+jwt`). `required_claims`: besides exp and iss. `lifetime_max_s`: refuse exp - iat above it; 0 = no bound.
    `opaque`: the issuer offers introspection, so a token that is no JWT asks instead of being malformed. Raises
    ValueError for settings that could never work or are unsafe.
    """

    issuer: Final[bytes]
    audiences: Final[tuple[bytes, ...]]
    any_audience: Final[bool]
    algorithms: Final[tuple[str, ...]]
    leeway_s: Final[int]
    types: Final[tuple[bytes, ...]]
    """In lower case, without "application/"."""
    required_claims: Final[tuple[bytes, ...]]
    allow_sender_constrained: Final[bool]
    lifetime_max_s: Final[int]
    opaque: Final[bool]

    def __new__(
        cls,
        issuer: bytes,
        *,
        audiences: Iterable[bytes],
        any_audience: bool = False,
        algorithms: Iterable[str],
        leeway_s: int = 30,
        types: Iterable[bytes] = (b"at+jwt", b"jwt", b""),
        required_claims: Iterable[bytes] = (),
        allow_sender_constrained: bool = False,
        lifetime_max_s: int = 0,
        opaque: bool = False,
    ) -> IssuerRules: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class KeySnapshot:
    """The issuers, their rules and their keys at one moment. Immutable.

    The three tuples are parallel: `usable_until_s` is the Unix second after which the keys of that issuer may not be
    used any more (0 = never loaded). Raises ValueError for unequal lengths or an issuer that comes twice.
    """

    rules: Final[tuple[IssuerRules, ...]]
    keys: Final[tuple[tuple[KeyHandle, ...], ...]]
    usable_until_s: Final[tuple[int, ...]]

    def __new__(
        cls,
        rules: Iterable[IssuerRules],
        keys: Iterable[Iterable[KeyHandle]],
        usable_until_s: Iterable[int],
    ) -> KeySnapshot: ...

@final
class JudgePlan:
    """A published snapshot, laid out for the judge; of no use to Python."""

    def __new__(cls) -> JudgePlan: ...

@final
class RevocationTable:
    """Revocations by secret hash; of no use to Python."""

    def __new__(cls, slots: int = 64) -> RevocationTable: ...

@disjoint_base
class TokenValidator:
    """Judge tokens against the published KeySnapshot, and keep the verdicts of verified ones.

    `entries` verified tokens are kept, each for `ttl_s` at most; 0 entries: none is. `structures`: parsed headers. A
    token above `token_bytes_max` is refused unread. `scope_names`: the scopes that routes ask for, a bit each in
    Identity.scope_mask, at most 64. `header_claims`: pairs of (header name, claim name) that become identity headers
    besides x-auth-subject, -issuer and -scopes. `claims_factory(payload)` makes Identity.claims;
    `error_factory(reason)` makes what `validate` raises. `hash_bits` below 64 makes cache keys collide: for tests.

    Until the first `publish` every token is refused as keys_unavailable. Safe to share between threads.
    """

    def __new__(
        cls,
        *,
        entries: int = 16384,
        ttl_s: float = 60.0,
        structures: int = 1000,
        token_bytes_max: int = 8192,
        scope_names: Iterable[bytes] = (),
        header_claims: Iterable[tuple[bytes, bytes]] = (),
        claims_factory: Callable[[bytes], object] | None = None,
        error_factory: Callable[[str], BaseException] | None = None,
        hash_bits: int = 64,
    ) -> Self: ...
    def publish(self, snapshot: KeySnapshot) -> None:
        """Judge by `snapshot` from now on.

        Verdicts that are kept stay valid only if equal rules and the same KeyHandle object are still the issuer's.
        """

    def judge_token(self, token: bytes, now_s: int | None = None) -> tuple[Identity | None, str]:
        """Return (Identity, "ok"), or (None, reason): one of REASONS. Never raises for any token.

        `now_s` is Unix time in seconds; the machine's clock by default.
        """

    def judge_closely(self, token: bytes, now_s: int | None = None) -> tuple[Identity | None, str, int, bool]:
        """Return (Identity or None, reason, issuer_index, from_cache); issuer_index is -1 where no issuer was found."""

    def validate(self, token: bytes | str, *, now: float | None = None) -> Any:
        """Return the claims of `token` (bytes or str), or its Identity where there is no `claims_factory`.

        Raises what `error_factory` makes of the reason for any token that is refused. `now` is Unix time in seconds.
        """

    def judge_batch(self, tokens: Iterable[bytes], now_s: int | None = None) -> list[str]:
        """Return the reason for each of `tokens` (bytes), without caches and identities, and without the GIL meanwhile.

        Threads that judge batches at the same time use one core each.
        """

    def revoke(
        self,
        kind: str,
        issuer: bytes,
        value: bytes,
        *,
        until_s: int,
        issued_before_s: int = 0,
        now_s: int | None = None,
    ) -> None:
        """Refuse tokens of `issuer` whose `kind` ("jti", "sub" or "sid") is `value`, from now on and in every cache.

        The row holds up to `until_s` (give the latest exp of the tokens meant; leeway is added). `sub` and `sid`
        spare tokens issued at or after `issued_before_s`, 0 spares none; a token without iat is never spared. Raises
        ValueError for another kind or an empty value, OverflowError when REVOCATIONS_MAX rows hold: then nothing is
        forgotten silently.
        """

    def revoke_many(self, rows: Iterable[tuple[str, bytes, bytes, int, int]], now_s: int | None = None) -> None:
        """Take many rows (kind, issuer, value, until_s, issued_before_s) at once; see `revoke`.

        Where one is refused, those before it hold.
        """

    def remember(
        self,
        token: bytes,
        *,
        issuer_index: int,
        subject: bytes,
        scopes: Iterable[bytes],
        expires_at_s: int,
        claims: Mapping[str, object],
        jti: bytes = b"",
        sid: bytes = b"",
        issued_at_s: int = 0,
        now_s: int | None = None,
    ) -> Identity | None:
        """Keep an introspected opaque token like a verified one, up to `expires_at_s`; return its Identity.

        `claims` are the members of the introspection answer (JSON values), from which mapped headers are made.
        Returns None where the token has expired already or is revoked. Raises ValueError for values that may not
        stand in a header, and IndexError for an issuer that the published snapshot does not have.
        """

    def forget_all(self) -> None:
        """Drop every kept verdict and parsed header. Revocations stay."""

    def stats(self) -> dict[str, int]:
        """Return counts; `hits` and `misses` are those of the cache of verified tokens."""

    def _refusal(self, reason: str) -> BaseException: ...
    def _advance(self, seconds: float) -> None:
        """Move the clock of the caches' ages ahead: for tests."""

def live_blocks() -> int:
    """Return how many plans, tables and validators are alive, or -1 unless built with PORTCULLIS_DEBUG=1."""
