"""Calls to issuers, in their pool and behind their breaker, so that one that is down or hangs holds up nobody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, Protocol, TypeVar

from gateway.errors import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    OverloadedError,
    ResourceExhaustedError,
)
from gateway.resilience import PoolName, Resilience, within
from gateway.resilience.circuit_breaker import Outcome, outcome_of
from gateway.stores.fetch import FetchFailed

T = TypeVar("T")

Operation = Literal["jwks", "introspect"]

# Keys are fetched for everybody, once: their fetch goes before log-ins. An opaque token is judged for one caller.
_POOLS: Mapping[Operation, PoolName] = {"jwks": "external_idp", "introspect": "token_validation"}
_FAULTS = frozenset({"timeout", "unreachable", "tls", "broken"})


class IssuerCalls(Protocol):
    """How issuers are asked."""

    async def ask(self, issuer: str, operation: Operation, work: Callable[[], Awaitable[T]], limit_s: float) -> T:
        """Await `work()`, and be back within `limit_s` seconds, whatever the issuer does. Raises FetchFailed."""


class DirectCalls:
    """Ask at once: for a command that asks each issuer once."""

    async def ask(self, issuer: str, operation: Operation, work: Callable[[], Awaitable[T]], limit_s: float) -> T:
        """Await `work()` within its deadline; see IssuerCalls."""
        try:
            return await within(limit_s, work)
        except DeadlineExceededError as error:
            raise FetchFailed("timeout", f"no answer of `{issuer}` within {limit_s:g} s") from error


class GuardedCalls:
    """Ask with a permit, in a pool, behind the breaker of the issuer and the operation."""

    def __init__(self, resilience: Resilience) -> None:
        self._resilience = resilience

    async def ask(self, issuer: str, operation: Operation, work: Callable[[], Awaitable[T]], limit_s: float) -> T:
        """Await `work()` where pool, permits and breaker let it; see IssuerCalls."""
        try:
            async with self._resilience.bulkheads.pool(_POOLS[operation], critical=operation == "jwks"):
                return await self._resilience.call(
                    "external_idp", operation, work, limit_s=limit_s, tenant=issuer, classify=outcome_of_fetch
                )
        except CircuitOpenError as error:
            raise FetchFailed("circuit_open", f"`{issuer}` failed too often and is left alone for a while") from error
        except (BulkheadFullError, OverloadedError, ResourceExhaustedError) as error:
            raise FetchFailed("no_room", f"`{issuer}` was not asked: {error}") from error
        except DeadlineExceededError as error:
            raise FetchFailed("timeout", f"no answer of `{issuer}` within {limit_s:g} s") from error


def outcome_of_fetch(error: BaseException, elapsed_s: float) -> Outcome:
    """Tell what a failed fetch says of the issuer: an answer that we cannot use is one all the same."""
    if not isinstance(error, FetchFailed):
        return outcome_of(error, elapsed_s)
    return "failure" if error.problem in _FAULTS or error.http_status >= 500 else "success"
