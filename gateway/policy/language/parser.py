"""Policy text to trees: recursive descent over the lexer's flat lists, binary operators by precedence climbing.

Grammar: docs.cedarpolicy.com, "Grammar specification". A fault is raised where it is seen; `statements.py` goes on
behind the next `;`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from gateway._native.policy_text import tokenize
from gateway._native.uid import EntityUid
from gateway.policy.language import limits, tree
from gateway.policy.language.functions import FUNCTIONS, METHODS, OPERATORS, RESERVED, VARIABLES
from gateway.policy.language.lexer import END, PUNCTUATION
from gateway.policy.language.strings import EscapeError, unescape, unescape_pattern
from gateway.policy.language.tree import Constraint, Expr

_OR, _AND, _RELATION, _SUM, _PRODUCT = 1, 2, 3, 4, 5
_POWERS: Final = {
    "||": _OR,
    "&&": _AND,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in", "has", "like", "is"), _RELATION),
    "+": _SUM,
    "-": _SUM,
    "*": _PRODUCT,
}
_NO_OPERATORS: Final = {
    "=": "`==` compares",
    "/": "there is no division",
    "%": "there is no remainder",
    "and": "write `&&`",
    "or": "write `||`",
    "not": "write `!`",
    "&": "write `&&`",
    "|": "write `||`",
    "'": 'text stands in double quotes: "text"',
    "contains": "it is a method: `set.contains(item)`",
    "\u201c": 'text stands in straight quotes: "text"',
    "\u201d": 'text stands in straight quotes: "text"',
}
# What to write, by what is expected, where the place alone does not tell more.
_HINTS: Final = {
    "the end": "one expression stands alone",
    "a name after `@`": 'an annotation is `@name("text")`, or `@name`',
    "text in quotes": 'an annotation\'s value is text: @name("text")',
    "an expression": 'such as principal.name, "text", 42, User::"id", [1, 2] or {a: 1}',
    "`}` or an operator": "a condition ends with `}`; its parts are joined by `&&` or `||`",
    "an attribute's name": 'names have letters, digits and `_`; others stand in quotes: "a b"',
    "an attribute's name after `.`": 'names have letters, digits and `_`; others stand in brackets: ["a b"]',
    "an attribute's name after `has`": 'names have letters, digits and `_`; others stand in quotes: has "a b"',
    "an attribute's name in quotes": 'write a member as resource.name or resource["name"]',
    "an entity type after `is`": "a type is a name: User, or App::User",
    "a name after `::`": 'an entity is Type::"id"',
    'an entity: Type::"id"': "a scope compares with an entity; conditions on other values belong into `when { … }`",
    'an entity\'s id in quotes: Type::"id"': "the id of an entity stands in double quotes",
}
T = TypeVar("T")

_SIGNS_MAX = 4  # `!` or `-` in a row
_LONG_MAX = 2**63 - 1


class Misread(Exception):
    """A fault of the text; offsets count from the statement's start."""

    def __init__(self, code: str, message: str, hint: str, start: int, end: int) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.start = start
        self.end = end


def _is_name(word: str) -> bool:
    """Tell whether a token is an identifier, reserved or not."""
    return (word[:1].isalpha() and word[0] < "\x80") or word[:1] == "_"


class Parser:
    """Reads one statement, or one expression, from its text."""

    __slots__ = ("_ends", "_i", "_nesting", "_text", "_texts")

    def __init__(self, text: str) -> None:
        self._text = text
        self._texts, self._ends = tokenize(text)
        self._i = 0
        self._nesting = 0

    # --- statements

    def statement(self) -> tree.Statement:
        """Read `@annotations effect (scope) conditions;` up to the end of the text."""
        annotations = self._annotations()
        effect = self._texts[self._i]
        if effect not in {"permit", "forbid"}:
            near = difflib.get_close_matches(effect, ("permit", "forbid"), n=1)
            self._expected("`permit` or `forbid`", f"did you mean `{near[0]}`?" if near else "")
        self._i += 1
        self._take("(", "a policy's head stands in brackets: permit (principal, action, resource)")
        principal = self._constraint("principal")
        self._comma("action")
        action = self._action()
        self._comma("resource")
        resource = self._constraint("resource")
        if self._texts[self._i] == ",":
            self._i += 1
        self._take(")", "the head has principal, action and resource, and nothing more")
        conditions = []
        while True:
            kind = self._texts[self._i]
            if kind not in {"when", "unless"}:
                break
            conditions.append(self._condition(kind))
        if self._texts[self._i] != ";":
            self._expected("`;`, `when` or `unless`", "a policy ends with `;`")
        self._i += 1
        self._end()
        return tree.Statement(
            effect,  # type: ignore[arg-type]
            principal,
            action,
            resource,
            tuple(conditions),
            annotations,
            self._text,
            start=0,
            end=len(self._text),
        )

    def expression(self) -> Expr:
        """Read an expression up to the end of the text."""
        node = self._expr()
        self._end()
        return node

    def _end(self) -> None:
        if self._texts[self._i] != END:
            self._expected("the end")

    def _annotations(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        while self._texts[self._i] == "@":
            self._i += 1
            name = self._texts[self._i]
            if not _is_name(name):
                self._expected("a name after `@`")
            if name in found:
                self._fail("duplicate_annotation", f"the annotation `@{name}` stands here twice", "keep one of them")
            self._i += 1
            value = None
            if self._texts[self._i] == "(":
                self._i += 1
                value = self._string("text in quotes")
                self._take(")", "an annotation has one value")
            found[name] = value
        return found

    def _comma(self, following: str) -> None:
        if self._texts[self._i] != ",":
            self._expected(f"`,` and `{following}`", "the head is (principal, action, resource), in this order")
        self._i += 1

    def _variable(self, name: str) -> int:
        """Read a variable of the head; give its start."""
        if self._texts[self._i] != name:
            self._expected(f"`{name}`", "the head is (principal, action, resource), in this order")
        self._i += 1
        return self._start(self._i - 1)

    def _constraint(self, name: str) -> Constraint:
        start = self._variable(name)
        op = self._texts[self._i]
        made = Constraint(start=start)
        if op == "is":
            self._i += 1
            made.op, made.type = "is", self._path("an entity type after `is`")
            op = self._texts[self._i]
            if op == "in":
                self._i += 1
                made.op = "is in"
                self._bound(made, name)
            elif op == "==":
                self._expected(
                    "`in`, `,` or `)`", "`is` goes with `in` only; `==` names one entity and its type anyway"
                )
        elif op in {"==", "in"}:
            self._i += 1
            made.op = op  # type: ignore[assignment]
            self._bound(made, name)
        elif op not in (",", ")"):
            hint = (
                "conditions on attributes belong into `when { … }`" if op in (".", "[") else _NO_OPERATORS.get(op, "")
            )
            self._expected("`==`, `in`, `is`, `,` or `)`", hint)
        made.end = self._ends[self._i - 1]
        return made

    def _bound(self, made: Constraint, name: str) -> None:
        """Read the entity, or the slot, that a constraint compares with."""
        word = self._texts[self._i]
        if word[:1] == "?":
            if word != "?" + name:
                self._fail("wrong_slot", f"`{word}` cannot stand here", f"the slot of {name} is `?{name}`")
            self._i += 1
            slot_name: tree.SlotName = "?principal" if name == "principal" else "?resource"
            made.slot = tree.Slot(slot_name, start=self._start(self._i - 1), end=self._ends[self._i - 1])
            return
        if word == "(":
            self._bracketed(lambda: self._bound(made, name))
            return
        if word == "[":
            self._fail("set_in_scope", f"`{name}` takes one entity here", "write one policy for each, or use a group")
        made.entities = (self._entity(),)

    def _action(self) -> Constraint:
        start = self._variable("action")
        op = self._texts[self._i]
        made = Constraint(start=start)
        if op == "==":
            self._i += 1
            made.op, made.entities = "==", (self._action_entity(),)
        elif op == "in":
            self._i += 1
            made.op = "in"
            self._actions(made)
        elif op == "is":
            self._fail("is_in_action", "`action` knows no `is`", 'name actions: action in [Action::"read", …]')
        elif op not in (",", ")"):
            self._expected("`==`, `in`, `,` or `)`", _NO_OPERATORS.get(op, ""))
        made.end = self._ends[self._i - 1]
        return made

    def _actions(self, made: Constraint) -> None:
        word = self._texts[self._i]
        if word == "(":
            self._bracketed(lambda: self._actions(made))
        elif word == "[":
            made.listed = True
            made.entities = tuple(self._list("]", self._action_entity))
        else:
            made.entities = (self._action_entity(),)

    def _bracketed(self, inner: Callable[[], T]) -> T:
        """Read `( inner )`: Cedar takes brackets around what a scope compares with."""
        self._nest()
        self._i += 1
        made = inner()
        self._take(")", "a bracket that was opened is closed")
        self._nesting -= 1
        return made

    def _action_entity(self) -> EntityUid:
        if self._texts[self._i] == "(":
            return self._bracketed(self._action_entity)
        if self._texts[self._i][:1] == "?":
            self._fail("wrong_slot", "an action cannot be a slot", "slots are `?principal` and `?resource`")
        first = self._i
        uid = self._entity()
        if uid.type != "Action" and not uid.type.endswith("::Action"):
            self._fail_at(first, "no_action", f"`{uid}` is no action", 'actions have the type Action: Action::"read"')
        return uid

    def _condition(self, kind: Any) -> tree.Condition:
        start = self._start(self._i)
        self._i += 1
        self._take("{", f"what `{kind}` asks stands in braces")
        if self._texts[self._i] == "}":
            self._fail("empty_condition", f"`{kind}` asks for nothing", "write an expression, or leave it out")
        body = self._expr()
        if self._texts[self._i] != "}":
            self._expected("`}` or an operator", _NO_OPERATORS.get(self._texts[self._i], ""))
        self._i += 1
        return tree.Condition(kind, body, start=start, end=self._ends[self._i - 1])

    # --- expressions

    def _expr(self) -> Expr:
        self._nest()
        node = self._if() if self._texts[self._i] == "if" else self._binary(_OR)
        self._nesting -= 1
        return node

    def _nest(self) -> None:
        self._nesting += 1
        if self._nesting > limits.NESTING_MAX:
            self._fail("too_deep", f"nested more than {limits.NESTING_MAX} times", "split the policy")

    def _if(self) -> Expr:
        start = self._start(self._i)
        self._i += 1
        test = self._expr()
        self._take("then", "a condition is `if … then … else …`")
        then = self._expr()
        self._take("else", "both ways are needed: `if … then … else …`")
        otherwise = self._expr()
        return tree.If(test, then, otherwise, start=start, end=otherwise.end)

    def _binary(self, power_min: int) -> Expr:
        """Read an operand and all operators behind it that bind at least as tightly as `power_min`."""
        texts = self._texts
        left = self._unary()
        length = 0
        while True:
            op = texts[self._i]
            power = _POWERS.get(op, 0)
            if power < power_min or power == 0:
                return left
            if power == _RELATION:
                left = self._relation(left, op)
            elif power <= _AND:
                left = self._logic(left, op, power)
            else:
                length += 1
                if length > limits.CHAIN_MAX:
                    self._fail("too_long", f"more than {limits.CHAIN_MAX} operands in a row", "use brackets")
                self._i += 1
                right = self._binary(power + 1)
                left = tree.Binary(op, left, right, start=left.start, end=right.end)  # type: ignore[arg-type]

    def _logic(self, first: Expr, op: str, power: int) -> Expr:
        """Read a chain of `&&` or `||`: nested to the left, as Cedar nests it, or balanced where it is long."""
        texts = self._texts
        make = tree.And if op == "&&" else tree.Or
        operands = [first]
        while texts[self._i] == op:
            self._i += 1
            operands.append(self._binary(power + 1))
            if len(operands) > limits.OPERANDS_MAX:
                self._fail("too_long", f"more than {limits.OPERANDS_MAX} operands in a row", "use a set or a group")
        if len(operands) > limits.CHAIN_MAX:
            return _balanced(operands, make)
        left = first
        for right in operands[1:]:
            left = make(left, right, start=left.start, end=right.end)
        return left

    def _relation(self, left: Expr, op: str) -> Expr:
        self._i += 1
        node: Expr
        if op == "has":
            node = tree.HasAttr(left, self._has_path(), start=left.start, end=self._ends[self._i - 1])
        elif op == "like":
            node = self._like(left)
        elif op == "is":
            if self._texts[self._i][:1] == '"':
                self._expected("an entity type", "a type has no quotes: `principal is User`")
            path = self._path("an entity type after `is`")
            container = None
            if self._texts[self._i] == "in":
                self._i += 1
                container = self._binary(_SUM)
            node = tree.Is(left, path, container, start=left.start, end=self._ends[self._i - 1])
        else:
            right = self._binary(_SUM)
            node = tree.Binary(op, left, right, start=left.start, end=right.end)  # type: ignore[arg-type]
        power = _POWERS.get(self._texts[self._i], 0)
        if power == _RELATION:
            self._fail("chained_relation", "comparisons cannot be chained", "use brackets, or `&&`: `a < b && b < c`")
        if power > _RELATION:
            self._expected("`&&`, `||` or the end of the expression", f"put `{op} …` in brackets")
        return node

    def _has_path(self) -> tuple[str, ...]:
        if self._texts[self._i][:1] == '"':
            return (self._string("an attribute's name"),)
        path = [self._identifier("an attribute's name after `has`")]
        while self._texts[self._i] == ".":
            self._i += 1
            path.append(self._identifier("an attribute's name after `.`"))
            if len(path) > limits.CHAIN_MAX:
                self._fail("too_long", f"more than {limits.CHAIN_MAX} attributes in a row", "split the path")
        return tuple(path)

    def _like(self, left: Expr) -> Expr:
        word = self._texts[self._i]
        if word[:1] != '"':
            self._expected("a pattern in quotes after `like`", 'a pattern is text with `*`: like "photo-*.jpg"')
        self._check_closed(word)
        try:
            pattern = unescape_pattern(word[1:-1])
        except EscapeError as error:
            self._bad_escape(error)
        self._i += 1
        return tree.Like(left, pattern, start=left.start, end=self._ends[self._i - 1])

    def _unary(self) -> Expr:
        sign = self._texts[self._i]
        if sign not in {"!", "-"}:
            return self._member()
        first = self._i
        while self._texts[self._i] == sign:
            self._i += 1
            if self._i - first > _SIGNS_MAX:
                message = f"more than {_SIGNS_MAX} `{sign}` in a row"
                self._fail_at(first, "too_many_signs", message, "an even number of them is none")
        count = self._i - first
        word = self._texts[self._i]
        if sign == "-" and word.isdigit() and self._texts[self._i + 1] not in (".", "["):
            # The least number has no positive twin: the last sign belongs to the literal, except in `-1.a`.
            node = self._member(negative=True)
            count -= 1
        else:
            node = self._member()
        make = tree.Not if sign == "!" else tree.Negate
        for index in range(first + count - 1, first - 1, -1):
            node = make(node, start=self._start(index), end=node.end)
        return node

    def _member(self, negative: bool = False) -> Expr:
        texts = self._texts
        node = self._primary(negative)
        length = 0
        while True:
            word = texts[self._i]
            if word == ".":
                i = self._i + 1
                name = texts[i]
                if texts[i + 1 if name else i] == "(":
                    node = self._method(node)
                else:
                    if not _is_name(name) or name in RESERVED:
                        self._i = i
                        self._identifier("an attribute's name after `.`")
                    self._i = i + 1
                    node = tree.GetAttr(node, name, start=node.start, end=self._ends[i])
            elif word == "[":
                self._i += 1
                name = self._string("an attribute's name in quotes")
                self._take("]", 'one name in brackets: resource["name"]')
                node = tree.GetAttr(node, name, start=node.start, end=self._ends[self._i - 1])
            else:
                return node
            length += 1
            if length > limits.CHAIN_MAX:
                self._fail("too_long", f"more than {limits.CHAIN_MAX} members in a row", "split the expression")

    def _method(self, target: Expr) -> Expr:
        self._i += 1
        name_at = self._i
        name = self._identifier("a method's name after `.`")
        self._i += 1
        arguments = self._items(")", self._expr)
        end = self._ends[self._i - 1]
        count = OPERATORS.get(name)
        if count is None:
            if name in FUNCTIONS:
                self._fail_at(name_at, "function_as_method", f"`{name}` is a function", f'call it as `{name}("…")`')
            if name not in METHODS:
                self._unknown(name_at, "unknown_method", f"no method `{name}`", METHODS | OPERATORS.keys())
            return tree.Call(name, (target, *arguments), start=target.start, end=end)
        if len(arguments) != count:
            wanted = "no argument" if count == 0 else "one argument"
            hint = f"write `….{name}({'' if count == 0 else '…'})`"
            self._fail_at(name_at, "wrong_arguments", f"`{name}` takes {wanted}, not {len(arguments)}", hint)
        if count == 0:
            return tree.IsEmpty(target, start=target.start, end=end)
        return tree.Binary(name, target, arguments[0], start=target.start, end=end)  # type: ignore[arg-type]

    def _primary(self, negative: bool) -> Expr:
        i = self._i
        word = self._texts[i]
        if word in VARIABLES and self._texts[i + 1] != "::":
            self._i = i + 1
            end = self._ends[i]
            return tree.Variable(word, start=end - len(word), end=end)  # type: ignore[arg-type]
        first = word[:1]
        if first == '"':
            text = self._string("")
            return tree.Literal(text, start=self._start(i), end=self._ends[i])
        if first.isdigit():
            return self._number(negative)
        if word in {"true", "false"}:
            self._i = i + 1
            return tree.Literal(word == "true", start=self._start(i), end=self._ends[i])
        if _is_name(word):
            return self._name()
        if word == "(":
            self._i = i + 1
            node = self._expr()
            self._take(")", "a bracket that was opened is closed")
            # Its brackets belong to its place, so that the places of what is made of it have them in pairs.
            node.start, node.end = self._start(i), self._ends[self._i - 1]
            return node
        if word == "[":
            return tree.SetOf(tuple(self._list("]", self._expr)), start=self._start(i), end=self._ends[self._i - 1])
        if word == "{":
            return self._record()
        if first == "?" and len(word) > 1:
            self._fail("slot_in_condition", f"the slot `{word}` stands in a condition", "slots fill the head only")
        self._expected("an expression", _NO_OPERATORS.get(word, ""))

    def _number(self, negative: bool) -> Expr:
        i = self._i
        word = self._texts[i]
        following = self._texts[i + 1]
        digits = word.lstrip("0") or "0"
        value = int(digits) if len(digits) < 20 else 2**64
        if value > _LONG_MAX + negative:
            self._fail(
                "number_too_large", f"`{word[:40]}` is too large", "numbers have 64 bits: up to 9223372036854775807"
            )
        if _is_name(following) and following not in RESERVED and self._start(i + 1) == self._ends[i]:
            self._no_number(i + 1, "numbers are whole and decimal, without `_`")
        if following == "." and self._texts[i + 2].isdigit():
            self._no_number(i + 2, f'numbers are whole; a fraction is decimal("{word[:40]}.{self._texts[i + 2][:40]}")')
        self._i = i + 1
        start = self._start(i - 1) if negative else self._start(i)
        return tree.Literal(-value if negative else value, start=start, end=self._ends[i])

    def _no_number(self, last: int, hint: str) -> NoReturn:
        start, end = self._start(self._i), self._ends[last]
        raise Misread("no_number", f"`{self._text[start : min(end, start + 80)]}` is no number", hint, start, end)

    def _name(self) -> Expr:
        """Read what begins with a name: an entity, a function's call, or what should be a variable."""
        first = self._i
        word = self._texts[first]
        if word in RESERVED:
            hint = "an `if` that is an operand stands in brackets" if word == "if" else "choose another name"
            self._fail("reserved_name", f"`{word}` is reserved", hint)
        path = self._path("an expression", literal=True)
        following = self._texts[self._i]
        if following == "::":
            return self._entity_literal(first, path)
        if following == "(":
            if path not in FUNCTIONS:
                if path in METHODS or path in OPERATORS:
                    self._fail_at(first, "method_as_function", f"`{path}` is a method", f"call it as `….{path}(…)`")
                self._unknown(first, "unknown_function", f"no function `{path}`", FUNCTIONS)
            self._i += 1
            arguments = self._items(")", self._expr)
            return tree.Call(path, tuple(arguments), start=self._start(first), end=self._ends[self._i - 1])
        if path in _NO_OPERATORS:
            self._fail_at(first, "unexpected_token", f"unexpected `{path}`", _NO_OPERATORS[path])
        near = difflib.get_close_matches(path, VARIABLES, n=1)
        hint = f"did you mean `{near[0]}`?" if near else 'an entity is Type::"id", text stands in quotes'
        self._fail_at(first, "unknown_variable", f"no variable `{path}`", hint)

    def _entity_literal(self, first: int, path: str) -> Expr:
        self._i += 1
        name = self._string('an entity\'s id in quotes: Type::"id"')
        return tree.Literal(EntityUid(path, name), start=self._start(first), end=self._ends[self._i - 1])

    def _record(self) -> Expr:
        first = self._i
        seen: set[str] = set()

        def field() -> tuple[str, Expr]:
            at = self._i
            quoted = self._texts[at][:1] == '"'
            name = self._string("") if quoted else self._identifier("an attribute's name")
            if name in seen:
                self._fail_at(
                    at, "duplicate_attribute", f"the attribute `{name}` stands here twice", "keep one of them"
                )
            seen.add(name)
            self._take(":", "a record is {name: value, …}")
            return name, self._expr()

        items = self._list("}", field)
        return tree.RecordOf(tuple(items), start=self._start(first), end=self._ends[self._i - 1])

    # --- pieces

    def _list(self, closing: str, item: Callable[[], T]) -> list[T]:
        self._i += 1
        return self._items(closing, item)

    def _items(self, closing: str, item: Callable[[], T]) -> list[T]:
        """Read items between commas, of which the last may be followed by one, and the bracket behind them."""
        texts = self._texts
        found: list[T] = []
        while texts[self._i] != closing:
            found.append(item())
            if len(found) > limits.OPERANDS_MAX:
                self._fail("too_long", f"more than {limits.OPERANDS_MAX} items", "use a group")
            if texts[self._i] != ",":
                break
            self._i += 1
        if texts[self._i] != closing:
            hint = _NO_OPERATORS.get(texts[self._i], f"items stand between commas, and `{closing}` behind the last")
            self._expected(f"`,` or `{closing}`", hint)
        self._i += 1
        return found

    def _entity(self) -> EntityUid:
        path = self._path('an entity: Type::"id"', literal=True)
        if self._texts[self._i] != "::":
            self._expected("`::` and an id", 'an entity is Type::"id"')
        self._i += 1
        return EntityUid(path, self._string('an entity\'s id in quotes: Type::"id"'))

    def _path(self, what: str, literal: bool = False) -> str:
        """Read `A::B`; with `literal`, a `::` before a string stays unread."""
        texts = self._texts
        path = self._identifier(what, in_path=True)
        while texts[self._i] == "::" and not (literal and not _is_name(texts[self._i + 1])):
            self._i += 1
            path += "::" + self._identifier("a name after `::`", in_path=True)
        return path

    def _identifier(self, what: str, in_path: bool = False) -> str:
        word = self._texts[self._i]
        if not _is_name(word):
            self._expected(what)
        if word in RESERVED:
            hint = "choose another name" if in_path else f'in quotes it may be a name: ["{word}"]'
            self._fail("reserved_name", f"`{word}` is reserved", hint)
        self._i += 1
        return word

    def _string(self, what: str) -> str:
        word = self._texts[self._i]
        if word[:1] != '"':
            self._expected(what, 'text stands in double quotes: "text"' if word == "'" else "")
        self._check_closed(word)
        self._i += 1
        if "\\" not in word:
            return word[1:-1]
        try:
            return unescape(word[1:-1])
        except EscapeError as error:
            self._i -= 1
            self._bad_escape(error)

    def _check_closed(self, word: str) -> None:
        if word == '"':
            self._fail("unclosed_text", "this text has no closing quote", 'write a quote inside as \\"')

    def _take(self, wanted: str, hint: str = "") -> None:
        if self._texts[self._i] != wanted:
            self._expected(f"`{wanted}`", hint)
        self._i += 1

    def _start(self, index: int) -> int:
        return self._ends[index] - len(self._texts[index])

    # --- faults

    def _expected(self, what: str, hint: str = "") -> NoReturn:
        hint = hint or _HINTS.get(what, f"write {what}")
        word = self._texts[self._i]
        if word == END:
            self._fail("unexpected_end", f"the text ends where {what} is expected", hint)
        self._check_closed(word)
        if not _is_name(word) and word[0] not in '"?' and not word.isdigit() and word not in PUNCTUATION:
            shown = word if word.isprintable() else f"U+{ord(word):04X}"
            self._fail("unknown_character", f"`{shown}` stands for nothing here", _NO_OPERATORS.get(word, hint))
        shown = word if len(word) <= 40 else word[:37] + "…"
        self._fail("unexpected_token", f"unexpected `{shown}`, {what} is expected", hint)

    def _unknown(self, at: int, code: str, message: str, known: Any) -> NoReturn:
        near = difflib.get_close_matches(self._texts[at], known, n=1)
        self._fail_at(at, code, message, f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}")

    def _bad_escape(self, error: EscapeError) -> NoReturn:
        start = self._start(self._i) + 1 + error.offset
        hint = r"escapes are \n \r \t \\ \0 \" \' \x41 \u{1F511}, and \* in patterns"
        raise Misread("invalid_escape", str(error), hint, start, start + len(error.escape))

    def _fail(self, code: str, message: str, hint: str) -> NoReturn:
        self._fail_at(self._i, code, message, hint)

    def _fail_at(self, index: int, code: str, message: str, hint: str) -> NoReturn:
        raise Misread(code, message, hint, self._start(index), self._ends[index])


def _balanced(operands: list[Expr], make: type[tree.And] | type[tree.Or]) -> Expr:
    """Join many operands of `&&` or `||` without nesting deeply; both are associative, also in what fails first."""
    while len(operands) > 1:
        pairs = []
        for index in range(0, len(operands) - 1, 2):
            left, right = operands[index], operands[index + 1]
            pairs.append(make(left, right, start=left.start, end=right.end))
        if len(operands) % 2:
            pairs.append(operands[-1])  # type: ignore[arg-type]
        operands = pairs  # type: ignore[assignment]
    return operands[0]
