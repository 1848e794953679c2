"""Passkeys: WebAuthn credentials that a user registers, logs in with, or gives as a second factor.

Two steps each: `offer_…` gives what the browser asks the authenticator for, with a challenge that is good once and for
one browser; its counterpart takes the answer. Whatever is wrong with an answer, who sent it learns the same word; the
audit trail has the reason.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import base64url_to_bytes, options_to_json_dict
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from gateway.errors import AlreadyExists, GatewayError
from gateway.flows.sessions import origin_of
from gateway.flows.trail import NOBODY, AuditTrail, Caller
from gateway.stores.directory import Directory, Passkey, User
from gateway.stores.grants import Grant, TokenStore
from gateway.types import Clock, Session, Subject

CHALLENGE_BYTES: Final = 32
NAME_CHARACTERS_MAX: Final = 64
TRANSPORTS: Final = frozenset({"ble", "cable", "hybrid", "internal", "nfc", "smart-card", "usb"})

Purpose = Literal["register", "login", "second"]
Verification = Literal["required", "preferred", "discouraged"]
Answer = Mapping[str, Any]


class PasskeyRefused(GatewayError):
    """An answer that proves nothing. `reason` is for the audit trail; the message is the same for all of them."""

    code = "passkey_refused"
    status = 400

    def __init__(self, reason: str, message: str = "this passkey was not accepted") -> None:
        super().__init__(message)
        self.reason = reason


class ProofTooOld(GatewayError):
    """What is asked for needs a credential that was verified a moment ago."""

    code = "reauthentication_required"
    status = 403


@dataclass(frozen=True, slots=True)
class PasskeyParty:
    """Who asks for passkeys. `id`: the domain they are bound to; `origins`: the only ones whose pages may use them."""

    id: str
    name: str
    origins: tuple[str, ...]
    verification: Verification = "required"  # of the user by the authenticator, when logging in with nothing else
    challenge_s: int = 300
    fresh_s: int = 900  # how long ago a credential was verified, at most, to add or remove one
    count_max: int = 20  # of one user


@dataclass(frozen=True, slots=True)
class PasskeyLogin:
    """Who has just proved to hold a passkey. `methods`: how, by the names of RFC 8176."""

    user: User
    passkey: Passkey
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Ceremony:
    """What a challenge is for. `bound`: the hash of whose it is alone; `user`: who has to answer, None for anybody."""

    purpose: Purpose
    tenant: str
    bound: bytes
    user: User | None = None

    @property
    def subject(self) -> Subject | None:
        return None if self.user is None else Subject(self.user.tenant, self.user.id)


class Passkeys:
    """The ceremonies, and what users do with their passkeys. Raises StoreUnavailable where a store cannot be asked."""

    def __init__(
        self, party: PasskeyParty, *, directory: Directory, grants: TokenStore, clock: Clock, trail: AuditTrail
    ) -> None:
        self.party = party
        self._directory = directory
        self._grants = grants
        self._clock = clock
        self._trail = trail

    # -- registration -------------------------------------------------------------------------------------------------

    async def offer_registration(self, user: User, session: Session) -> dict[str, Any]:
        """Return PublicKeyCredentialCreationOptions as JSON. Raises ProofTooOld, and PasskeyRefused for too many."""
        self._must_be_fresh(session)
        known = await self._directory.passkeys_of(user.id)
        if len(known) >= self.party.count_max:
            raise PasskeyRefused("too_many", f"there are {len(known)} passkeys already: remove one first")
        challenge = await self._challenge(_registration(user, session))
        options = generate_registration_options(
            rp_id=self.party.id,
            rp_name=self.party.name,
            user_name=user.user_name,
            user_id=user.id.encode(),
            user_display_name=_shown_name(user),
            challenge=challenge,
            timeout=self.party.challenge_s * 1000,
            exclude_credentials=[PublicKeyCredentialDescriptor(id=each.credential_id) for each in known],
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement(self.party.verification),
            ),
        )
        return {**options_to_json_dict(options), "extensions": {"credProps": True}}

    async def register(
        self, user: User, session: Session, answer: Answer, name: str = "", *, caller: Caller = NOBODY
    ) -> Passkey:
        """Keep the passkey that the authenticator made. Raises ProofTooOld, PasskeyRefused."""
        try:
            self._must_be_fresh(session)
            challenge = await self._take(answer, _registration(user, session))
            passkey = self._verified_new(user, answer, challenge, name)
            try:
                await self._directory.add_passkey(passkey)
            except (AlreadyExists, ValueError):  # somebody's already, or there is no room for more
                raise PasskeyRefused("credential_known") from None
        except PasskeyRefused as refused:
            self._tell("passkey.register", "refused", user, caller, reason=refused.reason)
            raise
        self._tell("passkey.register", "success", user, caller, credential=_shown(passkey), aaguid=passkey.aaguid)
        return passkey

    def _verified_new(self, user: User, answer: Answer, challenge: bytes, name: str) -> Passkey:
        try:
            verified = verify_registration_response(
                credential=dict(answer),
                expected_challenge=challenge,
                expected_rp_id=self.party.id,
                expected_origin=list(self.party.origins),
                require_user_verification=self.party.verification == "required",
            )
        except Exception as error:  # the library's own tree leaks others: of CBOR, of curves, of missing members
            raise PasskeyRefused("registration_invalid") from error
        return Passkey(
            credential_id=verified.credential_id,
            user_id=user.id,
            public_key=verified.credential_public_key,
            sign_count=verified.sign_count,
            name=clean_name(name) or "Passkey",
            transports=_transports(answer),
            aaguid=verified.aaguid,
            discoverable=True,
            backed_up=verified.credential_backed_up,
            created_s=self._clock.wall_s(),
        )

    # -- logging in ---------------------------------------------------------------------------------------------------

    async def offer_login(self, tenant: str, browser: str) -> dict[str, Any]:
        """Return PublicKeyCredentialRequestOptions as JSON, for whoever holds a passkey; nobody has to be named.

        `browser` is what the browser is known by before it is logged in: another one cannot use the challenge.
        """
        challenge = await self._challenge(_Ceremony("login", tenant, _hash(browser.encode())))
        return self._request(challenge, self.party.verification)

    async def log_in(self, tenant: str, browser: str, answer: Answer, *, caller: Caller = NOBODY) -> PasskeyLogin:
        """Return who proved to hold a passkey of theirs. Raises PasskeyRefused."""
        return await self._authenticated(_Ceremony("login", tenant, _hash(browser.encode())), answer, caller)

    async def offer_second(self, user: User, login: bytes) -> dict[str, Any] | None:
        """Return the same for a user whose first factor was verified; None where there is no passkey.

        `login` is what this login, which is under way, is known by.
        """
        known = await self._directory.passkeys_of(user.id)
        if not known:
            return None
        challenge = await self._challenge(_Ceremony("second", user.tenant, _hash(login), user))
        return self._request(challenge, "discouraged", known)

    async def verify_second(self, user: User, login: bytes, answer: Answer, *, caller: Caller = NOBODY) -> PasskeyLogin:
        """Return what the user proved beside the first factor. Raises PasskeyRefused."""
        return await self._authenticated(_Ceremony("second", user.tenant, _hash(login), user), answer, caller)

    def _request(self, challenge: bytes, verification: Verification, allowed: Sequence[Passkey] = ()) -> dict[str, Any]:
        options = generate_authentication_options(
            rp_id=self.party.id,
            challenge=challenge,
            timeout=self.party.challenge_s * 1000,
            allow_credentials=[PublicKeyCredentialDescriptor(id=each.credential_id) for each in allowed],
            user_verification=UserVerificationRequirement(verification),
        )
        return options_to_json_dict(options)

    async def _authenticated(self, ceremony: _Ceremony, answer: Answer, caller: Caller) -> PasskeyLogin:
        user, tenant = ceremony.user, ceremony.tenant
        held: Passkey | None = None
        try:
            challenge = await self._take(answer, ceremony)
            held = await self._held(answer, user)
            owner = user or await self._directory.get_user(tenant, held.user_id)
            if owner is None:
                raise PasskeyRefused("user_unknown")
            is_verified = await self._verify(held, owner, answer, challenge, ceremony.purpose)
        except PasskeyRefused as refused:
            known = user.id if user is not None else "" if held is None else held.user_id
            self._trail.tell(
                "login.passkey", "refused", caller=caller, tenant=tenant, actor=known, reason=refused.reason
            )
            raise
        self._tell("passkey.use", "success", owner, caller, credential=_shown(held), verified=is_verified)
        # RFC 8176: "pop" a key was used, "user" somebody was there; a PIN or a finger beside it is a second factor.
        return PasskeyLogin(owner, held, ("pop", "user", "mfa") if is_verified else ("pop", "user"))

    async def _held(self, answer: Answer, user: User | None) -> Passkey:
        """Return the passkey that an answer names, if the answer also names its owner."""
        response = _response(answer)
        handle = response.get("userHandle")
        held = await self._directory.get_passkey(_bytes(answer.get("rawId")))
        if held is None:
            raise PasskeyRefused("credential_unknown")
        if user is not None and held.user_id != user.id:
            raise PasskeyRefused("credential_foreign")
        # WebAuthn §7.2 step 6: who was not named before is named by the handle alone, and it has to be there.
        if (handle is not None or user is None) and not hmac.compare_digest(_bytes(handle), held.user_id.encode()):
            raise PasskeyRefused("user_handle")
        return held

    async def _verify(self, held: Passkey, owner: User, answer: Answer, challenge: bytes, purpose: Purpose) -> bool:
        """Say whether the authenticator verified the user. Raises PasskeyRefused."""
        try:
            verified = verify_authentication_response(
                credential=dict(answer),
                expected_challenge=challenge,
                expected_rp_id=self.party.id,
                expected_origin=list(self.party.origins),
                credential_public_key=held.public_key,
                credential_current_sign_count=0,  # the directory compares it below, for all gateways at once
                require_user_verification=purpose == "login" and self.party.verification == "required",
            )
        except Exception as error:  # see _verified_new
            raise PasskeyRefused("assertion_invalid") from error
        if not owner.active:
            raise PasskeyRefused("user_inactive")
        if not await self._directory.use_passkey(held.credential_id, verified.new_sign_count, self._clock.wall_s()):
            raise PasskeyRefused("counter")  # §6.1.1: there are two of it, or it was removed meanwhile
        return verified.user_verified

    # -- one's own passkeys -------------------------------------------------------------------------------------------

    async def list_of(self, user: User) -> Sequence[Passkey]:
        """Return the passkeys of a user."""
        return await self._directory.passkeys_of(user.id)

    async def rename(self, user: User, credential_id: bytes, name: str, *, caller: Caller = NOBODY) -> bool:
        """Give a passkey another name. False where the user has no such one, or the name is blank."""
        cleaned = clean_name(name)
        if not cleaned or not await self._directory.rename_passkey(user.id, credential_id, cleaned):
            return False
        self._tell("passkey.rename", "success", user, caller, credential=_short(credential_id))
        return True

    async def remove(self, user: User, session: Session, credential_id: bytes, *, caller: Caller = NOBODY) -> bool:
        """Remove a passkey. False where the user has no such one. Raises ProofTooOld."""
        self._must_be_fresh(session)
        if not await self._directory.remove_passkey(user.id, credential_id):
            return False
        self._tell("passkey.remove", "success", user, caller, credential=_short(credential_id))
        return True

    # -- challenges ---------------------------------------------------------------------------------------------------

    async def _challenge(self, ceremony: _Ceremony) -> bytes:
        challenge = secrets.token_bytes(CHALLENGE_BYTES)
        await self._grants.keep(
            Grant(
                kind="challenge",
                key=_hash(challenge),
                tenant=ceremony.tenant,
                expires_s=int(self._clock.wall_s()) + self.party.challenge_s,
                subject=ceremony.subject,
                body={"purpose": ceremony.purpose, "bound": ceremony.bound.hex()},
            )
        )
        return challenge

    async def _take(self, answer: Answer, ceremony: _Ceremony) -> bytes:
        """Use up the challenge that an answer holds, and return it. Raises PasskeyRefused for one that is not its."""
        challenge = _challenge_of(answer)
        taken = await self._grants.take("challenge", _hash(challenge))
        if taken.grant is None:
            raise PasskeyRefused(f"challenge_{taken.found}")
        body = taken.grant.body
        is_ours = (
            body.get("purpose") == ceremony.purpose
            and hmac.compare_digest(str(body.get("bound")), ceremony.bound.hex())
            and (taken.grant.tenant, taken.grant.subject) == (ceremony.tenant, ceremony.subject)
        )
        if not is_ours:
            raise PasskeyRefused("challenge_foreign")
        return challenge

    def is_fresh(self, session: Session) -> bool:
        """Tell whether the proof behind a session is new enough to add or remove a passkey."""
        age_s = self._clock.wall_s() - session.authenticated_s
        return not session.requires_reauth and not session.provisional and age_s <= self.party.fresh_s

    def _must_be_fresh(self, session: Session) -> None:
        if not self.is_fresh(session):
            raise ProofTooOld("log in again to change how you log in")

    def _tell(
        self,
        action: str,
        outcome: Literal["success", "refused"],
        user: User,
        caller: Caller,
        *,
        reason: str = "",
        **details: str | bool,
    ) -> None:
        self._trail.tell(
            action, outcome, caller=caller, tenant=user.tenant, actor=user.id, target=user.id, reason=reason, **details
        )


def clean_name(name: str) -> str:
    """Return a name as it is kept: without what cannot be seen, and not too long."""
    return "".join(letter for letter in name if letter.isprintable()).strip()[:NAME_CHARACTERS_MAX].strip()


def _challenge_of(answer: Answer) -> bytes:
    """Return the challenge that an answer claims to be to; what else the client data say is checked with the rest."""
    try:
        data = orjson.loads(_bytes(_response(answer).get("clientDataJSON")))
    except orjson.JSONDecodeError:
        raise PasskeyRefused("malformed") from None
    if not isinstance(data, dict):
        raise PasskeyRefused("malformed")
    # WebAuthn §7.1 step 11: our pages are in nobody's frame, so neither is what asks for a passkey.
    if data.get("crossOrigin", False) is not False or "topOrigin" in data:
        raise PasskeyRefused("cross_origin")
    return _bytes(data.get("challenge"))


def _response(answer: Answer) -> dict[str, Any]:
    value = answer.get("response")
    if not isinstance(value, dict):
        raise PasskeyRefused("malformed")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, str) or not value.isascii():
        raise PasskeyRefused("malformed")
    try:
        return base64url_to_bytes(value)
    except ValueError:
        raise PasskeyRefused("malformed") from None


def _transports(answer: Answer) -> tuple[str, ...]:
    named = _response(answer).get("transports")
    if not isinstance(named, list):
        return ()
    return tuple(sorted({each for each in named if isinstance(each, str) and each in TRANSPORTS}))


def _registration(user: User, session: Session) -> _Ceremony:
    return _Ceremony("register", user.tenant, origin_of(session), user)


def _shown_name(user: User) -> str:
    name = user.attributes.get("displayName")
    return name if isinstance(name, str) and name else user.user_name


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _shown(passkey: Passkey) -> str:
    return _short(passkey.credential_id)


def _short(credential_id: bytes) -> str:
    return _hash(credential_id).hex()[:16]
