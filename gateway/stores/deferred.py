"""Work that is done later, and survives whoever promised it; and the laws of a store of it.

A job is known by its key: put twice, it is one job. Whoever claims it has it for a while; a worker that dies loses it
to another one, so that a job may be begun more than once, and what it does must be harmless to do again under the same
key. It is completed exactly once: by whoever holds it then, and never by one who lost it meanwhile.
`tests/contract/test_deferred_work.py` holds every backend to these laws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

KEY_BYTES_MAX: Final = 128
KIND_BYTES_MAX: Final = 64
BODY_BYTES_MAX: Final = 64 * 1024  # as JSON
CLAIMED_MAX: Final = 100  # jobs in one claim
ATTEMPTS_MAX: Final = 10  # then a job is set aside, for a person to look at
DONE_KEPT_S: Final = 7 * 86_400.0  # for so long a job that was done is not done again
ERROR_BYTES_MAX: Final = 500
LISTED_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work, held by whoever claimed it."""

    key: str
    kind: str
    body: Mapping[str, Any] = field(hash=False)
    attempt: int  # from 1
    put_s: float  # Unix time
    hold: str = field(repr=False)  # proves that it is ours; opaque


@dataclass(frozen=True, slots=True)
class DeadJob:
    """One that failed ATTEMPTS_MAX times, or was given up."""

    key: str
    kind: str
    body: Mapping[str, Any] = field(hash=False)
    error: str
    put_s: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much there is to do."""

    waiting: int  # held ones are among them
    dead: int
    oldest_s: float | None  # since when the oldest one waits; None: nothing waits


class DeferredWork(Protocol):
    """A durable queue of jobs. Shared by the workers of a machine, or by all gateways.

    Methods end within a deadline and raise StoreUnavailable for whatever goes wrong in the store; whether a failed or
    cancelled call took place is unknown. Putting again is harmless; a job whose completion failed so may have been
    completed, and is otherwise claimed by somebody again.
    """

    @property
    def shared(self) -> str:
        """Who sees the same jobs: "process", "machine" or "network"."""

    async def put(self, kind: str, key: str, body: Mapping[str, Any], due_s: float = 0.0) -> bool:
        """Promise a job, not before `due_s`. When this has returned it is durable.

        False where its key is known: it waits, is dead, or was done within DONE_KEPT_S.
        """

    async def claim(self, limit: int, hold_s: float) -> Sequence[Job]:
        """Take jobs that are due and that nobody holds, for `hold_s`, the oldest first; at most CLAIMED_MAX."""

    async def complete(self, job: Job) -> bool:
        """Be done with a job. True for exactly one; False where it was lost to somebody else, or is done."""

    async def retry(self, job: Job, due_s: float, error: str) -> bool:
        """Give a job back, to be done not before `due_s`; after ATTEMPTS_MAX it is dead. False where it was lost."""

    async def give_up(self, job: Job, error: str) -> bool:
        """Set a job aside that cannot be done. False where it was lost."""

    async def dead(self) -> Sequence[DeadJob]:
        """Return what was set aside, the oldest first, at most LISTED_MAX."""

    async def revive(self, key: str) -> bool:
        """Let a dead job wait anew, with no attempt made. False where it is not dead."""

    async def backlog(self) -> Backlog: ...

    async def purge(self) -> int:
        """Forget what was done more than DONE_KEPT_S ago; return how many, where the backend does not do it itself."""

    async def close(self) -> None:
        """Release everything. Never raises."""


def check_job(kind: str, key: str) -> None:
    """Raise ValueError for a job that not every backend can keep."""
    if not 0 < len(key.encode()) <= KEY_BYTES_MAX or not 0 < len(kind.encode()) <= KIND_BYTES_MAX:
        raise ValueError(f"the key of a job has 1 to {KEY_BYTES_MAX} bytes, and its kind at most {KIND_BYTES_MAX}")
    if "\0" in key or "\0" in kind:
        raise ValueError("the key and the kind of a job have no NUL")


def spelled(body: Mapping[str, Any]) -> bytes:
    """Spell the body of a job. Raises ValueError."""
    import orjson

    try:
        text = orjson.dumps(dict(body))
    except TypeError as error:
        raise ValueError("the body of a job is JSON") from error
    if len(text) > BODY_BYTES_MAX:
        raise ValueError(f"the body of a job has at most {BODY_BYTES_MAX} bytes")
    return text


def check_claim(limit: int, hold_s: float) -> None:
    if not 0 < limit <= CLAIMED_MAX or hold_s <= 0:
        raise ValueError(f"1 to {CLAIMED_MAX} jobs are claimed at once, for longer than no time")
