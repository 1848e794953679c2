"""`PolicySet`: policies and templates by their ids. Immutable; a change makes another set, which shares what stayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from gateway._native.uid import EntityUid
from gateway.policy.faults import Fault, PolicySyntaxError
from gateway.policy.language import limits
from gateway.policy.language.est import entity_from_json, statement_from_json, statement_to_json
from gateway.policy.language.statements import ParsedStatement, parse_policies, reparse_policies
from gateway.policy.language.tree import Constraint, Place, Statement

if TYPE_CHECKING:
    from gateway.policy.schema import Schema
    from gateway.policy.validator import Report

Ids = Literal["positional", "annotation"]
_NOWHERE: Final = Place(None, 1, 1, 0)
_MEMBERS: Final = ("staticPolicies", "templates", "templateLinks")
_NO_SLOTS: Final[Mapping[str, EntityUid]] = MappingProxyType({})


@dataclass(slots=True)
class Policy:
    """A statement under its id; where it is a template's link, with the entities that fill its slots.

    INVARIANT: never changed (not `frozen`, which makes it three times as dear).
    """

    id: str
    statement: Statement
    parsed: ParsedStatement | None = field(default=None, compare=False, repr=False)  # None: not from a text
    slots: Mapping[str, EntityUid] = field(default_factory=lambda: _NO_SLOTS)
    template_id: str | None = None

    @property
    def place(self) -> Place:
        """Where it stands in its text; of a link, where its template does."""
        return _NOWHERE if self.parsed is None else self.parsed.place

    def scope(self) -> tuple[Constraint, Constraint, Constraint]:
        """Give the constraints on principal, action and resource, slots filled."""
        statement = self.statement
        if not self.slots:
            return statement.principal, statement.action, statement.resource
        return self._filled(statement.principal), statement.action, self._filled(statement.resource)

    def _filled(self, constraint: Constraint) -> Constraint:
        slot = constraint.slot
        if slot is None:
            return constraint
        return Constraint(
            constraint.op, (self.slots[slot.name],), constraint.type, start=constraint.start, end=constraint.end
        )

    @property
    def annotations(self) -> Mapping[str, str | None]:
        return self.statement.annotations


@dataclass(slots=True)
class Template:
    """A statement with holes. It decides nothing before it is linked. INVARIANT: never changed."""

    id: str
    statement: Statement
    parsed: ParsedStatement | None = field(default=None, compare=False, repr=False)  # None: not from a text

    @property
    def place(self) -> Place:
        """Where it stands in its text."""
        return _NOWHERE if self.parsed is None else self.parsed.place

    def link(self, policy_id: str, values: Mapping[str, EntityUid]) -> Policy:
        """Fill every slot, and no other. Raises PolicySyntaxError."""
        wanted = {slot.name for slot in self.statement.slots}
        missing, unknown = sorted(wanted - values.keys()), sorted(values.keys() - wanted)
        if missing or unknown:
            message = f"slot `{missing[0]}` is not filled" if missing else f"no slot `{unknown[0]}` in the template"
            hint = f"slots of `{self.id}`: {', '.join(sorted(wanted))}"
            raise PolicySyntaxError([Fault("wrong_slots", message, hint, policy_id=policy_id)])
        return Policy(policy_id, self.statement, self.parsed, MappingProxyType(dict(values)), self.id)


@dataclass(frozen=True, slots=True)
class _Source:
    """The text that a whole set was read from, kept for reading it again after a change."""

    text: str
    file: str | None
    ids: Ids
    parsed: list[ParsedStatement]
    names: list[str]  # the id of each


class PolicySet:
    """Policies by id, in their order, and templates. Ids are unique among both."""

    __slots__ = ("_policies", "_source", "_templates")

    def __init__(self, policies: Iterable[Policy] = (), templates: Iterable[Template] = ()) -> None:
        """Raises PolicySyntaxError for an id that two of them have, or a policy with a hole."""
        self._source: _Source | None = None
        self._policies: dict[str, Policy] = {}
        self._templates: dict[str, Template] = {}
        for template in templates:
            self._claim(template.id, template.place)
            self._templates[template.id] = template
        for policy in policies:
            self._claim(policy.id, policy.place)
            if len(policy.slots) != len(policy.statement.slots):
                raise PolicySyntaxError(
                    [Fault("wrong_slots", "a policy has a slot that is not filled", policy_id=policy.id)]
                )
            self._policies[policy.id] = policy

    def _claim(self, policy_id: str, place: Place) -> None:
        if policy_id in self._policies or policy_id in self._templates:
            raise PolicySyntaxError([_duplicate(policy_id, place)])

    @classmethod
    def _of(cls, policies: dict[str, Policy], templates: dict[str, Template], source: _Source | None = None) -> Self:
        made = cls()
        made._source = source
        made._policies, made._templates = policies, templates
        return made

    # --- reading

    @classmethod
    def parse(
        cls, text: str, *, file: str | None = None, ids: Ids = "positional", like: PolicySet | None = None
    ) -> Self:
        """Read a policy text.

        Ids are `policy0`, `policy1`, … by the statement's number in the text; with ids="annotation" a statement's
        `@id` is its id, where it has one. `like` is a set that was parsed from an earlier state of the same file: only
        what changed since is read, and what neither changed nor moved is the same object in both sets.
        Raises PolicySyntaxError.
        """
        known = like._source if like is not None else None
        if like is None or known is None or known.file != file or known.ids != ids:
            return cls._from_parsed(parse_policies(text, file=file), text, file, ids)
        parsed, first, rest = reparse_policies(text, known.text, known.parsed, file=file)
        changed = range(first, len(parsed) - rest)
        if len(parsed) != len(known.parsed) or any(_renamed(parsed[k], known, k) for k in changed):
            return cls._from_parsed(parsed, text, file, ids)
        policies, templates = like._policies.copy(), like._templates.copy()
        for number in range(first, len(parsed)):
            each, name = parsed[number], known.names[number]
            if each is known.parsed[number]:
                break  # and nothing behind it moved
            if name in templates:
                templates[name] = Template(name, each.statement, each)
            else:
                policies[name] = Policy(name, each.statement, each, _NO_SLOTS)
        return cls._of(policies, templates, _Source(text, file, ids, parsed, known.names))

    @classmethod
    def _from_parsed(cls, parsed: list[ParsedStatement], text: str, file: str | None, ids: Ids) -> Self:
        names = [_name(each.statement, number, ids) for number, each in enumerate(parsed)]
        policies: dict[str, Policy] = {}
        templates: dict[str, Template] = {}
        for name, each in zip(names, parsed, strict=True):
            if _is_template(each.statement):
                templates[name] = Template(name, each.statement, each)
            else:
                policies[name] = Policy(name, each.statement, each, _NO_SLOTS)
        if len({*names}) != len(names):
            raise _duplicates(names, parsed)
        return cls._of(policies, templates, _Source(text, file, ids, parsed, names))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read Cedar's JSON policy set: `staticPolicies`, `templates`, `templateLinks`. Raises PolicySyntaxError."""
        if not isinstance(data, Mapping):
            raise _ill_formed("a policy set is no object", "/")
        for name in data:
            if name not in _MEMBERS:
                raise _ill_formed(f"unknown member `{name}`", f"/{name}")
        templates = [Template(name, _read(name, est)) for name, est in _members(data, "templates").items()]
        policies = [Policy(name, _read(name, est)) for name, est in _members(data, "staticPolicies").items()]
        links = data.get("templateLinks", [])
        if not isinstance(links, list):
            raise _ill_formed("`templateLinks` is no array", "/templateLinks")
        by_id = {template.id: template for template in templates}
        policies += [_link(link, by_id, f"/templateLinks/{index}") for index, link in enumerate(links)]
        return cls(policies, templates)

    def to_json(self) -> dict[str, Any]:
        """Give Cedar's JSON policy set."""
        static, links = {}, []
        for policy in self._policies.values():
            if policy.template_id is None:
                static[policy.id] = statement_to_json(policy.statement)
                continue
            values = {slot: {"type": uid.type, "id": uid.id} for slot, uid in policy.slots.items()}
            links.append({"templateId": policy.template_id, "newId": policy.id, "values": values})
        templates = {template.id: statement_to_json(template.statement) for template in self._templates.values()}
        return {"staticPolicies": static, "templates": templates, "templateLinks": links}

    # --- contents

    @property
    def policies(self) -> Mapping[str, Policy]:
        """Everything that decides: policies, and links of templates."""
        return MappingProxyType(self._policies)

    @property
    def templates(self) -> Mapping[str, Template]:
        return MappingProxyType(self._templates)

    def __len__(self) -> int:
        return len(self._policies)

    def __contains__(self, policy_id: object) -> bool:
        return policy_id in self._policies or policy_id in self._templates

    # --- changes

    def link(self, template_id: str, policy_id: str, values: Mapping[str, EntityUid]) -> Self:
        """Give a set with one more policy: a template with its slots filled. Raises PolicySyntaxError."""
        template = self._templates.get(template_id)
        if template is None:
            raise PolicySyntaxError([Fault("unknown_template", f"no template `{template_id}`", policy_id=policy_id)])
        if policy_id in self:
            raise PolicySyntaxError([_duplicate(policy_id, template.place)])
        return self._of({**self._policies, policy_id: template.link(policy_id, values)}, self._templates)

    def with_policy(self, policy_id: str, text: str) -> Self:
        """Give a set in which `policy_id` is the policy, or template, of this text: a new one, or in place of the old.

        Links of a template that is replaced are linked anew. Raises PolicySyntaxError.
        """
        parsed = parse_policies(text)
        if len(parsed) != 1:
            raise PolicySyntaxError(
                [Fault("not_one_policy", f"the text has {len(parsed)} policies, not one", policy_id=policy_id)]
            )
        statement = parsed[0].statement
        policies, templates = self._policies.copy(), self._templates.copy()
        if statement.slots:
            policies.pop(policy_id, None)
            template = templates[policy_id] = Template(policy_id, statement, parsed[0])
            for linked in self._links(policy_id):
                policies[linked.id] = template.link(linked.id, linked.slots)
        else:
            templates.pop(policy_id, None)
            for linked in self._links(policy_id):
                del policies[linked.id]
            policies[policy_id] = Policy(policy_id, statement, parsed[0])
        return self._of(policies, templates)

    def without(self, policy_id: str) -> Self:
        """Give a set without this policy, or without this template and its links. Raises KeyError."""
        if policy_id not in self:
            raise KeyError(policy_id)
        policies, templates = self._policies.copy(), self._templates.copy()
        policies.pop(policy_id, None)
        templates.pop(policy_id, None)
        for linked in self._links(policy_id):
            del policies[linked.id]
        return self._of(policies, templates)

    def _links(self, template_id: str) -> list[Policy]:
        if template_id not in self._templates:
            return []
        return [policy for policy in self._policies.values() if policy.template_id == template_id]

    @classmethod
    def merge(cls, sets: Iterable[PolicySet]) -> Self:
        """Join sets. Raises PolicySyntaxError for an id that two of them have."""
        parts = list(sets)
        policies: dict[str, Policy] = {}
        templates: dict[str, Template] = {}
        for each in parts:
            policies |= each._policies
            templates |= each._templates
        ids = sum([len(each._policies) + len(each._templates) for each in parts])
        if ids == len(policies) + len(templates) and policies.keys().isdisjoint(templates):
            return cls._of(policies, templates)
        # Say which: the parts are each right in themselves, so one of their ids is there twice.
        return cls(
            [policy for each in parts for policy in each._policies.values()],
            [template for each in parts for template in each._templates.values()],
        )

    def renamed(self, prefix: str) -> Self:
        """Give a set whose ids all begin with `prefix`."""
        policies = [
            replace(policy, id=prefix + policy.id, template_id=policy.template_id and prefix + policy.template_id)
            for policy in self._policies.values()
        ]
        templates = [replace(template, id=prefix + template.id) for template in self._templates.values()]
        return type(self)(policies, templates)

    def validate(self, schema: Schema, mode: Literal["strict", "permissive"] = "strict") -> Report:
        """Check every policy and template against a schema."""
        from gateway.policy.validator import validate

        return validate(self, schema, mode)


def _name(statement: Statement, number: int, ids: Ids) -> str:
    own = statement.annotations.get("id") if ids == "annotation" else None
    return own or f"policy{number}"


def _is_template(statement: Statement) -> bool:
    return statement.principal.slot is not None or statement.resource.slot is not None


def _renamed(parsed: ParsedStatement, known: _Source, number: int) -> bool:
    """Tell whether a changed statement is another kind of thing, or has another id, than what stood in its place."""
    statement, before = parsed.statement, known.parsed[number].statement
    return _is_template(statement) != _is_template(before) or _name(statement, number, known.ids) != known.names[number]


def _duplicates(names: list[str], parsed: list[ParsedStatement]) -> PolicySyntaxError:
    seen: set[str] = set()
    faults = []
    for name, each in zip(names, parsed, strict=True):
        if name in seen:
            faults.append(_duplicate(name, each.place))
        seen.add(name)
    return PolicySyntaxError(faults[: limits.FAULTS_MAX])


def _duplicate(policy_id: str, place: Place) -> Fault:
    return Fault(
        "duplicate_policy_id",
        f"two policies have the id `{policy_id}`",
        "give each an @id of its own",
        file=place.file,
        line=place.line,
        column=place.column,
    )


def _members(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, Mapping):
        raise _ill_formed(f"`{name}` is no object", f"/{name}")
    return found


def _read(policy_id: str, est: Any) -> Statement:
    try:
        return statement_from_json(est)
    except PolicySyntaxError as error:
        raise PolicySyntaxError([replace(fault, policy_id=policy_id) for fault in error.faults]) from None


def _link(link: Any, templates: Mapping[str, Template], pointer: str) -> Policy:
    if not isinstance(link, Mapping):
        raise _ill_formed("a link is an object", pointer)
    template_id, new_id, values = link.get("templateId"), link.get("newId"), link.get("values")
    if not isinstance(template_id, str) or not isinstance(new_id, str) or not isinstance(values, Mapping):
        raise _ill_formed("a link needs `templateId`, `newId` and `values`", pointer)
    if template_id not in templates:
        fault = Fault("unknown_template", f"no template `{template_id}`", pointer=f"{pointer}/templateId")
        raise PolicySyntaxError([fault])
    slots = {slot: _uid(value, f"{pointer}/values") for slot, value in values.items()}
    return templates[template_id].link(new_id, slots)


def _uid(value: Any, pointer: str) -> EntityUid:
    try:
        return entity_from_json(value)
    except PolicySyntaxError as error:
        raise PolicySyntaxError(
            [replace(fault, pointer=pointer + (fault.pointer or "").rstrip("/")) for fault in error.faults]
        ) from None


def _ill_formed(message: str, pointer: str) -> PolicySyntaxError:
    return PolicySyntaxError([Fault("ill_formed_json", message, pointer=pointer)])
