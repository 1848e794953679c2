"""What well-known clients send beside the specification, said as the specification says it.

The library reads most of it by itself (`POLICY` in `resources`): operations in capitals, `"False"` for false, dotted
names in a value, values of `remove`, filters in paths that match nothing. What is left is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_ENTERPRISE: Final = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:user"
_READ_ONLY: Final = ("id", "meta", "schemas")


def plain_patch(payload: Any) -> Any:
    """Give a PATCH request without what only Entra ID and Okta mean by it."""
    if not isinstance(payload, dict):
        return payload
    name = next((each for each in payload if each.lower() == "operations"), None)
    operations = payload.get(name) if name is not None else None
    if not isinstance(operations, list):
        return payload
    return {**payload, name: [_operation(each) if isinstance(each, dict) else each for each in operations]}


def _operation(operation: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(operation)
    value = made.get("value")
    if not made.get("path") and isinstance(value, dict):
        # Okta names the group again when it renames it.
        made["value"] = plain_resource({key: each for key, each in value.items() if key not in _READ_ONLY})
    elif _is_manager(str(made.get("path", ""))) and isinstance(value, str):
        made["value"] = {"value": value}  # Entra ID gives the manager's id alone
    return made


def plain_resource(payload: Any) -> Any:
    """Give a resource without what only some clients mean by it."""
    if not isinstance(payload, dict):
        return payload
    made = dict(payload)
    for key, value in payload.items():
        if _is_manager(key) and isinstance(value, str):
            made[key] = {"value": value}
        elif key.lower() == _ENTERPRISE and isinstance(value, dict) and isinstance(value.get("manager"), str):
            made[key] = {**value, "manager": {"value": value["manager"]}}
    return made


def _is_manager(path: str) -> bool:
    return path.lower() in ("manager", f"{_ENTERPRISE}:manager")
