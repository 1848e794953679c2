"""The text syntax of schemas. docs.cedarpolicy.com, "Human-readable schema format"."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from gateway.policy.language.functions import RESERVED, is_name
from gateway.policy.language.lexer import END, Tokens
from gateway.policy.language.strings import EscapeError, unescape
from gateway.policy.schema.limits import DECLARATIONS_MAX, FAULTS_MAX, NESTING_MAX
from gateway.policy.schema.raw import (
    Mark,
    RawAction,
    RawAppliesTo,
    RawAttribute,
    RawEntity,
    RawName,
    RawNamespace,
    RawRecord,
    RawReference,
    RawSet,
    RawType,
)

T = TypeVar("T")
Annotations = dict[str, str | None]

RESERVED_COMMONS: Final = frozenset(("Bool", "Boolean", "Entity", "Extension", "Long", "Record", "Set", "String"))
_HINT_LIST = "names between brackets: [User, Group]"


class SchemaMisread(Exception):
    """A fault of a schema's text or JSON, at its place."""

    def __init__(self, code: str, message: str, hint: str, mark: Mark) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.mark = mark


class SchemaParser:
    """Reads one text."""

    def __init__(self, text: str, source: int = 0) -> None:
        tokens = Tokens(text)
        self._source = source
        self._words = tokens.texts
        self._ends = tokens.ends
        self._i = 0
        self._nesting = 0
        self._count = 0
        self.namespaces: dict[str, RawNamespace] = {}
        self.faults: list[SchemaMisread] = []

    def read(self) -> list[RawNamespace]:
        """Read everything. What is wrong is in `faults` then: reading goes on behind a declaration that has one."""
        while self._words[self._i] != END and len(self.faults) < FAULTS_MAX:
            start = self._i
            try:
                annotations = self._annotations()
                if self._words[self._i] == "namespace":
                    self._namespace(annotations)
                else:
                    self._declaration(self._space(""), annotations)
            except SchemaMisread as misread:
                self._recover(misread, start)
        return list(self.namespaces.values())

    def _recover(self, misread: SchemaMisread, start: int) -> None:
        """Note a fault; go on behind the `;` of its declaration, or before the bracket that closes its namespace."""
        self.faults.append(misread)
        self._nesting = 0
        depth = 0
        at = start
        while (word := self._words[at]) != END:
            if word == ";" and at >= self._i:
                at += 1
                break
            if word == "}" and depth == 0 and at >= self._i:
                break
            depth += (word == "{") - (word == "}")
            at += 1
        # Never before the fault's declaration, and always onward: a bracket too many is a fault of its own.
        self._i = at if at > start or self._words[at] == END else start + 1

    def _space(self, name: str) -> RawNamespace:
        return self.namespaces.setdefault(name, RawNamespace(name))

    def _namespace(self, annotations: Annotations) -> None:
        self._i += 1
        first = self._i
        name = self._path("a namespace's name")
        if name in self.namespaces:
            self._fail_at(first, "duplicate_namespace", f"the namespace `{name}` stands here twice", "join the two")
        space = self.namespaces[name] = RawNamespace(name, self._mark_of(first), annotations=annotations)
        self._take("{")
        while self._words[self._i] != "}":
            if self._words[self._i] == END:
                self._expected("a declaration or `}`")
            start = self._i
            try:
                self._declaration(space, self._annotations())
            except SchemaMisread as misread:
                self._recover(misread, start)
                if len(self.faults) >= FAULTS_MAX:
                    return
        self._i += 1

    def _declaration(self, space: RawNamespace, annotations: Annotations) -> None:
        self._count += 1
        if self._count > DECLARATIONS_MAX:
            self._fail("too_many_declarations", f"more than {DECLARATIONS_MAX} declarations", "")
        word = self._words[self._i]
        if word == "entity":
            self._entity(space, annotations)
        elif word == "action":
            self._action(space, annotations)
        elif word == "type":
            self._common(space)
        else:
            near = difflib.get_close_matches(word, ("entity", "action", "type", "namespace"), n=1)
            self._expected("`entity`, `action`, `type` or `namespace`", f"did you mean `{near[0]}`?" if near else "")

    def _entity(self, space: RawNamespace, annotations: Annotations) -> None:
        self._i += 1
        names = self._some(lambda: (self._mark(), self._identifier("an entity type's name")))
        parents: tuple[RawName, ...] = ()
        shape: RawType | None = None
        tags: RawType | None = None
        choices: tuple[str, ...] | None = None
        if self._words[self._i] == "enum":
            self._i += 1
            self._take("[")
            if self._words[self._i] == "]":
                self._fail("empty_enum", "an enumerated entity has one id at least", 'write them in quotes: ["red"]')
            choices = tuple(self._some(lambda: self._string("an id in quotes")))
            self._take("]")
        else:
            if self._words[self._i] == "in":
                self._i += 1
                parents = self._types()
            if self._words[self._i] in ("=", "{"):
                self._i += self._words[self._i] == "="
                if self._words[self._i] != "{":
                    self._expected("`{`", "an entity's attributes are a record")
                shape = self._type()
            if self._words[self._i] == "tags":
                self._i += 1
                tags = self._type()
        self._take(";", "a declaration ends with `;`")
        for mark, name in names:
            if name in space.entities:
                raise SchemaMisread("duplicate_entity", f"the entity type `{name}` is declared twice", "", mark)
            space.entities[name] = RawEntity(mark, parents, shape, tags, choices, annotations)

    def _action(self, space: RawNamespace, annotations: Annotations) -> None:
        self._i += 1
        names = self._some(lambda: (self._mark(), self._name("an action's name")))
        groups: tuple[RawReference, ...] = ()
        applies_to = None
        if self._words[self._i] == "in":
            self._i += 1
            if self._words[self._i] == "[":
                self._i += 1
                groups = tuple(self._some(self._reference))
                self._take("]")
            else:
                groups = (self._reference(),)
        if self._words[self._i] == "appliesTo":
            applies_to = self._applies_to()
        if self._words[self._i] == "attributes":
            self._i += 1
            at = self._i
            if not isinstance(attributes := self._type(), RawRecord) or attributes.attributes:
                self._fail_at(at, "action_attributes", "actions have no attributes", "put it into the context")
        self._take(";", "a declaration ends with `;`")
        for mark, name in names:
            if name in space.actions:
                raise SchemaMisread("duplicate_action", f"the action `{name}` is declared twice", "", mark)
            space.actions[name] = RawAction(mark, groups, applies_to, annotations)

    def _reference(self) -> RawReference:
        first = self._i
        mark = self._mark()
        word = self._words[first]
        if word[:1] == '"':
            return RawReference(None, self._string(""), mark)
        path = self._path("an action", before_string=True)
        if self._words[self._i] == "::":
            self._i += 1
            return RawReference(path, self._string("an action's id in quotes"), mark)
        if "::" in path:
            self._expected("`::` and an id in quotes")
        return RawReference(None, path, mark)

    def _applies_to(self) -> RawAppliesTo:
        at = self._i
        self._i += 1
        self._take("{")
        found: dict[str, tuple[RawName, ...]] = {}
        context: RawType | None = None
        while self._words[self._i] != "}":
            first = self._i
            key = self._words[first]
            if key not in ("principal", "resource", "context"):
                self._expected("`principal`, `resource` or `context`")
            self._i += 1
            self._take(":")
            if key in found or (key == "context" and context is not None):
                self._fail_at(first, "duplicate_key", f"`{key}` stands here twice", "")
            if key == "context":
                context = self._type()
            else:
                found[key] = self._types()
                if not found[key]:
                    self._fail_at(first, "empty_list", f"`{key}` names no type", "leave `appliesTo` out for a group")
            if self._words[self._i] != ",":
                break
            self._i += 1
        self._take("}")
        for key in ("principal", "resource"):
            if key not in found:
                self._fail_at(at, "missing_key", f"`appliesTo` lacks `{key}`", f"add `{key}: [Type]`")
        return RawAppliesTo(found["principal"], found["resource"], context)

    def _common(self, space: RawNamespace) -> None:
        self._i += 1
        first = self._i
        mark = self._mark()
        name = self._identifier("a type's name")
        if name in RESERVED_COMMONS:
            self._fail_at(first, "reserved_name", f"`{name}` is reserved", "choose another name")
        self._take("=")
        made = self._type()
        self._take(";", "a declaration ends with `;`")
        if name in space.commons:
            raise SchemaMisread("duplicate_type", f"the type `{name}` is declared twice", "", mark)
        space.commons[name] = made, mark

    # --- types

    def _type(self) -> RawType:
        self._nesting += 1
        if self._nesting > NESTING_MAX:
            self._fail("too_deep", f"nested more than {NESTING_MAX} times", "name the inner type")
        made = self._type_inside()
        self._nesting -= 1
        return made

    def _type_inside(self) -> RawType:
        mark = self._mark()
        word = self._words[self._i]
        if word == "{":
            self._i += 1
            return self._record(mark)
        if word == "Set" and self._words[self._i + 1] == "<":
            self._i += 2
            element = self._type()
            self._take(">")
            return RawSet(element, mark)
        return RawName(self._path("a type"), mark)

    def _record(self, mark: Mark) -> RawRecord:
        found: dict[str, RawAttribute] = {}

        def attribute() -> None:
            annotations = self._annotations()
            first = self._i
            name = self._name("an attribute's name")
            required = self._words[self._i] != "?"
            self._i += not required
            self._take(":")
            if name in found:
                self._fail_at(first, "duplicate_attribute", f"the attribute `{name}` stands here twice", "")
            found[name] = RawAttribute(self._type(), required, annotations)

        self._items("}", attribute)
        return RawRecord(found, mark)

    def _types(self) -> tuple[RawName, ...]:
        if self._words[self._i] == "[":
            self._i += 1
            found = self._some(self._entity_name) if self._words[self._i] != "]" else []
            self._take("]", _HINT_LIST)
            return tuple(found)
        return (self._entity_name(),)

    def _entity_name(self) -> RawName:
        return RawName(self._path("an entity type", _HINT_LIST), self._mark_of(self._i - 1), entity_only=True)

    # --- pieces

    def _annotations(self) -> Annotations:
        found: Annotations = {}
        while self._words[self._i] == "@":
            self._i += 1
            name = self._words[self._i]
            if not is_name(name):
                self._expected("a name after `@`")
            if name in found:
                self._fail("duplicate_annotation", f"the annotation `@{name}` stands here twice", "keep one of them")
            self._i += 1
            value = None
            if self._words[self._i] == "(":
                self._i += 1
                value = self._string("an annotation's value is text")
                self._take(")")
            found[name] = value
        return found

    def _some(self, item: Callable[[], T]) -> list[T]:
        found = [item()]
        while self._words[self._i] == ",":
            self._i += 1
            found.append(item())
        return found

    def _items(self, closing: str, item: Callable[[], T]) -> list[T]:
        found: list[T] = []
        while self._words[self._i] != closing:
            found.append(item())
            if self._words[self._i] != ",":
                break
            self._i += 1
        self._take(closing)
        return found

    def _name(self, what: str) -> str:
        if self._words[self._i][:1] == '"':
            return self._string(what)
        return self._identifier(what, builtin=True)

    def _path(self, what: str, hint: str = "", before_string: bool = False) -> str:
        path = self._identifier(what, hint, builtin=True)
        while self._words[self._i] == "::" and not (before_string and self._words[self._i + 1][:1] == '"'):
            self._i += 1
            path += "::" + self._identifier("a name after `::`")
        return path

    def _identifier(self, what: str, hint: str = "", builtin: bool = False) -> str:
        word = self._words[self._i]
        if not is_name(word):
            self._expected(what, hint)
        if word in RESERVED and not (builtin and word == "__cedar"):
            self._fail("reserved_name", f"`{word}` is reserved", "choose another name")
        self._i += 1
        return word

    def _string(self, what: str) -> str:
        word = self._words[self._i]
        if word[:1] != '"' or len(word) < 2:
            self._expected(what)
        self._i += 1
        try:
            return unescape(word[1:-1])
        except EscapeError as error:
            offset = self._ends[self._i - 1] - len(word) + 1 + error.offset
            mark = Mark(offset, len(error.escape), source=self._source)
            raise SchemaMisread("invalid_escape", str(error), r"escapes are \n \t \\ \" \u{…}", mark) from None

    def _take(self, wanted: str, hint: str = "") -> None:
        if self._words[self._i] != wanted:
            self._expected(f"`{wanted}`", hint)
        self._i += 1

    def _mark(self) -> Mark:
        return self._mark_of(self._i)

    def _mark_of(self, index: int) -> Mark:
        length = len(self._words[index])
        return Mark(self._ends[index] - length, max(1, length), source=self._source)

    def _expected(self, what: str, hint: str = "") -> NoReturn:
        word = self._words[self._i]
        if word == END:
            self._fail("unexpected_end", f"the text ends where {what} is expected", hint)
        if word == '"':
            self._fail("unterminated_string", "the string has no end", "close it with a double quote")
        shown = word if len(word) <= 40 else word[:37] + "…"
        self._fail("unexpected_token", f"unexpected `{shown}`, {what} is expected", hint)

    def _fail(self, code: str, message: str, hint: str) -> NoReturn:
        self._fail_at(self._i, code, message, hint)

    def _fail_at(self, index: int, code: str, message: str, hint: str) -> NoReturn:
        raise SchemaMisread(code, message, hint, self._mark_of(index))
