"""Policies on the bare machine, without an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway._native.vm import Decider, Rule
from gateway.policy.compiler.policies import compile_statement
from gateway.policy.compiler.scopes import encode_scope
from gateway.policy.policy_set import PolicySet
from tests.oracle import policy as oracle


def store_of(known: Mapping[EntityUid, oracle.Entity]) -> EntityStore:
    """Fill a store."""
    store = EntityStore()
    store.apply([(uid, entity.attributes, list(entity.parents), entity.tags or None) for uid, entity in known.items()])
    return store


def rules_of(policies: PolicySet | str) -> list[Rule]:
    """Compile policies, or a text of them."""
    read = PolicySet.parse(policies) if isinstance(policies, str) else policies
    return [
        Rule(encode_scope(policy.statement.effect, *policy.scope()), compile_statement(policy.statement))
        for policy in read.policies.values()
    ]


def decider_of(store: EntityStore, policies: PolicySet | str | Sequence[Rule], **options: int) -> Decider:
    """Bind policies to a store; rules are known as `policy0`, `policy1`, …."""
    read = PolicySet.parse(policies) if isinstance(policies, str) else policies
    if isinstance(read, PolicySet):
        return Decider(store, rules_of(read), list(read.policies), **options)
    return Decider(store, read, [f"policy{number}" for number in range(len(read))], **options)
