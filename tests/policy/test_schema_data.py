"""Entities and requests under generated schemas: taken or refused as Cedar does it. Policies that validate are sound.

Sound: over data that fits the schema, a policy that validates never meets a wrong type or a missing attribute.
"""

from __future__ import annotations

import json
import random
from typing import Any

import cedarpy
import pytest

from gateway._native.extensions import Datetime, Decimal, Duration, IPAddr
from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities
from gateway.policy.faults import EntityError, RequestError
from gateway.policy.policy_set import PolicySet
from gateway.policy.requests import parse_context, validate_request
from gateway.policy.schema import Schema, model
from tests.policy import generate
from tests.policy.generate import Chooser, chance, pick

POLICIES = 40
REQUESTS = 12
AT_RUN_TIME = {"integer_overflow", "extension_error", "missing_entity"}
POOLS: dict[str, list[EntityUid]] = {
    "User": generate.USERS,
    "Shop::Buyer": generate.BUYERS,
    "Group": generate.GROUPS,
    "Doc": generate.DOCS,
    "Folder": generate.FOLDERS,
}


class Data:
    """Makes JSON that fits a schema, but for `wrong` of a hundred places."""

    def __init__(self, chooser: Chooser, schema: Schema, wrong: float) -> None:
        self.chooser = chooser
        self.schema = schema
        self.wrong = wrong

    def uid(self, name: str) -> dict[str, str]:
        uid = pick(self.chooser, POOLS[name])
        return {"type": uid.type, "id": uid.id}

    def value(self, expected: model.Type) -> Any:
        chooser = self.chooser
        if chance(chooser, self.wrong):
            return generate.spelled(generate.value(chooser, pick(chooser, generate.KINDS)))
        match expected:
            case model.BoolType():
                return chance(chooser, 50)
            case model.LongType():
                return pick(chooser, generate.NUMBERS)
            case model.StringType():
                return pick(chooser, generate.STRINGS)
            case model.EntityType(name):
                uid = self.uid(name)
                return uid if chance(chooser, 50) else {"__entity": uid}
            case model.ExtensionType(name):
                kind = "ip" if name == "ipaddr" else name
                made = generate.value(chooser, kind)
                assert isinstance(made, Decimal | IPAddr | Datetime | Duration)
                return str(made) if chance(chooser, 40) else generate.spelled(made)
            case model.SetType(element):
                return [self.value(element) for _ in range(chooser.randint(0, 3))]
            case model.RecordType():
                return self.record(expected)

    def record(self, expected: model.RecordType) -> dict[str, Any]:
        made = {
            name: self.value(attribute.type)
            for name, attribute in expected.attributes.items()
            if not chance(self.chooser, 50 if not attribute.required else self.wrong)
        }
        if chance(self.chooser, self.wrong):
            made["surplus"] = 1
        return made

    def entities(self) -> list[dict[str, Any]]:
        made = []
        seen: list[EntityUid] = []
        for name, pool in POOLS.items():
            declared = self.schema.entities[name]
            for uid in pool:
                if chance(self.chooser, 10):
                    continue
                allowed = [each for each in seen if each.type in declared.parents or chance(self.chooser, self.wrong)]
                parents = [pick(self.chooser, allowed) for _ in range(self.chooser.randint(0, 2))] if allowed else []
                entity: dict[str, Any] = {
                    "uid": {"type": uid.type, "id": uid.id},
                    "attrs": self.record(declared.attributes),
                    "parents": [{"type": each.type, "id": each.id} for each in sorted(set(parents))],
                }
                if declared.tags is not None:
                    entity["tags"] = {
                        tag: self.value(declared.tags) for tag in generate.TAGS if chance(self.chooser, 40)
                    }
                made.append(entity)
                seen.append(uid)
        return made

    def request(self) -> tuple[EntityUid, EntityUid, EntityUid, dict[str, Any]]:
        action = pick(self.chooser, generate.ACTIONS)
        declared = self.schema.actions[action]
        uids = []
        for allowed in (declared.principals, declared.resources):
            types = sorted(POOLS if chance(self.chooser, self.wrong) else allowed)
            uids.append(pick(self.chooser, POOLS[pick(self.chooser, types)]))
        principal, resource = uids
        return principal, action, resource, self.record(declared.context)


def named(uid: EntityUid) -> dict[str, str]:
    return {"type": uid.type, "id": uid.id}


def entities_taken(text: str, schema: Schema) -> bool:
    try:
        Entities.from_json(text, schema=schema)
    except EntityError:
        return False
    return True


def cedar_takes_entities(text: str, schema: cedarpy.Schema) -> bool:
    try:
        cedarpy.Entities.from_json_str(text, schema)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("seed", range(60))
def test_entities_are_taken_as_cedar_takes_them(seed: int) -> None:
    chooser = random.Random(f"entities {seed}")
    text = generate.schema(chooser)
    schema, theirs = Schema.parse(text), cedarpy.Schema.from_str(text)
    for round_ in range(6):
        data = json.dumps(Data(chooser, schema, 0.1 if round_ else 0).entities())
        assert entities_taken(data, schema) == cedar_takes_entities(data, theirs), data
        assert round_ or entities_taken(data, schema)


@pytest.mark.parametrize("seed", range(60))
def test_requests_are_taken_and_decided_as_by_cedar(seed: int) -> None:
    chooser = random.Random(f"requests {seed}")
    text = generate.schema(chooser)
    schema, theirs = Schema.parse(text), cedarpy.Schema.from_str(text)
    policies = "\n".join(generate.statement(chooser) for _ in range(POLICIES))
    stored = json.dumps(Data(chooser, schema, 0).entities())
    known = cedarpy.Entities.from_json_str(stored, theirs)
    ours = PolicySet.parse(policies)
    engine = Engine(ours, Entities.from_json(stored, schema=schema), schema)
    invalid = {fault.policy_id for fault in ours.validate(schema, mode="strict").errors}
    for number in range(REQUESTS):
        principal, action, resource, asked = Data(chooser, schema, 0 if number % 2 else 1.5).request()
        answer = cedarpy.is_authorized(
            {
                "principal": named(principal),
                "action": named(action),
                "resource": named(resource),
                "context": json.dumps(asked),
            },
            policies,
            known,
            theirs,
        )
        taken = answer.decision != cedarpy.Decision.NoDecision
        try:
            context = parse_context(asked, schema, action)
            validate_request(schema, principal, action, resource, context)
        except RequestError as error:
            assert not taken, (asked, str(error))
            continue
        assert taken, (asked, answer.diagnostics.errors)
        decided = engine.authorize(principal, action, resource, context)
        assert decided.allowed == answer.allowed
        assert decided.reasons == frozenset(answer.diagnostics.reasons)
        assert len(decided.errors) == len(answer.diagnostics.errors)
        ready = engine.prepare(principal, action, resource, context)
        for policy_id, (_, code, _, _) in zip(engine.ids, engine.run_each(ready), strict=True):
            assert code is None or policy_id in invalid or code in AT_RUN_TIME, (policy_id, code)
