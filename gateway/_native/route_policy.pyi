"""What a route asks of the policies (`_native/route_policy.pyx`)."""

from collections.abc import Iterable
from typing import Final, Literal, final

from gateway._native.vm import Decider

PIECES: Final[tuple[str, ...]]
FIELDS: Final[tuple[str, ...]]

@final
class Piece:
    """A part of a template: `text` as it is, a parameter by its `index`, or the name of a header or query parameter."""

    def __new__(
        cls,
        kind: Literal["text", "parameter", "method", "host", "path", "scheme", "header", "query"],
        text: bytes = b"",
        index: int = 0,
    ) -> Piece: ...

@final
class ContextField:
    """An attribute of the context, and what it is read as."""

    def __new__(
        cls, name: bytes, kind: Literal["text", "long", "bool", "ip"], pieces: Iterable[Piece]
    ) -> ContextField: ...

@final
class DeciderCell:
    """The decider that is in force; None: none yet. Swapped whole, by whoever publishes policies."""

    decider: Decider | None
    def __new__(cls, decider: Decider | None = None) -> DeciderCell: ...

@final
class RoutePolicy:
    """Templates of one route: principal from the token's subject, action, resource and context from the request."""

    principal_type: str
    action_type: str
    resource_type: str
    def __new__(
        cls,
        principal_type: str,
        action_type: str,
        action: Iterable[Piece],
        resource_type: str,
        resource: Iterable[Piece],
        context: Iterable[ContextField] = (),
    ) -> RoutePolicy: ...
