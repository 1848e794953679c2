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
