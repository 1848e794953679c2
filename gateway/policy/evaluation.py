"""Evaluating one expression by the machine: for explanations, folding and partial evaluation."""

from __future__ import annotations

from typing import Any

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway._native.vm import run_expression
from gateway.errors import GatewayError
from gateway.policy.compiler.policies import compile_expression, nodes_of_expression
from gateway.policy.language.tree import Expr, Node


class EvaluationError(GatewayError):
    """An expression without a value. `code` is one of `gateway._native.vm.ERRORS`, `node` the part that failed."""

    code = "evaluation_failed"
    status = 400

    def __init__(self, code: str, node: Node) -> None:
        super().__init__(code.replace("_", " "))
        self.code = code  # type: ignore[misc]
        self.node = node

    def __reduce__(self) -> tuple[type[EvaluationError], tuple[str, Node]]:
        return type(self), (self.code, self.node)


def evaluate(
    expression: Expr,
    *,
    principal: EntityUid | None = None,
    action: EntityUid | None = None,
    resource: EntityUid | None = None,
    context: dict[str, Any] | None = None,
    store: EntityStore | None = None,
) -> Any:
    """Give the value of `expression` (the shapes of values are those of contexts).

    A variable that is None is unknown: an expression that reads it raises EvaluationError(`internal_fault`). Without a
    store no entity is defined. Raises EvaluationError where Cedar's evaluator has an error.
    """
    program = compile_expression(expression)
    code, value, pc = run_expression(
        program, EntityStore() if store is None else store, principal, action, resource, context
    )
    if code is not None:
        raise EvaluationError(code, nodes_of_expression(expression)[pc])
    return value
