"""What the server says of itself is what it does."""

from __future__ import annotations

import pytest
from scim2_models import NotFoundException

from gateway.flows.scim import Discovery, ScimLimits
from gateway.flows.scim.discovery import CONFIG, SCHEMAS, TYPES
from tests.unit.flows.scim.world import BASE, ENTERPRISE, GROUP, USER


def test_limits_are_said_as_they_are_in_force() -> None:
    limits = ScimLimits(page=7, bulk_operations=3, body_bytes=1000)
    body = Discovery(limits, base_url=BASE, passwords=False).answer(CONFIG).body
    assert body is not None
    assert body["filter"] == {"supported": True, "maxResults": 7}
    assert body["bulk"] == {"supported": True, "maxOperations": 3, "maxPayloadSize": 1000}
    assert body["changePassword"] == {"supported": False}
    assert [body[name]["supported"] for name in ("patch", "sort", "etag")] == [True, True, True]


def test_types_and_schemas_name_each_other() -> None:
    discovery = Discovery(ScimLimits(), base_url=BASE, passwords=True)
    types = discovery.answer(TYPES).body
    assert types is not None
    assert [(each["id"], each["endpoint"], each["schema"]) for each in types["Resources"]] == [
        ("User", "/Users", USER),
        ("Group", "/Groups", GROUP),
    ]
    for schema in (USER, GROUP, ENTERPRISE, USER.upper()):
        body = discovery.answer(SCHEMAS, schema).body
        assert body is not None
        assert body["id"].lower() == schema.lower()
        assert body["meta"]["location"] == f"{BASE}/Schemas/{body['id']}"


@pytest.mark.parametrize(
    ("place", "name"), [(TYPES, "Robot"), (SCHEMAS, "urn:nothing"), (CONFIG, "x"), ("Nothing", "")]
)
def test_what_is_not_there_is_not_found(place: str, name: str) -> None:
    with pytest.raises(NotFoundException):
        Discovery(ScimLimits(), base_url=BASE, passwords=True).answer(place, name)
