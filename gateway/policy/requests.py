"""Requests: contexts from JSON, and whether a request fits a schema."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway._native.uid import EntityUid
from gateway.policy.faults import Fault, RequestError
from gateway.policy.json_text import load_json
from gateway.policy.json_values import Misfit, check_choice, check_record, value_from_json
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
            raise RequestError([_undeclared("undeclared_action", "action", str(action), map(str, schema.actions))])
        expected = declaration.context
    try:
        # Never an entity or an extension value as a whole: a context is a record.
        types = {} if expected is None else expected.attributes
        return {
            name: value_from_json(each, types[name].type if name in types else None, f"/{name}")
            for name, each in data.items()
        }
    except Misfit as misfit:
        raise RequestError([misfit.as_fault()]) from None


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
        raise RequestError([_undeclared("undeclared_action", "action", str(action), map(str, schema.actions))])
    faults = []
    for role, uid, allowed in (
        ("principal", principal, declaration.principals),
        ("resource", resource, declaration.resources),
    ):
        if uid.type not in schema.entities:
            faults.append(_undeclared("undeclared_type", f"{role}'s entity type", uid.type, schema.entities))
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


def _undeclared(code: str, what: str, name: str, known: Iterable[str]) -> Fault:
    near = difflib.get_close_matches(name, list(known), n=1)
    return Fault(code, f"undeclared {what} `{name}`", f"did you mean `{near[0]}`?" if near else "")
