"""From an authorization request to a code: who is logged in, whether that is enough, and whether the user agrees.

    request ──▶ session? ──no──▶ login, and back here
                   │ yes
                   ▼
        strong and fresh enough? ──no──▶ login, and back here with a mark of when it was asked for
                   │ yes
                   ▼
             consent there? ──no──▶ page ──allow──▶ code
                   │ yes                 └─deny──▶ access_denied
                   ▼
                  code

The mark that travels through a login is made with a key of ours: it says that a credential was to be verified after a
time, so that the login is not asked for again and again, and cannot be left out by who edits the address.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from gateway.flows.oauth.authorization import (
    REQUEST_URI_PREFIX,
    AuthorizationRequest,
    AuthorizationRequests,
    Parameters,
)
from gateway.flows.oauth.context import Authenticator, LoginWish
from gateway.flows.oauth.errors import OAuthRefused, RequestUnsafe
from gateway.flows.oauth.grants import Approval, CodeGrant, Consent, Grants
from gateway.flows.oauth.marks import Marks
from gateway.flows.oauth.minting import Mint
from gateway.flows.oauth.parties import Client, Parties, Resource
from gateway.flows.sessions import origin_of
from gateway.flows.trail import AuditTrail, Caller, Outcome
from gateway.types import Clock, Session

CODE_PREFIX: Final = "pcc_"  # lets scanners of leaked secrets know what they found
MARK: Final = "asked"  # name of the mark in the query
MARK_S: Final = 3600  # a login that takes longer is asked for again
_LOGIN_PROMPTS: Final = frozenset({"login", "select_account"})


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the browser there."""

    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskConsent:
    """Show the page on which the user agrees or does not; its form brings `request` and `csrf` back."""

    client: Client
    scopes: tuple[str, ...]
    resources: tuple[Resource, ...]
    redirect_uri: str
    request: str  # the parameters, as a query
    csrf: str


class Approvals:
    """Answer authorization requests."""

    def __init__(
        self,
        requests: AuthorizationRequests,
        *,
        parties: Parties,
        mint: Mint,
        grants: Grants,
        authenticator: Authenticator,
        trail: AuditTrail,
        clock: Clock,
        marks: Marks,
        path: str,
        code_s: int,
    ) -> None:
        """`path`: where the browser comes back to after a login."""
        self._requests = requests
        self._parties = parties
        self._mint = mint
        self._grants = grants
        self._authenticator = authenticator
        self._trail = trail
        self._clock = clock
        self._marks = marks
        self._path = path
        self._code_s = code_s

    async def authorize(
        self, parameters: Parameters, cookies: Mapping[str, str], caller: Caller
    ) -> Redirect | AskConsent:
        """Answer a request that a browser brings. Raises RequestUnsafe for what only a page may tell."""
        mark = next((value for name, value in parameters if name == MARK), "")
        brought = tuple((name, value) for name, value in parameters if name != MARK)
        whole, pushed = await self._resolve(brought)
        try:
            request = await self._requests.read(whole, pushed=pushed)
            session = await self._authenticator.current(cookies)
            wish = self._login_wish(request, brought, session, mark)
            if wish is not None or session is None:
                assert wish is not None  # nobody is logged in without a wish for it
                return Redirect(self._authenticator.login_url(wish))
            if not await self._agreed(request, session):
                return self._ask_consent(request, brought, session)
            return await self._grant(request, session, caller)
        except OAuthRefused as refused:
            return await self._refuse(whole, refused, caller)

    async def decide(
        self, parameters: Parameters, csrf: str, *, allowed: bool, cookies: Mapping[str, str], caller: Caller
    ) -> Redirect:
        """Take what the user said on the page of `AskConsent`. Raises RequestUnsafe."""
        session = await self._authenticator.current(cookies)
        if session is None or not self._marks.accepts_form(csrf, b"consent", session, _query(parameters)):
            raise RequestUnsafe("this page is out of date; go back to the application", reason="csrf")
        whole, pushed = await self._resolve(parameters)
        try:
            request = await self._requests.read(whole, pushed=pushed)
            if not allowed:
                raise OAuthRefused("access_denied", "the user did not agree", reason="consent_denied")
            known = await self._grants.find_consent(session.subject, request.client.id)
            await self._grants.keep_consent(session.subject, request.client.id, _joined(known, request))
            self._tell("oauth.consent", "success", request, session, caller)
            return await self._grant(request, session, caller)
        except OAuthRefused as refused:
            return await self._refuse(whole, refused, caller)

    # -- requests that were pushed ------------------------------------------------------------------------------------

    async def push(self, parameters: Parameters, client: Client, lifetime_s: int, *, dpop_jkt: str = "") -> str:
        """Keep a request of a client that proved itself; return its `request_uri` (RFC 9126). Raises OAuthRefused."""
        if any(name == "request_uri" for name, _ in parameters):
            raise OAuthRefused("invalid_request", "request_uri cannot be pushed", reason="par_nested")
        kept = [(name, value) for name, value in parameters if not name.startswith("client_") or name == "client_id"]
        if not any(name == "client_id" for name, _ in kept):
            kept.append(("client_id", client.id))
        if dpop_jkt:
            # RFC 9449 §10.1: a proof beside a pushed request binds the code as dpop_jkt does.
            if any(name == "dpop_jkt" and value != dpop_jkt for name, value in kept):
                raise OAuthRefused("invalid_dpop_proof", "dpop_jkt is not the key of the proof", reason="dpop_key")
            kept = [*((name, value) for name, value in kept if name != "dpop_jkt"), ("dpop_jkt", dpop_jkt)]
        try:
            request = await self._requests.read(kept, pushed=b"pushed now")
        except RequestUnsafe as unsafe:
            raise OAuthRefused("invalid_request", str(unsafe), reason=unsafe.reason) from None
        if request.client.id != client.id:
            raise OAuthRefused("invalid_request", "client_id names another client", reason="client_id_twice")
        handle = secrets.token_urlsafe(32)
        await self._grants.keep_request(_hash(handle), kept, lifetime_s)
        return REQUEST_URI_PREFIX + handle

    async def _resolve(self, parameters: Parameters) -> tuple[Parameters, bytes]:
        """Return the request that these parameters stand for, and its key where it was pushed."""
        uris = [value for name, value in parameters if name == "request_uri"]
        if not uris:
            return parameters, b""
        if len(uris) != 1 or not uris[0].startswith(REQUEST_URI_PREFIX):
            raise RequestUnsafe("request_uri is none of ours", reason="request_uri")
        key = _hash(uris[0].removeprefix(REQUEST_URI_PREFIX))
        kept = await self._grants.find_request(key)
        if kept is None:
            raise RequestUnsafe("the request is too old, or was answered; start again", reason="request_uri_over")
        # RFC 9126 §4: the client is named twice, and it is the same. Everything else beside it is not looked at.
        if [value for name, value in parameters if name == "client_id"] != [dict(kept)["client_id"]]:
            raise RequestUnsafe("the request was pushed by another application", reason="request_uri_client")
        return kept, key

    # -- what is asked of the login -----------------------------------------------------------------------------------

    def _login_wish(
        self, request: AuthorizationRequest, brought: Parameters, session: Session | None, mark: str
    ) -> LoginWish | None:
        """Return what a login has to give first, None where the session is enough. Raises OAuthRefused."""
        asked_s = self._marks.stamped_s(mark, b"mark", _query(brought), age_s_max=MARK_S)
        done = session is not None and asked_s is not None and session.authenticated_s >= asked_s
        if session is None or session.subject.kind != "user":
            lack = "login_required"
        elif request.client.tenant and session.subject.tenant != request.client.tenant:
            if done:
                raise OAuthRefused("access_denied", "the user may not use this application", reason="tenant")
            lack = "login_required"
        elif request.id_token_hint and not self._is_hinted(request, session):
            if done:
                raise OAuthRefused("login_required", "somebody else is logged in", reason="id_token_hint")
            lack = "login_required"
        elif not done and (request.prompts & _LOGIN_PROMPTS or self._is_too_old(request, session)):
            lack = "login_required"
        elif request.acr_values and not self._authenticator.meets(session, request.acr_values):
            if done:
                raise OAuthRefused(
                    "unmet_authentication_requirements", "the login was not as strong as was asked for", reason="acr"
                )
            lack = "unmet_authentication_requirements"
        else:
            return None
        if "none" in request.prompts:
            if lack == "login_required":
                raise OAuthRefused("login_required", "nobody is logged in, or not lately enough")
            raise OAuthRefused("unmet_authentication_requirements", "the login is not as strong as was asked for")
        marked = (*brought, (MARK, self._marks.stamp(b"mark", _query(brought))))
        return LoginWish(
            return_to=f"{self._path}?{urlencode(marked)}",
            reauthenticate=session is not None and lack == "login_required",
            acr_values=request.acr_values,
            login_hint=request.login_hint,
            ui_locales=request.ui_locales,
            tenant=request.client.tenant,
        )

    def _is_hinted(self, request: AuthorizationRequest, session: Session) -> bool:
        """Tell whether the user of `id_token_hint` is logged in. What is no id token of ours hints at nobody."""
        hint = self._mint.read_hint(request.id_token_hint)
        return hint is None or hint.client_id != request.client.id or hint.subject == session.subject.id

    def _is_too_old(self, request: AuthorizationRequest, session: Session) -> bool:
        return request.max_age_s is not None and self._clock.wall_s() - session.authenticated_s > request.max_age_s

    # -- consent ------------------------------------------------------------------------------------------------------

    async def _agreed(self, request: AuthorizationRequest, session: Session) -> bool:
        """Tell whether the user has agreed to all of this before, or need not be asked. Raises OAuthRefused."""
        if "consent" not in request.prompts:
            if not request.client.ask_consent:
                return True
            known = await self._grants.find_consent(session.subject, request.client.id)
            if known.scopes.issuperset(request.scopes) and known.resources.issuperset(request.resources):
                return True
        if "none" in request.prompts:
            raise OAuthRefused("consent_required", "the user has to agree first")
        return False

    def _ask_consent(self, request: AuthorizationRequest, brought: Parameters, session: Session) -> AskConsent:
        return AskConsent(
            client=request.client,
            scopes=request.scopes,
            resources=tuple(self._parties.resources[each] for each in request.resources),
            redirect_uri=request.redirect_uri,
            request=_query(brought),
            csrf=self._marks.form(b"consent", session, _query(brought)),
        )

    # -- the answer ---------------------------------------------------------------------------------------------------

    async def _grant(self, request: AuthorizationRequest, session: Session, caller: Caller) -> Redirect:
        if not await self._authenticator.join(session, request.client.id):
            raise OAuthRefused("login_required", "the session ended meanwhile", reason="session_over")
        if request.pushed and not await self._grants.take_request(request.pushed):
            raise OAuthRefused("invalid_request", "the pushed request was answered already", reason="request_uri_over")
        approval = Approval(
            client_id=request.client.id,
            subject=session.subject,
            scopes=request.scopes,
            resources=request.resources,
            session=origin_of(session),
            auth_time_s=session.authenticated_s,
            acr=session.acr,
            amr=session.amr,
            requires_reauth=session.requires_reauth or session.provisional,
            provisional=session.provisional,
        )
        grant = CodeGrant(
            approval=approval,
            redirect_uri=request.redirect_uri,
            redirect_given=request.redirect_given,
            challenge=request.challenge,
            nonce=request.nonce,
            dpop_jkt=request.dpop_jkt,
        )
        code = CODE_PREFIX + secrets.token_urlsafe(32)
        await self._grants.keep_code(_hash(code), grant, self._code_s)
        self._tell("oauth.authorize", "success", request, session, caller)
        return Redirect(self._requests.answer(request.redirect_uri, request.state, code=code))

    async def _refuse(self, parameters: Parameters, refused: OAuthRefused, caller: Caller) -> Redirect:
        """Tell the client, if it is one. Raises RequestUnsafe where nobody may be told."""
        client, redirect_uri, _ = await self._requests.target(parameters)
        states = [value for name, value in parameters if name == "state"]
        self._trail.tell(
            "oauth.authorize", "refused", caller=caller, tenant=client.tenant, target=client.id, reason=refused.reason
        )
        return Redirect(self._requests.refusal(redirect_uri, states[0] if len(states) == 1 else None, refused))

    def _tell(
        self, action: str, outcome: Outcome, request: AuthorizationRequest, session: Session, caller: Caller
    ) -> None:
        self._trail.tell(
            action,
            outcome,
            caller=caller,
            tenant=session.subject.tenant,
            actor=session.subject.id,
            target=request.client.id,
            scope=" ".join(request.scopes)[:1000],
        )


def code_key(code: str) -> bytes:
    """Return the key under which a code is kept."""
    return _hash(code)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _query(parameters: Parameters) -> str:
    return urlencode(list(parameters))


def _joined(known: Consent, request: AuthorizationRequest) -> Consent:
    """Return what is allowed from now on: what was before, and this. Of nothing known, nothing else is."""
    return replace(known, scopes=known.scopes.union(request.scopes), resources=known.resources.union(request.resources))
