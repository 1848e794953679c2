"""One worker process: builds the application, serves it through granian, and follows the control block.

What the parent does is in `gateway/cli/supervisor.py`. granian (checked with 2.8.7) runs our `run_worker` in the new
process; it wraps granian's own worker without lifespan, and drives the lifespan itself, so that a SIGTERM that comes
before granian listens for it ends the process at once instead of being lost.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server as EmbeddedServer
from granian.server.mp import MPServer

from gateway.cli.control import ControlBlock, WorkerState
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.observability.process_log import configure_process_log
from gateway.types import WorkerContext

EXIT_FAILED = 1
EXIT_CONFIG = 2
LOOK_S = 0.05  # how often a worker looks at the control block
ADMIN_BACKLOG = 128
ADMIN_REQUESTS_MAX = 64  # at once; an operator's tools, not the doors
ADMIN_STOP_S = 1.0  # for scrapes that still run when everything else is over

# granian's log through ours: warnings and worse, and nothing of ours is touched.
GRANIAN_LOG: dict[str, Any] = {"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}}

_log = logging.getLogger("portcullis.serve")

Message = MutableMapping[str, Any]
ASGICallable = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class App(Protocol):
    """What a worker serves; `gateway.app.build_app` makes it."""

    draining: bool

    @property
    def asgi(self) -> ASGICallable:
        """The doors, with the lifespan of everything behind them."""

    @property
    def admin_asgi(self) -> ASGICallable:
        """Probes and metrics, for the admin listener."""

    async def reload(self, config: Config) -> None:
        """Serve by another config from now on. Raises ConfigError, and changes nothing, where that cannot be."""


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """Everything that a worker is given when it starts."""

    context: WorkerContext
    config: Config
    generation: int
    program: str  # the module that has `build_app`
    admin_listener: socket.socket | None
    parent_pid: int


class LifespanFailed(Exception):
    """The application did not start."""


class _Lifespan:
    """The server's side of the ASGI lifespan protocol."""

    def __init__(self, app: ASGICallable) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the application. Raises LifespanFailed, or what it raised."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.ensure_future(self._call(scope))
        await self._ask("lifespan.startup")

    async def shutdown(self) -> None:
        """Stop the application, if it was started."""
        if self._task is not None and not self._task.done():
            await self._ask("lifespan.shutdown")
            await self._task

    async def _call(self, scope: MutableMapping[str, Any]) -> None:
        await self._app(scope, self._to_app.get, self._answers.put)

    async def _ask(self, question: str) -> None:
        assert self._task is not None
        await self._to_app.put({"type": question})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            self._task.result()
            raise LifespanFailed(f"the application ended without an answer to {question}")
        if answer.result()["type"] != f"{question}.complete":
            raise LifespanFailed(answer.result().get("message", question))


class _AdminServer(EmbeddedServer):
    """granian on this worker's own loop, on the admin listener that all workers share.

    Measured: 2.6 MB and three threads a worker. It has its own backpressure, so probes are answered while the doors
    hold all requests that they take.
    """

    def __init__(self, app: ASGICallable, listener: socket.socket) -> None:
        self._listener = listener
        super().__init__(
            target=app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=ADMIN_BACKLOG,
            backpressure=ADMIN_REQUESTS_MAX,
            runtime_blocking_threads=1,
            log_level=LogLevels.warning,
            log_dictconfig=GRANIAN_LOG,
        )

    def end(self) -> None:
        """Take no more connections, and end the task of `serve` when the requests at hand are answered."""
        self.interrupt_signal = True
        self.main_loop_interrupt.set()

    def _init_shared_socket(self) -> None:
        # A descriptor of its own: granian closes what it is given.
        shared: Any = self  # granian annotates neither
        shared._ssp, shared._shd = None, held_by_granian(os.dup(self._listener.fileno()), ADMIN_BACKLOG)


class Worker:
    """The life of one worker: what it serves, and what it does when the control block changes."""

    def __init__(self, start: WorkerStart) -> None:
        """Build the application. Raises ConfigError where the config cannot be served."""
        self._start = start
        self._context = start.context
        self._folder = start.context.control_path.parent
        self._control = ControlBlock(start.context.control_path)
        self._control.enter(self._context.index, os.getpid(), start.generation)
        program = importlib.import_module(start.program)
        self.app: App = program.build_app(start.config, start.context)
        self._lifespan = _Lifespan(self.app.asgi)
        self._config = start.config
        self._seen = start.generation
        self._orphaned = False
        self._taking: asyncio.Task[None] | None = None  # the reload that runs
        self._admin: _AdminServer | None = None
        self._admin_task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the application and the admin listener."""
        await self._lifespan.startup()
        if self._start.admin_listener is not None:
            self._admin = _AdminServer(self.app.admin_asgi, self._start.admin_listener)
            self._admin_task = asyncio.ensure_future(self._admin.serve())

    async def shutdown(self) -> None:
        """Stop what `startup` started, after the last request."""
        self._control.set_state(self._context.index, WorkerState.STOPPING)
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait({self._taking})
        try:
            await self._lifespan.shutdown()
        finally:
            if self._admin is not None and self._admin_task is not None:
                self._admin.end()
                await asyncio.wait({self._admin_task}, timeout=ADMIN_STOP_S)

    def enter_service(self) -> None:
        """Say that we are ready, and begin to follow the parent; for when granian serves and runs the loop."""
        # granian listens for SIGINT too, but a terminal sends it to us and the parent alike: the parent drains first.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # What is here now stays as long as the process: a full collection would look through it each time, 20 ms for
        # which every request waits.
        gc.collect()
        gc.freeze()
        self._control.set_state(self._context.index, WorkerState.READY)
        self._look()

    def _look(self) -> None:
        """Do what the parent asks for, then come again."""
        asyncio.get_running_loop().call_later(LOOK_S, self._look)
        if self._control.draining and not self.app.draining:
            self.app.draining = True
        generation = self._control.generation
        if generation != self._seen and (self._taking is None or self._taking.done()):
            self._seen = generation
            self._taking = asyncio.ensure_future(self._take(generation))
        if os.getppid() != self._start.parent_pid and not self._orphaned:
            self._end_orphaned()

    async def _take(self, generation: int) -> None:
        """Serve by the config that was published, or say that this worker cannot."""
        try:
            config = msgspec.msgpack.decode(snapshot_path(self._folder, generation).read_bytes(), type=Config)
            await self.app.reload(config)
        except ConfigError as error:
            report_faults(error, "not reloaded")
            self._control.set_refused(self._context.index, generation)
        except Exception:
            _log.exception("not reloaded: worker %d failed to take the config", self._context.index + 1)
            self._control.set_refused(self._context.index, generation)
        else:
            self._config = config
            configure_process_log(config.log.level)
            self._control.set_applied(self._context.index, generation)

    def _end_orphaned(self) -> None:
        """Drain and end: the parent was killed, and nobody else will tell us to."""
        _log.error("worker %d ends: its parent is gone", self._context.index + 1)
        self._orphaned = True
        self.app.draining = True
        cut = threading.Timer(self._config.server.drain_delay_s + self._config.server.drain_timeout_s, os._exit, (0,))
        cut.daemon = True
        cut.start()
        asyncio.get_running_loop().call_later(self._config.server.drain_delay_s, os.kill, os.getpid(), signal.SIGTERM)


def held_by_granian(descriptor: int, backlog: int) -> Any:
    """Wrap a listening socket as granian's workers take it."""
    from granian import net

    holder: Any = getattr(net, "SocketHolder")  # noqa: B009  (its stub lacks the arguments)
    return holder(descriptor, False, backlog)


def snapshot_path(folder: Path, generation: int) -> Path:
    """Return where the parent puts the config of a generation: beside the control block."""
    return folder / f"config-{generation}"


def report_faults(error: ConfigError, what: str) -> None:
    """Log one line for each fault."""
    for fault in error.faults:
        _log.error("%s: %s", what, fault)


def load_worker(start: WorkerStart) -> Worker:
    """Build and start the application on the loop that granian made; granian calls this in the worker's process."""
    configure_process_log(start.config.log.level)
    logging.getLogger("_granian").addFilter(_is_no_notice)
    logging.getLogger("_granian.utils").addFilter(_is_no_cut)
    try:
        worker = Worker(start)
        asyncio.get_event_loop().run_until_complete(worker.startup())
    except ConfigError as error:
        if start.context.index == 0 or start.generation > 1:  # at the first start all workers find the same
            report_faults(error, "not started")
        sys.exit(EXIT_CONFIG)
    except Exception:
        _log.exception("worker %d did not start", start.context.index + 1)
        sys.exit(EXIT_FAILED)
    return worker


def _is_no_notice(record: logging.LogRecord) -> bool:
    """Drop granian's remark that its embedded server is experimental: it was tried (tests/journey/test_serve_*.py)."""
    return record.msg != "Embedded server is experimental!"


def _is_no_cut(record: logging.LogRecord) -> bool:
    """Drop granian's traceback of an UpstreamFault: raising it cuts a response that broke off, and is logged before."""
    return "\nUpstreamFault: " not in record.getMessage()


def run_worker(  # noqa: PLR0917
    worker_id: int,
    process_name: str | None,
    loader: Callable[[], Worker],
    sock: Any,
    ipc: Any,
    loop_impl: Any,
    *rest: Any,
) -> None:
    """Live as a worker; the target of the new process, with the arguments that granian gives its own.

    The parent starts us with SIGTERM blocked. Until granian takes the signal over, it ends the process at once: there
    is nothing to drain. SIGINT comes from a terminal to the whole group; the parent turns it into an orderly end.
    """
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    born: list[Worker] = []

    def load() -> ASGICallable:
        worker = loader()
        born.append(worker)
        asyncio.get_event_loop().call_soon(worker.enter_service)  # the loop rests until granian has begun to serve
        return worker.app.asgi

    MPServer._spawn_asgi_worker(worker_id, process_name, load, sock, ipc, loop_impl, *rest)
    asyncio.get_event_loop().run_until_complete(born[0].shutdown())


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _leave(_signal: int, _frame: object) -> None:
    os._exit(0)
