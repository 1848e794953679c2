"""The type of every expression in one kind of request, and what is wrong with it.

The rules are those of Cedar (cedar-spec, `Validation/Typechecker.lean`; docs.cedarpolicy.com, "Validation"), including
which part of an expression is not looked at: the right of `false && …` and of `true || …`, the branch that is never
taken. What is known to be false in one kind of request is how a policy says "not for this one".

An answer has three parts: the type, None where none can be told; what is known once the expression is true
(`capabilities.py`); and whether it is free of errors. After an error checking goes on, to tell of all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.policy.language import tree
from gateway.policy.validator import attributes, calls, membership
from gateway.policy.validator.answers import (
    A_BOOL,
    A_LONG,
    A_SET,
    A_STRING,
    AN_ENTITY,
    CONTAINS_HINT,
    LIKE_HINT,
    NO_HINTS,
    SET_HINTS,
    SUM_HINTS,
    Answer,
    Hints,
    Wanted,
    both,
    either,
    failed,
    negated,
)
from gateway.policy.validator.capabilities import NOTHING, Capabilities
from gateway.policy.validator.declared import Declared, Environment
from gateway.policy.validator.hints import Words
from gateway.policy.validator.report import Findings
from gateway.policy.validator.types import (
    BOOL,
    FALSE,
    LONG,
    NEVER,
    STRING,
    TRUE,
    Bool,
    Entity,
    Extension,
    Field,
    Long,
    Mismatch,
    Record,
    Set,
    String,
    Type,
    are_disjoint,
    known,
    least_upper_bound,
    spelled,
)

DEPTH_MAX: Final = 180  # of expressions in one another; four calls each, below Python's limit of 1,000

_COMPARED: Final = "Long, datetime or duration"


class TooDeep(Exception):
    """An expression is nested beyond DEPTH_MAX."""


class Checker:
    """Checks expressions in the environment that was entered last."""

    def __init__(self, declared: Declared, strict: bool) -> None:
        self.declared = declared
        self.strict = strict
        self.environment: Environment
        self.findings: Findings
        self._depth = 0

    def conditions(
        self, conditions: tuple[tree.Condition, ...], environment: Environment, findings: Findings
    ) -> Answer:
        """Give the type of `when` and `unless` together. Raises TooDeep."""
        self.environment, self.findings, self._depth = environment, findings, 0
        answer = Answer(TRUE)
        for condition in conditions:
            if answer.type is FALSE:
                break
            right = self.expect(condition.body, answer.holds, A_BOOL)
            if condition.kind == "unless":
                right = negated(right)
            answer = both(answer, right)
        return answer

    def check(self, node: tree.Expr, holds: Capabilities) -> Answer:
        """Give what is known of an expression, where `holds` is known before."""
        if self._depth >= DEPTH_MAX:
            raise TooDeep
        self._depth += 1
        answer = _RULES[type(node)](self, node, holds)
        self._depth -= 1
        return answer

    def expect(self, node: tree.Expr, holds: Capabilities, wanted: Wanted, hints: Hints = NO_HINTS) -> Answer:
        """Check an operand that has to be of some kind."""
        answer = self.check(node, holds)
        found = answer.type
        if found is None:
            return Answer(None, NOTHING, False)
        if isinstance(found, wanted.kinds):
            return answer
        self.mistyped(node, wanted.words, found, hints.get(type(found), ""))
        return Answer(None, NOTHING, False)

    def expect_type(self, node: tree.Expr, holds: Capabilities, wanted: Type) -> Answer:
        """Check an argument that has to be of one type."""
        answer = self.check(node, holds)
        if answer.type is None or answer.type == wanted:
            return answer
        self.mistyped(node, spelled(wanted), answer.type)
        return Answer(None, NOTHING, False)

    def mistyped(self, node: tree.Expr, wanted: str, found: Type, hint: str = "") -> None:
        """Tell of an operand that is of another type."""
        self.findings.add("unexpected_type", f"expected {wanted}, found `{spelled(found)}`", hint, node)

    def bound(self, node: tree.Expr, types: list[Type], where: str) -> Type | None:
        """Give the least upper bound of types, or tell that they do not go together."""
        found: Type = NEVER
        for each in types:
            following = least_upper_bound(found, each, self.strict)
            if isinstance(following, Mismatch):
                names = list(dict.fromkeys(f"`{spelled(one)}`" for one in types))
                shown = " and ".join(names[:2] if len(names) < 3 else (", ".join(names[:-1]), names[-1]))
                self.findings.add("incompatible_types", f"{where} have different types: {shown}", following.value, node)
                return None
            found = following
        return found

    # --- leaves

    def _literal(self, node: tree.Literal, holds: Capabilities) -> Answer:
        value = node.value
        if isinstance(value, bool):
            return Answer(known(value))
        if isinstance(value, int):
            return Answer(LONG)
        if isinstance(value, str):
            return Answer(STRING)
        found = self.declared.literal(value)  # unknown ones are told of once, by `names.py`
        return Answer(found, NOTHING, found is not None)

    def _variable(self, node: tree.Variable, holds: Capabilities) -> Answer:
        environment = self.environment
        match node.name:
            case "principal":
                return Answer(environment.principal)
            case "action":
                return Answer(environment.action_type)
            case "resource":
                return Answer(environment.resource)
            case "context":
                return Answer(environment.context)

    def _slot(self, node: tree.Slot, holds: Capabilities) -> Answer:
        # Scopes alone have slots, and `scope.py` reads these. A tree that was made by hand is refused.
        self.findings.add("misplaced_slot", f"`{node.name}` stands in a condition", "use it in the scope", node)
        return Answer(None, NOTHING, False)

    # --- logic

    def _if(self, node: tree.If, holds: Capabilities) -> Answer:
        test = self.expect(node.test, holds, A_BOOL)
        if test.type is TRUE:
            then = self.check(node.then, holds | test.holds)
            return Answer(then.type, then.holds | test.holds, then.ok) if test.ok and then.ok else failed(then.type)
        if test.type is FALSE:
            otherwise = self.check(node.otherwise, holds)
            return otherwise if test.ok else failed(otherwise.type)
        then = self.check(node.then, holds | test.holds)
        otherwise = self.check(node.otherwise, holds)
        if then.type is None or otherwise.type is None:
            return failed(None)
        found = self.bound(node, [then.type, otherwise.type], "the branches of `if`")
        if found is None or not (test.ok and then.ok and otherwise.ok):
            return failed(found)
        return Answer(found, (then.holds | test.holds) & otherwise.holds)

    def _and(self, node: tree.And, holds: Capabilities) -> Answer:
        first, others = _spine(node, tree.And)
        answer = self.expect(first, holds, A_BOOL)
        for each in others:
            if answer.type is FALSE:
                break  # what stands right of it is never evaluated
            answer = both(answer, self.expect(each, holds | answer.holds, A_BOOL))
        return answer

    def _or(self, node: tree.Or, holds: Capabilities) -> Answer:
        first, others = _spine(node, tree.Or)
        answer = self.expect(first, holds, A_BOOL)
        for each in others:
            if answer.type is TRUE:
                break  # what stands right of it is never evaluated
            answer = either(answer, self.expect(each, holds, A_BOOL))
        return answer

    def _not(self, node: tree.Not, holds: Capabilities) -> Answer:
        return negated(self.expect(node.operand, holds, A_BOOL))

    # --- operators

    def _negate(self, node: tree.Negate, holds: Capabilities) -> Answer:
        return Answer(LONG, NOTHING, self.expect(node.operand, holds, A_LONG).ok)

    def _like(self, node: tree.Like, holds: Capabilities) -> Answer:
        hints: Hints = {Entity: "use `is` to ask for an entity's type"}
        return Answer(BOOL, NOTHING, self.expect(node.object, holds, A_STRING, hints).ok)

    def _is_empty(self, node: tree.IsEmpty, holds: Capabilities) -> Answer:
        hints: Hints = {String: 'compare with `""` to ask whether a string is empty'}
        return Answer(BOOL, NOTHING, self.expect(node.object, holds, A_SET, hints).ok)

    def _is(self, node: tree.Is, holds: Capabilities) -> Answer:
        hints = dict.fromkeys((Bool, Long, String, Set, Record, Extension), "only types of entities can be asked for")
        target = self.expect(node.object, holds, AN_ENTITY, hints)
        if not isinstance(target.type, Entity):
            test = failed(BOOL)
        elif node.type not in target.type.names:
            return Answer(FALSE, NOTHING, target.ok)
        else:
            test = Answer(TRUE if len(target.type.names) == 1 else BOOL, NOTHING, target.ok)
        if node.container is None:
            return test
        return both(test, self._in(node, node.object, node.container, holds))

    def _binary(self, node: tree.Binary, holds: Capabilities) -> Answer:
        op = node.op
        match op:
            case "==":
                return self._equal(node, holds)
            case "!=":
                return negated(self._equal(node, holds))
            case "<" | "<=" | ">" | ">=":
                return self._compared(node, holds)
            case "in":
                return self._in(node, node.left, node.right, holds)
            case "+" | "-" | "*":
                hints: Hints = SUM_HINTS if op == "+" else {Set: SUM_HINTS[Set]}
                left = self.expect(node.left, holds, A_LONG, hints)
                return Answer(LONG, NOTHING, self.expect(node.right, holds, A_LONG, hints).ok and left.ok)
            case "contains" | "containsAll" | "containsAny":
                return self._contains(node, holds)
            case "hasTag":
                return attributes.has_tag(self, node, holds)
            case "getTag":
                return attributes.get_tag(self, node, holds)

    def _equal(self, node: tree.Binary, holds: Capabilities) -> Answer:
        left, right = self.check(node.left, holds), self.check(node.right, holds)
        one, other = left.type, right.type
        ok = left.ok and right.ok
        if one is not None and other is not None and are_disjoint(one, other):
            return Answer(FALSE, NOTHING, ok)
        mine, theirs = self.replaced(node.left), self.replaced(node.right)
        if isinstance(mine, tree.Literal) and isinstance(theirs, tree.Literal):
            return Answer(known(mine == theirs), NOTHING, ok)
        if self.strict and one is not None and other is not None:
            ok = self.bound(node, [one, other], f"the sides of `{node.op}`") is not None and ok
        return Answer(BOOL, NOTHING, ok)

    def replaced(self, node: tree.Expr) -> tree.Expr:
        """Put the action of this environment in place of `action`, which is the only variable whose value is known.

        Cedar's reader makes one literal of `true && false`, and of nothing else; what is told by literals sees that.
        """
        if isinstance(node, tree.Variable) and node.name == "action":
            return tree.Literal(self.environment.action)
        if isinstance(node, tree.And | tree.Or):
            first, others = _spine(node, type(node))
            operands = [self.replaced(each) for each in (first, *others)]
            values = [each.value for each in operands if isinstance(each, tree.Literal)]
            if len(values) == len(operands) and all(isinstance(value, bool) for value in values):
                return tree.Literal(all(values) if isinstance(node, tree.And) else any(values))
        return node

    def _compared(self, node: tree.Binary, holds: Capabilities) -> Answer:
        left, right = self.check(node.left, holds), self.check(node.right, holds)
        one, other = left.type, right.type
        if one is None or other is None:
            return failed(BOOL)
        if one == other and _is_ordered(one):
            return Answer(BOOL, NOTHING, left.ok and right.ok)
        if isinstance(one, Long) or (_is_ordered(one) and not isinstance(other, Long)):
            self.mistyped(node.right, spelled(one), other)
        elif _is_ordered(other):
            self.mistyped(node.left, spelled(other), one)
        else:
            hint = "compare decimals with `lessThan` and its kin" if Extension("decimal") in (one, other) else ""
            self.mistyped(node.left, _COMPARED, one, hint)
            self.mistyped(node.right, _COMPARED, other, hint)
        return failed(BOOL)

    def _in(self, node: tree.Expr, left: tree.Expr, right: tree.Expr, holds: Capabilities) -> Answer:
        one = self.expect(left, holds, AN_ENTITY, {Set: CONTAINS_HINT, String: LIKE_HINT})
        other = self.check(right, holds)
        found = other.type
        if found is not None and not membership.is_container(found):
            hint = CONTAINS_HINT if isinstance(found, Set) else LIKE_HINT if isinstance(found, String) else ""
            self.mistyped(right, "an entity or a set of entities", found, hint)
            return failed(BOOL)
        if found is None or not (one.ok and other.ok):
            return failed(BOOL)
        decided = membership.decide(self.declared, self.replaced(left), one.type, self.containers(right), found)
        return Answer(decided)

    def containers(self, right: tree.Expr) -> list[tree.Expr]:
        """Give what stands right of `in`, one by one where it is a set that is written out."""
        items = right.items if isinstance(right, tree.SetOf) else (right,)
        return [self.replaced(item) for item in items]

    def _contains(self, node: tree.Binary, holds: Capabilities) -> Answer:
        left = self.expect(node.left, holds, A_SET, SET_HINTS)
        if node.op == "contains":
            right = self.check(node.right, holds)
            one = left.type.element if isinstance(left.type, Set) else None
            where = "the set's elements and the value"
        else:
            hints = dict.fromkeys(
                (Bool, Long, String, Entity, Record, Extension), "use `contains` for a single element"
            )
            right = self.expect(node.right, holds, A_SET, hints)
            one = left.type
            where = "the sets"
        ok = left.ok and right.ok
        if self.strict and one is not None and right.type is not None:
            ok = self.bound(node, [one, right.type], where) is not None and ok
        return Answer(BOOL, NOTHING, ok)

    # --- values

    def _set(self, node: tree.SetOf, holds: Capabilities) -> Answer:
        answers = [self.check(item, holds) for item in node.items]
        if self.strict and not node.items:
            self.findings.add("empty_set", "an empty set has no type of elements", "ask `isEmpty()` instead", node)
            return failed(None)
        types = [answer.type for answer in answers if answer.type is not None]
        if len(types) < len(answers):
            return failed(None)
        element = self.bound(node, types, "the elements of a set")
        if element is None:
            return failed(None)
        return Answer(Set(element), NOTHING, all(answer.ok for answer in answers))

    def _record(self, node: tree.RecordOf, holds: Capabilities) -> Answer:
        fields: dict[str, Field] = {}
        ok = True
        for name, item in node.items:
            answer = self.check(item, holds)
            ok = ok and answer.ok
            if answer.type is not None:
                fields[name] = Field(answer.type)
        return Answer(Record(fields), NOTHING, ok) if len(fields) == len(node.items) else failed(None)

    def _call(self, node: tree.Call, holds: Capabilities) -> Answer:
        signature = calls.SIGNATURES.get(node.function)
        if signature is None:
            hint = Words(calls.SIGNATURES).hint(node.function)
            self.findings.add("unknown_function", f"unknown function `{node.function}`", hint, node)
        elif calls.has_fitting_arguments(node, signature, self.strict, self.findings):
            answers = [
                self.expect_type(argument, holds, wanted)
                for argument, wanted in zip(node.arguments, signature.arguments, strict=True)
            ]
            return Answer(signature.result, NOTHING, all(answer.ok for answer in answers))
        for argument in node.arguments:
            self.check(argument, holds)
        return failed(None if signature is None else signature.result)


def _is_ordered(found: Type) -> bool:
    return isinstance(found, Long) or (isinstance(found, Extension) and found.name in ("datetime", "duration"))


def _spine(node: tree.Expr, kind: type[tree.And] | type[tree.Or]) -> tuple[tree.Expr, list[tree.Expr]]:
    """Give the operands of a chain that nests to the left, so that a long one does not count as a deep one."""
    others: list[tree.Expr] = []
    while isinstance(node, kind):
        others.append(node.right)
        node = node.left
    return node, others[::-1]


_RULES: Final[Mapping[type, Callable[[Checker, Any, Capabilities], Answer]]] = {
    tree.Literal: Checker._literal,
    tree.Variable: Checker._variable,
    tree.Slot: Checker._slot,
    tree.If: Checker._if,
    tree.And: Checker._and,
    tree.Or: Checker._or,
    tree.Not: Checker._not,
    tree.Negate: Checker._negate,
    tree.Binary: Checker._binary,
    tree.GetAttr: attributes.get_attr,
    tree.HasAttr: attributes.has_attr,
    tree.Like: Checker._like,
    tree.Is: Checker._is,
    tree.IsEmpty: Checker._is_empty,
    tree.SetOf: Checker._set,
    tree.RecordOf: Checker._record,
    tree.Call: Checker._call,
}
