"""Canonical request paths, and the tree that finds a route by host, path and method (`_native/routes.pyx`)."""

from collections.abc import Iterable
from typing import Final, Literal, final

__all__ = [
    "LIMITS",
    "PATH_ERRORS",
    "PathRefused",
    "Route",
    "RouteConflict",
    "RouteInvalid",
    "RouteSnapshot",
    "canonical_path",
]

LIMITS: Final[dict[str, int]]
PATH_ERRORS: Final[tuple[str, ...]]

class PathRefused(ValueError):
    """A request path that can be read in two ways. `code` is stable, `offset` is where the fault begins."""

    code: str
    offset: int
    def __init__(self, code: str, offset: int) -> None: ...

class RouteInvalid(ValueError):
    """A route that cannot be compiled: its pattern, host, method or scope is not one."""

class RouteConflict(ValueError):
    """Two routes that match the same host, path and method: `first` and `second`, in the config's order."""

    first: Route
    second: Route
    method: str
    def __init__(self, first: Route, second: Route, method: str) -> None: ...

def canonical_path(raw: bytes) -> bytes:
    """Return the one canonical form of a request path without its query.

    Raises PathRefused for a path that could be read in two ways; the module's docstring says which, and why.
    """

@final
class Route:
    """One `[[routes]]` entry, compiled. Immutable.

    `methods` are upper case, () means any; `scopes` are all required; `upstream` and `extra` are handed through
    untouched. Raises RouteInvalid with the offending text.
    """

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def methods(self) -> tuple[str, ...]: ...
    @property
    def auth(self) -> int: ...
    @property
    def scopes(self) -> tuple[bytes, ...]: ...
    @property
    def scope_text(self) -> bytes: ...
    @property
    def upstream(self) -> object: ...
    @property
    def extra(self) -> object: ...
    @property
    def parameter_names(self) -> tuple[str, ...]: ...
    def __new__(
        cls,
        pattern: str,
        *,
        index: int,
        host: str = "",
        methods: tuple[str, ...] = (),
        auth: str = "token",
        scopes: tuple[str, ...] = (),
        upstream: object = None,
        extra: object = None,
    ) -> Route: ...

@final
class RouteSnapshot:
    """All routes, ready to be asked; immutable, so it is swapped in whole.

    Raises RouteConflict, which names both, for two routes that match the same host, path and method. Safe to ask from
    any number of threads.
    """

    @property
    def route_count(self) -> int: ...
    @property
    def node_count(self) -> int: ...
    @property
    def routes(self) -> tuple[Route, ...]: ...
    def __new__(cls, routes: Iterable[Route]) -> RouteSnapshot: ...
    def find(
        self, host: bytes, path: bytes, method: bytes
    ) -> tuple[Route, dict[str, str]] | Literal["no_route", "no_method"]:
        """Return the route and its parameters (as they stand in the path), or "no_route", or "no_method".

        Arguments as for `match`: a canonical path, a host without a port.
        """

    def allowed_methods(self, host: bytes, path: bytes) -> str:
        """Return the `Allow` value for a request that `find` answers with "no_method"; "" for any other."""

    def visited_nodes(self, host: bytes, path: bytes) -> int:
        """Return how many nodes of the tree the search for a path looks at."""

    def bench(self, host: bytes, path: bytes, method: bytes, rounds: int) -> bool:
        """Search `rounds` times in C; for benchmarks, which time the call."""
