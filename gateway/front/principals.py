"""Who a token speaks for, as an entity: what its claims define, and what routes take of them.

Worked out once a token, by the schema's types. A claim that is not of its type defines nothing, and the request is
denied with a reason of its own (`policy_claim_invalid`): a `forbid` that asks for the attribute must not be passed by
for want of it. So does every route for a claim that defines the principal; for a claim of a template, the routes
that take it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway._native.route_policy import Principals
from gateway._native.uid import EntityUid
from gateway.config import PolicyConfig
from gateway.errors import ConfigError, ConfigFault
from gateway.front.claims import PickedClaims
from gateway.policy.claims import ids_of_claim, text_of_claim, value_of_claim
from gateway.policy.json_values import Misfit
from gateway.policy.schema import Schema, model


@dataclass(frozen=True, slots=True)
class ClaimFault:
    """A claim that is not of the type that is asked for. `message` says nothing of what it holds."""

    claim: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Definition:
    """What the claims of one token come to. `texts` and `values` are as `PrincipalClaims` numbers and names them."""

    attributes: dict[str, Any]
    parents: tuple[EntityUid, ...]
    texts: tuple[bytes | bool | None, ...]  # None: absent; False: no text
    values: dict[str, Any]
    invalid_values: frozenset[str]  # names of values that are not of their type
    faults: tuple[ClaimFault, ...]
    refused: bool  # what defines the principal is not of its type


class PrincipalClaims:
    """The mapping of one config: `native` is what routes ask. Holes are told to it while the routes are compiled."""

    def __init__(self, config: PolicyConfig, schema: Schema | None) -> None:
        """Raises ConfigError where the schema does not foresee what is mapped."""
        self.schema = schema
        self._attributes, self._parents = _mapped(config, schema)
        self._texts: list[str] = []
        self._values: dict[str, tuple[str, model.Type | None]] = {}
        self._mark = object()  # tells our definitions from those of another config
        self.native = Principals(config.principal)
        if self._attributes or self._parents:
            self._need_claims()

    @property
    def type(self) -> str:
        """The principal's entity type."""
        return self.native.type

    def text_of(self, claim: str) -> int:
        """Give the number of a claim that is part of a text."""
        self._need_claims()
        if claim not in self._texts:
            self._texts.append(claim)
        return self._texts.index(claim)

    def value_of(self, claim: str, declared: model.Type | None) -> str:
        """Give the name of a claim that is an attribute of the context, of its declared type."""
        self._need_claims()
        for name, known in self._values.items():
            if known == (claim, declared):
                return name
        name = f"claim {len(self._values)}"  # no attribute that a policy could name by accident
        self._values[name] = (claim, declared)
        return name

    def _need_claims(self) -> None:
        self.native.define = self.define

    def define(self, picked: object) -> Definition:
        """Give what a token's claims come to; kept with them. `picked` is None for a token that has none."""
        if not isinstance(picked, PickedClaims):
            picked = PickedClaims({})
        if picked.defined_by is not self._mark:
            picked.definition = _Reading(picked.values, self.schema).definition(
                self._attributes, self._parents, self._texts, self._values
            )
            picked.defined_by = self._mark
        assert isinstance(picked.definition, Definition)
        return picked.definition


class _Reading:
    """Reads the claims of one token, and notes which are not of their type."""

    def __init__(self, claims: dict[str, Any], schema: Schema | None) -> None:
        self._claims = claims
        self._schema = schema
        self._faults: dict[str, ClaimFault] = {}

    def definition(
        self,
        attributes: dict[str, tuple[str, model.Type | None]],
        parents: dict[str, str],
        texts: list[str],
        values: dict[str, tuple[str, model.Type | None]],
    ) -> Definition:
        own, wrong = self._values(attributes)
        above: list[EntityUid] = []
        for claim, kind in parents.items():
            ids = self._read(claim, ids_of_claim)
            if ids is False:
                wrong.append(claim)
            elif ids is not None:
                above += [EntityUid(kind, each) for each in ids]
        made, invalid = self._values(values)
        written = tuple(self._read(claim, lambda value: text_of_claim(value).encode()) for claim in texts)
        return Definition(
            own, tuple(above), written, made, frozenset(invalid), tuple(self._faults.values()), bool(wrong)
        )

    def _values(self, wanted: dict[str, tuple[str, model.Type | None]]) -> tuple[dict[str, Any], list[str]]:
        made: dict[str, Any] = {}
        wrong = []
        for name, (claim, declared) in wanted.items():
            if claim not in self._claims:
                continue
            try:
                made[name] = value_of_claim(self._claims[claim], declared, self._schema)
            except Misfit as misfit:
                self._note(claim, misfit)
                wrong.append(name)
        return made, wrong

    def _read(self, claim: str, reader: Callable[[Any], Any]) -> Any:
        """Give what `reader` makes of a claim; None where it is absent, False where it is none of that kind."""
        if claim not in self._claims:
            return None
        try:
            return reader(self._claims[claim])
        except Misfit as misfit:
            self._note(claim, misfit)
            return False

    def _note(self, claim: str, misfit: Misfit) -> None:
        place = f" at `{misfit.pointer}`" if misfit.pointer else ""
        self._faults.setdefault(claim, ClaimFault(claim, misfit.code, misfit.message + place))


def _mapped(
    config: PolicyConfig, schema: Schema | None
) -> tuple[dict[str, tuple[str, model.Type | None]], dict[str, str]]:
    """Give claim and declared type by attribute, and the parents' type by claim. Raises ConfigError with all faults."""
    if schema is None or not (config.principal_claims or config.principal_parents):
        return {name: (claim, None) for name, claim in config.principal_claims.items()}, config.principal_parents
    declaration = schema.entities.get(config.principal)
    if declaration is None:
        known = ", ".join(sorted(schema.entities)[:10])
        raise ConfigError([_fault("principal", f"the schema has no entity type `{config.principal}`", known)])
    declared, allowed = declaration.attributes.attributes, declaration.parents
    faults = []
    for name in config.principal_claims:
        if name not in declared:
            problem, known = f"`{config.principal}` has no such attribute", ", ".join(sorted(declared))
            faults.append(_fault(f"principal_claims.{name}", problem, known))
    for claim, kind in config.principal_parents.items():
        if kind not in allowed:
            problem, known = f"`{config.principal}` is in no `{kind}`", ", ".join(sorted(allowed))
            faults.append(_fault(f"principal_parents.{claim}", problem, known))
    if faults:
        raise ConfigError(faults)
    typed: dict[str, tuple[str, model.Type | None]] = {}
    for name, claim in config.principal_claims.items():
        typed[name] = (claim, declared[name].type)
    return typed, config.principal_parents


def _fault(key: str, problem: str, known: str) -> ConfigFault:
    return ConfigFault("config", None, f"policy.{key}", problem, f"declared: {known or 'none'}")
