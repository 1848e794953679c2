"""The claims that policies are asked about: which, and how a verified token keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from gateway.config import Config
from gateway.policy.claims import find_claim
from gateway.policy.templates import claims_in


class PickedClaims:
    """Of one token: `values` by the names that were asked for; what is absent or null is left out.

    Hangs on the token's identity, so that it lives as long as the verdict does. `definition` is what the mapping
    `defined_by` made of it: of use to nobody else.
    """

    __slots__ = ("defined_by", "definition", "values")

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.defined_by: object = None
        self.definition: object = None


class ClaimPicker:
    """Picks claims from the payload of a verified token: the validator's `claims_factory`."""

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def __call__(self, payload: bytes) -> PickedClaims:
        """Read a payload, which the validator found to be JSON without duplicate names."""
        claims = orjson.loads(payload)
        found = ((name, find_claim(claims, name)) for name in self._names)
        return PickedClaims({name: value for name, value in found if value is not None})


def policy_claims_of(config: Config) -> tuple[str, ...]:
    """List the claims that principals are made of and that routes' templates take, in a stable order."""
    policy = config.policy
    names = set(policy.principal_claims.values()) | set(policy.principal_parents)
    for route in config.routes:
        for text in (route.action, route.resource, *route.context.values()):
            names |= claims_in(text)
    return tuple(sorted(names))
