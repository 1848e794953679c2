"""Everything that can go wrong, as one tree: each class has a stable `code`, an HTTP `status` and, where a caller may
usefully come again, `retry_after_s`. Messages are lower case, name the offending input in backticks, and never hold a
token, a key or a password."""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """Base of all errors of the gateway; not to be raised itself."""

    code: ClassVar[str] = ""
    status: ClassVar[int] = 500
    retry_after_s: float | None = None

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        if type(self) is GatewayError:
            raise TypeError("raise one of its subclasses")
        super().__init__(message or self.code)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class ConfigError(GatewayError):
    """The configuration cannot be used. `faults` lists every one that was found, each with its place."""

    code = "config_invalid"

    def __init__(self, faults: list[ConfigFault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class ConfigFault:
    """One fault of the configuration: file, line, key, what is wrong and what to do about it."""

    __slots__ = ("file", "hint", "key", "line", "problem")

    def __init__(self, file: str, line: int | None, key: str, problem: str, hint: str = "") -> None:
        self.file = file
        self.line = line
        self.key = key
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{place}: {self.key}: {self.problem}" if self.key else f"{place}: {self.problem}"
        return f"{text}; {self.hint}" if self.hint else text


class KeyInvalid(GatewayError):
    """A key that may not be used: malformed, too weak, or of another kind than its use says."""

    code = "key_invalid"


class TokenRejected(GatewayError):
    """Base of the reasons why a token is refused; `TokenError` in `gateway.tokens` carries the code."""

    code = "invalid_token"
    status = 401


class StoreUnavailable(GatewayError):
    """A store did not answer in time, or not at all."""

    code = "store_unavailable"
    status = 503
    retry_after_s = 5.0


class BulkheadFullError(GatewayError):
    """A pool has as much work as it may have; the caller comes again later."""

    code = "pool_full"
    status = 503
    retry_after_s = 5.0


class ResourceExhaustedError(GatewayError):
    """No permit for a shared resource came free in the time that there was to wait for it."""

    code = "resource_exhausted"
    status = 503
    retry_after_s = 5.0


class CircuitOpenError(GatewayError):
    """A dependency failed so often that it is left alone for a while; it was not asked."""

    code = "circuit_open"
    status = 503
    retry_after_s = 30.0


class OverloadedError(GatewayError):
    """The worker has a standing queue, and this request was chosen not to make it longer."""

    code = "overloaded"
    status = 503
    retry_after_s = 5.0


class DeadlineExceededError(GatewayError):
    """The time that the request had is over. What was under way may have taken place all the same."""

    code = "deadline_exceeded"
    status = 504
    retry_after_s = 5.0


class NotOffered(GatewayError):
    """What was asked for is left out while what it needs is down; nothing was tried. See gateway.flows.degraded."""

    code = "not_offered"
    status = 503
    retry_after_s = 60.0


class AlreadyExists(GatewayError):
    """Something of that name or id is there already. `field` says what collides."""

    code = "already_exists"
    status = 409

    def __init__(self, message: str = "", *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class VersionConflict(GatewayError):
    """It was changed by somebody else meanwhile; read it again and decide anew."""

    code = "version_conflict"
    status = 412
