"""Cedar policies: read, validated, compiled and decided."""

from gateway._native.uid import EntityUid
from gateway.policy.attributes import AttributePrefetcher, AttributeUnavailable, SourcedTypes
from gateway.policy.decisions import DecisionCache
from gateway.policy.engine import Answer, Engine
from gateway.policy.entities import Entities, Entity
from gateway.policy.faults import EntityError, Fault, PolicySyntaxError, RequestError, SchemaError
from gateway.policy.incremental import IncrementalEvaluator
from gateway.policy.plans import Plan, Plans, Question
from gateway.policy.policy_compiler import PolicyCompiler
from gateway.policy.policy_set import PolicySet
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_explanation import RelationTest, relation_tests
from gateway.policy.relation_follower import RelationFollower
from gateway.policy.relation_paths import PathStep, relation_path
from gateway.policy.relation_rules import RelationRules
from gateway.policy.relation_text import parse_relation, relation_to_text
from gateway.policy.schema import Schema
from gateway.policy.short_circuit import ShortCircuitEvaluator

__all__ = [
    "Answer",
    "AttributePrefetcher",
    "AttributeUnavailable",
    "DecisionCache",
    "Engine",
    "Entities",
    "Entity",
    "EntityError",
    "EntityUid",
    "Fault",
    "IncrementalEvaluator",
    "PathStep",
    "Plan",
    "Plans",
    "PolicyCompiler",
    "PolicySet",
    "PolicySyntaxError",
    "Question",
    "RelatedEntities",
    "RelationFollower",
    "RelationRules",
    "RelationTest",
    "RequestError",
    "Schema",
    "SchemaError",
    "ShortCircuitEvaluator",
    "SourcedTypes",
    "parse_relation",
    "relation_path",
    "relation_tests",
    "relation_to_text",
]
