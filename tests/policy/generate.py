"""Random policies, entities and requests: one generator for bulk (`random.Random`) and for Hypothesis (`st.randoms`).

A `Case` is a policy text with templates and links, a hierarchy, and requests. Texts are made here, bracketed
throughout, and not by the product's printer. Most expressions are of the right types; some are not, so that errors come
to light. Names come from small pools, so that things meet: an entity that is asked for often exists, and often not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid, quoted
from tests.oracle import policy as oracle

Chooser = random.Random

WRONG = 0.03  # chance that an operand is of another type than asked for
DEPTH_MAX = 4

USERS = [EntityUid("User", f"u{i}") for i in range(5)] + [EntityUid("User", 'o"dd\n')]
BUYERS = [EntityUid("Shop::Buyer", f"u{i}") for i in range(2)]
GROUPS = [EntityUid("Group", f"g{i}") for i in range(5)]
DOCS = [EntityUid("Doc", f"d{i}") for i in range(5)] + [EntityUid("Doc", "")]
FOLDERS = [EntityUid("Folder", f"f{i}") for i in range(4)]
ACTIONS = [EntityUid("Action", name) for name in ("view", "edit", "share", "delete page")]
ACTION_GROUPS = [EntityUid("Action", name) for name in ("read", "write", "all")]
STRANGERS = [EntityUid("User", "stranger"), EntityUid("Ghost", "g"), EntityUid("Doc", "stranger")]
HIERARCHY = [*GROUPS, *USERS, *BUYERS, *FOLDERS, *DOCS]  # parents only before children: no cycles
EVERYONE = [*HIERARCHY, *ACTIONS, *ACTION_GROUPS, *STRANGERS]
TYPES = ["User", "Shop::Buyer", "Group", "Doc", "Folder", "Action", "Ghost"]

NUMBERS = [0, 1, -1, 2, 3, 10, 60, 1000, 86_400_000, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**62]
STRINGS = ["", "a", "ab", "abc", "a*b", "é", "\U0001f600", "a\nb", 'q"\\', "A", "name", "10.0.0.1", "1.5", "1h", "\0"]
PATTERNS = ["*", "a*", "*b", "a*c", "", "*a*", "a\\*b", "é", "**", "*\\u{e9}*", "\\n", "\\*", "a*b*c", "*\\u{1f600}"]
DECIMALS = ["0.0", "1.5", "-1.5", "1.50", "0.0001", "922337203685477.5807", "-922337203685477.5808", "10.25"]
ADDRESSES = [
    "10.0.0.1", "10.0.0.0/8", "10.0.0.1/32", "127.0.0.1", "127.0.0.0/8", "0.0.0.0/0", "224.0.0.1", "::1", "::/0",
    "ff00::/8", "2001:db8::1", "2001:db8::/32", "192.168.1.77/24", "126.0.0.0/7",
]  # fmt: skip
DATETIMES = [
    "1970-01-01", "2024-02-29", "2024-05-01T12:00:00Z", "2024-05-01T14:00:00.000+0200", "1969-12-31T23:59:59.999Z",
    "0000-01-01", "9999-12-31T23:59:59.999Z", "2024-05-01T00:00:00-0530",
]  # fmt: skip
DURATIONS = ["0ms", "1ms", "1h", "60m", "-1d", "1d2h3m4s5ms", "9223372036854775807ms", "-9223372036854775808ms", "-90s"]
BAD = ["", "x", "1", "1.23456", "1.2.3", "::1::", "2024-02-30", "1m1h", "01.2.3.4"]

KINDS = ["bool", "long", "string", "entity", "set", "record", "decimal", "ip", "datetime", "duration"]
FIELDS = {
    "admin": "bool", "age": "long", "name": "string", "manager": "entity", "teams": "entities", "labels": "set",
    "score": "decimal", "addr": "ip", "born": "datetime", "ttl": "duration", "info": "record", "odd key": "string",
}  # fmt: skip
INFO = {"level": "long", "owner": "entity", "deep": "record", "on": "bool", "odd key": "string", "if": "long"}
TAGS = ["team", "cost", "a", ""]


@dataclass
class Case:
    """What one comparison is about. `links`: (template's id, id of the link, values of its slots)."""

    policies: str
    links: list[tuple[str, str, dict[str, EntityUid]]]
    entities: dict[EntityUid, oracle.Entity]
    requests: list[oracle.Request] = field(default_factory=list)


def pick(chooser: Chooser, items: Sequence[Any]) -> Any:
    """Choose one. Not `Random.choice`, which draws differently under Hypothesis."""
    return items[chooser.randint(0, len(items) - 1)]


def chance(chooser: Chooser, percent: float) -> bool:
    """True in `percent` of a hundred; false is the simple case, to which Hypothesis shrinks."""
    return chooser.randint(1, 1000) > 1000 - percent * 10


# --- values


def value(chooser: Chooser, kind: str, depth: int = 2) -> Any:
    """Make a value of a kind."""
    match kind:
        case "bool":
            return chance(chooser, 50)
        case "long":
            return pick(chooser, NUMBERS)
        case "string":
            return pick(chooser, STRINGS)
        case "entity":
            return pick(chooser, EVERYONE)
        case "entities":
            return oracle.distinct([pick(chooser, EVERYONE) for _ in range(chooser.randint(0, 4))])
        case "set":
            inner = pick(chooser, KINDS if depth > 0 else KINDS[:4])
            mixed = chance(chooser, 15)
            count = chooser.randint(0, 4) if not chance(chooser, 5) else 14
            kinds = [pick(chooser, KINDS[:4]) if mixed else inner for _ in range(count)]
            return oracle.distinct([value(chooser, each, depth - 1) for each in kinds])
        case "record":
            names = [name for name in INFO if chance(chooser, 65)] if depth > 0 else []
            return {name: value(chooser, INFO[name], depth - 1) for name in names}
        case "decimal":
            return Decimal.parse(pick(chooser, DECIMALS))
        case "ip":
            return IPAddr(pick(chooser, ADDRESSES))
        case "datetime":
            return Datetime.parse(pick(chooser, DATETIMES))
        case "duration":
            return Duration.parse(pick(chooser, DURATIONS))
    raise AssertionError(kind)


def fields(chooser: Chooser, names: Mapping[str, str], percent: float) -> dict[str, Any]:
    """Make attributes: some are absent, a few are of another kind."""
    present = [name for name in names if chance(chooser, percent)]
    return {name: value(chooser, pick(chooser, KINDS) if chance(chooser, 4) else names[name]) for name in present}


def entities(chooser: Chooser) -> dict[EntityUid, oracle.Entity]:
    """Make a hierarchy without cycles; some entities are missing, also as parents of others."""
    made: dict[EntityUid, oracle.Entity] = {}
    for number, uid in enumerate(HIERARCHY):
        if chance(chooser, 15):
            continue
        count = chooser.randint(0, 3)
        parents = {pick(chooser, HIERARCHY[:number]) for _ in range(count)} if number else set()
        if chance(chooser, 5):
            parents.add(EntityUid("Group", "missing"))
        tags = {tag: value(chooser, pick(chooser, KINDS[:5]), 1) for tag in TAGS if chance(chooser, 40)}
        made[uid] = oracle.Entity(fields(chooser, FIELDS, 60), frozenset(parents), tags)
    for uid in ACTIONS:
        made[uid] = oracle.Entity({}, frozenset(group for group in ACTION_GROUPS[:2] if chance(chooser, 50)))
    for uid in ACTION_GROUPS:
        made[uid] = oracle.Entity({}, frozenset() if uid.id == "all" else frozenset([ACTION_GROUPS[2]]))
    return made


def request(chooser: Chooser) -> oracle.Request:
    """Make a request; its entities may be unknown, or of any type."""
    principal = pick(chooser, EVERYONE) if chance(chooser, 10) else pick(chooser, [*USERS, *BUYERS])
    resource = pick(chooser, EVERYONE) if chance(chooser, 10) else pick(chooser, [*DOCS, *FOLDERS])
    action = EntityUid("Action", "unknown") if chance(chooser, 3) else pick(chooser, ACTIONS)
    return oracle.Request(principal, action, resource, fields(chooser, FIELDS, 70))


# --- expressions


class Writer:
    """Writes expressions of asked kinds, as Cedar text."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self._kinds: dict[str, list[Callable[[int], str]]] = {
            "bool": [
                self._field("admin"), self._logic, self._logic, self._equal, self._order, self._in, self._in,
                self._has, self._like, self._is, self._contains, self._tag, self._decimals, self._address,
            ],
            "long": [self._field("age"), self._sum, self._sum, self._to_number, self._inner("level")],
            "string": [self._field("name"), self._get_tag, self._inner("odd key")],
            "entity": [self._field("manager"), self._variable, self._variable, self._inner("owner")],
            "set": [self._field("labels"), self._field("teams"), self._set],
            "record": [self._field("info"), self._record, self._inner("deep"), lambda _: "context"],
            "decimal": [self._field("score")],
            "ip": [self._field("addr")],
            "datetime": [
                self._field("born"),
                lambda depth: f"({self.of('datetime', depth)}).offset({self.of('duration', depth)})",
                lambda depth: f"({self.of('datetime', depth)}).toDate()",
            ],
            "duration": [
                self._field("ttl"),
                lambda depth: f"({self.of('datetime', depth)}).durationSince({self.of('datetime', depth)})",
                lambda depth: f"({self.of('datetime', depth)}).toTime()",
            ],
        }  # fmt: skip

    def of(self, kind: str, depth: int) -> str:
        """Write an expression of a kind, or now and then of another; at most `depth` levels."""
        if chance(self.chooser, WRONG * 100):
            kind = pick(self.chooser, KINDS)
        if depth <= 0 or chance(self.chooser, 8):
            return self.constant(kind)
        if chance(self.chooser, 5):
            test, then, otherwise = self.of("bool", depth - 1), self.of(kind, depth - 1), self.of(kind, depth - 1)
            return f"(if {test} then {then} else {otherwise})"
        write: Callable[[int], str] = pick(self.chooser, self._kinds[kind])
        return write(depth - 1)

    def constant(self, kind: str) -> str:
        """Write a constant; extension values also from texts that are none."""
        chooser = self.chooser
        match kind:
            case "bool":
                return "true" if chance(chooser, 60) else "false"
            case "long":
                number = pick(chooser, NUMBERS)
                return f"({number})" if number < 0 else str(number)
            case "string":
                return quoted(pick(chooser, STRINGS))
            case "entity":
                return str(pick(chooser, EVERYONE))
            case "set":
                inner = pick(chooser, KINDS[:4])
                return f"[{', '.join(self.constant(inner) for _ in range(chooser.randint(0, 3)))}]"
            case "record":
                names = [name for name in ("level", "on", "owner") if chance(chooser, 40)]
                return f"{{{', '.join(f'{name}: {self.constant(INFO[name])}' for name in names)}}}"
        pool = {"decimal": DECIMALS, "ip": ADDRESSES, "datetime": DATETIMES, "duration": DURATIONS}[kind]
        if chance(chooser, 4):
            return f"{kind}({self.of('string', 1)})"
        return f"{kind}({quoted(pick(chooser, BAD if chance(chooser, 4) else pool))})"

    def operand(self, depth: int) -> str:
        """Write something that has attributes: usually a variable."""
        if chance(self.chooser, 75):
            return str(pick(self.chooser, ["principal", "resource", "context", "principal", "resource"]))
        return f"({self.of('entity', depth)})"

    def access(self, name: str) -> str:
        return f"[{quoted(name)}]" if " " in name or name == "if" or chance(self.chooser, 10) else f".{name}"

    def _field(self, name: str) -> Callable[[int], str]:
        return lambda depth: self.operand(depth) + self.access(name)

    def _inner(self, name: str) -> Callable[[int], str]:
        return lambda depth: f"({self.of('record', depth)}){self.access(name)}"

    def _variable(self, depth: int) -> str:
        return str(pick(self.chooser, ["principal", "resource", "action"]))

    def _logic(self, depth: int) -> str:
        operator = pick(self.chooser, ["&&", "||", "!", "&&", "||"])
        if operator == "!":
            return f"(!({self.of('bool', depth)}))"
        count = chance(self.chooser, 30) + 2
        return f"({f' {operator} '.join(self.of('bool', depth) for _ in range(count))})"

    def _equal(self, depth: int) -> str:
        kind = pick(self.chooser, KINDS)
        other = pick(self.chooser, KINDS) if chance(self.chooser, 10) else kind
        return f"({self.of(kind, depth)} {pick(self.chooser, ['==', '!='])} {self.of(other, depth)})"

    def _order(self, depth: int) -> str:
        kind = pick(self.chooser, ["long", "long", "datetime", "duration"])
        return f"({self.of(kind, depth)} {pick(self.chooser, ['<', '<=', '>', '>='])} {self.of(kind, depth)})"

    def _in(self, depth: int) -> str:
        match self.chooser.randint(0, 4):
            case 0:
                container = self.of("entity", depth)
            case 1:
                container = f"[{', '.join(self.of('entity', depth) for _ in range(self.chooser.randint(0, 3)))}]"
            case 2:
                container = self._field("teams")(depth)
            case _:
                container = str(pick(self.chooser, [*GROUPS, *FOLDERS, *ACTION_GROUPS]))
        return f"({self.of('entity', depth)} in {container})"

    def _has(self, depth: int) -> str:
        name = pick(self.chooser, list(FIELDS))
        match self.chooser.randint(0, 3):
            case 0:
                return f"({self.operand(depth)} has {quoted(name)})"
            case 1:
                path = ["manager", pick(self.chooser, ["name", "manager", "info"]), "level"]
                return f"({self.operand(depth)} has {'.'.join(path[: self.chooser.randint(1, 3)])})"
            case 2:
                return f"({self.of('record', depth)} has {pick(self.chooser, ['level', 'owner', 'deep.level', 'on'])})"
            case _:
                # The way policies are written: asked for first, then read.
                operand, guarded = self.operand(depth), pick(self.chooser, ["admin", "age", "name"])
                kind = FIELDS[guarded]
                return f"({operand} has {guarded} && {operand}.{guarded} == {self.of(kind, depth)})"

    def _like(self, depth: int) -> str:
        return f'({self.of("string", depth)} like "{pick(self.chooser, PATTERNS)}")'

    def _is(self, depth: int) -> str:
        text = f"{self.of('entity', depth)} is {pick(self.chooser, TYPES)}"
        if chance(self.chooser, 30):
            text += f" in {self.of('entity', depth)}"
        return f"({text})"

    def _contains(self, depth: int) -> str:
        match self.chooser.randint(0, 3):
            case 0:
                return f"({self.of('set', depth)}).isEmpty()"
            case 1:
                return f"({self.of('set', depth)}).contains({self.of(pick(self.chooser, KINDS[:5]), depth)})"
            case _:
                name = pick(self.chooser, ["containsAll", "containsAny"])
                return f"({self.of('set', depth)}).{name}({self.of('set', depth)})"

    def _tag(self, depth: int) -> str:
        tag = self.of("string", depth) if chance(self.chooser, 20) else quoted(pick(self.chooser, TAGS))
        return f"({self.of('entity', depth)}).hasTag({tag})"

    def _get_tag(self, depth: int) -> str:
        return f"({self.of('entity', depth)}).getTag({quoted(pick(self.chooser, TAGS))})"

    def _decimals(self, depth: int) -> str:
        name = pick(self.chooser, ["lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"])
        return f"({self.of('decimal', depth)}).{name}({self.of('decimal', depth)})"

    def _address(self, depth: int) -> str:
        name = pick(self.chooser, ["isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange", "isInRange"])
        return f"({self.of('ip', depth)}).{name}({self.of('ip', depth) if name == 'isInRange' else ''})"

    def _sum(self, depth: int) -> str:
        operator = pick(self.chooser, ["+", "-", "*", "negate"])
        if operator == "negate":
            return f"(-({self.of('long', depth)}))"
        count = chance(self.chooser, 20) + 2
        return f"({f' {operator} '.join(self.of('long', depth) for _ in range(count))})"

    def _to_number(self, depth: int) -> str:
        unit = pick(self.chooser, ["Milliseconds", "Seconds", "Minutes", "Hours", "Days"])
        return f"({self.of('duration', depth)}).to{unit}()"

    def _set(self, depth: int) -> str:
        kind = pick(self.chooser, KINDS)
        return f"[{', '.join(self.of(kind, depth) for _ in range(self.chooser.randint(0, 3)))}]"

    def _record(self, depth: int) -> str:
        names = [name for name in INFO if chance(self.chooser, 35)]
        texts = [f"{quoted(name) if ' ' in name or name == 'if' else name}: " for name in names]
        return f"{{{', '.join(text + self.of(INFO[name], depth) for text, name in zip(texts, names, strict=True))}}}"


# --- policies


def scope(chooser: Chooser, name: str, pool: Sequence[EntityUid], slot: str | None) -> str:
    """Write the constraint on principal or resource; `slot` stands in place of the entity."""
    entity = slot or str(pick(chooser, EVERYONE) if chance(chooser, 10) else pick(chooser, pool))
    forms = [f"{name} == {entity}", f"{name} in {entity}", f"{name} is {pick(chooser, TYPES)} in {entity}"]
    if slot is None:
        forms += [name] * 6 + [f"{name} is {pick(chooser, TYPES)}"]
    return str(pick(chooser, forms))


def action_scope(chooser: Chooser) -> str:
    """Write the constraint on the action."""
    one, other = pick(chooser, ACTIONS), pick(chooser, [*ACTIONS, *ACTION_GROUPS])
    return str(
        pick(
            chooser,
            [
                "action", "action", "action", f"action == {one}", f"action in {other}", f"action in [{one}, {other}]",
                f"action in [{other}]", "action in []",
            ],
        )
    )  # fmt: skip


def statement(chooser: Chooser, slots: Sequence[str] = ()) -> str:
    """Write a policy, or a template with the slots."""
    writer = Writer(chooser)
    principal = scope(chooser, "principal", [*USERS, *GROUPS], "?principal" if "?principal" in slots else None)
    resource = scope(chooser, "resource", [*DOCS, *FOLDERS], "?resource" if "?resource" in slots else None)
    conditions = []
    for _ in range(pick(chooser, [0, 1, 1, 1, 2, 3])):
        depth = 0 if chance(chooser, 5) else chooser.randint(1, DEPTH_MAX)
        conditions.append(f" {pick(chooser, ['when', 'when', 'unless'])} {{ {writer.of('bool', depth)} }}")
    head = '@note("x") ' if chance(chooser, 5) else ""
    effect = "forbid" if chance(chooser, 30) else "permit"
    return f"{head}{effect}({principal}, {action_scope(chooser)}, {resource}){''.join(conditions)};"


def policies(chooser: Chooser, count: int) -> tuple[str, list[tuple[str, str, dict[str, EntityUid]]]]:
    """Write a text of `count` statements, and links of its templates."""
    texts, links = [], []
    for number in range(count):
        slots = pick(chooser, [["?principal"], ["?resource"], ["?principal", "?resource"]])
        if not chance(chooser, 12):
            slots = []
        texts.append(statement(chooser, slots))
        for link in range(chooser.randint(0, 3) if slots else 0):
            links.append((f"policy{number}", f"link{number}_{link}", {slot: pick(chooser, EVERYONE) for slot in slots}))
    return "\n".join(texts) + "\n", links


def case(chooser: Chooser, *, policies_max: int = 12, requests: int = 5) -> Case:
    """Make policies, entities and requests."""
    text, links = policies(chooser, chooser.randint(1, policies_max))
    known = entities(chooser)
    return Case(text, links, known, [request(chooser) for _ in range(requests)])


# --- as JSON, for Cedar


def spelled(item: Any) -> Any:
    """Give a value as JSON that Cedar reads without a schema."""
    match item:
        case EntityUid():
            return {"__entity": {"type": item.type, "id": item.id}}
        case Decimal():
            return {"__extn": {"fn": "decimal", "arg": str(item)}}
        case IPAddr():
            return {"__extn": {"fn": "ip", "arg": str(item)}}
        case Datetime():
            return {"__extn": {"fn": "datetime", "arg": str(item)}}
        case Duration():
            return {"__extn": {"fn": "duration", "arg": str(item)}}
        case list() | tuple():
            return [spelled(each) for each in item]
        case dict():
            return {name: spelled(each) for name, each in item.items()}
    return item


def entities_json(known: Mapping[EntityUid, oracle.Entity]) -> list[dict[str, Any]]:
    """Give entities in Cedar's JSON format."""
    return [
        {
            "uid": {"type": uid.type, "id": uid.id},
            "attrs": spelled(dict(entity.attributes)),
            "parents": [{"type": parent.type, "id": parent.id} for parent in sorted(entity.parents)],
            "tags": spelled(dict(entity.tags)),
        }
        for uid, entity in known.items()
    ]


# --- schemas


def schema(chooser: Chooser) -> str:
    """Write a schema for the pools above: which attributes there are and how sure they are differs."""
    entity_types = ["User", "Shop::Buyer", "Group", "Doc", "Folder"]

    def a_type(kind: str, depth: int = 1) -> str:
        match kind:
            case "entity":
                return str(pick(chooser, entity_types))
            case "entities":
                return f"Set<{pick(chooser, entity_types)}>"
            case "set":
                return f"Set<{pick(chooser, ['String', 'Long', 'User', 'Bool'])}>"
            case "record":
                return record(INFO, depth - 1) if depth > 0 else "{}"
            case "ip":
                return "ipaddr"
        return {"bool": "Bool", "long": "Long", "string": "String"}.get(kind, kind)

    def record(names: Mapping[str, str], depth: int) -> str:
        parts = []
        for name, kind in names.items():
            if chance(chooser, 6):
                continue
            own = pick(chooser, KINDS) if chance(chooser, 4) else kind
            parts.append(f"{quoted(name)}{'?' if chance(chooser, 12) else ''}: {a_type(own, depth)}")
        return f"{{{', '.join(parts)}}}"

    attributes = record(FIELDS, 2)
    lines = []
    for name in ("Shop::Buyer", "User", "Group", "Doc", "Folder"):
        parents = [each for each in entity_types if chance(chooser, 45)]
        own = record(FIELDS, 2) if chance(chooser, 20) else attributes
        tags = f" tags {a_type(pick(chooser, ['string', 'long', 'entity', 'set']))}" if chance(chooser, 70) else ""
        line = f"entity {name.rpartition('::')[2]} in [{', '.join(parents)}] {own}{tags};"
        lines.append(f"namespace Shop {{ {line} }}" if name.startswith("Shop") else line)
    lines += [f"action {quoted(group.id)};" for group in ACTION_GROUPS if group.id == "all"]
    lines += [f'action {quoted(group.id)} in ["all"];' for group in ACTION_GROUPS if group.id != "all"]
    context = record(FIELDS, 2)
    for action in ACTIONS:
        principals = ["User"] + [each for each in ("Shop::Buyer", "Group") if chance(chooser, 30)]
        resources = ["Doc"] + [each for each in ("Folder", "User") if chance(chooser, 30)]
        groups = [quoted(group.id) for group in ACTION_GROUPS[:2] if chance(chooser, 50)]
        own = record(FIELDS, 2) if chance(chooser, 20) else context
        above = f" in [{', '.join(groups)}]" if groups else ""
        lines.append(
            f"action {quoted(action.id)}{above} appliesTo {{principal: [{', '.join(principals)}], "
            f"resource: [{', '.join(resources)}], context: {own}}};"
        )
    return "\n".join(lines) + "\n"
