"""Random schemas, and policies that mostly fit them: for comparing verdicts with Cedar's own validator.

Everything is drawn from one `random.Random`, so that a seed is enough to see a case again. Types are told as text of
the schema syntax: `Long`, `Set<Long>`, `T0` for an entity, `{a: Long, b?: String}` as a tuple of fields.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

Drawn = str | tuple[str, object]
"""`("set", element)`, `("record", {name: (type, required)})`, or a word."""

_WORDS = ("Long", "String", "Bool", "ipaddr", "decimal", "datetime", "duration")
_LITERALS = {
    "Long": ("0", "1", "-7", "42", "9223372036854775807"),
    "String": ('""', '"a"', '"b c"', '"*"'),
    "Bool": ("true", "false"),
    "ipaddr": ('ip("10.0.0.1")', 'ip("10.0.0.0/8")', 'ip("::1")'),
    "decimal": ('decimal("1.0")', 'decimal("-2.55")'),
    "datetime": ('datetime("2024-01-01")', 'datetime("2024-01-01T10:00:00Z")'),
    "duration": ('duration("1h")', 'duration("-3d4ms")'),
}
_INVALID = ('ip("x")', 'decimal("1")', 'datetime("2024-13-01")', 'duration("1h2d")', "ip()", 'decimal("1.0", "2.0")')


@dataclass
class DrawnSchema:
    """A schema as text, and what a policy may use of it."""

    text: str
    entities: dict[str, dict[str, tuple[Drawn, bool]]]
    parents: dict[str, list[str]]
    tags: dict[str, Drawn]
    choices: dict[str, list[str]]
    actions: dict[str, tuple[list[str], list[str], dict[str, tuple[Drawn, bool]]]] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)


def spell(drawn: Drawn) -> str:
    """Give a type as schema text."""
    if isinstance(drawn, str):
        return drawn
    if drawn[0] == "set":
        return f"Set<{spell(drawn[1])}>"  # type: ignore[arg-type]
    return spell_fields(drawn[1])  # type: ignore[arg-type]


def spell_fields(fields: dict[str, tuple[Drawn, bool]]) -> str:
    """Give a record type as schema text."""
    items = [f"{name}{'' if required else '?'}: {spell(kind)}" for name, (kind, required) in fields.items()]
    return "{" + ", ".join(items) + "}"


def draw_schema(rng: random.Random) -> DrawnSchema:
    """Draw a schema: two namespaces, entities with tags and optional attributes, an enumeration, groups of actions."""
    names = ["T0", "T1", "T2", "N::T3", "N::E"]
    choices = {"N::E": ["on", "off"]}
    schema = DrawnSchema("", {}, {}, {}, choices)
    for name in names:
        schema.entities[name] = {} if name in choices else _fields(rng, names, rng.randint(1, 5), 2)
        schema.parents[name] = [] if name in choices else [p for p in names if rng.random() < 0.3]
        if name not in choices and rng.random() < 0.5:
            schema.tags[name] = _type(rng, names, 1)
    schema.groups = ['Action::"g0"', 'N::Action::"g1"']
    context = _fields(rng, names, 3, 2)
    lines: dict[str, list[str]] = {
        "": ["action g0;"],
        "N": ['action g1 in [Action::"g0"];' if rng.random() < 0.5 else "action g1;"],
    }
    for name in names:
        space, _, base = name.rpartition("::")
        if name in choices:
            lines[space].append(f'entity {base} enum ["on", "off"];')
            continue
        parents = f" in [{', '.join(schema.parents[name])}]" if schema.parents[name] else ""
        tags = f" tags {spell(schema.tags[name])}" if name in schema.tags else ""
        lines[space].append(f"entity {base}{parents} {spell_fields(schema.entities[name])}{tags};")
    for index in range(rng.randint(1, 4)):
        space = rng.choice(("", "N"))
        principals = rng.sample(names, rng.randint(1, 2))
        resources = rng.sample(names, rng.randint(1, 2))
        own = context if rng.random() < 0.5 else _fields(rng, names, rng.randint(0, 4), 2)
        uid = f'{space + "::" if space else ""}Action::"a{index}"'
        schema.actions[uid] = (principals, resources, own)
        group = [g for g in schema.groups if rng.random() < 0.4]
        member = f" in [{', '.join(group)}]" if group else ""
        lines[space].append(
            f"action a{index}{member} appliesTo {{principal: [{', '.join(principals)}], "
            f"resource: [{', '.join(resources)}], context: {spell_fields(own)}}};"
        )
    schema.text = "\n".join(lines[""]) + "\nnamespace N {\n" + "\n".join(lines["N"]) + "\n}\n"
    return schema


def _type(rng: random.Random, names: list[str], depth: int) -> Drawn:
    roll = rng.random()
    if depth and roll < 0.2:
        return ("set", _type(rng, names, depth - 1))
    if depth and roll < 0.35:
        return ("record", _fields(rng, names, rng.randint(0, 3), depth - 1))
    return rng.choice(names) if roll < 0.55 else rng.choice(_WORDS)


def _fields(rng: random.Random, names: list[str], count: int, depth: int) -> dict[str, tuple[Drawn, bool]]:
    return {name: (_type(rng, names, depth), rng.random() < 0.6) for name in rng.sample("abcdef", count)}


class PolicyDrawer:
    """Draws policies for one schema; `wrong` is the chance that an expression is of another type than it should be."""

    def __init__(self, rng: random.Random, schema: DrawnSchema, wrong: float) -> None:
        self.rng, self.schema, self.wrong = rng, schema, wrong
        self.names = list(schema.entities)

    def policy(self) -> str:
        """Draw a policy whose conditions are meant for one of the schema's kinds of requests."""
        rng = self.rng
        self.action = rng.choice(list(self.schema.actions))
        principals, resources, context = self.schema.actions[self.action]
        self.principal, self.resource, self.context = rng.choice(principals), rng.choice(resources), context
        self.reads = list(self._reads())
        bodies = "".join(
            f" {rng.choice(('when', 'when', 'unless'))} {{ {self.draw('Bool', rng.randint(1, 5))} }}"
            for _ in range(rng.choice((0, 1, 1, 1, 2)))
        )
        scope = ", ".join(
            (self._side("principal", self.principal), self._action(), self._side("resource", self.resource))
        )
        return f"{rng.choice(('permit', 'forbid'))}({scope}){bodies};"

    def _side(self, variable: str, name: str) -> str:
        rng = self.rng
        roll = rng.random()
        if roll < 0.35:
            return f"{variable} is {name}"
        if roll < 0.5:
            return variable
        if roll < 0.6:
            slot = f"?{variable}"
            return f"{variable} {rng.choice((f'== {slot}', f'in {slot}', f'is {name} in {slot}'))}"
        other = rng.choice(self.names) if rng.random() < 0.1 else name
        form = rng.choice(
            (f"== {self.entity(other)}", f"in {self.entity(other)}", f"is {name} in {self.entity(other)}")
        )
        return f"{variable} {form}"

    def _action(self) -> str:
        rng = self.rng
        roll = rng.random()
        if roll < 0.6:
            return f"action == {self.action}"
        known = [*self.schema.actions, *self.schema.groups]
        if roll < 0.7:
            return f"action in [{', '.join(rng.choices(known, k=rng.choice((0, 1, 1, 1, 2))))}]"
        return "action" if roll < 0.9 else f"action in {rng.choice(known)}"

    def entity(self, name: str) -> str:
        """Draw an entity of a type."""
        if name in self.schema.choices and self.rng.random() < 0.98:
            return f'{name}::"{self.rng.choice(self.schema.choices[name])}"'
        if self.rng.random() < 0.005:
            name += "x"
        return f'{name}::"{self.rng.choice("xyz")}"'

    def _reads(self) -> list[tuple[str, Drawn, str]]:
        """Give (expression, type, guard) of what can be read, two steps far."""
        found: list[tuple[str, Drawn, str]] = []
        steps: list[tuple[str, Drawn, str]] = [
            ("principal", self.principal, ""),
            ("resource", self.resource, ""),
            ("context", ("record", self.context), ""),
        ]
        for _ in range(3):
            following: list[tuple[str, Drawn, str]] = []
            for text, kind, guard in steps:
                found.append((text, kind, guard))
                for name, (inner, required) in self._fields_of(kind).items():
                    own = "" if required else f"{text} has {name}"
                    following.append((f"{text}.{name}", inner, f"{guard} && {own}" if guard and own else guard or own))
                if isinstance(kind, str) and kind in self.schema.tags:
                    test = f'{text}.hasTag("t")'
                    following.append(
                        (f'{text}.getTag("t")', self.schema.tags[kind], f"{guard} && {test}" if guard else test)
                    )
            steps = following
        return found

    def _fields_of(self, kind: Drawn) -> dict[str, tuple[Drawn, bool]]:
        if isinstance(kind, str):
            return self.schema.entities.get(kind, {})
        return kind[1] if kind[0] == "record" else {}  # type: ignore[return-value]

    def any_type(self) -> Drawn:
        return _type(self.rng, self.names, 1)

    def draw(self, kind: Drawn, depth: int) -> str:
        """Draw an expression of a type, mostly."""
        rng = self.rng
        if rng.random() < self.wrong:
            kind = self.any_type()
        if depth > 0 and rng.random() < 0.12:
            test, one = self.draw("Bool", depth - 1), self.draw(kind, depth - 1)
            return f"(if {test} then {one} else {self.draw(kind, depth - 1)})"
        if rng.random() < 0.5 or depth <= 0:
            fitting = [read for read in self.reads if read[1] == kind]
            if fitting:
                text, _, guard = rng.choice(fitting)
                if not guard or rng.random() < 0.15:
                    return text
                if kind == "Bool":
                    return f"({guard} && {text})"
                return f"(if {guard} then {text} else {self.leaf(kind, 1)})"
        if kind == "Bool" and depth > 0:
            return self.truth(depth)
        if kind == "Long" and depth > 0 and rng.random() < 0.4:
            return self._number(depth)
        if kind in ("datetime", "duration") and depth > 0 and rng.random() < 0.3:
            return self._moment(str(kind), depth)
        return self.leaf(kind, depth)

    def _number(self, depth: int) -> str:
        rng = self.rng
        if rng.random() < 0.3:
            return f"{self.draw('duration', depth - 1)}.{rng.choice(('toMilliseconds', 'toDays', 'toHours'))}()"
        return f"({self.draw('Long', depth - 1)} {rng.choice('+-*')} {self.draw('Long', depth - 1)})"

    def _moment(self, kind: str, depth: int) -> str:
        at = self.draw("datetime", depth - 1)
        if kind == "datetime":
            return self.rng.choice((f"{at}.toDate()", f"{at}.offset({self.draw('duration', depth - 1)})"))
        return self.rng.choice((f"{at}.toTime()", f"{at}.durationSince({self.draw('datetime', depth - 1)})"))

    def leaf(self, kind: Drawn, depth: int) -> str:
        """Draw a literal, a set or a record."""
        rng = self.rng
        if not isinstance(kind, str):
            if kind[0] == "set":
                count = rng.choice((0, 1, 1, 2, 3)) if rng.random() < 0.3 else rng.randint(1, 2)
                return "[" + ", ".join(self.draw(kind[1], depth - 1) for _ in range(count)) + "]"  # type: ignore[arg-type]
            fields = [(name, inner) for name, (inner, required) in kind[1].items() if required or rng.random() < 0.5]  # type: ignore[attr-defined]
            return "{" + ", ".join(f"{name}: {self.draw(inner, depth - 1)}" for name, inner in fields) + "}"
        if kind in self.schema.entities:
            return self.entity(kind)
        if rng.random() < self.wrong / 4:
            return rng.choice(_INVALID)
        return rng.choice(_LITERALS[kind])

    def truth(self, depth: int) -> str:
        """Draw a boolean expression."""
        rng = self.rng
        below = depth - 1
        match rng.randint(0, 15):
            case 0 | 1:
                return f"({self.draw('Bool', below)} && {self.draw('Bool', below)})"
            case 2:
                return f"({self.draw('Bool', below)} || {self.draw('Bool', below)})"
            case 3:
                return f"!({self.draw('Bool', below)})"
            case 4 | 5:
                kind = self.any_type()
                return f"({self.draw(kind, below)} {rng.choice(('==', '!='))} {self.draw(kind, below)})"
            case 6:
                word = rng.choice(("Long", "datetime", "duration"))
                return f"({self.draw(word, below)} {rng.choice(('<', '<=', '>', '>='))} {self.draw(word, below)})"
            case 7:
                return self._has()
            case 8 | 9:
                return self._membership(below)
            case 10:
                return f"({self.draw(rng.choice(self.names), below)} is {rng.choice(self.names)})"
            case 11:
                kind = self.any_type()
                if rng.random() < 0.3:
                    return f"{self.draw(('set', kind), below)}.isEmpty()"
                if rng.random() < 0.5:
                    return f"{self.draw(('set', kind), below)}.contains({self.draw(kind, below)})"
                method = rng.choice(("containsAll", "containsAny"))
                return f"{self.draw(('set', kind), below)}.{method}({self.draw(('set', kind), below)})"
            case 12:
                return f'({self.draw("String", below)} like "a*")'
            case 13:
                guarded = [read for read in self.reads if read[2]]
                if guarded:
                    text, kind, guard = rng.choice(guarded)
                    return f"({guard} && ({text} == {self.draw(kind, below)}))"
                return "true"
            case 14:
                test = f"isInRange({self.draw('ipaddr', below)})"
                return f"{self.draw('ipaddr', below)}.{rng.choice((test, 'isIpv4()', 'isLoopback()'))}"
            case _:
                method = rng.choice(("lessThan", "greaterThanOrEqual"))
                return f"{self.draw('decimal', below)}.{method}({self.draw('decimal', below)})"

    def _has(self) -> str:
        rng = self.rng
        text, kind, guard = rng.choice(self.reads)
        path = rng.choice(list(self._fields_of(kind)) or ["zz"])
        if rng.random() < 0.4:
            fields = self._fields_of(kind)
            inner = fields[path][0] if path in fields else "Long"
            path += "." + rng.choice([*self._fields_of(inner), "zz"])
        test = f"({text} has {path})"
        return f"({guard} && {test} && {text}.{path} == {text}.{path})" if guard and rng.random() < 0.5 else test

    def _membership(self, depth: int) -> str:
        rng = self.rng
        one, other = rng.choice(self.names), rng.choice(self.names)
        if rng.random() < 0.25:
            known = [*self.schema.actions, *self.schema.groups, 'Action::"zz"' if rng.random() < 0.1 else "action"]
            return f"(action {rng.choice(('in', '=='))} {rng.choice(known)})"
        left = self.draw(one, depth)
        if rng.random() < 0.3:
            return f"({left} in {self.draw(('set', other), depth)})"
        if rng.random() < 0.3:
            return f"({left} is {one} in {self.draw(other, depth)})"
        return f"({left} in {self.draw(other, depth)})"
