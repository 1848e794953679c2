"""What a schema says of relations, and how they become part of Cedar's hierarchy.

An attribute that is annotated is a relation; in every other respect the schema stays Cedar's own:

    entity Group { @relation("Group.members") members: Set<User> };
    entity Folder { parent?: Folder, @relation("Group.members") @inherits("parent.viewers") viewers: Set<User> };
    entity Doc { parent: Folder, @relation @inherits("editors, parent.viewers") viewers: Set<User>,
                 @relation editors: Set<User> };

The set's elements may stand in the relation, and so may what `@relation` lists: types (`Group`: whoever is in the
group), and all who stand in another relation (`Group.members`). `@inherits` lists relations whose subjects stand in
this one too: of the object itself (`editors`), or of what an attribute or relation of it names (`parent.viewers`).

For each object and relation there is a node, an entity that nobody writes: `Relation::Doc::viewers::"1"`. The object's
attribute holds it, a subject is in it, and so are the nodes of other relations. A policy then asks
`principal in resource.viewers`, which is Cedar, in whatever way and over however many steps somebody is a viewer.

The namespace `Relation` is refused in a schema that has relations: names in it are legal everywhere (in JSON, in
explanations, for other tools), unlike those of `__cedar`, and still nobody can have a type of the same name.

Nodes are of closed or of walked types (`_native/entities.h`). Closed: a list with each subject names all such nodes
that it is in, which is right for groups. Walked: found from the node down, which is right for what hangs on resources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from gateway._native.uid import EntityUid
from gateway.policy.faults import Fault, SchemaError
from gateway.policy.schema import model
from gateway.stores.relations import Relation, Userset

NAMESPACE: Final = "Relation"

S = TypeVar("S", bound=model.Schema)


@dataclass(frozen=True, slots=True)
class Inheritance:
    """Who stands in `relation` to what `via` names also stands in the relation that has this; `via` "": to itself."""

    via: str  # an attribute or a relation of the same object
    relation: str

    def __str__(self) -> str:
        return f"{self.via}.{self.relation}" if self.via else self.relation


@dataclass(frozen=True, slots=True)
class RelationRule:
    """One relation of one type."""

    object_type: str
    relation: str  # also the attribute's name
    node_type: str
    subjects: frozenset[str]  # types of entities that may stand in it
    usersets: frozenset[tuple[str, str]]  # (type, relation) whose subjects may
    inherits: tuple[Inheritance, ...] = ()
    walked: bool = True

    def node(self, object_id: str) -> EntityUid:
        return EntityUid(self.node_type, object_id)


class RelationRules:
    """All relations of a schema. Raises SchemaError with everything that is wrong with them."""

    def __init__(self, schema: model.Schema) -> None:
        self._schema = schema
        self._faults: list[Fault] = []
        found = {
            (declaration.name, name): self._read(declaration, name, attribute)
            for declaration in schema.entities.values()
            for name, attribute in declaration.attributes.attributes.items()
            if "relation" in attribute.annotations
        }
        self._refuse_inherits_alone()
        self._rules = found
        for rule in found.values():
            self._check(rule)
        if found:
            self._refuse_namespace()
        if self._faults:
            raise SchemaError(self._faults)
        self._close()
        self._by_type: dict[str, dict[str, RelationRule]] = {}
        for (object_type, name), rule in self._rules.items():
            self._by_type.setdefault(object_type, {})[name] = rule
        self._by_node = {rule.node_type: rule for rule in self._rules.values()}
        self._mixed = {
            (source.node_type, rule.node_type)
            for rule in self._rules.values()
            for inheritance in rule.inherits
            for source in self._sources(rule, inheritance)
        }

    def __iter__(self) -> Iterator[RelationRule]:
        return iter(self._rules.values())

    def __len__(self) -> int:
        return len(self._rules)

    def find(self, object_type: str, relation: str) -> RelationRule | None:
        return self._rules.get((object_type, relation))

    def of_type(self, object_type: str) -> Mapping[str, RelationRule]:
        """Give the relations of a type by name."""
        return self._by_type.get(object_type, {})

    def of_node(self, type: str) -> RelationRule | None:
        """Give the relation whose nodes are of this type, or None: it is a type of the schema."""
        return self._by_node.get(type)

    def is_mixed(self, child_type: str, parent_type: str) -> bool:
        """Tell whether a node may be in another by a tuple and by inheritance."""
        return (child_type, parent_type) in self._mixed

    def userset(self, node: EntityUid) -> Userset | None:
        """Say what a node stands for; None for any other entity."""
        rule = self._by_node.get(node.type)
        return None if rule is None else Userset(EntityUid(rule.object_type, node.id), rule.relation)

    def check(self, relation: Relation) -> None:
        """Raise ValueError for a tuple that the schema does not allow."""
        rule = self.find(relation.object.type, relation.relation)
        if rule is None:
            raise ValueError(f"`{relation.object.type}` has no relation `{relation.relation}`")
        subject = relation.subject
        if isinstance(subject, Userset):
            if (subject.object.type, subject.relation) not in rule.usersets:
                raise ValueError(
                    f"`{subject.object.type}.{subject.relation}` cannot stand in `{rule.object_type}.{rule.relation}`"
                )
        elif subject.type not in rule.subjects:
            raise ValueError(f"`{subject.type}` cannot stand in `{rule.object_type}.{rule.relation}`")

    def for_policies(self, schema: S) -> S:
        """Give the schema that policies are held to: the attributes hold nodes, and subjects may be in them."""
        parents: dict[str, set[str]] = {rule.node_type: set() for rule in self._rules.values()}
        for rule in self._rules.values():
            below = {*rule.subjects, *(self._rules[source].node_type for source in rule.usersets)}
            below |= {source.node_type for item in rule.inherits for source in self._sources(rule, item)}
            for name in below:
                parents.setdefault(name, set()).add(rule.node_type)
        entities = {
            name: replace(
                declaration,
                parents=declaration.parents | parents.get(name, set()),
                attributes=model.RecordType(
                    {
                        key: replace(attribute, type=model.EntityType(self._rules[name, key].node_type), required=True)
                        if (name, key) in self._rules
                        else attribute
                        for key, attribute in declaration.attributes.attributes.items()
                    }
                ),
            )
            for name, declaration in schema.entities.items()
        }
        for rule in self._rules.values():
            node = model.EntityDeclaration(rule.node_type, frozenset(parents[rule.node_type]))
            entities[rule.node_type] = node
        return replace(schema, entities=_with_ancestors(entities))

    def for_entities(self, schema: S) -> S:
        """Give the schema that entities are read with: whoever writes one does not write its relations."""
        entities = {
            name: replace(
                declaration,
                attributes=model.RecordType(
                    {
                        key: attribute
                        for key, attribute in declaration.attributes.attributes.items()
                        if (name, key) not in self._rules
                    }
                ),
            )
            for name, declaration in schema.entities.items()
        }
        return replace(schema, entities=entities)

    # --- reading the annotations

    def _read(self, declaration: model.EntityDeclaration, name: str, attribute: model.Attribute) -> RelationRule:
        where = f"{declaration.name}.{name}"
        subjects: set[str] = set()
        if isinstance(attribute.type, model.SetType) and isinstance(attribute.type.element, model.EntityType):
            subjects.add(attribute.type.element.name)
        else:
            self._fault("relation_type", f"the relation `{where}` is not a set of entities", "write `Set<User>`")
        usersets = set()
        for word in _words(attribute.annotations["relation"]):
            type_name, dot, relation = word.partition(".")
            qualified = self._qualified(type_name, declaration.name)
            if qualified is None:
                self._fault("relation_subject", f"`{word}` in `@relation` of `{where}` names no entity type")
            elif dot:
                usersets.add((qualified, relation))
            else:
                subjects.add(qualified)
        inherits = [word.rpartition(".") for word in _words(attribute.annotations.get("inherits", ""))]
        if "inherits" in attribute.annotations and not inherits:
            self._fault(
                "relation_inherits", f"`@inherits` of `{where}` names nothing", 'write `@inherits("parent.viewers")`'
            )
        return RelationRule(
            declaration.name,
            name,
            f"{NAMESPACE}::{declaration.name}::{name}",
            frozenset(subjects),
            frozenset(usersets),
            tuple(Inheritance(via, relation) for via, _, relation in inherits),
        )

    def _qualified(self, name: str, near: str) -> str | None:
        """Find a type as Cedar does: in the namespace of the declaration first."""
        space, colons, _ = near.rpartition("::")
        for candidate in (f"{space}{colons}{name}", name):
            if candidate in self._schema.entities:
                return candidate
        return None

    def _check(self, rule: RelationRule) -> None:
        where = f"{rule.object_type}.{rule.relation}"
        for type_name, relation in rule.usersets:
            if (type_name, relation) not in self._rules:
                self._fault("relation_subject", f"`{type_name}` has no relation `{relation}`, as `{where}` says")
        for item in rule.inherits:
            if not item.via and item.relation == rule.relation:
                self._fault("relation_inherits", f"`{where}` inherits from itself")
            elif not self._sources(rule, item):
                hint = "name a relation of the type, or one of what an attribute names: `parent.viewers`"
                self._fault("relation_inherits", f"`{where}` inherits from `{item}`, which is no relation", hint)

    def _sources(self, rule: RelationRule, item: Inheritance) -> list[RelationRule]:
        """Give the relations that are inherited from: several where `via` may name entities of several types."""
        if not item.via:
            types = {rule.object_type}
        elif (rule.object_type, item.via) in self._rules:
            types = set(self._rules[rule.object_type, item.via].subjects)
        else:
            attribute = self._schema.entities[rule.object_type].attributes.attributes.get(item.via)
            named = None if attribute is None else attribute.type
            if isinstance(named, model.SetType):
                named = named.element
            types = {named.name} if isinstance(named, model.EntityType) else set()
        return [self._rules[each, item.relation] for each in types if (each, item.relation) in self._rules]

    def _refuse_inherits_alone(self) -> None:
        for declaration in self._schema.entities.values():
            for name, attribute in declaration.attributes.attributes.items():
                if "inherits" in attribute.annotations and "relation" not in attribute.annotations:
                    where = f"{declaration.name}.{name}"
                    self._fault("relation_inherits", f"`{where}` inherits but is no relation", "add `@relation`")

    def _refuse_namespace(self) -> None:
        for name in self._schema.entities:
            if name.startswith(f"{NAMESPACE}::"):
                hint = "move it to another namespace"
                self._fault("relation_namespace", f"`{name}` is in the namespace of relations", hint)

    def _close(self) -> None:
        """Decide which nodes are of closed types: those of relations that others name as subjects, as groups are.

        Not of those that inherit, as resources do from what they lie in; and not of those that take in walked ones:
        nothing walked may be below what is closed.
        """
        named = {source for rule in self._rules.values() for source in rule.usersets}
        closed = {key for key in named if not self._rules[key].inherits}
        while shrunk := {key for key in closed if not self._rules[key].usersets <= closed}:
            closed -= shrunk
        self._rules = {key: replace(rule, walked=key not in closed) for key, rule in self._rules.items()}

    def _fault(self, code: str, message: str, hint: str = "") -> None:
        self._faults.append(Fault(code, message, hint))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _with_ancestors(entities: Mapping[str, model.EntityDeclaration]) -> dict[str, model.EntityDeclaration]:
    made = {}
    for name, declaration in entities.items():
        found: set[str] = set()
        waiting = list(declaration.parents)
        while waiting:
            parent = waiting.pop()
            if parent not in found:
                found.add(parent)
                waiting += entities[parent].parents if parent in entities else ()
        made[name] = replace(declaration, ancestors=frozenset(found))
    return made
