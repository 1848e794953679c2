"""Names that a policy uses and the schema does not declare: entity types, actions, ids of enumerated entities."""

from __future__ import annotations

from typing import Final

from gateway._native.uid import EntityUid, quoted
from gateway.policy.language import tree
from gateway.policy.validator.declared import Declared, is_action_type
from gateway.policy.validator.hints import Words
from gateway.policy.validator.report import Findings

_CHOICES_TOLD_MAX: Final = 8  # of an enumeration, in a hint


class Uses:
    """What the conditions of a statement use, found in one walk."""

    __slots__ = ("literals", "types", "variables")

    def __init__(self, statement: tree.Statement) -> None:
        self.variables: set[str] = set()
        self.literals: list[tree.Literal] = []  # of entities
        self.types: list[tree.Is] = []
        waiting: list[tree.Expr] = [condition.body for condition in statement.conditions]
        while waiting:
            node = waiting.pop()
            if isinstance(node, tree.Variable):
                self.variables.add(node.name)
            elif isinstance(node, tree.Literal):
                if isinstance(node.value, EntityUid):
                    self.literals.append(node)
            else:
                if isinstance(node, tree.Is):
                    self.types.append(node)
                waiting += tree.children(node)


def check_names(statement: tree.Statement, uses: Uses, declared: Declared, findings: Findings) -> None:
    """Tell of everything in a statement that the schema does not know."""
    for constraint in (statement.principal, statement.action, statement.resource):
        for uid in constraint.entities:
            check_entity(uid, declared, findings, constraint)
        if constraint.type is not None:
            check_type(constraint.type, declared, findings, constraint)
    for literal in sorted(uses.literals, key=lambda node: node.start):
        check_entity(literal.value, declared, findings, literal)  # type: ignore[arg-type]
    for test in sorted(uses.types, key=lambda node: node.start):
        check_type(test.type, declared, findings, test)


def check_type(name: str, declared: Declared, findings: Findings, at: tree.Node | None) -> None:
    """Tell of an entity type that is not declared."""
    if name not in declared.schema.entities and not is_action_type(name):
        hint = declared.entity_words.hint(name)
        findings.add("unknown_entity_type", f"unknown entity type `{name}`", hint, at)


def check_entity(uid: EntityUid, declared: Declared, findings: Findings, at: tree.Node | None) -> None:
    """Tell of an entity whose type, action or enumerated id is not declared."""
    if is_action_type(uid.type):
        if uid not in declared.schema.actions:
            findings.add("unknown_action", f"unknown action `{uid}`", _meant_action(uid, declared), at)
        return
    check_type(uid.type, declared, findings, at)
    declaration = declared.schema.entities.get(uid.type)
    if declaration is None or declaration.choices is None or uid.id in declaration.choices:
        return
    hint = Words(declaration.choices[:_CHOICES_TOLD_MAX]).hint(uid.id)
    if not hint and len(declaration.choices) <= _CHOICES_TOLD_MAX:
        hint = f"one of {', '.join(map(quoted, declaration.choices))}"
    findings.add("unknown_entity_id", f"`{uid.type}` is enumerated and has no `{quoted(uid.id)}`", hint, at)


def _meant_action(uid: EntityUid, declared: Declared) -> str:
    """Give a hint by the action's id: its type is much like all others."""
    by_id = declared.actions_by_id
    near = uid.id if uid.id in by_id else declared.action_words.nearest(uid.id)
    if near is None:
        return ""
    return f"did you mean `{min(by_id[near], key=lambda each: (each.type != uid.type, each))}`?"
