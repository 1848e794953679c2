"""From a route's `action`, `resource` and `context` to the compiled `RoutePolicy` that the engine asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NoReturn

from gateway._native.route_policy import ContextField, Piece, RoutePolicy
from gateway._native.routes import Route
from gateway._native.uid import EntityUid
from gateway.config import RouteConfig
from gateway.errors import ConfigError, ConfigFault
from gateway.policy.schema import Schema, model
from gateway.policy.templates import EntityTemplate, TemplateError, parse_entity_template, parse_pieces
from gateway.policy.templates import Piece as TemplatePiece

FieldKind = Literal["text", "long", "bool", "ip"]
_KINDS: Final[dict[type, FieldKind]] = {model.StringType: "text", model.LongType: "long", model.BoolType: "bool"}


def _kind_of(declared: model.Type) -> FieldKind | None:
    if declared == model.ExtensionType("ipaddr"):
        return "ip"
    return _KINDS.get(type(declared))


def compile_route_policy(route: RouteConfig, index: int, principal: str, schema: Schema | None) -> RoutePolicy | None:
    """Give what a route asks, or None where it asks nothing. Raises ConfigError with the route's key.

    With a schema, the action must be declared, principal, resource and context must be what it takes, and attributes
    are read as their declared types; without one they are text.
    """
    if not route.action:
        return None
    parameters = Route(route.path, index=index).parameter_names
    action = _entity(route.action, parameters, index, "action")
    resource = _entity(route.resource, parameters, index, "resource")
    kinds = _kinds(route, index, principal=principal, action=action, resource=resource, schema=schema)
    fields = []
    for name, text in route.context.items():
        try:
            pieces = parse_pieces(text, parameters)
        except TemplateError as error:
            _fail(index, f"context.{name}", error.problem, error.hint)
        fields.append(ContextField(name.encode(), kinds[name], _compiled(pieces, parameters)))
    return RoutePolicy(
        principal,
        action.type,
        _compiled(action.pieces, parameters),
        resource.type,
        _compiled(resource.pieces, parameters),
        fields,
    )


def _entity(text: str, parameters: Sequence[str], index: int, key: str) -> EntityTemplate:
    try:
        return parse_entity_template(text, parameters)
    except TemplateError as error:
        _fail(index, key, error.problem, error.hint)


def _compiled(pieces: Sequence[TemplatePiece], parameters: Sequence[str]) -> list[Piece]:
    made = []
    for piece in pieces:
        if piece.kind == "parameter":
            made.append(Piece("parameter", index=parameters.index(piece.value)))
        elif piece.kind == "request":
            made.append(Piece(piece.value))  # type: ignore[arg-type]
        else:
            made.append(Piece(piece.kind, piece.value.encode()))
    return made


def _kinds(
    route: RouteConfig,
    index: int,
    *,
    principal: str,
    action: EntityTemplate,
    resource: EntityTemplate,
    schema: Schema | None,
) -> dict[str, FieldKind]:
    """Give how each attribute of the context is read; refuse what the schema does not foresee."""
    if schema is None or action.constant_id is None:
        return dict.fromkeys(route.context, "text")
    declared = schema.actions.get(EntityUid(action.type, action.constant_id))
    if declared is None:
        _fail(index, "action", f"the schema has no action `{route.action}`", "declare it, or correct its name")
    if principal not in declared.principals:
        takes = ", ".join(sorted(declared.principals)) or "nobody"
        _fail(index, "action", f"takes no principal `{principal}`", f"it takes {takes}; see policy.principal")
    if resource.type not in declared.resources:
        _fail(
            index, "resource", f"`{resource.type}` is no resource of the action", ", ".join(sorted(declared.resources))
        )
    kinds: dict[str, FieldKind] = {}
    for name in route.context:
        attribute = declared.context.attributes.get(name)
        if attribute is None:
            known = ", ".join(sorted(declared.context.attributes)) or "none"
            _fail(index, f"context.{name}", "the action's context has no such attribute", f"declared: {known}")
        kind = _kind_of(attribute.type)
        if kind is None:
            _fail(index, f"context.{name}", "is of a type that no text stands for", "String, Long, Bool or ipaddr")
        kinds[name] = kind
    missing = [name for name, each in declared.context.attributes.items() if each.required and name not in kinds]
    if missing:
        _fail(index, "context", f"the action's context needs `{missing[0]}`", "add it, or declare it optional")
    return kinds


def _fail(index: int, key: str, problem: str, hint: str) -> NoReturn:
    raise ConfigError([ConfigFault("config", None, f"routes[{index}].{key}", problem, hint)])
