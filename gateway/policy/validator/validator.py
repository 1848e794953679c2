"""`Validator`: a schema that policies are checked against, again and again.

Conditions are checked once for every kind of request that differs in what they read: a policy that speaks of
`principal` alone is not checked again for each resource. A statement that was checked before is not checked again, so
that a change of one policy in ten thousand costs the check of one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

from gateway._native.uid import EntityUid
from gateway.policy.faults import Fault
from gateway.policy.language.tree import Constraint, Place, Statement
from gateway.policy.schema.model import Schema
from gateway.policy.validator.declared import Declared, Environment
from gateway.policy.validator.lookalikes import check_lookalikes
from gateway.policy.validator.names import Uses, check_entity, check_names
from gateway.policy.validator.report import Finding, Findings, Report, fault_of
from gateway.policy.validator.scope import Scopes
from gateway.policy.validator.typecheck import Checker, TooDeep
from gateway.policy.validator.types import FALSE

Mode = Literal["strict", "permissive"]


class AnyPolicy(Protocol):
    """A `policy_set.Policy`; its slots are those of a link."""

    @property
    def id(self) -> str: ...
    @property
    def statement(self) -> Statement: ...
    @property
    def place(self) -> Place: ...
    @property
    def slots(self) -> Mapping[str, EntityUid]: ...
    def scope(self) -> tuple[Constraint, Constraint, Constraint]: ...


class AnyTemplate(Protocol):
    """A `policy_set.Template`."""

    @property
    def id(self) -> str: ...
    @property
    def statement(self) -> Statement: ...
    @property
    def place(self) -> Place: ...


class AnyPolicySet(Protocol):
    """A `policy_set.PolicySet`."""

    @property
    def policies(self) -> Mapping[str, AnyPolicy]: ...
    @property
    def templates(self) -> Mapping[str, AnyTemplate]: ...


class _Checked(NamedTuple):
    statement: Statement  # kept alive, as it is known by its address
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]


class Validator:
    """Checks policy sets against one schema. Not to be used by two threads at a time."""

    def __init__(self, schema: Schema, mode: Mode = "strict") -> None:
        if mode not in ("strict", "permissive"):
            raise ValueError(f"no validation mode `{mode}`")
        self._declared = Declared(schema)
        self._scopes = Scopes(self._declared, mode == "strict")
        self._checker = Checker(self._declared, mode == "strict")
        self._kept: dict[int, _Checked] = {}

    def validate(self, policies: AnyPolicySet) -> Report:
        """Check every policy, every template and what links fill in. What is found is kept until the next set."""
        errors: list[Fault] = []
        warnings: list[Fault] = []
        kept: dict[int, _Checked] = {}
        for each in _statements(policies):
            at = id(each.statement)
            checked = kept.get(at)
            if checked is None:
                checked = kept[at] = self._kept.get(at) or self._check(each.statement)
            if not checked.errors and not checked.warnings:
                continue
            errors += [fault_of(finding, each.id, each.statement, each.place) for finding in checked.errors]
            warnings += [fault_of(finding, each.id, each.statement, each.place) for finding in checked.warnings]
        for policy in policies.policies.values():
            if policy.slots:
                found = self._link(policy)
                errors += [fault_of(finding, policy.id, policy.statement, policy.place) for finding in found]
        self._kept = kept
        return Report(tuple(errors), tuple(warnings))

    def suppose_valid(self, policies: AnyPolicySet) -> None:
        """Take policies as checked, which are known to have no errors; nobody is told of their warnings."""
        self._kept = {id(each.statement): _Checked(each.statement, (), ()) for each in _statements(policies)}

    def _check(self, statement: Statement) -> _Checked:
        errors, warnings = Findings(), Findings()
        uses = Uses(statement)
        check_names(statement, uses, self._declared, errors)
        reach = self._scopes.reach(statement.principal, statement.action, statement.resource)
        self._scopes.check_actions(statement.action, reach, errors)
        self._scopes.check_applicable(reach, errors)
        is_possible = bool(reach.environments)
        if is_possible and statement.conditions:
            is_possible = self._check_conditions(statement, uses, reach.environments, errors)
        if not is_possible and reach.is_applicable:
            hint = "no request of the schema satisfies its conditions"
            warnings.add("impossible_policy", "the policy never applies", hint)
        check_lookalikes(statement, warnings)
        return _Checked(statement, errors.all(), warnings.all())

    def _check_conditions(
        self, statement: Statement, uses: Uses, environments: tuple[Environment, ...], errors: Findings
    ) -> bool:
        """Check the conditions in every environment; give False if they hold in none."""
        is_possible = False
        seen: set[Hashable] = set()
        for environment in environments:
            key = _what_is_read(environment, uses.variables)
            if key in seen:
                continue
            seen.add(key)
            try:
                answer = self._checker.conditions(statement.conditions, environment, errors)
            except (TooDeep, RecursionError):
                errors.add("too_deep", "an expression is nested too deeply to be checked", "split the policy")
                return True
            is_possible = is_possible or answer.type is not FALSE
        return is_possible

    def _link(self, policy: AnyPolicy) -> tuple[Finding, ...]:
        """Check the entities that fill a template's slots; the rest was checked with the template."""
        findings = Findings()
        statement = policy.statement
        for constraint in (statement.principal, statement.resource):
            if constraint.slot is not None:
                check_entity(policy.slots[constraint.slot.name], self._declared, findings, constraint)
        self._scopes.check_applicable(self._scopes.reach(*policy.scope()), findings)
        return findings.all()


def _statements(policies: AnyPolicySet) -> Iterator[AnyPolicy | AnyTemplate]:
    for policy in policies.policies.values():
        if not policy.slots:
            yield policy
    yield from policies.templates.values()


def _what_is_read(environment: Environment, variables: set[str]) -> Hashable:
    """Give what of an environment can make a difference to conditions that read these variables."""
    return (
        environment.principal_name if "principal" in variables else None,
        environment.action if "action" in variables else None,
        environment.resource_name if "resource" in variables else None,
        id(environment.context) if "context" in variables else None,
    )


def validate(policies: AnyPolicySet, schema: Schema, mode: Mode = "strict") -> Report:
    """Check policies against a schema, as Cedar does.

    Errors are what Cedar refuses; warnings tell of policies that never apply and of texts that deceive. In permissive
    mode types may differ where that does no harm at a decision.
    """
    return Validator(schema, mode).validate(policies)
