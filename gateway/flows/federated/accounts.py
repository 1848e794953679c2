"""Which of our users an identity provider speaks of, by the rules of the config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.config import SSOConfig
from gateway.errors import AlreadyExists
from gateway.flows.federated.errors import SSORefused
from gateway.stores.directory import NAME_BYTES_MAX, Condition, Directory, Identity, Tenant, User, new_id
from gateway.types import Clock, Subject

How = Literal["linked", "link_email", "provision", "link"]

NO_ACCOUNT: Final = "there is no account here for you; ask your administrator for one"


@dataclass(frozen=True, slots=True)
class Found:
    """A user, and how it was found: "linked" before, or just now."""

    user: User
    how: How


class Accounts:
    """Find, link and make users. What links is `iss` and `sub` (OIDC Core §5.7: nothing else is stable)."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    async def find(self, config: SSOConfig, claims: Mapping[str, Any]) -> Found:
        """Return the user that verified claims speak of. Raises SSORefused where there is none, or it is inactive."""
        subject = subject_of(claims)
        user = await self._directory.find_linked(config.tenant, config.issuer, subject)
        if user is not None:
            return Found(_active(user), "linked")
        if config.link_email:
            user = await self._by_email(config, claims)
            if user is not None:
                return Found(await self._link(config, subject, _active(user)), "link_email")
        if config.provision:
            return Found(await self._link(config, subject, await self._made(config, claims)), "provision")
        raise SSORefused("account_unknown", NO_ACCOUNT)

    async def link(self, config: SSOConfig, claims: Mapping[str, Any], user: User) -> Found:
        """Let what verified claims name be `user`, who is logged in and asked for it."""
        if user.tenant != config.tenant:
            raise SSORefused("tenant_other")
        return Found(await self._link(config, subject_of(claims), _active(user)), "link")

    async def user(self, subject: Subject) -> User:
        """Return a user of ours by what sessions know them by. Raises SSORefused for one that is gone."""
        user = await self._directory.get_user(subject.tenant, subject.id)
        if user is None:
            raise SSORefused("user_unknown", NO_ACCOUNT)
        return user

    async def linked(self, config: SSOConfig, subject: str) -> User | None:
        """Return the user that a provider calls `subject`, active or not."""
        return await self._directory.find_linked(config.tenant, config.issuer, subject)

    async def issuers_of(self, user: User) -> Sequence[str]:
        """Return the issuers of the providers that know a user."""
        return [each.issuer for each in await self._directory.identities_of(user.tenant, user.id)]

    async def unlink(self, config: SSOConfig, user: User) -> bool:
        """Let a provider speak of a user no more. False where it did not."""
        found = [
            each for each in await self._directory.identities_of(config.tenant, user.id) if each.issuer == config.issuer
        ]
        ended = [await self._directory.unlink(config.tenant, each.issuer, each.subject) for each in found]
        return any(ended)

    async def _by_email(self, config: SSOConfig, claims: Mapping[str, Any]) -> User | None:
        """Return the one user that has the address which the provider verified, and may verify."""
        email = _proved_email(config, claims)
        if not email:
            return None
        page = await self._directory.find_users(config.tenant, (Condition("email", "eq", email),), limit=2)
        if page.total > 1:
            raise SSORefused("email_ambiguous", NO_ACCOUNT)
        return page.users[0] if page.users else None

    async def _made(self, config: SSOConfig, claims: Mapping[str, Any]) -> User:
        """Make a user of what the provider says.

        Only an address that it may speak for is kept: by any other it could put itself in the way of somebody whom
        another provider will link by that address.
        """
        email = _proved_email(config, claims)
        name = claims.get("preferred_username") or email or claims["sub"]
        if not isinstance(name, str) or len(name.encode()) > NAME_BYTES_MAX:
            raise SSORefused("user_name", NO_ACCOUNT)
        shown = claims.get("name")
        now_s = self._clock.wall_s()
        user = User(
            id=new_id("usr_"),
            tenant=config.tenant,
            user_name=name,
            emails=(email,) if email else (),
            attributes={"displayName": shown} if isinstance(shown, str) and shown else {},
            created_s=now_s,
            changed_s=now_s,
        )
        if await self._directory.get_tenant(config.tenant) is None:
            await self._directory.put_tenant(Tenant(config.tenant, config.tenant))
        try:
            return await self._directory.add_user(user)
        except AlreadyExists:  # somebody's name already: whoever this is, it is not proved to be them
            raise SSORefused("user_name_taken", NO_ACCOUNT) from None

    async def _link(self, config: SSOConfig, subject: str, user: User) -> User:
        identity = Identity(
            tenant=config.tenant,
            issuer=config.issuer,
            subject=subject,
            user_id=user.id,
            linked_s=self._clock.wall_s(),
        )
        try:
            await self._directory.link(identity)
        except AlreadyExists:
            raise SSORefused("linked_otherwise", "this sign-in belongs to another account") from None
        return user


def subject_of(claims: Mapping[str, Any]) -> str:
    """Return `sub`. Raises SSORefused for what is none (OIDC Core §2: at most 255 ASCII characters)."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isascii():
        raise SSORefused("token_subject")
    return subject


def _proved_email(config: SSOConfig, claims: Mapping[str, Any]) -> str:
    """Return the address that the provider verified, and may verify; "" where there is none."""
    email = claims.get("email")
    # "true" as a text is how some say that somebody typed it in: OIDC Core §5.1 has a boolean.
    if claims.get("email_verified") is not True or not isinstance(email, str):
        return ""
    domain = email.rpartition("@")[2].lower()
    return email if domain and domain in {each.lower() for each in config.email_domains} else ""


def _active(user: User) -> User:
    if not user.active:
        raise SSORefused("user_inactive", NO_ACCOUNT)
    return user
