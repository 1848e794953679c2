"""Answer known tokens on granian's own thread, before a request is handed to the event loop.

granian gives each request to a callback scheduler on a Python thread of its own, which schedules it on the loop; the
hop costs 4 to 5 µs of about 16. This module puts `InlineSchedule` in the scheduler's place: what the front door can
answer at once is answered right there; what goes to an upstream is handed to the loop without a task of its own; all
else goes the usual way. It serves granian's asyncio tasks, its default. It leans on names that granian does not promise
(`granian._futures`), so it checks them and the version, and leaves granian alone when anything differs. Checked with
granian 2.8.7 (2026-11).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from functools import partial
from typing import Any

from gateway._native.front import FrontDoor, InlineSchedule

_CHECKED_VERSIONS = ("2.8.",)
_NEEDED_NAMES = ("_BaseCBScheduler", "_aio_taskenter", "_aio_taskleave", "_cbsched_aioschedule")

_log = logging.getLogger("portcullis.front")


def unsupported_reason() -> str | None:
    """Say why this granian cannot be hooked, or give None when it can."""
    version = importlib.metadata.version("granian")
    if not version.startswith(_CHECKED_VERSIONS):
        return f"granian {version} was not checked"
    import granian._futures as futures
    from granian.server import mp

    missing = [name for name in _NEEDED_NAMES if not hasattr(futures, name)]
    if missing or not hasattr(mp, "_new_cbscheduler"):
        return f"granian {version} lacks {', '.join(missing) or '_new_cbscheduler'}"
    return None


def sync_send_type() -> type | None:
    """Give the type whose bound `send` completes at once, or None where this granian has none (checked with 2.8.7)."""
    try:
        from granian._granian import ASGIHTTPProtocol  # type: ignore[attr-defined]
    except ImportError:
        return None
    protocol: type = ASGIHTTPProtocol
    return protocol


def install(door: FrontDoor) -> bool:
    """Hook the scheduler of the worker that this process is about to run; False where the public path stays.

    To be called in the worker's process, before granian makes its scheduler: while it loads the application.
    """
    reason = unsupported_reason()
    if reason is not None:
        _log.warning("inline answers are off: %s", reason)
        return False
    futures: Any = importlib.import_module("granian._futures")
    server: Any = importlib.import_module("granian.server.mp")
    base: Any = futures._BaseCBScheduler

    class InlineScheduler(base):  # type: ignore[misc]
        """granian's scheduler with `InlineSchedule` before its schedule function, which can be set once only."""

        __slots__: list[str] = []

        def __init__(self, loop: Any, callback: Any, _task: Any, _enter: Any, _leave: Any) -> None:
            super().__init__()
            fallback = futures._cbsched_aioschedule(loop, self._ctx, callback)
            schedule = InlineSchedule(door, loop, self._ctx, fallback, _report)
            setattr(self, "_schedule_fn", schedule)  # noqa: B010  (a slot of the base)

    original = server._new_cbscheduler

    def new_scheduler(loop: Any, callback: Any, impl_asyncio: bool = False) -> Any:
        if not impl_asyncio:
            return original(loop, callback, impl_asyncio)
        enter = partial(futures._aio_taskenter, loop)
        leave = partial(futures._aio_taskleave, loop)
        return InlineScheduler(loop, callback, None, enter, leave)

    server._new_cbscheduler = new_scheduler
    return True


def _report(error: BaseException) -> None:
    _log.error("a request could not be answered inline", exc_info=error)
