"""From a route's `action`, `resource` and `context` to the compiled `RoutePolicy` that the engine asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal, TypeVar

from gateway._native.route_policy import ContextField, Piece, RoutePolicy
from gateway._native.routes import Route
from gateway._native.uid import EntityUid
from gateway.config import RouteConfig
from gateway.errors import ConfigError, ConfigFault
from gateway.front.principals import PrincipalClaims
from gateway.policy.schema import model
from gateway.policy.templates import EntityTemplate, TemplateError, parse_entity_template, parse_pieces
from gateway.policy.templates import Piece as TemplatePiece

T = TypeVar("T")
FieldKind = Literal["text", "long", "bool", "ip", "claim"]
_KINDS: Final[dict[type, FieldKind]] = {model.StringType: "text", model.LongType: "long", model.BoolType: "bool"}


def compile_route_policy(route: RouteConfig, index: int, principals: PrincipalClaims) -> RoutePolicy | None:
    """Give what a route asks, or None where it asks nothing. Raises ConfigError with all that is wrong, by its keys.

    With a schema, the action must be declared, principal, resource and context must be what it takes, and attributes
    are read as their declared types; without one they are text, and a claim that stands alone what it looks like.
    """
    if not route.action:
        return None
    parameters = Route(route.path, index=index).parameter_names
    wrong = _Wrong(index)
    action = wrong.told("action", lambda: parse_entity_template(route.action, parameters))
    resource = wrong.told("resource", lambda: parse_entity_template(route.resource, parameters))
    pieces = {
        name: wrong.told(f"context.{name}", partial(parse_pieces, text, parameters))
        for name, text in route.context.items()
    }
    types = None if action is None else _types(route, principals, wrong, action=action, resource=resource)
    kinds: dict[str, FieldKind | None] = {}
    for name, each in pieces.items():
        if each is not None and _is_claim(each):
            kinds[name] = "claim"
        elif types is None or name in types:
            kinds[name] = _kind(None if types is None else types[name], wrong, name)
    wrong.end()
    assert action is not None
    assert resource is not None
    fields = []
    for name, each in pieces.items():
        kind = kinds[name]
        assert each is not None
        assert kind is not None
        if kind == "claim":
            declared = None if types is None else types[name]
            fields.append(ContextField(name.encode(), kind, claim=principals.value_of(each[0].value, declared)))
        else:
            fields.append(ContextField(name.encode(), kind, _compiled(each, parameters, principals)))
    return RoutePolicy(
        principals.native,
        action.type,
        _compiled(action.pieces, parameters, principals),
        resource.type,
        _compiled(resource.pieces, parameters, principals),
        fields,
    )


class _Wrong:
    """Collects what is wrong with one route."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._faults: list[ConfigFault] = []

    def add(self, key: str, problem: str, hint: str) -> None:
        self._faults.append(ConfigFault("config", None, f"routes[{self._index}].{key}", problem, hint))

    def told(self, key: str, parse: Callable[[], T]) -> T | None:
        """Give what `parse` does, or None for a template that is none."""
        try:
            return parse()
        except TemplateError as error:
            self.add(key, error.problem, error.hint)
            return None

    def end(self) -> None:
        """Raise ConfigError where anything was wrong."""
        if self._faults:
            raise ConfigError(self._faults)


def _is_claim(pieces: Sequence[TemplatePiece]) -> bool:
    """Tell whether a template is a claim as it is, and not a text that has one in it."""
    return len(pieces) == 1 and pieces[0].kind == "claim"


def _kind(declared: model.Type | None, wrong: _Wrong, name: str) -> FieldKind | None:
    """Give what the text of an attribute is read as; `declared` None: no schema says."""
    if declared is None:
        return "text"
    kind: FieldKind | None = "ip" if declared == model.ExtensionType("ipaddr") else _KINDS.get(type(declared))
    if kind is None:
        hint = "String, Long, Bool or ipaddr; a claim that stands alone, as in {claim.roles}, can be of any type"
        wrong.add(f"context.{name}", "is of a type that no text stands for", hint)
    return kind


def _compiled(pieces: Sequence[TemplatePiece], parameters: Sequence[str], principals: PrincipalClaims) -> list[Piece]:
    made = []
    for piece in pieces:
        if piece.kind == "parameter":
            made.append(Piece("parameter", index=parameters.index(piece.value)))
        elif piece.kind == "claim":
            made.append(Piece("claim", index=principals.text_of(piece.value)))
        elif piece.kind == "request":
            made.append(Piece(piece.value))  # type: ignore[arg-type]
        else:
            made.append(Piece(piece.kind, piece.value.encode()))
    return made


def _types(
    route: RouteConfig,
    principals: PrincipalClaims,
    wrong: _Wrong,
    *,
    action: EntityTemplate,
    resource: EntityTemplate | None,
) -> dict[str, model.Type] | None:
    """Give the declared type of each attribute of the context, or None; tell what the schema does not foresee."""
    schema = principals.schema
    if schema is None or action.constant_id is None:
        return None
    declared = schema.actions.get(EntityUid(action.type, action.constant_id))
    if declared is None:
        wrong.add("action", f"the schema has no action `{route.action}`", "declare it, or correct its name")
        return None
    if principals.type not in declared.principals:
        takes = ", ".join(sorted(declared.principals)) or "nobody"
        wrong.add("action", f"takes no principal `{principals.type}`", f"it takes {takes}; see policy.principal")
    if resource is not None and resource.type not in declared.resources:
        takes = ", ".join(sorted(declared.resources)) or "nothing"
        wrong.add("resource", f"`{resource.type}` is no resource of the action", f"it takes {takes}")
    types: dict[str, model.Type] = {}
    for name in route.context:
        attribute = declared.context.attributes.get(name)
        if attribute is None:
            known = ", ".join(sorted(declared.context.attributes)) or "none"
            wrong.add(f"context.{name}", "the action's context has no such attribute", f"declared: {known}")
        else:
            types[name] = attribute.type
    for name, each in declared.context.attributes.items():
        if each.required and name not in types:
            wrong.add("context", f"the action's context needs `{name}`", "add it, or declare it optional")
    return types
