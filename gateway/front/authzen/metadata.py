"""Where the decision API is, for callers that look it up (§9)."""

from __future__ import annotations

from typing import Final

ENDPOINTS: Final = {
    "access_evaluation_endpoint": "/access/v1/evaluation",
    "access_evaluations_endpoint": "/access/v1/evaluations",
    "search_subject_endpoint": "/access/v1/search/subject",
    "search_resource_endpoint": "/access/v1/search/resource",
    "search_action_endpoint": "/access/v1/search/action",
}
METADATA_PATH: Final = "/.well-known/authzen-configuration"


def metadata_of(base_url: str) -> dict[str, str]:
    """Give the metadata document of a decision point at `base_url`, which has no slash at its end."""
    return {"policy_decision_point": base_url, **{name: base_url + path for name, path in ENDPOINTS.items()}}
