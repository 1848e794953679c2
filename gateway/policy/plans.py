"""`Plans`: what deciding a request of given types can read, so that it is fetched beforehand and nothing else is.

A plan is made for (principal's type, action, resource's type): of the policies whose heads could hold for such a
request, and of what those read (`plan.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

from gateway._native.uid import EntityUid
from gateway.policy.compiler.reads import Reads, reads_of, reads_together
from gateway.policy.compiler.scopes import encode_scope
from gateway.policy.plan import NAMED_MAX, Overlays, Plan, Question, Touched, tree_of

if TYPE_CHECKING:
    from gateway.policy.engine import Engine
    from gateway.policy.language.tree import Constraint, Statement
    from gateway.policy.policy_set import Policy

__all__ = ["EnginePlans", "Overlays", "Plan", "Plans", "Question", "Touched"]

logger = logging.getLogger(__name__)

PLANS_MAX: Final = 4096  # kept of one engine: types and actions come with requests, and those may be anything
AT_ONCE_MAX: Final = 256  # policies of an engine whose plans are made while somebody waits: some 10 ms at most
MAKING_MAX: Final = 4  # plans made at once in the background; the others are asked for again
STEP: Final = 64  # policies that are read before others have their turn: about 2 ms


class Plans:
    """The plans of one engine, made when first asked for. They do not keep it alive. Belongs to one thread at a time.

    `like`: the plans of the engine before it, of which the read-sets of statements that stayed are taken over.
    """

    def __init__(self, engine: Engine, *, like: Plans | None = None) -> None:
        self._engine = ref(engine)  # who keeps plans by engine must not keep the engine alive by them
        self._plans: dict[tuple[str, EntityUid, str], tuple[int, Plan]] = {}
        self._reads: dict[int, tuple[Statement, Reads]] = {}  # by the statement's id, which the statement keeps
        self._former = {} if like is None else like._reads
        self._filed: dict[tuple[str, EntityUid | None], list[tuple[int, Policy]]] | None = None  # by head's action
        self._heads: frozenset[str] = frozenset()  # variables of which any head asks what they are in

    @property
    def engine(self) -> Engine:
        engine = self._engine()
        if engine is None:
            raise RuntimeError("the engine of these plans is gone")
        return engine

    def of(self, principal_type: str, action: EntityUid, resource_type: str) -> Plan:
        """Give the plan; the same object while neither the policies nor the action's groups change.

        With thousands of policies that could hold for the types, the first time takes a good part of a second.
        """
        kept = self.known(principal_type, action, resource_type)
        if kept is not None:
            return kept
        *_, made = self._making(principal_type, action, resource_type)
        assert made is not None
        return made

    async def prepared(self, principal_type: str, action: EntityUid, resource_type: str) -> Plan:
        """Give the plan, as `of`; while it is made, the event loop goes on."""
        kept = self.known(principal_type, action, resource_type)
        if kept is not None:
            return kept
        engine = self.engine
        if self._filed is None:
            await asyncio.to_thread(lambda: engine.policies)  # one that was not compiled here has yet to read them
        made: Plan | None = None
        for made in self._making(principal_type, action, resource_type):
            if made is None:
                await asyncio.sleep(0)
        assert made is not None
        return made

    def known(self, principal_type: str, action: EntityUid, resource_type: str) -> Plan | None:
        """Give the plan if it is made, and as it would be made now."""
        kept = self._plans.get((principal_type, action, resource_type))
        return kept[1] if kept is not None and kept[0] == self.engine.store.version(action) else None

    def _making(self, principal_type: str, action: EntityUid, resource_type: str) -> Iterator[Plan | None]:
        """Yield None after each step, and in the end the plan."""
        engine = self.engine
        version = engine.store.version(action)
        yield from self._file(engine)
        candidates = []
        for number, policy in enumerate(self._for_action(engine, action), 1):
            principal, _, resource = policy.scope()
            if _may_hold(principal, principal_type) and _may_hold(resource, resource_type):
                candidates.append(policy)
            if number % (STEP * 16) == 0:
                yield None
        parts: list[Reads] = []
        digest = hashlib.blake2b(digest_size=32)
        exact: set[EntityUid] = set()
        named: set[EntityUid] = set()
        for first in range(0, len(candidates), STEP):
            some = candidates[first : first + STEP]
            parts.append(reads_together([self._reads_of(policy.statement) for policy in some]))
            for policy in some:
                _digest(digest, policy, engine)
                head = policy.scope()[0]
                (exact if head.op == "==" else named).update(head.entities)
            yield None
        reads = reads_together(parts)
        named.update(uid for variable, uid in reads.containers if variable == "principal")
        made = Plan(
            action,
            tuple(policy.id for policy in candidates),
            reads,
            digest.digest(),
            frozenset(exact),
            tuple(sorted(named)) if len(named) <= NAMED_MAX else None,
            tree_of(reads, self._heads),
        )
        key = principal_type, action, resource_type
        self._plans.pop(key, None)
        if len(self._plans) >= PLANS_MAX:
            del self._plans[next(iter(self._plans))]  # the oldest
        self._plans[key] = version, made
        yield made

    def _for_action(self, engine: Engine, action: EntityUid) -> list[Policy]:
        """Give the policies whose heads hold for an action, each once, in the order of the set."""
        assert self._filed is not None
        is_in = engine.store.is_in
        groups = [key for key in self._filed if key[0] == "in" and key[1] is not None and is_in(action, key[1])]
        found: dict[int, Policy] = {}
        for key in (("any", None), ("==", action), *groups):
            found.update(self._filed.get(key, ()))
        return [found[number] for number in sorted(found)]

    def _file(self, engine: Engine) -> Iterator[None]:
        if self._filed is not None:
            return
        filed: dict[tuple[str, EntityUid | None], list[tuple[int, Policy]]] = {}
        heads: set[str] = set()
        for number, policy in enumerate(engine.policies.policies.values()):
            principal, action, resource = policy.scope()
            for uid in action.entities if action.op != "any" else (None,):
                filed.setdefault((action.op, uid), []).append((number, policy))
            scopes = (("principal", principal), ("action", action), ("resource", resource))
            heads.update(name for name, scope in scopes if scope.op in ("in", "is in"))
            if number % (STEP * 4) == STEP:
                yield
        self._filed, self._heads = filed, frozenset(heads)

    def _reads_of(self, statement: Statement) -> Reads:
        key = id(statement)
        found = self._reads.get(key) or self._former.get(key)
        if found is None or found[0] is not statement:
            found = statement, reads_of(statement)
        self._reads[key] = found
        return found[1]


def _digest(digest: Any, policy: Policy, engine: Engine) -> None:
    """Add what a policy says, and its id, which answers name."""
    head = encode_scope(policy.statement.effect, *policy.scope())
    for part in (policy.id.encode(), head, engine.program(policy.id).image):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)


class EnginePlans:
    """The plans of each engine that is alive. Belongs to one thread at a time."""

    def __init__(self) -> None:
        self._by_engine: WeakKeyDictionary[Engine, Plans] = WeakKeyDictionary()
        self._newest: Plans | None = None
        self._making: dict[tuple[int, str, EntityUid, str], asyncio.Task[Plan]] = {}  # by id of the plans it belongs to

    def at_hand(self, engine: Engine, principal_type: str, action: EntityUid, resource_type: str) -> Plan | None:
        """Give the plan if it is made, or is made at once; else None, and make it meanwhile.

        What one request can do without is not worth to hold up all others.
        """
        plans = self.of(engine)
        known = plans.known(principal_type, action, resource_type)
        if known is not None or len(engine) <= AT_ONCE_MAX:
            return known or plans.of(principal_type, action, resource_type)
        key = id(plans), principal_type, action, resource_type
        if key not in self._making and len(self._making) < MAKING_MAX:
            task = asyncio.get_running_loop().create_task(
                plans.prepared(principal_type, action, resource_type), name="policy: plan"
            )
            self._making[key] = task
            task.add_done_callback(lambda made: self._made(key, made))
        return None

    def _made(self, key: tuple[int, str, EntityUid, str], made: asyncio.Task[Plan]) -> None:
        del self._making[key]
        if not made.cancelled() and made.exception() is not None:
            logger.error("a plan could not be made", exc_info=made.exception())

    def of(self, engine: Engine) -> Plans:
        """Give an engine's plans; read-sets of statements that it shares with the engine before it are taken over."""
        found = self._by_engine.get(engine)
        if found is None:
            found = self._newest = self._by_engine[engine] = Plans(engine, like=self._newest)
        return found


def _may_hold(constraint: Constraint, type_name: str) -> bool:
    """Tell whether a head could hold for some entity of a type; what `in` leads to is known only with the entity."""
    if constraint.op == "==":
        return constraint.entities[0].type == type_name
    return constraint.type is None or constraint.type == type_name
