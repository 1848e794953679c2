"""Users and groups as SCIM clients see them, and as they lie in the directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Union, cast

import scim2_models
from pydantic import Field
from scim2_models import (
    URN,
    CaseExact,
    ComplexAttribute,
    Mutability,
    Reference,
    Required,
    Resource,
    ScimPolicy,
    default_comparison_key,
)

from gateway.stores.directory import Group, Member, User, new_id
from gateway.stores.schema import folded

USERS: Final = "Users"
GROUPS: Final = "Groups"
UNSAID: Final = "activeUnsaid"  # in the attributes of a user whose client has taken `active` away
_APART: Final = ("schemas", "id", "meta", "userName", "active", "externalId", "password", "groups")  # have fields


class Email(ComplexAttribute):
    """An address. Any text: addresses in `.local` and the like are none to the library, but exist."""

    value: str | None = None
    display: str | None = None
    type: scim2_models.Email.Type | None = None
    primary: bool | None = None


_UserReference: Any = Reference["User"]  # the name of a resource type


class Manager(ComplexAttribute):
    """Whom a user reports to. Its id is enough: clients seldom know its address here."""

    value: Annotated[str | None, CaseExact.true] = None
    ref: Annotated[_UserReference | None, Required.false] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    display_name: Annotated[str | None, Mutability.read_only] = None


class EnterpriseUser(scim2_models.EnterpriseUser):
    """The enterprise extension of users."""

    manager: Manager | None = None  # type: ignore[assignment]


class UserCore(scim2_models.User):  # type: ignore[type-arg]
    """The core schema of users, with addresses of any kind."""

    emails: list[Email] | None = None  # type: ignore[assignment]


UserCore.__name__ = "User"  # what the resource type is called
UserResource: Any = cast(Any, UserCore)[EnterpriseUser]


_MemberReference: Any = Reference[Union["User", "Group"]]  # the names of resource types


class GroupMember(ComplexAttribute):
    """A direct member of a group (RFC 7643 §8.7.1)."""

    value: Annotated[str | None, Mutability.immutable, CaseExact.true] = None
    ref: Annotated[_MemberReference | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    type: Annotated[str | None, Mutability.immutable] = Field(None, examples=["User", "Group"])


class GroupResource(Resource[Any]):
    """The schema of groups."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true] = None
    members: list[GroupMember] | None = None


GroupResource.__name__ = "Group"


def _comparison_key(binding: Any, value: str) -> str:
    """Compare as the directory does, or an index and a look at each resource would answer differently."""
    return default_comparison_key(binding, value) if binding.case_exact else folded(value)


POLICY: Final = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore,
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
    comparison_key=_comparison_key,
)
"""What clients may send beside the specification: Entra ID and Okta do."""


def etag_of(version: int) -> str:
    return f'W/"{version}"'


def user_resource(user: User, base_url: str, groups: Sequence[Group] | None = None) -> Any:
    """Give a user as clients see it; `groups` is None where nobody asked for them."""
    payload: dict[str, Any] = {
        **user.attributes,
        "id": user.id,
        "userName": user.user_name,
        "active": user.active,
        "emails": _emails(user),
        "meta": _meta("User", user, f"{base_url}/{USERS}/{user.id}"),
    }
    if user.attributes.get(UNSAID):
        del payload["active"]
    if user.external_id:
        payload["externalId"] = user.external_id
    if groups:
        payload["groups"] = [
            {
                "value": group.id,
                "$ref": f"{base_url}/{GROUPS}/{group.id}",
                "display": group.display_name,
                "type": "direct",
            }
            for group in groups
        ]
    payload["schemas"] = [str(UserCore.__schema__)]
    if str(EnterpriseUser.__schema__) in payload:
        payload["schemas"].append(str(EnterpriseUser.__schema__))
    return UserResource.model_validate(payload, scim_policy=POLICY)


def group_resource(group: Group, base_url: str, members: Sequence[Member] | None = None) -> GroupResource:
    """Give a group as clients see it; `members` is None where nobody asked for them."""
    payload: dict[str, Any] = {
        **group.attributes,
        "schemas": [str(GroupResource.__schema__)],
        "id": group.id,
        "displayName": group.display_name,
        "meta": _meta("Group", group, f"{base_url}/{GROUPS}/{group.id}"),
    }
    if group.external_id:
        payload["externalId"] = group.external_id
    if members:
        payload["members"] = [member_payload(member, base_url) for member in members]
    return GroupResource.model_validate(payload, scim_policy=POLICY)


def member_payload(member: Member, base_url: str) -> dict[str, str]:
    """Give a member as it stands in a group."""
    kind, place = ("User", USERS) if member.kind == "user" else ("Group", GROUPS)
    return {"value": member.id, "$ref": f"{base_url}/{place}/{member.id}", "type": kind}


def user_of(resource: Any, former: User | None, tenant: str, now_s: float) -> User:
    """Give a user as it is kept. `former`: what it was until now; None: it is new.

    Who does not say whether a user is active leaves it as it is: leaving that out must not let anybody in again. What
    was said is shown no more then.
    """
    payload = resource.model_dump()
    emails = payload.get("emails") or []
    values = dict.fromkeys(str(each["value"]) for each in emails if each.get("value"))
    was_active = True if former is None else former.active
    attributes = {name: value for name, value in payload.items() if name not in _APART}
    if former is not None and resource.active is None:
        attributes[UNSAID] = True
    kept = former or User(id=new_id("usr_"), tenant=tenant, user_name="", created_s=now_s)
    return replace(
        kept,
        user_name=resource.user_name or "",
        active=was_active if resource.active is None else resource.active,
        external_id=resource.external_id or "",
        emails=tuple(values),
        attributes=attributes,
        changed_s=now_s,
    )


def group_of(resource: GroupResource, former: Group | None, tenant: str, now_s: float) -> Group:
    """Give a group as it is kept, its members apart."""
    kept = former or Group(id=new_id("grp_"), tenant=tenant, display_name="", created_s=now_s)
    return replace(
        kept, display_name=resource.display_name or "", external_id=resource.external_id or "", changed_s=now_s
    )


def members_in(resource: GroupResource) -> list[Member]:
    """Give the members that stand in a group. Raises ValueError for one that is none."""
    return [member_of(member.value) for member in resource.members or ()]


def member_of(value: str | None) -> Member:
    """Give the member of an id: what it is, it says itself. Raises ValueError."""
    if value is not None and value.startswith("usr_"):
        return Member(id=value)
    if value is not None and value.startswith("grp_"):
        return Member(id=value, kind="group")
    raise ValueError(f"`{(value or '')[:100]}` is no id of a user or group")


def _emails(user: User) -> list[dict[str, Any]]:
    """Give the addresses, with what a client said of those that are still there: people may have changed them.

    The same address of the same type is given once (RFC 7643 §2.4).
    """
    said = cast(Sequence[Mapping[str, Any]], user.attributes.get("emails") or ())
    by_kind = {(each.get("value"), each.get("type")): each for each in reversed(said)}
    kept = [dict(each) for each in reversed(by_kind.values()) if each.get("value") in user.emails]
    known = {each["value"] for each in kept}
    return [*kept, *({"value": email} for email in user.emails if email not in known)]


def _meta(kind: str, held: User | Group, location: str) -> dict[str, str]:
    return {
        "resourceType": kind,
        "created": _time(held.created_s),
        "lastModified": _time(held.changed_s or held.created_s),
        "location": location,
        "version": etag_of(held.version),
    }


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
