"""Trees to instructions: the code generator.

One pass. Each `_emit` method appends the instructions that leave the node's value on the stack, and says whether that
value is surely a boolean (then `&&`, `||` need not check it). A node whose parts became constants is folded: the
machine itself computes it (`fold.py`), so folding cannot differ from running. What would fail is left to fail at run
time, in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.policy.compiler.constants import encode_literal, encode_record, encode_set
from gateway.policy.compiler.fold import fold
from gateway.policy.compiler.instructions import FUNCTION, OP, VARIABLE, A, B, C
from gateway.policy.language import tree
from gateway.policy.language.tree import Expr

_BINARY = {
    "==": OP["EQ"],
    "!=": OP["NE"],
    "<": OP["LT"],
    "<=": OP["LE"],
    ">": OP["GT"],
    ">=": OP["GE"],
    "in": OP["IN"],
    "+": OP["ADD"],
    "-": OP["SUBTRACT"],
    "*": OP["MULTIPLY"],
    "contains": OP["CONTAINS"],
    "containsAll": OP["CONTAINS_ALL"],
    "containsAny": OP["CONTAINS_ANY"],
    "getTag": OP["GET_TAG"],
    "hasTag": OP["HAS_TAG"],
}
_NOT_BOOLEAN = frozenset(("+", "-", "*", "getTag"))
_CHAINS = frozenset(("+", "-", "*"))
# What an instruction costs beyond its dispatch, in units of about a nanosecond: only the order of clauses hangs on it.
_DEAR = {"in": 6, "contains": 6, "containsAll": 12, "containsAny": 12, "getTag": 10, "hasTag": 10}

CONST, LONG, BOOL, VAR, ATTR = OP["CONST"], OP["LONG"], OP["BOOL"], OP["VAR"], OP["ATTR"]
HAS, HAS_STEP, NOT, NEGATE, EQ = OP["HAS"], OP["HAS_STEP"], OP["NOT"], OP["NEGATE"], OP["EQ"]
IS_EMPTY, LIKE, IS, IS_STEP, IN = OP["IS_EMPTY"], OP["LIKE"], OP["IS"], OP["IS_STEP"], OP["IN"]
SET, RECORD, CALL, AND, OR, CHECK = OP["SET"], OP["RECORD"], OP["CALL"], OP["AND"], OP["OR"], OP["CHECK"]
UNLESS_JUMP, JUMP = OP["UNLESS_JUMP"], OP["JUMP"]
VAR_ATTR, VAR_HAS, VAR_IN, VAR_ATTR_EQ = OP["VAR_ATTR"], OP["VAR_HAS"], OP["VAR_IN"], OP["VAR_ATTR_EQ"]
_PUSHES = frozenset((CONST, LONG, BOOL))
_BOOLEAN_CONSTANTS = (BOOL, BOOL | A)  # false, true


class Emitter:
    """The program that is being written. `code[i]` was written for `nodes[i]`."""

    __slots__ = ("code", "constants", "cost", "keys", "nodes", "patterns", "shapes", "types")

    def __init__(self) -> None:
        self.code: list[int] = []
        self.nodes: list[tree.Node] = []
        self.keys: dict[str, int] = {}
        self.types: dict[str, int] = {}
        self.constants: dict[bytes, int] = {}
        self.patterns: dict[tree.Pattern, int] = {}
        self.shapes: dict[tuple[int, ...], int] = {}
        self.cost = 0

    def emit(self, node: Expr) -> bool:
        """Append what computes `node`; True if its value is surely a boolean."""
        return _EMIT[type(node)](self, node)

    # --- tables

    def key(self, name: str) -> int:
        """Number an attribute's name within the program."""
        return self.keys.setdefault(name, len(self.keys))

    def constant(self, encoded: bytes) -> int:
        """Number a constant within the program."""
        return self.constants.setdefault(encoded, len(self.constants))

    def push(self, encoded: bytes, node: tree.Node) -> bool:
        """Append what pushes an encoded constant."""
        tag = encoded[0]
        if tag == 1:
            self.code.append(_BOOLEAN_CONSTANTS[encoded[1]])
        elif tag == 2 and -0x80000000 <= (number := int.from_bytes(encoded[1:], "little", signed=True)) < 0x80000000:
            self.code.append(LONG | (number & 0xFFFFFFFF) * C)
        else:
            self.code.append(CONST | self.constant(encoded) * C)
        self.nodes.append(node)
        return tag == 1

    def pushed(self, start: int, count: int) -> list[bytes] | None:
        """Give the constants that the code from `start` on pushes, if that is all it does."""
        code = self.code
        if len(code) - start != count:
            return None
        found = []
        constants: list[bytes] = []
        for instruction in code[start:]:
            op = instruction & 0xFF
            if op == CONST:
                constants = constants or list(self.constants)
                found.append(constants[instruction >> 32])
            elif op == LONG:
                number = instruction >> 32
                found.append(encode_literal(number - 0x100000000 if number & 0x80000000 else number))
            elif op == BOOL:
                found.append(encode_literal(instruction & 0xFF00 != 0))
            else:
                return None
        return found

    def _folded(self, node: tree.Node, start: int, count: int, instruction: int) -> bool | None:
        """Append `instruction`, or its result where its `count` operands are constants; None: not folded."""
        code = self.code
        if len(code) - start == count and all(i & 0xFF in _PUSHES for i in code[start:]):
            operands = self.pushed(start, count)
            assert operands is not None
            result = fold(tuple(operands), instruction)
            if result is not None:
                del code[start:], self.nodes[start:]
                return self.push(result, node)
        code.append(instruction)
        self.nodes.append(node)
        return None

    def _cut(self, start: int) -> None:
        del self.code[start:], self.nodes[start:]

    def _patch(self, at: int, unit: int) -> None:
        """Let the jump at `at` lead to the next instruction to be written."""
        self.code[at] += (len(self.code) - at - 1) * unit

    # --- nodes

    def _literal(self, node: tree.Literal) -> bool:
        return self.push(encode_literal(node.value), node)

    def _variable(self, node: tree.Variable) -> bool:
        self.code.append(VAR | VARIABLE[node.name] * A)
        self.nodes.append(node)
        return False

    def _slot(self, node: tree.Slot) -> bool:
        raise ValueError(f"`{node.name}` outside of a scope")

    def _get(self, node: tree.GetAttr) -> bool:
        target = node.object
        key = self.keys.setdefault(node.name, len(self.keys)) * C
        self.cost += 2
        if type(target) is tree.Variable:
            self.code.append(VAR_ATTR | VARIABLE[target.name] * A | key)
            self.nodes.append(node)
            return False
        start = len(self.code)
        _EMIT[type(target)](self, target)
        if self.code[start] & 0xFF == CONST and len(self.code) == start + 1:
            return bool(self._fold_named(node, start, ATTR, node.name))
        self.code.append(ATTR | key)
        self.nodes.append(node)
        return False

    def _fold_named(self, node: tree.Node, start: int, op: int, name: str) -> bool | None:
        operands = self.pushed(start, 1)
        result = None
        if operands is not None and operands[0][0] == 6:  # a record; an entity's attributes are not constant
            result = fold(tuple(operands), op, name)
        if result is not None:
            self._cut(start)
            return self.push(result, node)
        self.code.append(op | self.key(name) * C)
        self.nodes.append(node)
        return None

    def _has(self, node: tree.HasAttr) -> bool:
        target = node.object
        path = node.path
        self.cost += 2 * len(path)
        if len(path) == 1:
            if type(target) is tree.Variable:
                self.code.append(VAR_HAS | VARIABLE[target.name] * A | self.key(path[0]) * C)
                self.nodes.append(node)
                return True
            start = len(self.code)
            self.emit(target)
            self._fold_named(node, start, HAS, path[0])
            return True
        self.emit(target)
        jumps = []
        for name in path[:-1]:
            jumps.append(len(self.code))
            self.code.append(HAS_STEP | self.key(name) * C)
            self.nodes.append(node)
        self.code.append(HAS | self.key(path[-1]) * C)
        self.nodes.append(node)
        for at in jumps:
            self._patch(at, B)
        return True

    def _if(self, node: tree.If) -> bool:
        start = len(self.code)
        self.emit(node.test)
        known = self._known(start)
        if known is not None:
            self._cut(start)
            return self.emit(node.then if known else node.otherwise)
        skip = len(self.code)
        self.code.append(UNLESS_JUMP)
        self.nodes.append(node)
        then = self.emit(node.then)
        leave = len(self.code)
        self.code.append(JUMP)
        self.nodes.append(node)
        self._patch(skip, C)
        otherwise = self.emit(node.otherwise)
        self._patch(leave, C)
        return then and otherwise

    def _known(self, start: int) -> bool | None:
        """Give the boolean that the code from `start` on always pushes, if it does just that."""
        if len(self.code) == start + 1 and self.code[start] in _BOOLEAN_CONSTANTS:
            return self.code[start] != BOOL
        return None

    def _logic(self, node: tree.And | tree.Or) -> bool:
        # `a && (b && c)` is `(a && b) && c`: a tree of one operator is a row of operands, whatever its shape, so that
        # the length of a row is no depth. What settles one operand settles them all: every jump leads to the end.
        kind = type(node)
        op, absorbing = (AND, False) if kind is tree.And else (OR, True)
        waiting: list[Expr] = [node]
        start = len(self.code)
        jumps: list[int] = []
        previous: Expr | None = None
        boolean = True
        while waiting:
            operand = waiting.pop()
            if type(operand) is kind:
                waiting.append(operand.right)
                waiting.append(operand.left)
                continue
            if previous is not None:
                known = self._known(start)
                if known is absorbing:
                    return True  # the rest is never evaluated
                if known is not None:
                    self._cut(start)  # `true && x` and `false || x` are x, which must be a boolean
                else:
                    jumps.append(len(self.code))
                    self.code.append(op)
                    self.nodes.append(previous)
            boolean = self.emit(operand)
            previous = operand
        if not boolean:
            self.code.append(CHECK)
            self.nodes.append(operand)
        for at in jumps:
            self._patch(at, C)
        return True

    def _not(self, node: tree.Not) -> bool:
        start = len(self.code)
        self.emit(node.operand)
        self._folded(node, start, 1, NOT)
        return True

    def _negate(self, node: tree.Negate) -> bool:
        start = len(self.code)
        self.emit(node.operand)
        self._folded(node, start, 1, NEGATE)
        return False

    def _binary(self, node: tree.Binary) -> bool:
        name = node.op
        left, right = node.left, node.right
        start = len(self.code)
        if name == "==":
            if (
                type(left) is tree.GetAttr
                and type(left.object) is tree.Variable
                and type(right) is tree.Literal
                and (constant := self.constant(encode_literal(right.value))) <= 0xFFFF
            ):
                variable = VARIABLE[left.object.name]
                self.code.append(VAR_ATTR_EQ | variable * A | constant * B | self.key(left.name) * C)
                self.nodes.append(left)  # where it fails
                self.cost += 3
                return True
        elif name == "in":
            if type(left) is tree.Variable and left.name != "context":
                self.emit(left)
                self.emit(right)
                encoded = self.pushed(start + 1, 1)
                self.cost += 6
                if encoded is not None and encoded[0][0] in (4, 5):  # an entity, or a set
                    self._cut(start)
                    self.code.append(VAR_IN | VARIABLE[left.name] * A | self.constant(encoded[0]) * C)
                else:
                    self.code.append(IN)
                self.nodes.append(node)
                return True
        elif name in _CHAINS:
            return self._arithmetic(node)
        self.emit(left)
        self.emit(right)
        self.cost += _DEAR.get(name, 1)
        folded = self._folded(node, start, 2, _BINARY[name]) if name not in ("in", "getTag", "hasTag") else None
        if name in ("in", "getTag", "hasTag"):
            self.code.append(_BINARY[name])
            self.nodes.append(node)
        return name not in _NOT_BOOLEAN if folded is None else folded

    def _arithmetic(self, node: tree.Binary) -> bool:
        chain: list[tree.Binary] = []
        left: Expr = node
        while type(left) is tree.Binary and left.op in _CHAINS:
            chain.append(left)
            left = left.left
        start = len(self.code)
        self.emit(left)
        while chain:
            link = chain.pop()
            self.emit(link.right)
            self._folded(link, start, 2, _BINARY[link.op])
        return False

    def _like(self, node: tree.Like) -> bool:
        self.emit(node.object)
        self.code.append(LIKE | self.patterns.setdefault(node.pattern, len(self.patterns)) * C)
        self.nodes.append(node)
        self.cost += 10
        return True

    def _is(self, node: tree.Is) -> bool:
        self.emit(node.object)
        type_number = self.types.setdefault(node.type, len(self.types))
        if node.container is None:
            self.code.append(IS | type_number * C)
            self.nodes.append(node)
            return True
        step = len(self.code)
        self.code.append(IS_STEP | type_number * C)
        self.nodes.append(node)
        self.emit(node.container)
        self.code.append(IN)
        self.nodes.append(node)
        self._patch(step, B)
        self.cost += 6
        return True

    def _is_empty(self, node: tree.IsEmpty) -> bool:
        start = len(self.code)
        self.emit(node.object)
        self._folded(node, start, 1, IS_EMPTY)
        return True

    def _set(self, node: tree.SetOf) -> bool:
        start = len(self.code)
        items = node.items
        if all([type(item) is tree.Literal for item in items]):
            return self.push(encode_set([encode_literal(item.value) for item in items]), node)  # type: ignore[union-attr]
        for item in items:
            _EMIT[type(item)](self, item)
        encoded = self.pushed(start, len(items))
        if encoded is not None:
            self._cut(start)
            return self.push(encode_set(encoded), node)
        self.code.append(SET | len(items) * C)
        self.nodes.append(node)
        self.cost += 10 + 4 * len(items)
        return False

    def _record(self, node: tree.RecordOf) -> bool:
        start = len(self.code)
        for _, item in node.items:
            self.emit(item)
        encoded = self.pushed(start, len(node.items))
        if encoded is not None:
            self._cut(start)
            names = [name for name, _ in node.items]
            return self.push(encode_record(list(zip(names, encoded, strict=True))), node)
        shape = tuple([self.key(name) for name, _ in node.items])
        self.code.append(RECORD | len(shape) * B | self.shapes.setdefault(shape, len(self.shapes)) * C)
        self.nodes.append(node)
        self.cost += 10 + 4 * len(shape)
        return False

    def _call(self, node: tree.Call) -> bool:
        start = len(self.code)
        for argument in node.arguments:
            self.emit(argument)
        number, _ = FUNCTION[node.function]
        self.cost += 10
        instruction = CALL | len(node.arguments) * A | number * B
        return bool(self._folded(node, start, len(node.arguments), instruction)) or node.function in _PREDICATES


_PREDICATES = frozenset(
    (
        "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual",
        "isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange",
    )
)  # fmt: skip

_EMIT: dict[type, Callable[[Emitter, Any], bool]] = {
    tree.Literal: Emitter._literal,
    tree.Variable: Emitter._variable,
    tree.Slot: Emitter._slot,
    tree.If: Emitter._if,
    tree.And: Emitter._logic,
    tree.Or: Emitter._logic,
    tree.Not: Emitter._not,
    tree.Negate: Emitter._negate,
    tree.Binary: Emitter._binary,
    tree.GetAttr: Emitter._get,
    tree.HasAttr: Emitter._has,
    tree.Like: Emitter._like,
    tree.Is: Emitter._is,
    tree.IsEmpty: Emitter._is_empty,
    tree.SetOf: Emitter._set,
    tree.RecordOf: Emitter._record,
    tree.Call: Emitter._call,
}
