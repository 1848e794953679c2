"""Logging in at identity providers: where the browser is sent, and what it brings back.

What must come back as it was sent is bound to the browser: `state` is kept by its hash, for one use; the nonce and the
verifier of PKCE are made of it and of a secret that only the browser has, so that no store holds what could be used.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from gateway.errors import (
    BulkheadFullError,
    DeadlineExceededError,
    NotOffered,
    OverloadedError,
    ResourceExhaustedError,
    StoreUnavailable,
)
from gateway.flows.deferred import DeferredRunner
from gateway.flows.federated.accounts import Accounts, Found
from gateway.flows.federated.bindings import derived, hash_of, text_of
from gateway.flows.federated.checks import check_access_token, check_id_token, check_issuer
from gateway.flows.federated.errors import SSORefused, SSOUnavailable
from gateway.flows.federated.logout import PROVIDER, PROVIDER_SESSION, ProviderLogouts, short_of
from gateway.flows.federated.provider import Endpoints, Provider
from gateway.flows.sessions import Sessions
from gateway.flows.strength import FEDERATED
from gateway.flows.trail import NOBODY, AuditTrail, Caller
from gateway.resilience import Resilience
from gateway.stores.deferred import Job
from gateway.stores.directory import User
from gateway.stores.grants import Grant, TokenStore
from gateway.types import Clock, Session, Subject

LOGOUT_JOB: Final = "back_channel_logout"  # what is put off
STATE_S: Final = 600  # how long somebody may take at the provider
PARAMETERS_MAX: Final = 32

# What the provider may say instead of a code (RFC 6749 §4.1.2.1, OIDC Core §3.1.2.6); everything else is "other".
_ERRORS: Final = frozenset(
    {
        *("access_denied", "login_required", "consent_required", "interaction_required", "account_selection_required"),
        *("invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope", "server_error"),
        "temporarily_unavailable",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SSOStart:
    """What a log-in at a provider begins with. `browser`: the secret by which the browser is known."""

    browser: str
    return_to: str = ""
    acr_values: tuple[str, ...] = ()  # of our own classes, that the log-in is to have in the end
    login_hint: str = ""
    reauthenticate: bool = False
    auth_age_max_s: int | None = None  # how old the proof there may be, for who asks here; None: as the config says
    links: Session | None = None  # who is logged in, and wants to be known by that provider too


@dataclass(frozen=True, slots=True, kw_only=True)
class SSOLogin:
    """Who logged in at a provider. `attributes` are for the session; `how` says how its user was found."""

    user: User
    methods: tuple[str, ...]  # RFC 8176, and FEDERATED
    attributes: Mapping[str, str]
    return_to: str
    acr_values: tuple[str, ...]
    provider: str
    found: Found

    @property
    def links_only(self) -> bool:
        """Whether somebody who is logged in has linked an account, and no session is to begin."""
        return self.found.how == "link"


class Federation:
    """All identity providers of one gateway. Every step runs in the pool `external_idp`, and within its time."""

    def __init__(
        self,
        providers: Iterable[Provider],
        *,
        origin: str,
        accounts: Accounts,
        sessions: Sessions,
        grants: TokenStore,
        resilience: Resilience,
        clock: Clock,
        trail: AuditTrail,
        session_s: int,
        deferring: DeferredRunner | None = None,
    ) -> None:
        """`origin`: ours, as providers know it. `session_s`: how long our sessions last at most.

        `deferring` does later what providers ask for while a store is away; without it they have to ask again.
        """
        self.providers: Mapping[str, Provider] = {each.id: each for each in providers}
        self._origin = origin
        self._accounts = accounts
        self._grants = grants
        self._resilience = resilience
        self._clock = clock
        self._trail = trail
        self._logouts = ProviderLogouts(
            accounts=accounts, sessions=sessions, grants=grants, clock=clock, session_s=session_s
        )
        self._deferring = deferring
        if deferring is not None:
            deferring.handle(LOGOUT_JOB, self._end_later)

    def redirect_uri(self, provider: Provider) -> str:
        """Return the one address at which a provider's answers are taken."""
        return provider.config.redirect_uri or f"{self._origin}/login/sso/{provider.id}/callback"

    # -- there --------------------------------------------------------------------------------------------------------

    async def begin(self, provider_id: str, start: SSOStart, *, caller: Caller = NOBODY) -> str:
        """Return where to send the browser. Raises SSOUnavailable at once where the provider is left alone."""
        provider = self.providers[provider_id]
        try:
            async with self._step(provider):
                if not self._resilience.degradation.current.allows("new_login"):
                    now = self._resilience.degradation.current  # nobody is sent away to come back for nothing
                    raise NotOffered("nobody can log in without the directory", retry_after_s=now.retry_after_s)
                provider.check()
                return await self._sent(provider, start)
        except (SSOUnavailable, SSORefused) as error:
            reason = error.reason if isinstance(error, SSORefused) else error.code
            self._tell(provider, "login.federated", "refused", caller, reason=reason, step="begin")
            raise

    async def _sent(self, provider: Provider, start: SSOStart) -> str:
        endpoints = await provider.endpoints()
        config = provider.config
        state = text_of(secrets.token_bytes(32))
        request = {
            "response_type": "code",
            "client_id": config.client_id,
            "redirect_uri": self.redirect_uri(provider),
            "scope": " ".join(dict.fromkeys(("openid", *config.scopes))),
            "state": state,
            "nonce": derived(start.browser, state, "nonce"),
            "code_challenge": text_of(hashlib.sha256(derived(start.browser, state, "verifier").encode()).digest()),
            "code_challenge_method": "S256",
        }
        if config.acr_values:
            request["acr_values"] = " ".join(config.acr_values)
        age_s_max = _age_s_max(provider, start)
        if age_s_max is not None:
            request["max_age"] = str(age_s_max)
        if start.reauthenticate:
            request["prompt"] = "login"
        if start.login_hint:
            request["login_hint"] = start.login_hint
        await self._keep_state(provider, start, state)
        if provider.config.pushed_requests == "always" and not endpoints.pushed_requests:
            raise SSORefused("idp_no_par")
        if endpoints.pushed_requests and config.pushed_requests != "never":
            uri = await provider.push(endpoints, request)
            request = {"client_id": config.client_id, "request_uri": uri}
        joint = "&" if "?" in endpoints.authorization else "?"
        return f"{endpoints.authorization}{joint}{urlencode(request)}"

    async def _keep_state(self, provider: Provider, start: SSOStart, state: str) -> None:
        now_s = int(self._clock.wall_s())
        await self._grants.keep(
            Grant(
                kind="sso_state",
                key=hash_of(state),
                tenant=provider.config.tenant,
                expires_s=now_s + STATE_S,
                subject=None if start.links is None else start.links.subject,
                body={
                    "provider": provider.id,
                    "issuer": provider.issuer,
                    "browser": hash_of(start.browser).hex(),
                    "return_to": start.return_to,
                    "acr_values": list(start.acr_values),
                    "began_s": now_s,
                    "age_s_max": _age_s_max(provider, start),
                },
            )
        )

    # -- and back -----------------------------------------------------------------------------------------------------

    async def complete(
        self,
        provider_id: str,
        parameters: Sequence[tuple[str, str]],
        browser: str,
        *,
        current: Subject | None = None,
        caller: Caller = NOBODY,
    ) -> SSOLogin:
        """Return who logged in, by what the browser brought to the redirect URI. Raises SSORefused, SSOUnavailable.

        `current`: who is logged in here, which has to be whoever asked to be linked.
        """
        provider = self.providers[provider_id]
        try:
            async with self._step(provider):
                login = await self._completed(provider, parameters, browser, current)
        except (SSOUnavailable, SSORefused) as error:
            reason = error.reason if isinstance(error, SSORefused) else error.code
            self._tell(provider, "login.federated", "refused", caller, reason=reason, step="complete")
            raise
        if login.found.how != "linked":
            self._tell(provider, "identity.link", "success", caller, user=login.user, how=login.found.how)
        self._tell(provider, "sso.verify", "success", caller, user=login.user)
        return login

    async def _completed(
        self, provider: Provider, parameters: Sequence[tuple[str, str]], browser: str, current: Subject | None
    ) -> SSOLogin:
        answer = dict(parameters)
        if len(answer) != len(parameters) or len(parameters) > PARAMETERS_MAX:
            raise SSORefused("answer_repeats")
        grant = await self._taken(provider, answer.get("state", ""), browser)
        endpoints = await provider.endpoints()
        check_issuer(provider, endpoints, answer)
        if grant.subject not in (None, current):
            raise SSORefused("session_other")
        if "error" in answer:
            error = answer["error"] if answer["error"] in _ERRORS else "other"
            if error in ("server_error", "temporarily_unavailable"):
                raise SSOUnavailable(f"`{provider.issuer}` cannot answer now")
            raise SSORefused(f"idp_{error}")
        code, state = answer.get("code", ""), answer["state"]
        if not code:
            raise SSORefused("answer_without_code")
        verifier = derived(browser, state, "verifier")
        id_token, access_token = await provider.redeem(endpoints, code, verifier, self.redirect_uri(provider))
        claims = await provider.validate(id_token)
        check_id_token(provider, grant, claims, derived(browser, state, "nonce"))
        check_access_token(id_token, claims, access_token)
        claims = await self._with_userinfo(provider, endpoints, claims, access_token)
        found = await self._found(provider, grant, claims)
        await self._logouts.remember(provider, claims, found.user)
        return SSOLogin(
            user=found.user,
            methods=_methods(provider, claims),
            attributes=_attributes(provider, claims),
            return_to=str(grant.body.get("return_to", "")),
            acr_values=tuple(map(str, grant.body.get("acr_values", ()))),
            provider=provider.id,
            found=found,
        )

    async def _taken(self, provider: Provider, state: str, browser: str) -> Grant:
        """Use up what was kept with `state`. Raises SSORefused where that was of another browser or provider."""
        if not state or not browser:
            raise SSORefused("state_missing")
        taken = await self._grants.take("sso_state", hash_of(state))
        if taken.grant is None:
            raise SSORefused(f"state_{taken.found}")
        body = taken.grant.body
        if not hmac.compare_digest(str(body.get("browser")), hash_of(browser).hex()):
            raise SSORefused("state_of_another_browser")
        # The answer of one provider at the address of another: the mix-up attack (RFC 9700 §4.4).
        if body.get("provider") != provider.id or body.get("issuer") != provider.issuer:
            raise SSORefused("state_of_another_provider")
        return taken.grant

    async def _with_userinfo(
        self, provider: Provider, endpoints: Endpoints, claims: dict[str, Any], access_token: str
    ) -> dict[str, Any]:
        """Add what the provider tells elsewhere, where a rule needs it. What the id token says goes before."""
        config = provider.config
        needs = (config.link_email or config.provision) and "email" not in claims
        if not needs or not endpoints.userinfo or not access_token:
            return claims
        more = await provider.userinfo(endpoints, access_token)
        # OIDC Core §5.3.2: "the sub Claim in the UserInfo Response MUST be verified to exactly match".
        if more.get("sub") != claims["sub"]:
            raise SSORefused("userinfo_of_another")
        return {**more, **claims}

    async def _found(self, provider: Provider, grant: Grant, claims: Mapping[str, Any]) -> Found:
        if grant.subject is None:
            return await self._accounts.find(provider.config, claims)
        user = await self._accounts.user(grant.subject)
        return await self._accounts.link(provider.config, claims, user)

    # -- accounts -----------------------------------------------------------------------------------------------------

    async def linked(self, user: User) -> frozenset[str]:
        """Return the issuers that know a user."""
        return frozenset(await self._accounts.issuers_of(user))

    async def unlink(self, provider_id: str, user: User, *, caller: Caller = NOBODY) -> bool:
        """Let a provider speak of a user no more. False where it did not."""
        provider = self.providers[provider_id]
        if not await self._accounts.unlink(provider.config, user):
            return False
        self._tell(provider, "identity.unlink", "success", caller, user=user)
        return True

    # -- logging out --------------------------------------------------------------------------------------------------

    def logout_url(self, session: Session) -> str | None:
        """Return where to send a browser whose session began at a provider, so that it is logged out there, too."""
        provider = self.providers.get(session.attributes.get(PROVIDER, ""))
        endpoints = None if provider is None else provider.known_endpoints
        if provider is None or endpoints is None or not endpoints.end_session:
            return None
        request = {"client_id": provider.config.client_id}
        if provider.config.logout_uri:
            request["post_logout_redirect_uri"] = provider.config.logout_uri
        joint = "&" if "?" in endpoints.end_session else "?"
        return f"{endpoints.end_session}{joint}{urlencode(request)}"

    async def back_channel_logout(self, provider_id: str, token: str, *, caller: Caller = NOBODY) -> int:
        """End the sessions that a provider says are over (Back-Channel Logout 1.0 §2.5–2.7); return how many.

        While a store is away, what a token says that was verified is promised, and done as soon as that is back.
        Raises SSORefused for a logout token that is none, or was here before.
        """
        provider = self.providers[provider_id]
        try:
            async with self._step(provider):
                claims = await provider.validate(token)
                self._logouts.check(provider, claims)
                try:
                    await self._logouts.use(provider, claims)
                    ended = await self._logouts.end(provider, claims, caller)
                except StoreUnavailable:
                    if self._deferring is None:
                        raise
                    await self._promise_logout(self._deferring, provider, claims)
                    self._tell(provider, "sso.logout", "degraded", caller, reason="deferred")
                    return 0
        except SSORefused as refused:
            self._tell(provider, "sso.logout", "refused", caller, reason=refused.reason)
            raise
        self._tell(provider, "sso.logout", "success", caller, sessions=ended)
        return ended

    async def _promise_logout(self, deferring: DeferredRunner, provider: Provider, claims: Mapping[str, Any]) -> None:
        """Promise to end what a verified logout token names; a token that comes again is the same promise."""
        key = hash_of(f"{provider.id}\0{provider.issuer}\0{claims['jti']}").hex()
        said = {name: claims[name] for name in ("sub", "sid") if claims.get(name)}
        body = {"provider": provider.id, "issuer": provider.issuer, "claims": said, "at_s": self._clock.wall_s()}
        await deferring.put(LOGOUT_JOB, f"{LOGOUT_JOB}:{key}", body)

    async def _end_later(self, job: Job) -> None:
        provider = self.providers.get(str(job.body["provider"]))
        if provider is None or provider.issuer != job.body["issuer"]:
            return  # it is trusted no more
        began_s = float(job.body["at_s"])
        ended = await self._logouts.end(provider, job.body["claims"], NOBODY, before_s=began_s)
        self._tell(provider, "sso.logout", "success", NOBODY, sessions=ended, deferred="yes")

    # -- both ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _step(self, provider: Provider) -> AsyncIterator[None]:
        """Hold one step in its pool and in its time: what there is no place or time for is not available."""
        try:
            async with self._resilience.serving("external_idp", limit_s=provider.config.timeout_s):
                yield
        except (BulkheadFullError, OverloadedError, ResourceExhaustedError) as error:
            raise SSOUnavailable("too many log-ins wait for it", retry_after_s=error.retry_after_s) from error
        except DeadlineExceededError as error:
            raise SSOUnavailable(f"`{provider.issuer}` did not answer in time") from error

    def _tell(
        self,
        provider: Provider,
        action: str,
        outcome: Any,
        caller: Caller,
        *,
        user: User | None = None,
        reason: str = "",
        **details: str | int,
    ) -> None:
        known = "" if user is None else user.id
        self._trail.tell(
            action,
            outcome,
            caller=caller,
            tenant=provider.config.tenant,
            actor=known,
            target=known,
            reason=reason,
            provider=provider.id,
            **details,
        )


def _age_s_max(provider: Provider, start: SSOStart) -> int | None:
    """Return how old the proof there may be when it is asked for; None: as old as the provider likes."""
    if start.reauthenticate:
        return 0
    asked = [each for each in (provider.config.auth_age_max_s or None, start.auth_age_max_s) if each is not None]
    return min(asked, default=None)


def _methods(provider: Provider, claims: Mapping[str, Any]) -> tuple[str, ...]:
    said = claims.get("amr")
    is_several = provider.config.trust_mfa and isinstance(said, list) and "mfa" in said
    return (FEDERATED, "mfa") if is_several else (FEDERATED,)


def _attributes(provider: Provider, claims: Mapping[str, Any]) -> dict[str, str]:
    sid = claims.get("sid")
    known = {PROVIDER: provider.id}
    return {**known, PROVIDER_SESSION: short_of(sid)} if isinstance(sid, str) and sid else known
