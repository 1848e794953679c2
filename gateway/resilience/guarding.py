"""A store as requests see it: the same methods, each with a permit, behind a breaker, within a hard deadline."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from functools import wraps
from typing import Any, TypeVar, cast

from gateway.resilience.assembly import BreakerName, Resilience

T = TypeVar("T")


def guarded(
    store: T,
    resilience: Resilience,
    dependency: BreakerName,
    *,
    name: str,
    reads: Collection[str] = (),
    plain: Collection[str] = ("close", "wait"),
    limit_s: float | None = None,
) -> T:
    """Return `store` with each `async def` method behind `resilience.call`; everything else is the store's own.

    Operations are named `name.method`, so that one that is slow by nature opens no breaker of another. `reads` are the
    methods that may be repeated when they fail. `plain` ones are not guarded: those that wait for something to happen,
    or that end the store. Raises AttributeError at once for a name that the store does not have.
    """
    for method in reads:
        getattr(store, method)

    def call(method: str, work: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        return resilience.call(dependency, f"{name}.{method}", work, limit_s=limit_s, idempotent=method in reads)

    return cast(T, _Guarded(store, call, frozenset(plain)))


class _Guarded:
    """Looks like the store that it holds."""

    def __init__(
        self,
        store: object,
        call: Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]],
        plain: frozenset[str],
    ) -> None:
        self._store = store
        self._call = call
        self._plain = plain

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name in self._plain or not inspect.iscoroutinefunction(found):
            return found
        method = self._guard(name, found)
        setattr(self, name, method)  # found without us the next time
        return method

    def _guard(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, lambda: method(*args, **kwargs))

        return call
