"""How requests are read: faults of the library's models as the errors of SCIM, entity tags, and what is to be shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from pydantic import ValidationError
from scim2_models import (
    Context,
    Error,
    InvalidValueException,
    PatchOp,
    ResponseParameters,
    SCIMException,
    SearchRequest,
)

from gateway.flows.scim.filters import Kind
from gateway.flows.scim.resources import POLICY, GroupResource, UserResource

MODELS: Final[dict[Kind, Any]] = {"User": UserResource, "Group": GroupResource}
_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')


def read(model: Any, payload: Any, context: Context) -> Any:
    """Read a payload as a model. Raises SCIMException."""
    try:
        return model.model_validate(payload, scim_ctx=context, scim_policy=POLICY)
    except ValidationError as error:
        raise refused(error) from None


@cache
def over(generic: Any, model: Any) -> Any:
    """Give a message of the library for resources of a kind that is known only now.

    Kept, since the library makes it anew whenever nobody holds it, which takes longer than all the rest of a request.
    """
    return generic[model]


@cache
def warm_up() -> None:
    """Have the library make its parsers and models: with the first request that would hold up a worker."""
    for kind, model in MODELS.items():
        path = "userName" if kind == "User" else "displayName"
        text = f'{path} eq "x" and not (meta.created pr)'
        with POLICY:
            sought = {"filter": text, "sortBy": path, "attributes": path}
            read(over(SearchRequest, model), sought, Context.SEARCH_REQUEST)
        payload = {"schemas": [str(model.__schema__)], path: "x"}
        resource = read(model, payload, Context.RESOURCE_CREATION_REQUEST)
        operations = {
            "schemas": [str(PatchOp.__schema__)],
            "Operations": [{"op": "replace", "path": path, "value": "y"}],
        }
        read(over(PatchOp, model), operations, Context.RESOURCE_PATCH_REQUEST).patch(resource, POLICY)
        resource.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE)
    read(over(SearchRequest, UserResource | GroupResource), {"count": 1}, Context.SEARCH_REQUEST)


def refused(error: ValidationError) -> SCIMException:
    """Give the error of SCIM for the first fault of a payload."""
    return SCIMException.from_error(Error.from_validation_errors(error)[0])


def made_of(make: Callable[[Any], tuple[Any, bool]], former: Any) -> tuple[Any, bool]:
    """Have a resource made from the former one. Raises SCIMException."""
    try:
        return make(former)
    except ValidationError as error:
        raise refused(error) from None


@contextmanager
def said() -> Iterator[None]:
    """Tell a client what the directory does not take."""
    try:
        yield
    except ValueError as error:
        raise InvalidValueException(detail=str(error)) from None


def shown_of(kind: Kind, parameters: Mapping[str, Any]) -> ResponseParameters[Any]:
    """Read which attributes a client wants to see. Raises SCIMException."""
    asked = {name: parameters[name] for name in ("attributes", "excludedAttributes") if parameters.get(name)}
    made: ResponseParameters[Any] = read(over(ResponseParameters, MODELS[kind]), asked, Context.SEARCH_REQUEST)
    return made


def is_shown(name: str, shown: ResponseParameters[Any]) -> bool:
    """Tell whether an attribute that is shown by default is part of the answer."""
    if shown.attributes:
        return name in {_attribute(str(path)) for path in shown.attributes}
    # Excluding a part of it leaves the rest: then it is read, and the library leaves out the part.
    return name not in {str(path).rpartition(":")[2].lower() for path in shown.excluded_attributes or ()}


def names_version(tags: str, version: int) -> bool:
    """Tell whether a list of entity tags names a version (RFC 9110 §13.1); weak ones count as the strong ones."""
    return tags.strip() == "*" or str(version) in _TAG.findall(tags)


def _attribute(path: str) -> str:
    return path.lower().rpartition(":")[2].partition(".")[0]
