"""The engine behind every door, and its ASGI adapter. Laws and limits: `_native/front.pxd`."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, final

from typing_extensions import disjoint_base

from gateway._native.metrics import MetricsBlock
from gateway._native.route_policy import Decided, DeciderCell, RoutePolicy, Sampling
from gateway._native.routes import Route, RouteSnapshot
from gateway._native.token import Identity, TokenValidator
from gateway._native.uid import EntityUid

_Header = tuple[bytes, bytes]
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

DOORS: tuple[str, ...]
"""The doors' names, by number: forward, nginx, envoy, proxy."""

KINDS: tuple[str, ...]
"""The kinds of verdict: allow, deny, ask, native."""

REASONS: tuple[str, ...]
"""Every reason by number: the token's first, then the door's; "" where a number is not in use."""

PROVEN: str
"""Key of an ASGI scope for the Identity whose proof of possession Python has checked for this very request."""

@final
class RouteSettings:
    """What a route means to the doors; the `extra` of its Route. Immutable."""

    pool: object
    strip_prefix: bytes
    scope_challenge: bytes
    policy: RoutePolicy | None
    def __new__(
        cls,
        pool: object = None,
        *,
        strip_prefix: bytes = b"",
        scope_challenge: bytes = b"",
        scope_mask: int = 0,
        policy: RoutePolicy | None = None,
    ) -> RouteSettings: ...

@final
class Judgement:
    """One listener's scratch; of no use from Python."""

    def __new__(cls) -> Judgement: ...

@final
class Engine:
    """Tokens and routes, judged together."""

    tokens: TokenValidator
    routes: RouteSnapshot
    header_bytes_max: int
    header_count_max: int
    policies: DeciderCell | None
    sessions: TokenValidator | None
    session_cookie: bytes
    sampling: Sampling | None
    proofs: bool
    def __new__(
        cls,
        tokens: TokenValidator,
        routes: RouteSnapshot,
        *,
        reserved: tuple[bytes, ...] = (),
        header_bytes_max: int = 32768,
        header_count_max: int = 100,
        policies: DeciderCell | None = None,
        sessions: TokenValidator | None = None,
        session_cookie: bytes = b"__Host-portcullis",
        sampling: Sampling | None = None,
        proofs: bool = False,
    ) -> Engine: ...
    def publish(self, routes: RouteSnapshot, tokens: TokenValidator) -> None:
        """Swap both in together; a request that is being judged keeps those that it began with."""

    def set_now(self, now_s: int | None) -> None:
        """Fix the wall clock (Unix seconds) for tests; None gives it back to the system."""

    def hold(self, issuer_index: int, until_s: int) -> None:
        """Deny unknown `kid`s of an issuer without asking until `until_s` (Unix seconds)."""

@final
class DenyAnswer:
    """One refusal, ready to send but for the request's id."""

    status: int
    nginx_status: int
    headers: tuple[_Header, ...]
    problem_head: bytes
    problem_tail: bytes
    page_head: bytes
    page_tail: bytes
    def __new__(
        cls,
        status: int,
        *,
        nginx_status: int,
        headers: tuple[_Header, ...],
        problem_head: bytes,
        problem_tail: bytes,
        page_head: bytes,
        page_tail: bytes,
    ) -> DenyAnswer: ...

@final
class Verdict:
    """A copy of one judgement that outlives the request's buffers."""

    kind: str
    door: str
    reason: str
    request_id: str
    method: str
    scheme: str
    host: str
    path: str
    query: bytes
    token: bytes
    issuer_index: int
    cached: bool
    by_session: bool  # `token` is the value of the session cookie
    by_proof: bool  # `token` came under the scheme DPoP: it needs its proof
    peer_trusted: bool
    route: Route | None
    identity: Identity | None
    parameters: dict[str, str]
    away: tuple[EntityUid, EntityUid, EntityUid, dict[str, Any], dict[EntityUid, Any] | None] | None
    """Of an ASK for entities that must be fetched: principal, action, resource, context and overlays; else None."""

    @property
    def target(self) -> bytes:
        """What goes upstream: the canonical path, less the route's `strip_prefix`, and the query."""

@disjoint_base
class FrontDoor:
    """The ASGI application: judges each request, answers what it can at once, hands on the rest."""

    engine: Engine
    draining: bool
    def __new__(
        cls,
        engine: Engine,
        *,
        app: Callable[[Any, Any, Any], Awaitable[None]],
        ask: Callable[[FrontDoor, Verdict, Any, Any, Any], Awaitable[None]],
        websocket: Callable[[FrontDoor, Verdict, Any, Any, Any], Awaitable[None]],
        fault: Callable[[str, str, str, str, bool, bool], tuple[dict[str, Any], dict[str, Any]] | None],
        drop: frozenset[bytes] = frozenset(),
        is_trusted: Callable[[str], bool],
        answers: Sequence[DenyAnswer],
        forward_answers: Sequence[DenyAnswer],
        blank_identity: tuple[_Header, ...] = (),
        metrics: MetricsBlock | None = None,
        decision_slot: Callable[[str, str], int] | None = None,
        duration_slot: Callable[[str], int] | None = None,
        access: Callable[[Verdict, int, int], None] | None = None,
        audit: Callable[[Verdict, int], None] | None = None,
        decisions: Callable[[Decided, str, str, str], None] | None = None,
        login: Callable[[Verdict], bytes | None] | None = None,
        sync_send: type | None = None,
        decision_id: bool = True,
    ) -> FrontDoor: ...
    def publish(self, other: FrontDoor) -> None:
        """Take over everything that `other` was made with, whole."""

    def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> Awaitable[None]: ...
    def finish(
        self, scope: _Scope, receive: _Receive, send: _Send, reason: str | None = None, fetched: bool = False
    ) -> Awaitable[None]:
        """Judge once more after an ASK, for good; with `reason`, refuse for that reason.

        `fetched`: entities were fetched meanwhile, as the decision log will say.
        """

    def judge_scope(
        self, scope: _Scope, final: bool = False, reason: str | None = None, fetched: bool = False
    ) -> Verdict:
        """Judge a scope without answering it. See `finish`."""

    def judge_again(self, scope: _Scope) -> Verdict:
        """Judge a scope of which something was learned after an ASK: it may be an ASK for something else."""

@final
class Relayed:
    """The awaitable of one relayed request; made by the front door only."""

    def ended(self, exchange: Any) -> None:
        """Tell granian how the exchange ended."""

    def __await__(self) -> Relayed: ...
    def __iter__(self) -> Relayed: ...
    def __next__(self) -> object: ...
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> object:
        """Take what the scheduler throws in when the exchange failed or was cancelled."""

@final
class InlineSchedule:
    """What granian's callback scheduler calls for each request: answer at once, or schedule."""

    answered: int
    relayed: int
    def __new__(
        cls,
        door: FrontDoor,
        loop: Any,
        context: Any,
        fallback: Callable[[Any], object],
        fault: Callable[[BaseException], object],
    ) -> InlineSchedule: ...
    def __call__(self, watcher: Any) -> None: ...
    def relay(self, watcher: Any) -> None:
        """Serve one request to an upstream, on the loop's thread."""
