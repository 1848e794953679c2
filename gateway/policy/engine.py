"""`Engine`: policies, entities and a schema, ready to decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from gateway._native.uid import EntityUid
from gateway._native.vm import Answer, Decider, Program, Request, Rule
from gateway.policy.collection import without_collection
from gateway.policy.compiler.bundle import BundleError, bundle_from_bytes, bundle_to_bytes
from gateway.policy.compiler.policies import compile_statement
from gateway.policy.compiler.reads import Reads, reads_of, reads_together
from gateway.policy.compiler.scopes import encode_scope
from gateway.policy.explanation import Explanation, explain

if TYPE_CHECKING:
    from gateway._native.entities import EntityStore
    from gateway.policy.entities import Entities
    from gateway.policy.policy_set import Policy, PolicySet
    from gateway.policy.schema import Schema

__all__ = ["Answer", "Engine", "Request"]


class Engine(Decider):
    """Decides by Cedar's rules: a request is allowed if no `forbid` and at least one `permit` is satisfied.

    A snapshot: its policies never change; `with_policies` makes another engine that shares all that stayed the same,
    and whoever holds the old one goes on deciding by the old policies. Entities are shared and may change between
    decisions. `allows`, `authorize`, `decide`, `decide_all` and `prepare` are the compiled `Decider`'s own methods.
    Safe to use from many threads.
    """

    entities: Entities
    schema: Schema | None
    _policies: PolicySet | Callable[[], PolicySet]
    _compiled: dict[str, tuple[Policy | None, Rule]]

    def __new__(
        cls, policies: PolicySet, entities: Entities, schema: Schema | None = None, *, like: Engine | None = None
    ) -> Self:
        """Compile `policies`; of `like`, an engine over whatever entities, reuse the programs of what did not change.

        With a schema, its actions and their groups are entities. Raises PolicySyntaxError for a policy beyond the
        machine's limits.
        """
        if schema is not None and (like is None or like.schema is not schema or like.entities is not entities):
            _declare_actions(entities.store, schema)
        if like is not None and callable(like._policies):
            like._read_policies()  # what a bundle's rules were compiled from tells which of them stay
        with without_collection():
            compiled = _compile(policies.policies, {} if like is None else like._compiled)
        return cls._bind(compiled, policies, entities, schema)

    @classmethod
    def _bind(
        cls,
        compiled: dict[str, tuple[Policy | None, Rule]],
        policies: PolicySet | Callable[[], PolicySet],
        entities: Entities,
        schema: Schema | None,
    ) -> Self:
        self = super().__new__(cls, entities.store, [rule for _, rule in compiled.values()], list(compiled))
        self._policies = policies
        self.entities = entities
        self.schema = schema
        self._compiled = compiled
        return self

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        key: bytes,
        policies: Callable[[], PolicySet],
        entities: Entities,
        schema: Schema | None = None,
    ) -> Self:
        """Make the engine that `to_bytes` wrote under `key` (`compiler.bundle.bundle_key`), without compiling.

        `policies` reads the sources that the key stands for; it is called once, when somebody first asks for an
        explanation or for the policies. Raises BundleError for bytes that are not what they should be: compile then.
        """
        with without_collection():
            bundle = bundle_from_bytes(key, data)
            compiled: dict[str, tuple[Policy | None, Rule]] = {}
            for policy_id, rule in zip(bundle.ids, bundle.rules, strict=True):
                compiled[policy_id] = None, rule
        if len(compiled) != len(bundle.ids):
            raise BundleError("two policies have one id")
        if schema is not None:
            _declare_actions(entities.store, schema)
        return cls._bind(compiled, policies, entities, schema)

    def to_bytes(self, key: bytes) -> bytes:
        """Give the compiled policies as bytes for the cache on disk."""
        return bundle_to_bytes(key, self.ids, [rule for _, rule in self._compiled.values()])

    @property
    def policies(self) -> PolicySet:
        """What this engine was compiled from."""
        return self._read_policies() if callable(self._policies) else self._policies

    def _read_policies(self) -> PolicySet:
        """Read the sources of a bundle. Two threads may both do it: the second one gets what the first one did."""
        read = self._policies
        if not callable(read):
            return read
        policies = read()
        if list(policies.policies) != list(self._compiled):
            raise BundleError("it was compiled from other policies")
        self._compiled = {each: (policy, self._compiled[each][1]) for each, policy in policies.policies.items()}
        self._policies = policies
        return policies

    def with_policies(self, policies: PolicySet) -> Self:
        """Give an engine for other policies over the same entities and schema."""
        return type(self)(policies, self.entities, self.schema, like=self)

    def explain(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: dict[str, Any] | None = None
    ) -> Explanation:
        """Say for every policy whether it was satisfied, and if not, which clause failed, with the operands' values."""
        return explain(self, self.policies.policies, self.prepare(principal, action, resource, context))

    def program(self, policy_id: str) -> Program:
        """Give the program of a policy's conditions. Raises KeyError for an unknown id."""
        return self._compiled[policy_id][1].program

    def reads(self, policy_id: str | None = None) -> Reads:
        """Give the read-set of one policy, or of all. Raises KeyError for an unknown id."""
        if policy_id is not None:
            return reads_of(self.policies.policies[policy_id].statement)
        return reads_together([reads_of(policy.statement) for policy in self.policies.policies.values()])


def _declare_actions(store: EntityStore, schema: Schema) -> None:
    """Make the schema's actions entities, with their groups as parents; what is so already stays untouched."""
    upserts: list[tuple[EntityUid, dict[str, Any], tuple[EntityUid, ...], None]] = []
    for action in schema.actions.values():
        known = store.get(action.uid)
        if known is None or frozenset(known[1]) != action.parents:
            upserts.append((action.uid, {}, tuple(action.parents), None))
    if upserts:
        store.apply(upserts)


def _says_the_same(known: Policy | None, policy: Policy) -> bool:
    """Tell whether a policy asks what it asked before, wherever it stands in its file now."""
    return known is not None and known.statement is policy.statement and known.slots == policy.slots


def _compile(
    policies: Mapping[str, Policy], known: dict[str, tuple[Policy | None, Rule]]
) -> dict[str, tuple[Policy | None, Rule]]:
    """Give policy and rule by id, in the order of the set. What is `known` of the very same policy stays."""
    programs: dict[int, Program] = {}  # by statement, which links of a template share
    compiled: dict[str, tuple[Policy | None, Rule]] = {}
    find = known.get
    for policy_id, policy in policies.items():
        found = find(policy_id)
        if found is not None:
            if found[0] is policy:
                compiled[policy_id] = found
                continue
            if _says_the_same(found[0], policy):
                compiled[policy_id] = policy, found[1]
                continue
        statement = policy.statement
        program = programs.get(id(statement))
        if program is None:
            program = programs[id(statement)] = compile_statement(statement)
        compiled[policy_id] = policy, Rule(encode_scope(statement.effect, *policy.scope()), program)
    return compiled
