"""Cedar policies: read, validated, compiled and decided."""

from gateway._native.uid import EntityUid
from gateway.policy.engine import Answer, Engine
from gateway.policy.entities import Entities, Entity
from gateway.policy.faults import EntityError, Fault, PolicySyntaxError, RequestError, SchemaError
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema

__all__ = [
    "Answer",
    "Engine",
    "Entities",
    "Entity",
    "EntityError",
    "EntityUid",
    "Fault",
    "PolicySet",
    "PolicySyntaxError",
    "RequestError",
    "Schema",
    "SchemaError",
]
