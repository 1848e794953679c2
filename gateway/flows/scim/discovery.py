"""What the server says of itself (RFC 7643 §5–7, RFC 7644 §4)."""

from __future__ import annotations

from typing import Any, Final

from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Context,
    ETag,
    External,
    Filter,
    ListResponse,
    Meta,
    NotFoundException,
    Pagination,
    Patch,
    Reference,
    ResourceType,
    Schema,
    ServiceProviderConfig,
    Sort,
)

from gateway.flows.scim.limits import ScimLimits
from gateway.flows.scim.resources import EnterpriseUser, GroupResource, UserCore, UserResource
from gateway.flows.scim.values import Reply

CONFIG: Final = "ServiceProviderConfig"
TYPES: Final = "ResourceTypes"
SCHEMAS: Final = "Schemas"
_SPEC: Final = "https://www.rfc-editor.org/info/rfc6750"


class Discovery:
    """The three documents; made once."""

    def __init__(self, limits: ScimLimits, *, base_url: str, passwords: bool) -> None:
        """`passwords`: whether the service keeps them."""
        self._config = _config(limits, base_url, passwords)
        self._types: dict[str, dict[str, Any]] = {}
        for model in (UserResource, GroupResource):
            kind = ResourceType.from_resource(model)
            kind.meta = Meta(resource_type="ResourceType", location=f"{base_url}/{TYPES}/{kind.id}")
            self._types[str(kind.id).lower()] = _dumped(kind)
        self._schemas: dict[str, dict[str, Any]] = {}
        for described in (UserCore, GroupResource, EnterpriseUser):
            schema: Schema = described.to_schema()
            schema.meta = Meta(resource_type="Schema", location=f"{base_url}/{SCHEMAS}/{schema.id}")
            self._schemas[str(schema.id).lower()] = _dumped(schema)

    def answer(self, place: str, name: str = "") -> Reply:
        """Give a document, or the one that `name` names in it. Raises NotFoundException."""
        if place == CONFIG and not name:
            return Reply(200, self._config)
        listed = {TYPES: self._types, SCHEMAS: self._schemas}.get(place)
        if listed is None:
            raise NotFoundException(detail="there is nothing at this address")
        if not name:
            return Reply(200, _list(list(listed.values())))
        found = listed.get(name.lower())
        if found is None:
            raise NotFoundException(detail=f"there is no `{name[:200]}` here")
        return Reply(200, found)


def _config(limits: ScimLimits, base_url: str, passwords: bool) -> dict[str, Any]:
    return _dumped(
        ServiceProviderConfig(
            patch=Patch(supported=True),
            bulk=Bulk(supported=True, max_operations=limits.bulk_operations, max_payload_size=limits.body_bytes),
            filter=Filter(supported=True, max_results=limits.page),
            change_password=ChangePassword(supported=passwords),
            sort=Sort(supported=True),
            etag=ETag(supported=True),
            pagination=Pagination(
                cursor=False,
                index=True,
                default_pagination_method=Pagination.DefaultPaginationMethod.index,
                default_page_size=limits.page,
                max_page_size=limits.page,
            ),
            authentication_schemes=[
                AuthenticationScheme(
                    type=AuthenticationScheme.Type.oauthbearertoken,
                    name="Bearer token",
                    description="a token of a client in the config, or an access token with the scope",
                    spec_uri=Reference[External](_SPEC),
                    primary=True,
                )
            ],
            meta=Meta(resource_type=CONFIG, location=f"{base_url}/{CONFIG}"),
        )
    )


def _dumped(resource: Any) -> dict[str, Any]:
    made: dict[str, Any] = resource.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE)
    return made


def _list(resources: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schemas": [str(ListResponse.__schema__)],
        "totalResults": len(resources),
        "startIndex": 1,
        "itemsPerPage": len(resources),
        "Resources": resources,
    }
