"""What is known of one expression, and how booleans combine what is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.policy.validator.capabilities import NOTHING, Capabilities
from gateway.policy.validator.types import BOOL, FALSE, TRUE, Bool, Entity, Long, Record, Set, String, Type


class Answer(NamedTuple):
    """What is known of one expression."""

    type: Type | None
    holds: Capabilities = NOTHING
    ok: bool = True


class Wanted(NamedTuple):
    """What an operand has to be."""

    words: str
    kinds: tuple[type, ...]


A_BOOL: Final = Wanted("Bool", (Bool,))
A_LONG: Final = Wanted("Long", (Long,))
A_STRING: Final = Wanted("String", (String,))
A_SET: Final = Wanted("a set", (Set,))
AN_ENTITY: Final = Wanted("an entity", (Entity,))
ENTITY_OR_RECORD: Final = Wanted("an entity or a record", (Entity, Record))

Hints = Mapping[type, str]
NO_HINTS: Final[Hints] = {}
CONTAINS_HINT: Final = "use `contains`, `containsAny` or `containsAll` to look into a set"
LIKE_HINT: Final = "use `like` to look into a string"
HAS_HINTS: Final[Hints] = {Set: CONTAINS_HINT, String: LIKE_HINT}
SET_HINTS: Final[Hints] = {
    Entity: "use `in` to ask for a place in a hierarchy",
    Record: "use `has` to ask for an attribute",
    String: LIKE_HINT,
}
SUM_HINTS: Final[Hints] = {
    String: "Cedar does not join strings",
    Set: "Cedar does not compute unions or differences of sets",
}


def failed(found: Type | None) -> Answer:
    """Give the answer of an expression with an error in it; nothing is known from it."""
    return Answer(found, NOTHING, False)


def both(left: Answer, right: Answer) -> Answer:
    """Give the answer of `left && right`; the left side is not known to be false."""
    if left.type is None or right.type is None:
        return failed(BOOL)
    ok = left.ok and right.ok
    if right.type is FALSE:
        return Answer(FALSE, NOTHING, ok)
    found = left.type if right.type is TRUE else right.type if left.type is TRUE else BOOL
    return Answer(found, left.holds | right.holds) if ok else failed(found)


def either(left: Answer, right: Answer) -> Answer:
    """Give the answer of `left || right`; the left side is not known to be true."""
    if left.type is None or right.type is None:
        return failed(BOOL)
    if right.type is TRUE:
        found = right
    elif right.type is FALSE:
        found = left
    elif left.type is FALSE:
        found = right
    else:
        found = Answer(BOOL, left.holds & right.holds)
    return found if left.ok and right.ok else failed(found.type)


def negated(answer: Answer) -> Answer:
    """Give the answer of `!`: what was shown by the operand is not shown by its contrary."""
    found = FALSE if answer.type is TRUE else TRUE if answer.type is FALSE else BOOL
    return Answer(found, NOTHING, answer.ok)
