"""What deciding a policy can read: for fetching it beforehand, and for keys of caches that hold no more than that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway._native.uid import EntityUid
from gateway.policy.language import tree
from gateway.policy.language.tree import Constraint, Expr, Statement

Path = tuple[str | EntityUid, ...]
"""A variable's name, or an entity that the policy names, then names of attributes: `principal.manager.level`."""


@dataclass(frozen=True, slots=True)
class TimeComparison:
    """`path op moment`: the decision may turn when the clock passes `moment`, an expression without variables."""

    path: Path
    op: str
    moment: Expr = field(compare=False, hash=False)


@dataclass(frozen=True, slots=True)
class Reads:
    """The read-set of one policy, or of several together.

    `attributes` are paths whose last name is read; what lies on the way is read too. The path `("context",)` alone
    means the whole context; that of another variable is never listed, since its name is part of every request.
    `dynamic`: an entity is read that is known only while deciding (an element of a set, a tag, the result of an `if`).

    The last three say what of a request makes no difference. `plain` are the `attributes` of which more is asked than
    `context has x`, or how they compare with a moment of `times`. `identities` are the variables of which more is asked
    than their type, their attributes, and whether they are in one of `containers`.
    """

    attributes: frozenset[Path] = frozenset()
    tags: frozenset[tuple[Path, str | None]] = frozenset()  # None: any tag of the entity
    memberships: frozenset[Path] = frozenset()  # of which the ancestors are asked
    times: frozenset[TimeComparison] = frozenset()
    dynamic: bool = False
    cost: int = 0  # about nanoseconds, to tell dear plans from cheap ones; of several: the sum
    plain: frozenset[Path] = frozenset()
    identities: frozenset[str] = frozenset()
    containers: frozenset[tuple[str, EntityUid]] = frozenset()  # variable, entity that it is asked to be in

    def context_paths(self) -> frozenset[Path]:
        """Give the paths of the context alone."""
        return frozenset(path for path in self.attributes if path[0] == "context")


def reads_of(statement: Statement) -> Reads:
    """Give the read-set of a policy; slots count as entities that it names."""
    walk = _Walk()
    scopes: tuple[tuple[str, Constraint], ...] = (
        ("principal", statement.principal),
        ("action", statement.action),
        ("resource", statement.resource),
    )
    for name, constraint in scopes:
        if constraint.op in ("in", "is in"):
            walk.memberships.add((name,))
            walk.cost += 5
    for condition in statement.conditions:
        walk.visit(condition.body)
    return walk.result()


def reads_of_expression(node: Expr) -> Reads:
    """Give the read-set of an expression."""
    walk = _Walk()
    walk.visit(node)
    return walk.result()


def reads_together(parts: Iterable[Reads]) -> Reads:
    """Give the read-set of several policies."""
    parts = list(parts)
    return Reads(
        frozenset().union(*(part.attributes for part in parts)),
        frozenset().union(*(part.tags for part in parts)),
        frozenset().union(*(part.memberships for part in parts)),
        frozenset().union(*(part.times for part in parts)),
        any(part.dynamic for part in parts),
        sum(part.cost for part in parts),
        frozenset().union(*(part.plain for part in parts)),
        frozenset().union(*(part.identities for part in parts)),
        frozenset().union(*(part.containers for part in parts)),
    )


def path_of(node: Expr) -> Path | None:
    """Give the path that `node` spells, or None where it is none."""
    names: list[str] = []
    while type(node) is tree.GetAttr:
        names.append(node.name)
        node = node.object
    if type(node) is tree.Variable:
        return (node.name, *reversed(names))
    if type(node) is tree.Literal and type(node.value) is EntityUid:
        return (node.value, *reversed(names))
    return None


_COSTS = {tree.Like: 12, tree.Call: 12, tree.SetOf: 12, tree.RecordOf: 12, tree.GetAttr: 4, tree.HasAttr: 4}


class _Walk:
    def __init__(self) -> None:
        self.attributes: set[Path] = set()
        self.tags: set[tuple[Path, str | None]] = set()
        self.memberships: set[Path] = set()
        self.times: set[TimeComparison] = set()
        self.dynamic = False
        self.cost = 10
        self.plain: set[Path] = set()
        self.identities: set[str] = set()
        self.containers: set[tuple[str, EntityUid]] = set()

    def result(self) -> Reads:
        return Reads(
            frozenset(self.attributes),
            frozenset(self.tags),
            frozenset(self.memberships),
            frozenset(self.times),
            self.dynamic,
            self.cost,
            frozenset(self.plain),
            frozenset(self.identities),
            frozenset(self.containers),
        )

    def visit(self, root: Expr) -> None:
        waiting = [root]
        while waiting:
            node = waiting.pop()
            self.cost += _COSTS.get(type(node), 2)
            waiting.extend(self._below(node))

    def _below(self, node: Expr) -> Iterable[Expr]:
        """Note what `node` itself reads; give what is left to be visited."""
        match node:
            case tree.Variable("context"):
                self._plainly(("context",))
            case tree.Variable(variable):
                self.identities.add(variable)
            case tree.GetAttr(inner):
                path = path_of(node)
                if path is not None:
                    self._plainly(path)
                    return ()
                self.dynamic = True
                return (inner,)
            case tree.HasAttr(inner, names):
                path = path_of(inner)
                if path == ("context",) and len(names) == 1:
                    self.attributes.add(("context", *names))
                    return ()
                if path is not None:
                    self._plainly(*((*path, *names[:count]) for count in range(1, len(names) + 1)))
                    return ()
                self.dynamic = True
                return (inner,)
            case tree.Binary(("getTag" | "hasTag"), left, right):
                path = path_of(left)
                name = right.value if isinstance(right, tree.Literal) and isinstance(right.value, str) else None
                if path is None:
                    self.dynamic = True
                else:
                    self.tags.add((path, name))
            case tree.Is(tree.Variable(), _, None):
                return ()
            case tree.Binary("in", left, right) | tree.Is(left, _, tree.Node() as right):
                self._member(left)
                named = _entities_of(right)
                if named is not None and isinstance(left, tree.Variable):
                    self.containers.update((left.name, uid) for uid in named)
                    return ()
            case tree.Binary(("<" | "<=" | ">" | ">=") as op, left, right):
                if self._time(left, op, right):
                    return ()
        return tree.children(node)

    def _plainly(self, *paths: Path) -> None:
        self.attributes.update(paths)
        self.plain.update(paths)

    def _member(self, left: Expr) -> None:
        self.cost += 5
        path = path_of(left)
        if path is None:
            self.dynamic = True
        else:
            self.memberships.add(path)

    def _time(self, left: Expr, op: str, right: Expr) -> bool:
        """Note the comparison of a path with a moment; False where it is none."""
        turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
        for one, sign, other in ((left, op, right), (right, turned[op], left)):
            path = path_of(one)
            if path is not None and path[0] == "context" and len(path) > 1 and _is_moment(other):
                self.times.add(TimeComparison(path, sign, other))
                self.attributes.add(path)
                self.cost += 2 * _COSTS[tree.GetAttr]
                return True
        return False


def _entities_of(node: Expr) -> list[EntityUid] | None:
    """Give the entities that the right side of `in` spells, or None where they are known only while deciding."""
    items = node.items if isinstance(node, tree.SetOf) else (node,)
    found = [item.value for item in items if isinstance(item, tree.Literal) and isinstance(item.value, EntityUid)]
    return found if len(found) == len(items) else None


def _is_moment(node: Expr) -> bool:
    """Say whether `node` is a datetime that is known without a request."""
    if not isinstance(node, tree.Call) or node.function not in ("datetime", "offset", "toDate"):
        return False
    waiting: list[Expr] = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, tree.Variable):
            return False
        waiting.extend(tree.children(part))
    return True
