"""A store as requests see it: the same methods, each with a permit, behind a breaker, within a hard deadline."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from functools import wraps
from typing import Any, TypeVar

from gateway.errors import CircuitOpenError, DeadlineExceededError, ResourceExhaustedError, StoreUnavailable
from gateway.resilience.assembly import BreakerName, Resilience
from gateway.resilience.deadlines import check_deadline

T = TypeVar("T")

NOT_GUARDED = frozenset({"close", "wait"})  # what ends a store, or waits for something to happen in it


def guarded(
    store: T,
    resilience: Resilience,
    dependency: BreakerName,
    *,
    name: str,
    only: Collection[str] = (),
    reads: Collection[str] = (),
    limit_s: float | None = None,
) -> T:
    """Return `store` with its `async def` methods behind `resilience.call`; everything else is the store's own.

    `name` is also the part under which the store's health may be watched. Operations are named `name.method`, so that
    one that is slow by nature opens no breaker of another. `only`: the methods that are guarded; none = all but those
    of NOT_GUARDED. `reads`: those that may be repeated when they fail. The store's law holds: what is refused here, or
    takes more than `limit_s`, is StoreUnavailable; a request whose own time is over is DeadlineExceededError. Raises
    AttributeError for a name that the store does not have.
    """
    for method in (*only, *reads):
        getattr(store, method)
    wanted = frozenset(only) or frozenset(_public(store)) - NOT_GUARDED

    async def call(method: str, work: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await resilience.call(
                dependency, f"{name}.{method}", work, limit_s=limit_s, part=name, idempotent=method in reads
            )
        except (CircuitOpenError, ResourceExhaustedError) as error:
            raise StoreUnavailable(f"`{name}` is not asked: {error}", retry_after_s=error.retry_after_s) from error
        except DeadlineExceededError as error:
            check_deadline()
            raise StoreUnavailable(f"`{name}` did not answer in time") from error

    # A class with every name of the store's own: protocols are told by what a class has (Python 3.12 looks no further).
    members = {member: _member(store, member, call if member in wanted else None) for member in _public(store)}
    kind: type[T] = type(f"Guarded{type(store).__name__}", (_Guarded,), members)
    return kind(store)  # type: ignore[call-arg]


class _Guarded:
    """Looks like the store that it holds."""

    def __init__(self, store: object) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)  # attributes of the object, which its class does not have


Call = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]


def _public(store: object) -> list[str]:
    return [name for name in dir(type(store)) if not name.startswith("_")]


def _member(store: object, name: str, call: Call | None) -> property:
    found = inspect.getattr_static(type(store), name)
    if call is None or not inspect.iscoroutinefunction(found):
        return property(lambda _: getattr(store, name))
    method = getattr(store, name)

    @wraps(method)
    async def guarded_method(*args: Any, **kwargs: Any) -> Any:
        return await call(name, lambda: method(*args, **kwargs))

    return property(lambda _: guarded_method)
