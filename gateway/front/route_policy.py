"""From a route's `action`, `resource` and `context` to the compiled `RoutePolicy` that the engine asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NoReturn

from gateway._native.route_policy import ContextField, Piece, RoutePolicy
from gateway._native.routes import Route
from gateway._native.uid import EntityUid
from gateway.config import RouteConfig
from gateway.errors import ConfigError, ConfigFault
from gateway.front.principals import PrincipalClaims
from gateway.policy.schema import model
from gateway.policy.templates import EntityTemplate, TemplateError, parse_entity_template, parse_pieces
from gateway.policy.templates import Piece as TemplatePiece

FieldKind = Literal["text", "long", "bool", "ip"]
_KINDS: Final[dict[type, FieldKind]] = {model.StringType: "text", model.LongType: "long", model.BoolType: "bool"}


def compile_route_policy(route: RouteConfig, index: int, principals: PrincipalClaims) -> RoutePolicy | None:
    """Give what a route asks, or None where it asks nothing. Raises ConfigError with the route's key.

    With a schema, the action must be declared, principal, resource and context must be what it takes, and attributes
    are read as their declared types; without one they are text, and a claim that stands alone what it looks like.
    """
    if not route.action:
        return None
    parameters = Route(route.path, index=index).parameter_names
    action = _entity(route.action, parameters, index, "action")
    resource = _entity(route.resource, parameters, index, "resource")
    pieces: dict[str, tuple[TemplatePiece, ...]] = {}
    for name, text in route.context.items():
        try:
            pieces[name] = parse_pieces(text, parameters)
        except TemplateError as error:
            _fail(index, f"context.{name}", error.problem, error.hint)
    types = _types(route, index, principals, action=action, resource=resource)
    fields = []
    for name, each in pieces.items():
        declared = None if types is None else types[name]
        if len(each) == 1 and each[0].kind == "claim":
            fields.append(ContextField(name.encode(), "claim", claim=principals.value_of(each[0].value, declared)))
        else:
            fields.append(
                ContextField(name.encode(), _kind(declared, index, name), _compiled(each, parameters, principals))
            )
    return RoutePolicy(
        principals.native,
        action.type,
        _compiled(action.pieces, parameters, principals),
        resource.type,
        _compiled(resource.pieces, parameters, principals),
        fields,
    )


def _entity(text: str, parameters: Sequence[str], index: int, key: str) -> EntityTemplate:
    try:
        return parse_entity_template(text, parameters)
    except TemplateError as error:
        _fail(index, key, error.problem, error.hint)


def _kind(declared: model.Type | None, index: int, name: str) -> FieldKind:
    """Give what the text of an attribute is read as; `declared` None: no schema says."""
    if declared is None:
        return "text"
    kind = "ip" if declared == model.ExtensionType("ipaddr") else _KINDS.get(type(declared))
    if kind is None:
        hint = "String, Long, Bool or ipaddr; a claim that stands alone, as in {claim.roles}, can be of any type"
        _fail(index, f"context.{name}", "is of a type that no text stands for", hint)
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
    index: int,
    principals: PrincipalClaims,
    *,
    action: EntityTemplate,
    resource: EntityTemplate,
) -> dict[str, model.Type] | None:
    """Give the declared type of each attribute of the context, or None; refuse what the schema does not foresee."""
    schema = principals.schema
    if schema is None or action.constant_id is None:
        return None
    declared = schema.actions.get(EntityUid(action.type, action.constant_id))
    if declared is None:
        _fail(index, "action", f"the schema has no action `{route.action}`", "declare it, or correct its name")
    if principals.type not in declared.principals:
        takes = ", ".join(sorted(declared.principals)) or "nobody"
        _fail(index, "action", f"takes no principal `{principals.type}`", f"it takes {takes}; see policy.principal")
    if resource.type not in declared.resources:
        _fail(
            index, "resource", f"`{resource.type}` is no resource of the action", ", ".join(sorted(declared.resources))
        )
    types: dict[str, model.Type] = {}
    for name in route.context:
        attribute = declared.context.attributes.get(name)
        if attribute is None:
            known = ", ".join(sorted(declared.context.attributes)) or "none"
            _fail(index, f"context.{name}", "the action's context has no such attribute", f"declared: {known}")
        types[name] = attribute.type
    missing = [name for name, each in declared.context.attributes.items() if each.required and name not in types]
    if missing:
        _fail(index, "context", f"the action's context needs `{missing[0]}`", "add it, or declare it optional")
    return types


def _fail(index: int, key: str, problem: str, hint: str) -> NoReturn:
    raise ConfigError([ConfigFault("config", None, f"routes[{index}].{key}", problem, hint)])
