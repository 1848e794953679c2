"""Opaque tokens, judged by asking their issuer (RFC 7662), at most once a token at a time.

What is kept: an active answer, by the exact token, in the validator's cache, up to `exp` and `introspection_ttl_s`,
whichever is first; revocations reach it as they reach every kept verdict. Nothing else is kept: an inactive token is
asked about again, and a fault is never an answer.

A token does not say whose it is. Issuers with an introspection endpoint are asked in the order of the configuration
until one knows it, so each of them sees the tokens of those after it: put the likeliest first, and configure none that
must not see another's tokens.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote_plus

from gateway.config import IssuerConfig
from gateway.resilience import detached
from gateway.stores.fetch import Fetcher, FetchFailed
from gateway.tokens.issuer_calls import IssuerCalls
from gateway.types import Clock, Secret

logger = logging.getLogger(__name__)

ANSWER_BYTES_MAX = 64 * 1024
FLIGHTS_MAX = 1000  # tokens that are asked about or wait for a place to be; one more is refused at once
TOTAL_TIMEOUT_S = 10.0  # for one token, all its issuers and the waits for a place included

# RFC 6750 §2.1: b64token. Anything else is nobody's token, and not worth a request.
_BEARER = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")

Outcome = Literal["active", "inactive", "error"]


@dataclass(frozen=True, slots=True)
class ActiveToken:
    """What an issuer said of an opaque token that may be used."""

    issuer: str
    subject: bytes
    scopes: tuple[bytes, ...]
    keep_until_s: int  # Unix time; kept no longer than this
    claims: Mapping[str, Any]
    jti: bytes
    sid: bytes
    issued_at_s: int  # 0 = unknown


class AnswerRefused(Exception):
    """An active token that the issuer's rules refuse; `reason` is one of the stable names of token verdicts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Remember = Callable[[bytes, ActiveToken], str | None]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    config: IssuerConfig
    basic: tuple[str, str]


class OpaqueIntrospector:
    """Ask issuers about opaque tokens. Belongs to one event loop.

    `remember(token, active)` keeps an active token where the hot path finds it, and returns None, or the reason why it
    is refused all the same.
    """

    def __init__(
        self,
        issuers: Sequence[IssuerConfig],
        *,
        fetcher: Fetcher,
        clock: Clock,
        remember: Remember,
        read_secret: Callable[[str], Secret],
        calls: IssuerCalls,
    ) -> None:
        self._calls = calls
        self._fetcher = fetcher
        self._clock = clock
        self._remember = remember
        self._endpoints = [
            _Endpoint(issuer, _basic(issuer.introspection_client_id, read_secret(issuer.introspection_client_secret)))
            for issuer in issuers
            if issuer.introspection_endpoint
        ]
        self._key = secrets.token_bytes(32)
        self._flights: dict[bytes, asyncio.Task[str | None]] = {}  # keyed hash of the token -> the asking about it
        self.asked: Counter[tuple[str, Outcome]] = Counter()
        self.shed = 0  # tokens that were not asked about because too many were

    async def introspect(self, token: bytes) -> str | None:
        """Return None when the token may be judged again, or the reason why it is refused.

        `introspection_unavailable` where no issuer knows the token and not all of them answered; `token_inactive`
        where all did. Callers with the same token share one asking. Never raises, and ends within TOTAL_TIMEOUT_S.
        """
        if not _BEARER.fullmatch(token):
            return "malformed"
        key = hashlib.blake2b(token, key=self._key, digest_size=16).digest()
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= FLIGHTS_MAX:
                self.shed += 1
                return "introspection_unavailable"
            flight = self._flights[key] = detached(self._ask(token), name="introspection", keep_pool=True)
            flight.add_done_callback(lambda _: self._flights.pop(key))
        return await asyncio.shield(flight)

    async def stop(self) -> None:
        """End what is under way: whoever waits for it is refused."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _ask(self, token: bytes) -> str | None:
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                return await self._ask_in_order(token)
        except TimeoutError:
            return "introspection_unavailable"
        except asyncio.CancelledError:  # by `stop`
            return "introspection_unavailable"
        except Exception:  # our own mistake must not become an answer
            logger.exception("an opaque token could not be judged")
            return "introspection_unavailable"

    async def _ask_in_order(self, token: bytes) -> str | None:
        refusal = "token_inactive"
        for endpoint in self._endpoints:
            issuer = endpoint.config.issuer
            try:
                answer = await self._post(endpoint, token)
                active = read_answer(answer, endpoint.config, self._clock.wall_s())
            except FetchFailed as error:
                self.asked[issuer, "error"] += 1
                # What was not even asked is counted elsewhere; in a flood there is a line for each that was.
                level = logging.DEBUG if error.problem in ("circuit_open", "no_room") else logging.WARNING
                logger.log(level, "introspection at `%s` failed: %s", issuer, error)
                refusal = "introspection_unavailable"
            except AnswerRefused as refused:
                self.asked[issuer, "active"] += 1
                return refused.reason
            else:
                self.asked[issuer, "active" if active else "inactive"] += 1
                if active is not None:
                    return self._remember(token, active)
        return refusal

    async def _post(self, endpoint: _Endpoint, token: bytes) -> dict[str, Any]:
        config = endpoint.config

        async def post() -> dict[str, Any]:
            return await self._fetcher.post_form(
                config.introspection_endpoint,
                {"token": token.decode("ascii"), "token_type_hint": "access_token"},
                basic=endpoint.basic,
                timeout_s=config.fetch_timeout_s,
                bytes_max=ANSWER_BYTES_MAX,
            )

        await self._fetcher.open()  # our own start, and part of no issuer's deadline
        return await self._calls.ask(config.issuer, "introspect", post, config.fetch_timeout_s)


def read_answer(answer: Mapping[str, Any], config: IssuerConfig, now_s: float) -> ActiveToken | None:
    """Judge an introspection response by the issuer's rules; None for an inactive token.

    Raises FetchFailed for an answer that is none, AnswerRefused for an active token that the rules refuse. The checks
    are those of a JWT as far as RFC 7662 §2.2 has the members: `iss` may be absent (the issuer itself is speaking),
    `aud` may not where audiences are configured.
    """
    active = answer.get("active")
    if not isinstance(active, bool):
        raise FetchFailed("not_an_answer", f"introspection at `{config.issuer}` does not say `active`")
    if not active:
        return None
    if answer.get("iss", config.issuer) != config.issuer:
        raise AnswerRefused("issuer_unknown")
    _check_kind(answer, config)
    expires_at_s = _check_times(answer, config, now_s)
    if not config.any_audience and not set(_texts(answer, "aud")) & set(config.audiences):
        raise AnswerRefused("audience")
    if any(answer.get(name) is None for name in config.required_claims):
        raise AnswerRefused("claim_missing")
    keep_until_s = int(now_s + config.introspection_ttl_s)
    if expires_at_s is not None:
        keep_until_s = min(keep_until_s, int(expires_at_s))
    return ActiveToken(
        issuer=config.issuer,
        subject=_text(answer, "sub"),
        scopes=tuple(scope.encode() for text in _texts(answer, "scope") for scope in text.split(" ") if scope),
        keep_until_s=max(keep_until_s, int(now_s) + 1),  # long enough to be judged at all
        claims=answer,
        jti=_text(answer, "jti"),
        sid=_text(answer, "sid"),
        issued_at_s=int(_number(answer, "iat") or 0),
    )


def _check_kind(answer: Mapping[str, Any], config: IssuerConfig) -> None:
    """Refuse what is no bearer access token: refresh tokens are active too, and must not open an API."""
    kind = answer.get("token_type", "Bearer")
    if not isinstance(kind, str):
        raise AnswerRefused("claim_invalid")
    # RFC 9449 §6.2 and RFC 8705 §3.2: a bound token says so by `cnf`; of type DPoP it is bound in any case.
    bound = answer.get("cnf") is not None or kind.lower() in ("dpop", "pop")
    if bound and not config.allow_sender_constrained:
        raise AnswerRefused("sender_constrained")
    if kind.lower() not in ("bearer", "dpop", "pop"):
        raise AnswerRefused("type")
    # Not of the RFC, but how providers tell them apart (Ory Hydra: `token_use`; Keycloak: `typ`).
    if answer.get("token_use", "access_token") not in ("access_token", "access"):
        raise AnswerRefused("type")
    if str(answer.get("typ", "")).lower() in ("refresh", "offline", "id", "logout"):
        raise AnswerRefused("type")


def _check_times(answer: Mapping[str, Any], config: IssuerConfig, now_s: float) -> float | None:
    """Refuse a token out of its time, and return its `exp`, or None where the issuer does not tell."""
    expires_at_s, issued_at_s = _number(answer, "exp"), _number(answer, "iat")
    not_before_s = _number(answer, "nbf")
    # No leeway here: the issuer's own answer is fresher than any clock.
    if expires_at_s is not None and expires_at_s <= now_s:
        raise AnswerRefused("expired")
    if issued_at_s is not None and issued_at_s > now_s + config.leeway_s:
        raise AnswerRefused("issued_in_future")
    if not_before_s is not None and not_before_s > now_s + config.leeway_s:
        raise AnswerRefused("not_yet_valid")
    if config.lifetime_max_s:
        if expires_at_s is None or issued_at_s is None:
            raise AnswerRefused("claim_missing")
        if expires_at_s - issued_at_s > config.lifetime_max_s:
            raise AnswerRefused("claim_invalid")
    return expires_at_s


def _number(answer: Mapping[str, Any], name: str) -> float | None:
    value = answer.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise AnswerRefused("claim_invalid")
    return value


def _text(answer: Mapping[str, Any], name: str) -> bytes:
    value = answer.get(name)
    if value is None:
        return b""
    if not isinstance(value, str):
        raise AnswerRefused("claim_invalid")
    return value.encode()


def _texts(answer: Mapping[str, Any], name: str) -> Sequence[str]:
    """Return a member that is one text or an array of them."""
    value = answer.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise AnswerRefused("claim_invalid")
    return value


def _basic(client_id: str, secret: Secret) -> tuple[str, str]:
    """Return name and password for client_secret_basic: both form-encoded first (RFC 6749 §2.3.1)."""
    return quote_plus(client_id), quote_plus(secret.reveal())
