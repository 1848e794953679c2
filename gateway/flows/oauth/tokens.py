"""The token endpoint: a code, a refresh token or a client's own credentials, for tokens (RFC 6749 §4.1.3, §4.4, §6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.flows.oauth.approval import code_key
from gateway.flows.oauth.authorization import Parameters, verifies
from gateway.flows.oauth.client_auth import ClientAuthentication, ClientProof
from gateway.flows.oauth.context import Authenticator, Profiles
from gateway.flows.oauth.dpop import DPoPChecker
from gateway.flows.oauth.endings import Endings
from gateway.flows.oauth.errors import OAuthRefused
from gateway.flows.oauth.families import Families, RefreshRefused, family_id_of
from gateway.flows.oauth.grants import Approval, CodeGrant, Family, Grants
from gateway.flows.oauth.minting import AccessToken, Mint
from gateway.flows.oauth.parties import GRANT_TYPES, Client, Parties, take_resources, take_scopes
from gateway.flows.trail import NOBODY, AuditTrail, Caller, Outcome
from gateway.types import Clock, Subject

_USER_SCOPES: Final = frozenset({"openid", "offline_access"})  # of no meaning where no user takes part


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A request for tokens, as it came."""

    form: Parameters
    proof: ClientProof
    dpop: Sequence[str] = ()  # all values of the header
    method: str = "POST"
    url: str = ""  # by which clients know this endpoint
    caller: Caller = NOBODY


NoteParty = Callable[[Subject, bytes, Client], Awaitable[None]]


class TokenEndpoint:
    """Give tokens."""

    def __init__(
        self,
        *,
        clients: ClientAuthentication,
        parties: Parties,
        grants: Grants,
        families: Families,
        endings: Endings,
        mint: Mint,
        dpop: DPoPChecker,
        authenticator: Authenticator,
        profiles: Profiles,
        trail: AuditTrail,
        clock: Clock,
        note: NoteParty | None = None,
    ) -> None:
        """`note` is told which client learns of which session."""
        self._note = note
        self._clients = clients
        self._parties = parties
        self._grants = grants
        self._families = families
        self._endings = endings
        self._mint = mint
        self._dpop = dpop
        self._authenticator = authenticator
        self._profiles = profiles
        self._trail = trail
        self._clock = clock

    async def give(self, request: TokenRequest) -> dict[str, Any]:
        """Return the members of a token response (RFC 6749 §5.1). Raises OAuthRefused."""
        form = fields_of(request.form)
        try:
            client = await self._clients.identify(request.proof)
        except OAuthRefused as refused:
            self._trail.tell(
                "oauth.client", "failure", caller=request.caller, target=_claimed(request.proof), reason=refused.reason
            )
            raise
        try:
            return await self._give(form, client, request)
        except OAuthRefused as refused:
            if refused.error != "use_dpop_nonce":
                self._tell("oauth.token", "refused", client, request.caller, reason=refused.reason)
            raise

    async def _give(self, form: Mapping[str, str], client: Client, request: TokenRequest) -> dict[str, Any]:
        kind = form.get("grant_type", "")
        if not kind:
            raise OAuthRefused("invalid_request", "grant_type is missing")
        if kind not in GRANT_TYPES:
            raise OAuthRefused("unsupported_grant_type", "this grant_type is not supported")
        if kind not in client.grant_types:
            raise OAuthRefused("unauthorized_client", "the client may not use this grant_type")
        # Whatever can be used once is looked at after this: a proof that lacks a nonce is sent again.
        jkt = ""
        if request.dpop:
            jkt = await self._dpop.check(request.dpop, request.method, request.url)
        elif client.needs_dpop:
            raise OAuthRefused("invalid_dpop_proof", "the client must prove possession of a key", reason="dpop_missing")
        resources = tuple(value for name, value in request.form if name == "resource" and value)
        if kind == "authorization_code":
            return await self._by_code(form, resources, client, jkt, request.caller)
        if kind == "refresh_token":
            return await self._by_refresh_token(form, resources, client, jkt, request.caller)
        return self._by_credentials(form, resources, client, jkt, request.caller)

    # -- a code -------------------------------------------------------------------------------------------------------

    async def _by_code(
        self, form: Mapping[str, str], resources: tuple[str, ...], client: Client, jkt: str, caller: Caller
    ) -> dict[str, Any]:
        code = form.get("code", "")
        if not code:
            raise OAuthRefused("invalid_request", "code is missing")
        key = code_key(code)
        # It is used up by whatever is done with it: nobody tries a second verifier (RFC 6749 §4.1.2).
        grant = await self._grants.take_code(key)
        if grant is None:
            raise _invalid_grant("code_unknown")
        if grant == "spent":
            raise await self._replayed(code, client, caller)
        fault = _fault_of(grant, form, client, jkt)
        if fault:
            raise _invalid_grant(fault)
        approval = grant.approval
        narrowed = _narrowed(take_resources(resources, client, self._parties), approval)
        profile = await self._profile_of(approval)
        if profile is None or not await self._authenticator.is_live(approval.subject, approval.session):
            raise _invalid_grant("user_inactive" if profile is None else "session_over")
        family_id = family_id_of(code)
        members = self._members(approval, client, family_id, narrowed, jkt)
        if "refresh_token" in client.grant_types and not approval.requires_reauth:
            refresh_token = await self._families.begin(
                family_id,
                approval,
                code_key=key,
                idle_s=client.refresh_idle_s,
                max_s=client.refresh_max_s,
                offline="offline_access" in approval.scopes,
                # RFC 9449 §5: of a confidential client the credentials bind the token already.
                dpop_jkt=jkt if client.is_public else "",
            )
            if refresh_token is None:
                raise _invalid_grant("code_replayed")  # by who came in between
            members["refresh_token"] = refresh_token
        if "openid" in approval.scopes:
            if self._note is not None:
                await self._note(approval.subject, approval.session, client)
            members["id_token"] = self._mint.id_token(
                approval, client, members["access_token"], profile, nonce=grant.nonce
            )
        self._tell("oauth.token", "success", client, caller, approval, grant="authorization_code", family=family_id)
        return members

    async def _replayed(self, code: str, client: Client, caller: Caller) -> OAuthRefused:
        """End what the code gave (RFC 6749 §4.1.2), also what it is giving at this moment."""
        family_id = family_id_of(code)
        await self._endings.end_code(code_key(code), family_id)
        self._tell("oauth.code.replayed", "refused", client, caller, reason="code_replayed", family=family_id)
        return _invalid_grant("code_replayed")

    # -- a refresh token ----------------------------------------------------------------------------------------------

    async def _by_refresh_token(
        self, form: Mapping[str, str], resources: tuple[str, ...], client: Client, jkt: str, caller: Caller
    ) -> dict[str, Any]:
        token = form.get("refresh_token", "")
        if not token:
            raise OAuthRefused("invalid_request", "refresh_token is missing")
        try:
            family, _ = await self._families.read(token)
            # Everything that does not depend on whose turn it is comes before the token is used up.
            if family.approval.client_id == client.id:
                approval, narrowed = self._asked_for(form, resources, family, client, jkt)
                profile = await self._profile_of(family.approval)
                await self._check_user(family, profile, client, caller)
            rotated = await self._families.rotate(token, client.id)
        except RefreshRefused as refused:
            raise await self._refresh_refused(refused, client, caller) from None
        members = self._members(approval, client, family.id, narrowed, jkt)
        members["refresh_token"] = rotated.token
        if "openid" in approval.scopes and profile is not None:
            # OIDC Core §12.2: the same `iss`, `sub`, `aud` and `auth_time`, and no `nonce`.
            members["id_token"] = self._mint.id_token(approval, client, members["access_token"], profile)
        self._tell(
            "oauth.token",
            "success",
            client,
            caller,
            approval,
            grant="refresh_token",
            family=family.id,
            repeated=rotated.repeated,
        )
        return members

    def _asked_for(
        self, form: Mapping[str, str], resources: tuple[str, ...], family: Family, client: Client, jkt: str
    ) -> tuple[Approval, tuple[str, ...]]:
        """Return what the tokens are for: all that was approved, or a part of it (RFC 6749 §6, RFC 8707 §2.2)."""
        if family.dpop_jkt and family.dpop_jkt != jkt:
            raise OAuthRefused("invalid_dpop_proof", "the refresh token is bound to another key", reason="dpop_key")
        approval = family.approval
        scope = form.get("scope", "")
        if scope:
            asked = take_scopes(scope, client)
            if not set(approval.scopes).issuperset(asked):
                raise OAuthRefused("invalid_scope", "the scope is more than was granted")
            approval = replace(approval, scopes=asked)
        return approval, _narrowed(take_resources(resources, client, self._parties), approval)

    async def _check_user(
        self, family: Family, profile: Mapping[str, object] | None, client: Client, caller: Caller
    ) -> None:
        """Let a family end with its user, and with its session. Raises OAuthRefused."""
        if profile is not None and (
            family.offline or await self._authenticator.is_live(family.approval.subject, family.approval.session)
        ):
            return
        reason = "user_inactive" if profile is None else "session_over"
        await self._endings.end_family(family.id)
        self._tell("oauth.family.ended", "refused", client, caller, family.approval, reason=reason, family=family.id)
        raise _invalid_grant(reason)

    async def _refresh_refused(self, refused: RefreshRefused, client: Client, caller: Caller) -> OAuthRefused:
        """Answer a refresh token that gives nothing; one that was stolen ends family, tokens and session."""
        family = refused.family
        if family is not None and refused.reason in ("refresh_reused", "refresh_client"):
            await self._endings.end_family(family.id)
            if family.approval.session and not family.offline:
                await self._authenticator.end(family.approval.subject, family.approval.session)
                await self._endings.end_session(family.approval.subject, family.approval.session)
            self._tell(
                "oauth.refresh.reused",
                "refused",
                client,
                caller,
                family.approval,
                reason=refused.reason,
                family=family.id,
            )
        return _invalid_grant(refused.reason)

    # -- the client itself --------------------------------------------------------------------------------------------

    def _by_credentials(
        self, form: Mapping[str, str], resources: tuple[str, ...], client: Client, jkt: str, caller: Caller
    ) -> dict[str, Any]:
        if client.is_public:
            # RFC 6749 §4.4: "MUST only be used by confidential clients."
            raise OAuthRefused("unauthorized_client", "a public client has no credentials")
        scopes = tuple(scope for scope in take_scopes(form.get("scope", ""), client) if scope not in _USER_SCOPES)
        approval = Approval(
            client_id=client.id,
            subject=Subject(client.tenant, client.id, "client"),  # RFC 9068 §2.2: `sub` is the client
            scopes=scopes,
            resources=take_resources(resources, client, self._parties),
        )
        members = self._members(approval, client, "", (), jkt)
        self._tell("oauth.token", "success", client, caller, approval, grant="client_credentials")
        return members

    # -- what all share -----------------------------------------------------------------------------------------------

    def _members(
        self, approval: Approval, client: Client, family_id: str, resources: tuple[str, ...], jkt: str
    ) -> dict[str, Any]:
        token: AccessToken = self._mint.access_token(
            approval, client, family_id=family_id, resources=resources, jkt=jkt
        )
        members: dict[str, Any] = {
            "access_token": token.text,
            "token_type": token.type,
            "expires_in": token.lifetime_s,
        }
        if approval.scopes:
            members["scope"] = " ".join(approval.scopes)
        return members

    async def _profile_of(self, approval: Approval) -> Mapping[str, object] | None:
        return await self._profiles.claims_of(approval.subject, approval.scopes)

    def _tell(
        self,
        action: str,
        outcome: Outcome,
        client: Client,
        caller: Caller,
        approval: Approval | None = None,
        *,
        reason: str = "",
        **details: str | int | bool,
    ) -> None:
        self._trail.tell(
            action,
            outcome,
            caller=caller,
            tenant=client.tenant if approval is None else approval.subject.tenant,
            actor=client.id,
            target="" if approval is None else approval.subject.id,
            reason=reason,
            **details,
        )


def fields_of(form: Parameters) -> dict[str, str]:
    """Return the fields of a form, each of which stands there once (RFC 6749 §3.2), but `resource`."""
    counts = Counter(name for name, _ in form)
    if any(count > 1 for name, count in counts.items() if name != "resource"):
        raise OAuthRefused("invalid_request", "a field stands there more than once", reason="repeated")
    return {name: value for name, value in form if name != "resource"}


def _fault_of(grant: CodeGrant, form: Mapping[str, str], client: Client, jkt: str) -> str:
    """Say why a code may not be redeemed by this request, "" where it may."""
    redirect_uri = form.get("redirect_uri", "" if grant.redirect_given else grant.redirect_uri)
    if grant.approval.client_id != client.id:
        return "code_client"
    if redirect_uri != grant.redirect_uri:
        return "code_redirect"
    if not verifies(grant.challenge, form.get("code_verifier", "")):
        return "code_verifier"
    if grant.dpop_jkt and grant.dpop_jkt != jkt:
        return "code_dpop"
    return ""


def _narrowed(asked: tuple[str, ...], approval: Approval) -> tuple[str, ...]:
    """RFC 8707 §2.2: a part of what was approved. Raises OAuthRefused."""
    if not set(approval.resources).issuperset(asked):
        raise OAuthRefused("invalid_target", "the resource is not among those that were approved")
    return asked


def _invalid_grant(reason: str) -> OAuthRefused:
    """Refuse a code or refresh token; a client is not told why (RFC 6749 §5.2)."""
    return OAuthRefused(
        "invalid_grant", "the code or refresh token does not hold, or not for this client", reason=reason
    )


def _claimed(proof: ClientProof) -> str:
    """Return the id that a client gives itself, for audit; short, whatever was sent."""
    return (proof.basic[0] if proof.basic is not None else proof.id or "").encode()[:128].decode("utf-8", "replace")
