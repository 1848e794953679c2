"""Decisions that are kept: until when one holds, what it rests on, and how it is spelled for those who share it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway._native.uid import EntityUid
from gateway._native.vm import Answer

if TYPE_CHECKING:
    from gateway._native.entities import EntityStore

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A decision, and until when it holds. `moments`: values of the plan's windows when it was made."""

    answer: Answer
    until_s: float  # monotonic
    moments: tuple[int | None, ...]
    flip_ms: int | None
    token_until_s: float | None = None  # Unix time
    revision: int | None = None  # of the whole store, where it is not known what was touched
    versions: tuple[tuple[EntityUid, int], ...] = ()
    members: tuple[EntityUid, ...] = ()  # of which all that they are in must be here
    is_shared: bool = False  # from L2: what it rests on is in its key

    def holds_in(self, store: EntityStore) -> bool:
        """Tell whether nothing that the decision could touch has changed, or is not known any more."""
        if self.revision is not None:
            return store.revision == self.revision
        version = store.version
        for uid, seen in self.versions:
            if version(uid) != seen:
                return False
        return not any(map(store.away, self.members))

    def holds_at(self, moments: tuple[int | None, ...]) -> bool:
        """Tell whether comparisons with moments come out as they did."""
        if self.flip_ms is None or not moments:  # no comparison was made, or of none that moves
            return True
        # By the key they are datetimes in both requests, or in neither.
        pairs = zip(self.moments, moments, strict=True)
        return all(then is None or now is None or abs(now - then) < self.flip_ms for then, now in pairs)


def rests_on(entry: Entry, store: EntityStore) -> set[EntityUid]:
    """Give all entities of which one that goes makes the decision another one: also what members are in."""
    found = {uid for uid, _ in entry.versions}
    for uid in entry.members:
        found |= store.ancestors(uid)
    return found


def written(whole: bytes, entry: Entry) -> bytes:
    """Spell a decision for those who share it; `whole`: the key under which they look, with all that it rests on."""
    members = {
        "format": _FORMAT,
        "allowed": entry.answer.allowed,
        "reasons": sorted(entry.answer.reasons),
        "errors": sorted(entry.answer.errors),
        "moments": entry.moments,
        "flip_ms": entry.flip_ms,
        "until_s": entry.token_until_s,
    }
    return len(whole).to_bytes(4, "little") + whole + json.dumps(members).encode()


def shared_entry(value: bytes, whole: bytes, moment_count: int) -> Entry:
    """Read what `written` wrote under the same whole key. Raises ValueError, KeyError, TypeError."""
    head = len(whole).to_bytes(4, "little") + whole
    if not value.startswith(head):
        raise ValueError("another key")
    members: Mapping[str, Any] = json.loads(value[len(head) :])
    if members["format"] != _FORMAT or type(members["allowed"]) is not bool:
        raise ValueError("another format")
    reasons, errors = frozenset(members["reasons"]), frozenset(members["errors"])
    flip_ms, until_s, moments = members["flip_ms"], members["until_s"], tuple(members["moments"])
    sound = (
        all(type(each) is str for each in reasons | errors)
        and (flip_ms is None or (type(flip_ms) is int and flip_ms >= 1))
        and (until_s is None or type(until_s) in (int, float))
        and len(moments) == moment_count
        and all(each is None or type(each) is int for each in moments)
    )
    if not sound:
        raise ValueError("ill-typed")
    return Entry(Answer(members["allowed"], reasons, errors), 0.0, moments, flip_ms, until_s, is_shared=True)
