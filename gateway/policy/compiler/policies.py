"""Statements to programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gateway._native.vm import Program
from gateway.policy.compiler.expressions import Emitter
from gateway.policy.compiler.image import encode_image
from gateway.policy.compiler.instructions import OP, A, B
from gateway.policy.faults import Fault, PolicySyntaxError
from gateway.policy.language import tree
from gateway.policy.language.tree import Expr, Statement

_SATISFIED, _RESULT, _CLAUSE, _EQ, _EQ_CLAUSE = OP["SATISFIED"], OP["RESULT"], OP["CLAUSE"], OP["EQ"], OP["EQ_CLAUSE"]
_FALSE, _TRUE = OP["BOOL"], OP["BOOL"] | A
_COST_STEP: Final = 8  # about nanoseconds
_KINDS: Final[dict[str, int]] = {"when": 0, "unless": 1}

_Conjunct = tuple[int, Expr, bool]  # kind of its condition, expression, whether it must be false


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a policy that must hold: `body` must be true, or false where `negated`."""

    kind: Literal["when", "unless"]  # of the condition that it is part of
    body: Expr
    negated: bool


def conjuncts(statement: Statement) -> list[_Conjunct]:
    """Split the conditions into clauses that must all hold, in the order of the text.

    `a && b` holds where a holds and b holds; `!(a || b)` where neither a nor b does. The first of them that is false,
    or that fails, is also what makes the whole false, or fail.
    """
    clauses: list[_Conjunct] = []
    for condition in statement.conditions:
        kind = _KINDS[condition.kind]
        waiting: list[tuple[Expr, bool]] = [(condition.body, kind == 1)]
        while waiting:
            node, negated = waiting.pop()
            if type(node) is tree.Not:
                waiting.append((node.operand, not negated))
            elif type(node) is (tree.Or if negated else tree.And):
                waiting.append((node.right, negated))
                waiting.append((node.left, negated))
            else:
                clauses.append((kind, node, negated))
    return clauses


def compile_statement(statement: Statement) -> Program:
    """Give the program of a policy's conditions; links of a template share it.

    The quick body has the cheap clauses first: false and failed both mean "not satisfied", so the order of clauses
    cannot change whether a policy is satisfied, only which of the two is reported. The order within a clause is kept.
    Raises PolicySyntaxError for a policy beyond the machine's limits.
    """
    try:
        return Program(_statement_image(statement))
    except (ValueError, RecursionError) as error:
        raise _beyond(statement, error) from error


def _statement_image(statement: Statement) -> bytes:
    emitter, table, blocks = _write(statement)
    code, nodes = emitter.code, emitter.nodes
    quick_entry = 0
    # Only clear differences are worth a second body.
    ordered = sorted(blocks, key=lambda block: block[0] // _COST_STEP)
    if [start for _, start, _, _ in ordered] != sorted([start for _, start, _, _ in ordered]):
        quick_entry = len(code)
        for _, start, end, _ in ordered:
            code += code[start:end]
            nodes += nodes[start:end]
        code.append(_SATISFIED)
        nodes.append(tree.Node())
    return _image(emitter, table, quick_entry)


_Block = tuple[int, int, int, int]  # cost, first instruction, one beyond its last, number of the clause


def _write(statement: Statement) -> tuple[Emitter, list[int], list[_Block]]:
    """Write the exact body; also give the table of clauses and where each clause's code lies."""
    emitter = Emitter()
    code, nodes = emitter.code, emitter.nodes
    table: list[int] = []
    blocks: list[_Block] = []
    for number, (kind, node, negated) in enumerate(conjuncts(statement)):
        start = len(code)
        emitter.cost = 0
        emitter.emit(node)
        table += (kind, node.start, node.end)
        if len(code) == start + 1 and code[start] == (_FALSE if negated else _TRUE):
            del code[start], nodes[start]  # always holds
            continue
        if code[-1] == _EQ and type(node) is tree.Binary:
            code[-1] = _EQ_CLAUSE | negated * A | number * B
        else:
            code.append(_CLAUSE | negated * A | number * B)
            nodes.append(node)
        end = len(code)
        blocks.append((emitter.cost + end - start, start, end, number))
    code.append(_SATISFIED)
    nodes.append(tree.Node())
    return emitter, table, blocks


def nodes_of(statement: Statement) -> list[tuple[tree.Node, Clause | None]]:
    """Give for each instruction of the exact body the node that it was written for, and the clause that it is part of.

    Compiles anew: the same statement always gives the same code.
    """
    emitter, _, blocks = _write(statement)
    clauses: list[Clause | None] = [None] * len(emitter.code)
    all_clauses = conjuncts(statement)
    for _, start, end, number in blocks:
        kind, node, negated = all_clauses[number]
        clauses[start:end] = [Clause("unless" if kind else "when", node, negated)] * (end - start)
    return list(zip(emitter.nodes, clauses, strict=True))


def nodes_of_expression(node: Expr) -> list[tree.Node]:
    """Give for each instruction of an expression's program the node that it was written for."""
    emitter = Emitter()
    emitter.emit(node)
    return [*emitter.nodes, node]


def compile_expression(node: Expr) -> Program:
    """Give the program that ends with the value of `node`. Raises PolicySyntaxError beyond the machine's limits."""
    try:
        emitter = Emitter()
        emitter.emit(node)
        emitter.code.append(_RESULT)
        emitter.nodes.append(node)
        return Program(_image(emitter, (), 0))
    except (ValueError, RecursionError) as error:
        raise _beyond(node, error) from error


def _image(emitter: Emitter, clauses: list[int] | tuple[()], quick_entry: int) -> bytes:
    return encode_image(
        emitter.code,
        spans=[place for node in emitter.nodes for place in (node.start, node.end)],
        clauses=clauses,
        keys=emitter.keys,
        types=emitter.types,
        constants=emitter.constants,
        patterns=emitter.patterns,
        shapes=emitter.shapes,
        quick_entry=quick_entry,
    )


def _beyond(node: tree.Node, error: Exception) -> PolicySyntaxError:
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    fault = Fault(
        "too_complex", f"the policy is beyond what the machine runs: {reason}", "split it into several policies"
    )
    return PolicySyntaxError([fault])
