"""Tokens of our own issuer, judged for our own endpoints: also those bound to a key, which no door takes alone.

The keys come straight from who signs, so that a token can be judged the moment it is made; revocations come from the
same log as for the doors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from gateway._native import base64url
from gateway._native.token import Identity, IssuerRules, KeySnapshot, TokenValidator
from gateway.config import IssuerConfig, OAuthConfig
from gateway.tokens.issuer_keys import IssuerKeys
from gateway.tokens.keys import load_jwks
from gateway.types import Clock

KEYS_FOLDER: Final = "oauth-keys"  # in run_dir

SIGNING_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
)  # fmt: skip
_ALWAYS_S = 253_402_300_799  # 9999-12-31: keys of our own do not age


def keys_folder(config: OAuthConfig, run_dir: Path, base_dir: Path) -> Path:
    """Return the folder of our issuer's keys."""
    return base_dir / Path(config.keys_path).expanduser() if config.keys_path else run_dir / KEYS_FOLDER


def own_issuer(config: OAuthConfig, jwks_path: Path, published: Iterable[Mapping[str, Any]]) -> IssuerConfig:
    """Return the settings by which the doors judge our own tokens: nobody has to write them down."""
    algorithms = sorted({str(key.get("alg", "")) for key in published})
    resources = (resource.id for resource in config.resources)
    return IssuerConfig(
        issuer=config.issuer,
        audiences=tuple(dict.fromkeys((config.audience or config.issuer, *resources))),
        algorithms=tuple(algorithms),  # type: ignore[arg-type]  # of keys that we made ourselves
        jwks_file=str(jwks_path),
        min_refresh_s=0.2,  # our own file is read at once when another worker made a key
        types=("at+jwt",),  # RFC 9068 §4: an id token opens no door
    )


class OwnTokens:
    """Judge access tokens that we made. A RevocationSink: whoever follows the log of revocations feeds it."""

    def __init__(
        self,
        issuer: str,
        keys: IssuerKeys,
        clock: Clock,
        *,
        validator: TokenValidator | None = None,
        audiences: Iterable[str] = (),
    ) -> None:
        """`validator` is one that nobody else publishes keys to; `audiences`: none takes tokens for anybody."""
        self._keys = keys
        self._clock = clock
        self._validator = validator or TokenValidator(entries=0)
        named = [audience.encode() for audience in audiences]
        self._rules = IssuerRules(
            issuer.encode(),
            audiences=named,
            any_audience=not named,
            algorithms=SIGNING_ALGORITHMS,
            leeway_s=0,  # it is our own clock
            types=(b"at+jwt",),
            allow_sender_constrained=True,
        )
        self._published: object = None
        self.is_trusted: Callable[[], bool] = lambda: True
        """Whether it is known what is revoked."""

    def revoke_many(self, rows: Iterable[tuple[str, bytes, bytes, int, int]]) -> None:
        """Refuse what the rows name from now on. Raises OverflowError where there is no room for all of them."""
        self._validator.revoke_many(rows, now_s=int(self._clock.wall_s()))

    def judge(self, token: str) -> tuple[Mapping[str, Any] | None, str]:
        """Return the claims of a token that holds and "ok", or None and the reason. Never raises.

        `keys_unavailable` while it is not known what is revoked. `cnf` in the claims is for the caller to check.
        """
        identity, claims, reason = self.identify(token)
        return (None if identity is None else claims), reason

    def identify(self, token: str) -> tuple[Identity | None, Mapping[str, Any], str]:
        """Return who a token speaks for, its claims, and "ok"; or None, nothing, and the reason. As `judge`."""
        if not self.is_trusted():
            return None, {}, "keys_unavailable"
        self._publish()
        raw = token.encode("utf-8", "surrogateescape")
        identity, reason = self._validator.judge_token(raw, int(self._clock.wall_s()))
        if identity is None:
            return None, {}, reason
        claims: dict[str, Any] = orjson.loads(base64url.decode(raw.split(b".")[1]))
        return identity, claims, "ok"

    def _publish(self) -> None:
        """Have the keys that are published now; of no cost where they are those of the last time."""
        published = self._keys.published
        if published is not self._published:
            loaded = load_jwks(self._keys.jwks(), SIGNING_ALGORITHMS)
            self._validator.publish(KeySnapshot([self._rules], [loaded.handles], [_ALWAYS_S]))
            self._published = published
