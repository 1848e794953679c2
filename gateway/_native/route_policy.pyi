"""What a route asks of the policies (`_native/route_policy.pyx`)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, Protocol, final

from gateway._native.uid import EntityUid
from gateway._native.vm import Answer, Decider

PIECES: Final[tuple[str, ...]]
FIELDS: Final[tuple[str, ...]]
OUTCOMES: Final[tuple[str, ...]]

class _Definition(Protocol):
    """What the claims of one token come to. `values` are taken by name, `texts` by number."""

    @property
    def attributes(self) -> Mapping[str, Any]: ...
    @property
    def parents(self) -> tuple[EntityUid, ...]: ...
    @property
    def texts(self) -> tuple[bytes | bool | None, ...]:
        """None: absent; False: no text, and the request is denied."""

    @property
    def values(self) -> dict[str, Any]: ...
    @property
    def invalid_values(self) -> frozenset[str]: ...
    @property
    def refused(self) -> bool:
        """What defines the principal is not of its type: nothing is decided."""

@final
class Piece:
    """A part of a template: `text` as it is, a parameter or claim by its `index`, or the name of a header or query
    parameter.
    """

    def __new__(
        cls,
        kind: Literal["text", "parameter", "method", "host", "path", "scheme", "header", "query", "claim"],
        text: bytes = b"",
        index: int = 0,
    ) -> Piece: ...

@final
class ContextField:
    """An attribute of the context, and what it is read as; of kind `claim`, the name of a Definition's value."""

    def __new__(
        cls,
        name: bytes,
        kind: Literal["text", "long", "bool", "ip", "claim"],
        pieces: Iterable[Piece] = (),
        claim: str = "",
    ) -> ContextField: ...

@final
class DeciderCell:
    """The decider that is in force; None: none yet. Swapped whole, by whoever publishes policies.

    `doubtful`: it denies whatever could rest on what is not known now. Its denials are `policy_unavailable`.
    """

    decider: Decider | None
    doubtful: bool
    def __new__(cls, decider: Decider | None = None) -> DeciderCell: ...

@final
class Principals:
    """Who tokens speak for: an entity of `type`, and what `define(identity.claims)` says of it, once a token."""

    type: Final[str]
    define: Callable[[object], _Definition] | None
    def __new__(cls, type: str, define: Callable[[object], _Definition] | None = None) -> Principals: ...

@final
class Known:
    """One token's part of a policy request; of no use to Python."""

    definition: Final[Any]
    def __new__(cls) -> Known: ...

@final
class Decided:
    """What was asked and decided, for the decision log.

    `answer` is None where policies were not asked: then `outcome` is `incomplete` or `claim_invalid`. Ids are None
    where nothing filled a hole of theirs. `context` has, by attribute, what filled it: ("text", "long", "bool" or
    "ip", the text that was read) or ("claim", name of a value of `definition`).
    """

    outcome: Final[str]
    answer: Final[Answer | None]
    decider: Final[Decider]
    definition: Final[Any]
    entity_revision: Final[int]
    principal_type: Final[str]
    subject: Final[bytes]
    action_type: Final[str]
    action_id: Final[bytes | None]
    resource_type: Final[str]
    resource_id: Final[bytes | None]
    context: Final[dict[bytes, tuple[str, bytes | str]]]
    elapsed_ns: Final[int]
    fetched: Final[bool]
    def __new__(cls) -> Decided: ...

@final
class Sampling:
    """Which decisions a log wants: denials, and with `all` as many of the allows as `rate` says."""

    all: Final[bool]
    rate: Final[float]
    def __new__(cls, *, all: bool, rate: float = 1.0) -> Sampling: ...
    def wants(self, allowed: bool) -> bool:
        """Tell whether a decision is to be logged."""

@final
class RoutePolicy:
    """Templates of one route: principal from the token, action, resource and context from token and request."""

    principals: Final[Principals]
    action_type: Final[str]
    resource_type: Final[str]
    def __new__(
        cls,
        principals: Principals,
        action_type: str,
        action: Iterable[Piece],
        resource_type: str,
        resource: Iterable[Piece],
        context: Iterable[ContextField] = (),
    ) -> RoutePolicy: ...
