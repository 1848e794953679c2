"""Engines that decide: ours and its peers, each through its best interface, all asked the same questions."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bench.workloads import Ask, Workload
from bench.workloads.base import Uid

OURS, OURS_ARGUMENTS = "Portcullis, prepared request", "Portcullis, four arguments"
CEDARPY, CASBIN, REGO = "cedarpy", "casbin", "regopy"


class Decider(Protocol):
    """One engine that holds one workload."""

    def prepared(self, ask: Ask) -> Any:
        """Give the question in the form that costs the engine least to be asked."""

    def decide(self, prepared: Any) -> bool: ...


def spelled(uid: Uid) -> str:
    """Give the name of an entity to the peers that know only text."""
    return f"{uid[0]}::{uid[1]}"


class OurDecider:
    """The engine of this house."""

    def __init__(self, workload: Workload) -> None:
        from gateway.policy import Engine, Entities, PolicySet, Schema

        self.schema = Schema.parse(workload.schema)
        policies = PolicySet.parse(workload.policies)
        assert policies.validate(self.schema).ok
        self.entities = Entities.from_json(workload.entities, schema=self.schema)
        self.engine = Engine(policies, self.entities, schema=self.schema)
        self.decide: Callable[[Any], bool] = self.engine.decide

    def arguments(self, ask: Ask) -> tuple[Any, Any, Any, Any]:
        """Give the four arguments of `Engine.allows`."""
        from gateway.policy import EntityUid
        from gateway.policy.requests import parse_context

        action = EntityUid("Action", ask.action)
        context = parse_context(dict(ask.context), self.schema, action)
        return EntityUid(*ask.principal), action, EntityUid(*ask.resource), context

    def prepared(self, ask: Ask) -> Any:
        return self.engine.prepare(*self.arguments(ask))


class CedarpyDecider:
    """Rust's Cedar, with policies and entities parsed once."""

    def __init__(self, workload: Workload) -> None:
        import cedarpy

        self._is_authorized = cedarpy.is_authorized
        self._policies = cedarpy.PolicySet.from_str(workload.policies)
        self._entities = cedarpy.Entities.from_json_str(json.dumps(workload.entities), workload.schema)

    def prepared(self, ask: Ask) -> dict[str, Any]:
        return {
            "principal": {"type": ask.principal[0], "id": ask.principal[1]},
            "action": {"type": "Action", "id": ask.action},
            "resource": {"type": ask.resource[0], "id": ask.resource[1]},
            "context": dict(ask.context),
        }

    def decide(self, prepared: dict[str, Any]) -> bool:
        return bool(self._is_authorized(prepared, self._policies, self._entities).allowed)

    def core_us(self, prepared: dict[str, Any]) -> int:
        """Give the time that the Rust core says it took for deciding alone, in whole microseconds, rounded down."""
        metrics = self._is_authorized(prepared, self._policies, self._entities).metrics
        return int(metrics["authz_duration_micros"])


class _Facts:
    """The entities as the peers without a hierarchy of their own want them."""

    def __init__(self, workload: Workload) -> None:
        self.attributes: dict[str, dict[str, Any]] = {}
        self.parents: dict[str, list[str]] = {}
        for entity in workload.entities:
            name = spelled((entity["uid"]["type"], entity["uid"]["id"]))
            self.attributes[name] = {key: _plain(value) for key, value in entity["attrs"].items()}
            self.parents[name] = [spelled((parent["type"], parent["id"])) for parent in entity["parents"]]

    def above(self, name: str) -> set[str]:
        """Give all that `name` is in, itself included."""
        found, waiting = {name}, [name]
        while waiting:
            for parent in self.parents.get(waiting.pop(), ()):
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping) and "__entity" in value:
        return spelled((value["__entity"]["type"], value["__entity"]["id"]))
    if isinstance(value, Mapping) and "__extn" in value:
        return value["__extn"]["arg"]
    return value


class CasbinDecider:
    """casbin with its role manager for the hierarchy, attributes through registered functions."""

    _MODEL = """
[request_definition]
r = sub, act, obj, ctx
[policy_definition]
p = {fields}
[role_definition]
g = _, _
[policy_effect]
e = {effect}
[matchers]
m = {matcher}
"""

    def __init__(self, workload: Workload) -> None:
        import casbin

        effect = "some(where (p.eft == allow))"
        if "eft" in workload.casbin_fields:
            effect += " && !some(where (p.eft == deny))"
        model = casbin.Enforcer.new_model(
            text=self._MODEL.format(fields=workload.casbin_fields, effect=effect, matcher=workload.casbin_matcher)
        )
        enforcer = casbin.Enforcer(model)
        enforcer.add_policies([list(rule) for rule in workload.casbin_rules])
        facts = _Facts(workload)
        enforcer.add_grouping_policies([[child, parent] for child, each in facts.parents.items() for parent in each])
        attributes = facts.attributes
        is_in: Callable[[str, str], bool] = enforcer.get_role_manager().has_link

        def value(thing: Any, name: str) -> Any:
            return thing[name] if isinstance(thing, dict) else attributes[thing].get(name)

        def within(subject: str, thing: str, name: str) -> bool:
            node = attributes[thing].get(name)
            return node is not None and is_in(subject, node)

        def owns(subject: str, thing: str) -> bool:
            folder = attributes[thing].get("folder")
            return folder is not None and is_in(subject, attributes[folder]["owners"])

        functions: dict[str, Callable[..., Any]] = {
            "value": value,
            "within": within,
            "owns": owns,
            "member": is_in,
            "holds": lambda items, item: items is not None and item in items,
            "inside": lambda address, network: ipaddress.ip_address(address) in ipaddress.ip_network(network),
            "begins": lambda text, start: text.startswith(start),
        }
        for name, function in functions.items():
            enforcer.add_function(name, function)
        self._enforce = enforcer.enforce

    def prepared(self, ask: Ask) -> tuple[str, str, str, dict[str, Any]]:
        context = {name: _plain(value) for name, value in ask.context.items()}
        return spelled(ask.principal), ask.action, spelled(ask.resource), context

    def decide(self, prepared: tuple[str, str, str, dict[str, Any]]) -> bool:
        return bool(self._enforce(*prepared))


class RegoDecider:
    """rego-cpp: the hierarchy closed beforehand, the module compiled into a bundle once."""

    def __init__(self, workload: Workload) -> None:
        import regopy

        facts = _Facts(workload)
        self._rego = regopy.Interpreter()
        self._rego.add_data(
            {
                "above": {name: dict.fromkeys(facts.above(name), True) for name in facts.attributes},
                "attributes": facts.attributes,
            }
        )
        self._rego.add_module("bench", workload.rego)
        self._bundle = self._rego.build("allow = data.bench.allow", [])

    def prepared(self, ask: Ask) -> Any:
        return {
            "principal": spelled(ask.principal),
            "action": ask.action,
            "resource": spelled(ask.resource),
            "context": {name: _plain(value) for name, value in ask.context.items()},
        }

    def decide(self, prepared: Any) -> bool:
        self._rego.set_input(prepared)
        return bool(self._rego.query_bundle(self._bundle).results[0].bindings["allow"])


PEERS: Mapping[str, Callable[[Workload], Decider]] = {
    CEDARPY: CedarpyDecider,
    CASBIN: CasbinDecider,
    REGO: RegoDecider,
}
