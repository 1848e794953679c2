"""One identity provider: what it publishes, how it is asked, and how what it signed is judged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import orjson

from gateway._native.token import KeySnapshot, TokenValidator
from gateway.config import IssuerConfig, SSOConfig, resolve_secret
from gateway.errors import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    OverloadedError,
    ResourceExhaustedError,
)
from gateway.flows.federated.errors import SSORefused, SSOUnavailable
from gateway.resilience import Resilience, detached
from gateway.resilience.circuit_breaker import Classify, Outcome
from gateway.stores.fetch import Fetcher, FetchFailed
from gateway.tokens.control import claimed_key, rules_of
from gateway.tokens.discovery import check_named_address, fetch_metadata
from gateway.tokens.issuer_calls import GuardedCalls, outcome_of_fetch
from gateway.tokens.jwks import JWKSCache, PublishedKeys
from gateway.types import Clock, Secret

T = TypeVar("T")

ANSWER_BYTES_MAX: Final = 64 * 1024  # of a token, PAR or userinfo response
TOKEN_BYTES_MAX: Final = 16 * 1024  # of an id or logout token
METADATA_S: Final = 3600.0  # what a provider publishes of itself is asked for again after this
METADATA_RETRY_S: Final = 60.0  # after an attempt that failed, while what is known still serves
METADATA_STALE_S: Final = 86_400.0  # and for so long it does
OPERATION: Final = "sso"
KEYS_RETRY_S: Final = 1.0  # keys are asked for once in this time at most; nobody can have us ask by a made-up token
TYPES: Final = ("JWT", "", "logout+jwt")  # id tokens, and logout tokens (Back-Channel Logout 1.0 §2.4)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a provider is asked, by its metadata; "" = it does not offer that."""

    authorization: str
    token: str
    userinfo: str
    pushed_requests: str
    end_session: str
    names_itself: bool  # `iss` comes with every answer (RFC 9207 §3)


class Provider:
    """An identity provider as a relying party sees it. Belongs to one event loop.

    Whatever it does, a call ends within `timeout_s` of its config: SSOUnavailable where it is to blame, SSORefused
    where it answered, and not what was asked for.
    """

    def __init__(
        self, config: SSOConfig, *, fetcher: Fetcher, resilience: Resilience, clock: Clock, base_dir: Path
    ) -> None:
        """Connects to nothing. Raises SecretUnresolved for a secret that cannot be read."""
        self.config = config
        self.id = config.id
        self.issuer = config.issuer
        self._fetcher = fetcher
        self._resilience = resilience
        self._clock = clock
        self._secret = resolve_secret(config.client_secret, base_dir) if config.client_secret else Secret(b"")
        self._endpoints: Endpoints | None = None
        self._fetched_s = 0.0  # monotonic
        self._due_s = 0.0  # monotonic
        self._flight: asyncio.Task[Endpoints] | None = None
        trusted = issuer_config(config)
        self._rules = rules_of(trusted)
        self._validator = TokenValidator(entries=0, token_bytes_max=TOKEN_BYTES_MAX, claims_factory=orjson.loads)
        self._keys = JWKSCache(
            (trusted,),
            publish=self._publish,
            fetcher=fetcher,
            clock=clock,
            base_dir=base_dir,
            read_secret=lambda reference: resolve_secret(reference, base_dir),
            calls=GuardedCalls(resilience),
        )
        self._warming: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to fetch what it publishes; waits for nothing."""
        await self._keys.start()
        self._warming = asyncio.get_running_loop().create_task(self._warm(), name=f"sso {self.id}")

    async def stop(self) -> None:
        """End everything that was begun."""
        tasks: list[asyncio.Task[Any]] = [task for task in (self._warming, self._flight) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._keys.stop()

    async def _warm(self) -> None:
        with contextlib.suppress(SSOUnavailable, SSORefused):  # whoever logs in asks again
            await self.endpoints()

    # -- what it publishes --------------------------------------------------------------------------------------------

    @property
    def known_endpoints(self) -> Endpoints | None:
        """What was last learned of it, without asking."""
        return self._endpoints

    def check(self) -> None:
        """Raise SSOUnavailable at once where it would not be asked."""
        try:
            self._resilience.breakers.of("external_idp", OPERATION, self.issuer).check()
        except CircuitOpenError as error:
            raise SSOUnavailable("the identity provider does not answer", retry_after_s=error.retry_after_s) from error

    async def endpoints(self) -> Endpoints:
        """Return where it is asked. Many who want to know that share one request."""
        now_s = self._clock.monotonic_s()
        known = self._endpoints
        if known is not None and now_s < self._due_s:
            return known
        if self._flight is None:
            self._flight = detached(self._learn(), keep_pool=True)
            self._flight.add_done_callback(self._landed)
        try:
            return await asyncio.shield(self._flight)
        except (SSOUnavailable, SSORefused):
            if known is None or now_s - self._fetched_s > METADATA_STALE_S:
                raise
            self._due_s = now_s + METADATA_RETRY_S
            return known

    def _landed(self, flight: asyncio.Task[Endpoints]) -> None:
        self._flight = None
        if not flight.cancelled():
            flight.exception()  # whoever waited has it; nobody may have

    async def _learn(self) -> Endpoints:
        document = await self._ask(
            lambda: fetch_metadata(self._fetcher, self.issuer, timeout_s=self.config.timeout_s), _outcome_for_all
        )
        self._endpoints = endpoints_of(document, self.issuer)
        self._fetched_s = self._clock.monotonic_s()
        self._due_s = self._fetched_s + METADATA_S
        return self._endpoints

    # -- what it is asked ---------------------------------------------------------------------------------------------

    async def push(self, endpoints: Endpoints, request: Mapping[str, str]) -> str:
        """Push an authorization request, and return what stands for it (RFC 9126)."""
        answer = await self._post(endpoints.pushed_requests, request, _outcome_for_all, created=True)
        uri = answer.get("request_uri")
        if not isinstance(uri, str) or not 0 < len(uri) <= 512:
            raise SSORefused("idp_par_answer")
        return uri

    async def redeem(self, endpoints: Endpoints, code: str, verifier: str, redirect_uri: str) -> tuple[str, str]:
        """Return the id token and the access token that a code is good for. Asked once: codes are."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        answer = await self._post(endpoints.token, form)
        id_token, access_token = answer.get("id_token"), answer.get("access_token", "")
        if not isinstance(id_token, str) or not isinstance(access_token, str):
            raise SSORefused("idp_token_answer")
        return id_token, access_token

    async def userinfo(self, endpoints: Endpoints, access_token: str) -> Mapping[str, Any]:
        """Return what it tells of the user besides the id token. Its `sub` is not compared here."""
        if not access_token.isascii() or not access_token.isprintable():
            raise SSORefused("idp_token_answer")
        return await self._ask(
            lambda: self._fetcher.get_json(
                endpoints.userinfo,
                timeout_s=self.config.timeout_s,
                bytes_max=ANSWER_BYTES_MAX,
                bearer=Secret(access_token),
            )
        )

    async def _post(
        self, url: str, form: Mapping[str, str], classify: Classify = outcome_of_fetch, *, created: bool = False
    ) -> dict[str, Any]:
        sent, basic = dict(form), None
        secret = self._secret.reveal().decode()
        if self.config.client_auth == "client_secret_basic":
            # RFC 6749 §2.3.1: both are form-encoded before they are joined.
            basic = quote(self.config.client_id, safe=""), quote(secret, safe="")
        else:
            sent["client_id"] = self.config.client_id
            if self.config.client_auth == "client_secret_post":
                sent["client_secret"] = secret
        return await self._ask(
            lambda: self._fetcher.post_form(
                url,
                sent,
                basic=basic,
                timeout_s=self.config.timeout_s,
                bytes_max=ANSWER_BYTES_MAX,
                created=created,
            ),
            classify,
        )

    async def _ask(self, work: Callable[[], Awaitable[T]], classify: Classify = outcome_of_fetch) -> T:
        await self._fetcher.open()  # its import is no part of the provider's time
        try:
            return await self._resilience.call(
                "external_idp",
                OPERATION,
                work,
                limit_s=self.config.timeout_s,
                tenant=self.issuer,
                classify=classify,
            )
        except FetchFailed as error:
            if classify(error, 0.0) == "failure":
                raise SSOUnavailable(f"`{self.issuer}`: {error}") from error
            raise SSORefused(f"idp_{error.problem}") from error
        except (CircuitOpenError, BulkheadFullError, OverloadedError, ResourceExhaustedError) as error:
            raise SSOUnavailable(f"`{self.issuer}` was not asked", retry_after_s=error.retry_after_s) from error
        except DeadlineExceededError as error:
            raise SSOUnavailable(f"`{self.issuer}` did not answer in time") from error

    # -- what it signed -----------------------------------------------------------------------------------------------

    async def validate(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that it signed for us and that is not over. Raises SSORefused, SSOUnavailable.

        Which kind of token it is, and what it must say, is for the caller to see.
        """
        encoded = token.encode("ascii", "replace")
        claims, reason = self._judge(encoded)
        if reason in ("kid_unknown", "keys_unavailable"):
            _, kid = claimed_key(encoded) or (b"", b"")
            learned = await self._keys.learn(self.issuer, kid)
            if learned == "keys_unavailable":
                raise SSOUnavailable(f"the keys of `{self.issuer}` are not known", retry_after_s=KEYS_RETRY_S)
            claims, reason = self._judge(encoded)
        if claims is None:
            raise SSORefused(f"token_{reason}")
        return claims

    def _judge(self, token: bytes) -> tuple[dict[str, Any] | None, str]:
        identity, reason = self._validator.judge_token(token, int(self._clock.wall_s()))
        return (None if identity is None else identity.claims), reason

    def _publish(self, parts: tuple[PublishedKeys, ...]) -> None:
        self._validator.publish(
            KeySnapshot([self._rules], [part.handles for part in parts], [part.usable_until_s for part in parts])
        )


def _outcome_for_all(error: BaseException, elapsed_s: float) -> Outcome:
    """Tell what a failed fetch says of the provider, of what it tells everybody: no user makes that answer too long.

    Elsewhere one could, by what they keep in their profile, and close the log-in of all others.
    """
    is_flood = isinstance(error, FetchFailed) and error.problem == "too_large"
    return "failure" if is_flood else outcome_of_fetch(error, elapsed_s)


def issuer_config(config: SSOConfig) -> IssuerConfig:
    """Return the rules by which a provider's tokens are judged: for us alone, and with its own keys."""
    return IssuerConfig(
        issuer=config.issuer,
        audiences=(config.client_id,),
        algorithms=config.algorithms,
        types=TYPES,
        leeway_s=config.leeway_s,
        fetch_timeout_s=config.timeout_s,
        min_refresh_s=KEYS_RETRY_S,
        required_claims=("iat",),
    )


def endpoints_of(document: Mapping[str, Any], issuer: str) -> Endpoints:
    """Return what a provider's metadata says. Raises SSORefused for addresses that nobody should be sent to."""

    def address(name: str, *, is_needed: bool = False) -> str:
        value = document.get(name, "")
        if not isinstance(value, str) or (is_needed and not value):
            raise SSORefused("idp_metadata")
        try:
            return check_named_address(value, issuer) if value else ""
        except FetchFailed as error:
            raise SSORefused("idp_metadata") from error

    authorization = address("authorization_endpoint", is_needed=True)
    return Endpoints(
        authorization=authorization,
        token=address("token_endpoint", is_needed=True),
        userinfo=address("userinfo_endpoint"),
        pushed_requests=address("pushed_authorization_request_endpoint"),
        end_session=address("end_session_endpoint"),
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )
