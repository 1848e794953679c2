"""Why a request was decided as it was: for each policy the clause that failed, where it stands, and the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway._native.vm import Answer, Decider, Request
from gateway.policy.compiler.policies import compile_expression, nodes_of
from gateway.policy.language import tree
from gateway.policy.language.printer import print_expression
from gateway.policy.language.tree import Expr, Node
from gateway.policy.policy_set import Policy

Outcome = Literal["satisfied", "unsatisfied", "error", "fault"]
ClauseKind = Literal["principal", "action", "resource", "when", "unless"]


@dataclass(frozen=True, slots=True)
class Operand:
    """A part of the clause that failed and what it was; `error` is the code where it had no value."""

    text: str
    value: Any
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyExplanation:
    """What became of one policy.

    Where it is not satisfied, `clause` says by which part of it: `principal`, `action`, `resource` of its head, or a
    condition of kind `when` or `unless`, of which `text` is the conjunct that did not hold. In an error, `code` is the
    reason and `text` the node that failed. `start` and `end` count characters of the statement's text; -1: unknown.
    """

    policy_id: str
    effect: str
    outcome: Outcome
    clause: ClauseKind | None = None
    code: str | None = None
    start: int = -1
    end: int = -1
    text: str = ""
    operands: tuple[Operand, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer, and each policy's part in it, in the order of the set."""

    answer: Answer
    policies: tuple[PolicyExplanation, ...]

    @property
    def allowed(self) -> bool:
        """Whether the request is allowed."""
        return self.answer.allowed


def explain(decider: Decider, policies: Mapping[str, Policy], request: Request) -> Explanation:
    """Run every policy alone, in the order of its text, beside the answer that the index gives."""
    found = []
    for (policy_id, policy), (head, code, satisfied, pc) in zip(
        policies.items(), decider.run_each(request), strict=True
    ):
        statement = policy.statement
        if head is not None:
            constraint: tree.Constraint = getattr(statement, head)
            place = _place(statement, constraint)
            found.append(PolicyExplanation(policy_id, statement.effect, "unsatisfied", head, None, *place))
        elif satisfied:
            found.append(PolicyExplanation(policy_id, statement.effect, "satisfied"))
        else:
            found.append(_unsatisfied(decider, policy, request, code, pc))
    return Explanation(decider.answer(request), tuple(found))


def _place(statement: tree.Statement, node: Node) -> tuple[int, int, str]:
    if node.start >= 0 and statement.text:
        return node.start, node.end, statement.text[node.start : node.end]
    return node.start, node.end, ""


def _unsatisfied(decider: Decider, policy: Policy, request: Request, code: str | None, pc: int) -> PolicyExplanation:
    statement = policy.statement
    node, clause = nodes_of(statement)[pc]
    kind: ClauseKind | None = None if clause is None else clause.kind
    outcome: Outcome = "unsatisfied"
    if code is not None:
        outcome = "fault" if code.endswith("_limit") or code == "internal_fault" else "error"
    start, end, text = _place(statement, node)
    if not text and isinstance(node, Expr):
        text = print_expression(node)
    return PolicyExplanation(
        policy.id, statement.effect, outcome, kind, code, start, end, text, _operands(decider, statement, node, request)
    )


def _operands(decider: Decider, statement: tree.Statement, node: Node, request: Request) -> tuple[Operand, ...]:
    if not isinstance(node, Expr):
        return ()
    operands = []
    for part in tree.children(node):
        if isinstance(part, tree.Literal):
            continue
        code, value, _ = decider.evaluate(compile_expression(part), request)
        text = _place(statement, part)[2] or print_expression(part)
        operands.append(Operand(text, value, code))
    return tuple(operands)
