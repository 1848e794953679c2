"""Refusing early: what is shed, or finds its pool full, is told so before anything is done for it.

At ten times the load nine of ten requests are refused. What each costs is taken from those that are served: a page made
anew, a form that is read, a route that is sought.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import BulkheadFullError, OverloadedError, ResourceExhaustedError
from gateway.front.asgi import App, Receive, Scope, Send
from gateway.resilience import PoolName, Resilience
from gateway.resilience.threads import Coming

Busy = BulkheadFullError | OverloadedError | ResourceExhaustedError
Refusal = Callable[[Request, Busy], Response]


class OverloadGate:
    """Lets requests for exact paths in as their pool would; other paths are none of its business."""

    def __init__(
        self,
        app: App,
        *,
        paths: frozenset[str],
        pool: PoolName,
        resilience: Resilience,
        refusal: Refusal,
        announces: Mapping[str, Callable[[], Coming]],
    ) -> None:
        """`announces`: what else must have room where something is posted, by path; each raises where it has none."""
        self._app = app
        self._announces = announces
        self._paths = paths
        self._pool = pool
        self._resilience = resilience
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        announce = self._announces.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            self._resilience.bulkheads.admit(self._pool)
            coming = None if announce is None else announce()
        except (BulkheadFullError, OverloadedError, ResourceExhaustedError) as error:
            await self._refusal(Request(scope), error)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if coming is not None:
                coming.arrive()


__all__ = ["OverloadGate", "Refusal"]
