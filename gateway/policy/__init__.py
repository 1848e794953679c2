"""Cedar policies: read, validated, compiled and decided."""

from gateway._native.uid import EntityUid
from gateway.policy.faults import EntityError, Fault, PolicySyntaxError, RequestError, SchemaError
from gateway.policy.policy_set import PolicySet

__all__ = ["EntityError", "EntityUid", "Fault", "PolicySet", "PolicySyntaxError", "RequestError", "SchemaError"]
