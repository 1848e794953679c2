"""What a policy says, as a tree: the nodes that the parser makes and everything else reads.

Names follow Cedar's grammar (docs.cedarpolicy.com, "Policy syntax" and "JSON policy format"). `start` and `end` of a
node count characters of its statement's own text, so that a statement which moves within its file stays the same
value; `Statement.place` turns them into file, line and column. They do not take part in comparisons.

INVARIANT: nobody changes a node after it was made (not `frozen`, which makes building a tree three times as dear).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal as Name

from gateway._native.uid import EntityUid

Effect = Name["permit", "forbid"]
VariableName = Name["principal", "action", "resource", "context"]
SlotName = Name["?principal", "?resource"]
BinaryOp = Name[
    "==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*",
    "contains", "containsAll", "containsAny", "getTag", "hasTag",
]  # fmt: skip
"""`has` and `like` and `is` have nodes of their own; `contains…`, `getTag` and `hasTag` are written as methods."""

Pattern = tuple[str | None, ...]
"""Of `like`: pieces of text (unescaped), and None for each `*`."""


@dataclass(slots=True)
class Node:
    """Base of all nodes: where in the statement's text it stands."""

    start: int = field(default=-1, compare=False, kw_only=True)
    end: int = field(default=-1, compare=False, kw_only=True)


@dataclass(slots=True, eq=False)
class Literal(Node):
    """`true`, `42`, `"text"` or `User::"alice"`."""

    value: bool | int | str | EntityUid

    def __eq__(self, other: object) -> bool:
        # True == 1 in Python, and never in Cedar.
        return isinstance(other, Literal) and type(self.value) is type(other.value) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


@dataclass(slots=True)
class Variable(Node):
    name: VariableName


@dataclass(slots=True)
class Slot(Node):
    """A hole of a template; in scopes only."""

    name: SlotName


@dataclass(slots=True)
class If(Node):
    test: Expr
    then: Expr
    otherwise: Expr


@dataclass(slots=True)
class And(Node):
    left: Expr
    right: Expr


@dataclass(slots=True)
class Or(Node):
    left: Expr
    right: Expr


@dataclass(slots=True)
class Not(Node):
    operand: Expr


@dataclass(slots=True)
class Negate(Node):
    operand: Expr


@dataclass(slots=True)
class Binary(Node):
    op: BinaryOp
    left: Expr
    right: Expr


@dataclass(slots=True)
class GetAttr(Node):
    """`object.name` or `object["name"]`."""

    object: Expr
    name: str


@dataclass(slots=True)
class HasAttr(Node):
    """`object has a`, `object has "a b"`, `object has a.b.c` (then `path` has several names)."""

    object: Expr
    path: tuple[str, ...]


@dataclass(slots=True)
class Like(Node):
    object: Expr
    pattern: Pattern


@dataclass(slots=True)
class Is(Node):
    """`object is type`, `object is type in container`."""

    object: Expr
    type: str
    container: Expr | None = None


@dataclass(slots=True)
class IsEmpty(Node):
    """`object.isEmpty()`."""

    object: Expr


@dataclass(slots=True)
class SetOf(Node):
    """`[a, b]`."""

    items: tuple[Expr, ...]


@dataclass(slots=True)
class RecordOf(Node):
    """`{a: 1, "b c": 2}`; names are distinct, in the order of the text."""

    items: tuple[tuple[str, Expr], ...]


@dataclass(slots=True)
class Call(Node):
    """An extension function: `ip("10.0.0.1")`, or as a method `x.isInRange(y)`, with x as the first argument."""

    function: str
    arguments: tuple[Expr, ...]


Expr = (
    Literal | Variable | Slot | If | And | Or | Not | Negate | Binary | GetAttr | HasAttr | Like | Is | IsEmpty
    | SetOf | RecordOf | Call
)  # fmt: skip


@dataclass(slots=True)
class Constraint(Node):
    """What the scope asks of one variable.

    | op      | spelled                                       | entities       | type |
    |---------|-----------------------------------------------|----------------|------|
    | "any"   | `principal`                                   | ()             | None |
    | "=="    | `principal == E`                              | (E,)           | None |
    | "in"    | `principal in E`; `action in [E, F]`          | (E,) or (E, F) | None |
    | "is"    | `principal is T`                              | ()             | T    |
    | "is in" | `principal is T in E`                         | (E,)           | T    |

    `slot` stands in place of E in a template; `entities` is () then. `listed`: written with brackets (`action in []`).
    """

    op: Name["any", "==", "in", "is", "is in"] = "any"
    entities: tuple[EntityUid, ...] = ()
    type: str | None = None
    slot: Slot | None = None
    listed: bool = False


@dataclass(slots=True)
class Condition(Node):
    kind: Name["when", "unless"]
    body: Expr


@dataclass(slots=True)
class Statement(Node):
    """One policy or template, without the id that a set gives it."""

    effect: Effect
    principal: Constraint
    action: Constraint
    resource: Constraint
    conditions: tuple[Condition, ...]
    annotations: Mapping[str, str | None]  # in the order of the text; None where no value is given
    text: str = field(default="", compare=False)  # its own text; "" when it came from JSON

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The holes to be filled by a link; () for a policy."""
        return tuple(c.slot for c in (self.principal, self.resource) if c.slot is not None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a statement, or a point in it, stands. Lines and columns count from 1, offsets from 0."""

    file: str | None
    line: int
    column: int
    offset: int


def children(node: Expr) -> Iterator[Expr]:
    """Yield the expressions directly below `node`, in evaluation order."""
    match node:
        case Literal() | Variable() | Slot():
            return
        case If(test, then, otherwise):
            yield from (test, then, otherwise)
        case And(left, right) | Or(left, right) | Binary(_, left, right):
            yield from (left, right)
        case Not(operand) | Negate(operand):
            yield operand
        case GetAttr(inner) | HasAttr(inner) | Like(inner) | IsEmpty(inner):
            yield inner
        case Is(inner, _, container):
            yield inner
            if container is not None:
                yield container
        case SetOf(items):
            yield from items
        case RecordOf(pairs):
            for _, item in pairs:
                yield item
        case Call(_, arguments):
            yield from arguments
