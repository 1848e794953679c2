"""From decisions of the policies to lines of the decision log: what was asked, by whom, what came of it, and by what.

A line holds what `portcullis policy explain --decision` and `policy replay` need to ask the same again: entities,
context, and what claims or a caller's properties defined for the request, all in Cedar's explicit JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from gateway._native.route_policy import Decided, Sampling
from gateway._native.uid import EntityUid
from gateway.observability.decisions import Blanked, DecisionLog
from gateway.policy.handle import PolicyHandle, PolicySnapshot
from gateway.policy.json_values import value_to_json

if TYPE_CHECKING:
    from gateway.front.authzen.evaluation import Decision
    from gateway.front.principals import Definition
    from gateway.policy.engine import Answer
    from gateway.policy.plans import Question

REASONS: Final[Mapping[str, str]] = {
    "allowed": "ok",
    "denied": "policy_denied",
    "incomplete": "policy_incomplete",
    "away": "attributes_unavailable",
    "claim_invalid": "policy_claim_invalid",
}  # by the outcome of a route's decision: the same words as in access log and metrics
DecisionSource = Literal["resident", "fetched", "l1", "l2"]
"""Where a decision came from: what was in memory, what had to be fetched first, or decisions that are kept."""

DEFINED_MAX: Final = 4096  # tokens whose part of a line is kept
DOOR: Final = "authzen"  # of the decision API; routes have the doors of `_native/front.pyx`


class DecisionRecorder:
    """Writes decisions of the routes and of the decision API. Called on the request's way: it never waits."""

    def __init__(self, handle: PolicyHandle, log: DecisionLog, sampling: Sampling) -> None:
        self._handle = handle
        self._log = log
        self._known = handle.now  # the last one that something was decided by
        self.sampling = sampling
        self._nothing = log.blanked("given", {})
        self._defined: dict[int, tuple[Definition, Blanked, list[dict[str, str]]]] = {}  # by id, which they keep taken

    def route(self, decided: Decided, request_id: str, door: str, route: str) -> None:
        """Write what a route's request came to."""
        given, faults = self._defined_by(decided.definition)
        source: DecisionSource = "fetched" if decided.fetched else "resident"
        line = {
            "id": request_id,
            "door": door,
            "route": route,
            "principal": {"type": decided.principal_type, "id": decided.subject.decode("utf-8", "replace")},
            "action": _party(decided.action_type, decided.action_id),
            "resource": _party(decided.resource_type, decided.resource_id),
            "context": _context(decided),
            "decision": "allow" if decided.outcome == "allowed" else "deny",
            "reason": REASONS[decided.outcome],
            **_found(decided.answer),
            **self._state(self._snapshot_of(decided.decider), decided.entity_revision, source),
            "duration_us": decided.elapsed_ns / 1000,
        }
        if faults:
            line["claim_faults"] = faults
        self._log.write(line, given)

    def _defined_by(self, definition: Definition | None) -> tuple[Blanked, list[dict[str, str]]]:
        """Give what claims defined, and what is wrong with them: made once a token, as long as it comes often."""
        if definition is None:
            return self._nothing, []
        kept = self._defined.get(id(definition))
        if kept is not None and kept[0] is definition:
            return kept[1], kept[2]
        given = {}
        if definition.attributes or definition.parents:
            given["principal"] = _given(definition.attributes, definition.parents)
        faults = [{"claim": each.claim, "code": each.code, "message": each.message} for each in definition.faults]
        made = self._log.blanked("given", given)
        if len(self._defined) >= DEFINED_MAX:
            self._defined.clear()
        self._defined[id(definition)] = definition, made, faults
        return made, faults

    def question(
        self,
        client: str,
        snapshot: PolicySnapshot,
        decision: Decision,
        asked: Question,
        *,
        source: DecisionSource,
        elapsed_ns: int,
    ) -> None:
        """Write what a client's question to the decision API came to, where it is wanted."""
        if not self.sampling.wants(decision.allowed):
            return
        line = {
            "id": decision.context["decision_id"],
            "door": DOOR,
            "client": client or None,
            "principal": _shown(asked.principal),
            "action": _shown(asked.action),
            "resource": _shown(asked.resource),
            "context": _members(asked.context or {}),
            "decision": "allow" if decision.allowed else "deny",
            "reason": decision.context.get("code") or ("ok" if decision.allowed else "policy_denied"),
            **_found(decision.answer),
            **self._state(snapshot, snapshot.engine.store.revision, source),
            "duration_us": elapsed_ns / 1000,
        }
        overlays = asked.overlays or {}
        given = {
            role: _given(*overlays[uid])
            for role, uid in (("principal", asked.principal), ("resource", asked.resource))
            if uid in overlays
        }
        self._log.write(line, self._log.blanked("given", given) if given else self._nothing)

    def _snapshot_of(self, engine: object) -> PolicySnapshot | None:
        """Give the snapshot of the engine that decided: nearly always the one in force, else the one before it."""
        now = self._handle.now
        if now.engine is engine:
            self._known = now
            return now
        return self._known if self._known.engine is engine else None

    @staticmethod
    def _state(snapshot: PolicySnapshot | None, entity_revision: int, source: DecisionSource) -> dict[str, Any]:
        """Say by which policies, entities and relations it was decided; `cache`: where it came from."""
        relations = None if snapshot is None or snapshot.relations is None else snapshot.relations.revision
        return {
            "revision": None if snapshot is None else snapshot.revision,
            "digest": None if snapshot is None else snapshot.digest,
            "entities": entity_revision,
            "relations": relations,
            "cache": source,
        }


def _found(answer: Answer | None) -> dict[str, list[str] | None]:
    """Give the policies that decided, those that erred, and limits that were hit; null: policies were not asked."""
    if answer is None:
        return {"policies": None, "errors": None, "faults": None}
    return {"policies": sorted(answer.reasons), "errors": sorted(answer.errors), "faults": list(answer.faults)}


def _party(kind: str, name: bytes | None) -> dict[str, str] | None:
    return None if name is None else {"type": kind, "id": name.decode("utf-8", "replace")}


def _shown(uid: EntityUid) -> dict[str, str]:
    return {"type": uid.type, "id": uid.id}


def _members(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value_to_json(value) for name, value in values.items()}


def _given(attributes: Mapping[str, Any], parents: Iterable[EntityUid]) -> dict[str, Any]:
    return {"attrs": _members(attributes), "parents": [_shown(uid) for uid in parents]}


def _context(decided: Decided) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, (kind, filled) in decided.context.items():
        made[name.decode()] = (
            value_to_json(decided.definition.values[filled])
            if isinstance(filled, str)
            else _value(kind, filled.decode("utf-8", "replace"))
        )
    return made


def _value(kind: str, text: str) -> Any:
    """Give what a text was read as; where it could not be read, the text itself."""
    if kind == "ip":
        return {"__extn": {"fn": "ip", "arg": text}}
    if kind == "bool":
        return {"true": True, "false": False}.get(text, text)
    if kind == "long" and text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= 20:
        return int(text)
    return text
