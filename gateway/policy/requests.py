"""Requests: contexts from JSON, and whether a request fits a schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway._native.uid import EntityUid
from gateway.policy.faults import Fault, RequestError
from gateway.policy.json_text import load_json
from gateway.policy.json_values import Misfit, check_choice, check_record, escaped, near, value_from_json
from gateway.policy.schema import model

CONTEXT_BYTES_MAX: Final = 1024 * 1024


def parse_context(
    data: str | bytes | Mapping[str, Any], schema: model.Schema | None = None, action: EntityUid | None = None
) -> dict[str, Any]:
    """Give a context as values, from Cedar's JSON; implicit forms are understood where schema and action say the type.

    Raises RequestError with a JSON pointer.
    """
    if isinstance(data, str | bytes):
        data = load_json(data, CONTEXT_BYTES_MAX, RequestError)
    if not isinstance(data, Mapping):
        raise RequestError([Fault("ill_typed", "a context is an object", pointer="/")])
    expected = None
    if schema is not None and action is not None:
        declaration = schema.actions.get(action)
        if declaration is None:
            raise RequestError(
                [_undeclared("undeclared_action", "action", str(action), map(str, schema.actions), "/action")]
            )
        expected = declaration.context
    types = {} if expected is None else expected.attributes
    made = {}
    try:
        # Member by member: a context is a record, never an entity or an extension value as a whole.
        for name, each in data.items():
            if not isinstance(name, str):
                raise Misfit("no_value", "an attribute's name is text", "/")
            made[name] = value_from_json(each, types[name].type if name in types else None, f"/{escaped(name)}")
    except Misfit as misfit:
        raise RequestError([misfit.as_fault()]) from None
    return made


def validate_request(
    schema: model.Schema,
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    context: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a request that the schema does not foresee. Raises RequestError."""
    declaration = schema.actions.get(action)
    if declaration is None:
        raise RequestError(
            [_undeclared("undeclared_action", "action", str(action), map(str, schema.actions), "/action")]
        )
    faults = []
    for role, uid, allowed in (
        ("principal", principal, declaration.principals),
        ("resource", resource, declaration.resources),
    ):
        if uid.type not in schema.entities:
            faults.append(
                _undeclared("undeclared_type", f"{role}'s entity type", uid.type, schema.entities, f"/{role}")
            )
        elif uid.type not in allowed:
            hint = f"{action} takes: {', '.join(sorted(allowed)) or 'nothing, it is a group'}"
            faults.append(Fault("wrong_type", f"`{uid.type}` is no {role} of {action}", hint, pointer=f"/{role}"))
        else:
            try:
                check_choice(uid, schema, f"/{role}")
            except Misfit as misfit:
                faults.append(misfit.as_fault())
    try:
        check_record(context or {}, declaration.context, schema, "/context")
    except Misfit as misfit:
        faults.append(misfit.as_fault())
    if faults:
        raise RequestError(faults)


def _undeclared(code: str, what: str, name: str, known: Iterable[str], pointer: str) -> Fault:
    return Fault(code, f"undeclared {what} `{name}`", near(name, known), pointer=pointer)
