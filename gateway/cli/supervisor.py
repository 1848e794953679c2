"""The parent process: starts the workers, keeps them alive, reloads them in place, ends them without losing a request.

    starting ──all workers ready──▸ serving ──SIGTERM──▸ draining ──drain_delay_s──▸ stopping ──▸ 0
        │                            │  ▴                    │                           │
        │ SIGTERM: 0, at once        │  └ SIGHUP: reload      └────second SIGTERM: 0, at once
        └ a worker fails: 1 or 2     └ a worker dies: another takes its place

granian's `MPServer` (checked with 2.8.7) makes the worker processes from its own settings; the rest is ours, because
its loop loses a SIGTERM that comes while a worker starts, replaces workers to reload, gives up when a worker dies twice
in 5.5 s, and watches with threads, which do not go well with fork. What differs:

- One listening socket, bound here and shared by all workers: while a worker is replaced the kernel keeps connections
  for the others or for the next one, and a busy worker does not hold connections that another could take.
- The parent has one thread. It sleeps until a signal or the end of a worker wakes it.
- A worker that dies is replaced at once; one that keeps dying, with growing pauses of at most 5 s. Where no worker gets
  ready any more the parent gives up, so that whoever started it notices.
- A reload goes through the control block: the parent loads and checks the config, writes a snapshot of what it read and
  counts the generation up; each worker takes the snapshot between two requests. If one cannot, all go back to the
  former.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing.connection
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

import msgspec
from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from gateway.cli.control import ControlBlock, WorkerState
from gateway.cli.folders import PassingDir, lasting_dir
from gateway.cli.systemd import notify, notify_reloading
from gateway.cli.worker import (
    ADMIN_BACKLOG,
    EXIT_CONFIG,
    GRANIAN_LOG,
    LOOK_S,
    STOP_SIGNALS,
    WorkerStart,
    held_by_granian,
    load_worker,
    report_faults,
    run_worker,
    snapshot_path,
)
from gateway.config import KIB, Config, ServerConfig
from gateway.config.check_parts import is_loopback
from gateway.config.checks import split_listen
from gateway.errors import ConfigError, ConfigFault
from gateway.observability.metrics import create_map
from gateway.observability.process_log import configure_process_log
from gateway.types import WorkerContext

CONTROL, METRICS = "control", "metrics"  # names in the passing folder
BUFFER_BYTES = 128 * KIB  # at least this much of a connection is buffered, so that heads are judged by our own limits
HEADER_TIMEOUT_S = 30.0  # for a request's head; granian closes idle connections after it too
START_GRACE_S = 1.0  # for a worker that is told to end before it is ready
STEADY_S = 10.0  # a worker that lived this long did not die of its start
RESPAWN_DELAY_S_MAX = 5.0
FRUITLESS_STARTS_MAX = 6  # in a row, while no worker is ready: then the parent gives up
FILES_WANTED = 1 << 20  # open files: each connection is one
RELOAD_PATIENCE_S = 10.0  # for all workers to take a config; afterwards the log says who did not

# What a running gateway cannot change.
RESTART_KEYS = ("listen", "admin_listen", "workers", "backlog", "backpressure", "inline", "run_dir")

_log = logging.getLogger("portcullis.serve")


class CannotListen(Exception):
    """An address cannot be bound."""


class GranianWorkers(MPServer):
    """granian's settings for our workers, and its way to make a process of them; nothing else of it runs."""

    def __init__(self, server: ServerConfig, workers: int, doors: socket.socket) -> None:
        super().__init__(
            target="",
            interface=Interfaces.ASGINL,
            workers=workers,
            runtime_threads=1,
            runtime_mode=RuntimeModes.st,
            loop=Loops.uvloop,
            http=HTTPModes.http1,
            websockets=True,
            backlog=server.backlog,
            backpressure=server.backpressure,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(HEADER_TIMEOUT_S * 1000),
                max_buffer_size=max(BUFFER_BYTES, 2 * server.header_bytes_max),
            ),
            log_level=LogLevels.warning,
            log_dictconfig=GRANIAN_LOG,
            log_access=False,
        )
        shared: Any = self  # granian annotates neither
        shared._ssp, shared._shd, shared._sso = None, held_by_granian(doors.fileno(), self.backlog), doors

    def make(self, start: WorkerStart) -> BaseProcess:
        """Make the process of one worker, not started yet."""
        made: BaseProcess = self._spawn_worker(start.context.index, run_worker, partial(load_worker, start)).inner
        return made


class Child:
    """A worker process as the parent sees it; `process` is None between a death and the next start."""

    __slots__ = ("deaths", "process", "start_at_s", "started_s")

    def __init__(self) -> None:
        self.process: BaseProcess | None = None
        self.started_s = 0.0
        self.start_at_s = 0.0  # when the next start is due
        self.deaths = 0  # in a row, each less than STEADY_S after its start

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.is_alive()


class Supervisor:
    """Run a config in worker processes until a signal ends it: `run` gives the exit status.

    `load` gives the config anew on SIGHUP, or raises ConfigError; `program` is the module with `build_app` and
    `metrics_layout`. For the main thread of a process that has started no others.
    """

    def __init__(self, config: Config, load: Callable[[], Config], *, program: str = "gateway.app") -> None:
        refuse_open_admin(config)
        self._config = config
        self._load = load
        self._program = program
        self._workers = config.server.workers or len(os.sched_getaffinity(0))
        self._children = [Child() for _ in range(self._workers)]
        self._exit_status = 0
        self._stops = 0  # how often we were told to end
        self._reload_asked = False
        self._reload_from: Config | None = None  # the config to go back to, while workers take a newer one
        self._reload_deadline_s = 0.0
        self._announced = False  # ready was said
        self._fruitless = 0  # starts in a row that ended before a worker was ready
        self._begun_s = time.monotonic()

    def run(self) -> int:
        """Serve until the end; give 0, or 1 for a failure, or 2 for a config that no worker could serve."""
        configure_process_log(self._config.log.level)
        raise_file_limit()
        leave_no_core()
        program = importlib.import_module(self._program)  # before the workers, who share its memory
        lasting = lasting_dir(self._config.server.run_dir, os.environ)
        with PassingDir(lasting) as passing, self._signals(), self._listeners():
            self._run_dir = lasting or passing.path
            self._folder = passing.path
            create_map(self._folder / METRICS, program.metrics_layout(), self._workers)
            self._control = ControlBlock.create(self._folder / CONTROL, self._workers)
            self._control.generation = 1
            self._granian = GranianWorkers(self._config.server, self._workers, self._doors)
            while not self._stops and self._exit_status == 0:
                self._turn()
            self._end()
        return self._exit_status

    # ---------------------------------------------------------------------------------------------------- what we hold

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Count SIGTERM and SIGINT, note SIGHUP, and let each wake us."""
        self._wake_reader, writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        writer.setblocking(False)
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        old_wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_stop)
        signal.signal(signal.SIGHUP, self._note_reload)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_wakeup)
            self._wake_reader.close()
            writer.close()

    def _note_stop(self, _signal: int, _frame: object) -> None:
        self._stops += 1

    def _note_reload(self, _signal: int, _frame: object) -> None:
        self._reload_asked = True

    @contextlib.contextmanager
    def _listeners(self) -> Iterator[None]:
        """Bind the addresses of the doors and of the admin listener. Raises CannotListen."""
        server = self._config.server
        with contextlib.ExitStack() as held:
            self._doors = held.enter_context(listen_on(server.listen, server.backlog))
            self._admin = (
                held.enter_context(listen_on(server.admin_listen, ADMIN_BACKLOG)) if server.admin_listen else None
            )
            yield

    # -------------------------------------------------------------------------------------------------------- the loop

    def _turn(self) -> None:
        """Do what is due, then sleep until there is more."""
        self._bury()
        self._start_due()
        self._announce()
        self._follow_reload()
        if self._reload_asked and self._reload_from is None:
            self._begin_reload()
        self._sleep(self._next_look_s())

    def _next_look_s(self) -> float | None:
        """Say how long nothing needs us but signals and deaths; None is for ever."""
        if self._stops or self._exit_status:
            return 0.0
        if not self._announced or self._reload_from is not None:
            return LOOK_S / 2
        due = [child.start_at_s for child in self._children if child.process is None]
        if due:
            return max(0.0, min(due) - time.monotonic())
        if any(self._control.state(index) is not WorkerState.READY for index in range(self._workers)):
            return LOOK_S
        return None

    def _sleep(self, timeout_s: float | None) -> None:
        """Wait for a signal, the end of a worker, or the time."""
        living = [child.process.sentinel for child in self._children if child.process is not None]
        multiprocessing.connection.wait([self._wake_reader, *living], timeout_s)
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass

    # ------------------------------------------------------------------------------------------------- workers' lives

    def _start_due(self) -> None:
        """Start the workers that are missing and whose time has come."""
        now = time.monotonic()
        for index, child in enumerate(self._children):
            if child.process is None and child.start_at_s <= now and not self._stops and not self._exit_status:
                self._start(index, child)

    def _start(self, index: int, child: Child) -> None:
        start = WorkerStart(
            context=WorkerContext(
                index=index,
                worker_count=self._workers,
                control_path=self._folder / CONTROL,
                metrics_path=self._folder / METRICS,
                run_dir=self._run_dir,
            ),
            config=self._config,
            generation=self._control.generation,
            program=self._program,
            admin_listener=self._admin,
            parent_pid=os.getpid(),
        )
        self._control.clear(index)
        process = self._granian.make(start)
        # The new process inherits the mask, so no signal reaches it before it has handlers of its own (run_worker).
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        child.process = process
        child.started_s = time.monotonic()
        _log.debug("worker %d started with pid %d", index + 1, process.pid)

    def _bury(self) -> None:
        """Look for workers that ended by themselves, and decide when others take their places."""
        ready = self._count(WorkerState.READY)
        if ready:
            self._fruitless = 0
        for index, child in enumerate(self._children):
            if child.process is None or child.lives:
                continue
            process = child.process
            process.join()
            child.process = None
            was_ready = self._control.state(index) in (WorkerState.READY, WorkerState.STOPPING)
            self._control.clear(index)
            if not was_ready and not self._announced:
                _log.error("worker %d %s before it was ready", index + 1, how_it_ended(process.exitcode))
                self._exit_status = EXIT_CONFIG if process.exitcode == EXIT_CONFIG else 1
                return
            now = time.monotonic()
            child.deaths = child.deaths + 1 if now - child.started_s < STEADY_S else 0
            self._fruitless += not was_ready
            delay_s = min(RESPAWN_DELAY_S_MAX, 0.1 * 2 ** (child.deaths - 2)) if child.deaths > 1 else 0.0
            child.start_at_s = now + delay_s
            _log.error(
                "worker %d (pid %d) %s; another takes its place in %.1f s",
                index + 1,
                process.pid,
                how_it_ended(process.exitcode),
                delay_s,
            )
        if self._fruitless >= FRUITLESS_STARTS_MAX and self._count(WorkerState.READY) == 0:
            _log.error("giving up: the last %d workers ended before they were ready", self._fruitless)
            self._exit_status = 1

    def _count(self, state: WorkerState) -> int:
        return sum(self._control.state(index) is state for index in range(self._workers))

    def _announce(self) -> None:
        """Say once that all workers are ready."""
        if self._announced or self._count(WorkerState.READY) < self._workers:
            return
        self._announced = True
        notify("READY=1", f"MAINPID={os.getpid()}")
        _log.info(
            "ready after %.2f s: doors on http://%s, admin on %s, workers: %d",
            time.monotonic() - self._begun_s,
            address_of(self._doors),
            f"http://{address_of(self._admin)}" if self._admin is not None else "no listener",
            self._workers,
        )

    # -------------------------------------------------------------------------------------------------------- reloads

    def _begin_reload(self) -> None:
        """Load the config anew and publish it; what cannot be loaded is logged, and the running one stays."""
        self._reload_asked = False
        notify_reloading()
        try:
            fresh = self._load()
            refuse_open_admin(fresh)
        except ConfigError as error:
            report_faults(error, "not reloaded")
            self._end_reload("the running config stays")
            return
        except Exception:
            _log.exception("not reloaded: the config could not be read")
            self._end_reload("the running config stays")
            return
        fresh = keep_fixed(self._config, fresh)
        self._reload_from = self._config
        self._publish(fresh)

    def _publish(self, config: Config) -> None:
        """Give all workers another config: the snapshot first, then the number that makes them look for it."""
        generation = self._control.generation + 1
        path = snapshot_path(self._folder, generation)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.msgpack.encode(config))
        self._config = config
        self._reload_deadline_s = time.monotonic() + RELOAD_PATIENCE_S
        self._control.generation = generation

    def _follow_reload(self) -> None:
        """See whether all workers took the config that was published."""
        if self._reload_from is None:
            return
        generation = self._control.generation
        states = [
            (index, self._control.applied(index), self._control.refused(index))
            for index in range(self._workers)
            if self._control.state(index) is WorkerState.READY
        ]
        if any(refused == generation for _, _, refused in states):
            self._publish(self._reload_from)
            self._reload_from = None
            self._end_reload("a worker could not serve the new config: the former one is back")
        elif len(states) == self._workers and all(applied == generation for _, applied, _ in states):
            self._reload_from = None
            configure_process_log(self._config.log.level)
            self._end_reload(f"reloaded: generation {generation}")
        elif time.monotonic() > self._reload_deadline_s:
            late = ", ".join(str(index + 1) for index, applied, _ in states if applied != generation) or "a new one"
            self._reload_from = None
            self._end_reload(f"reloaded: generation {generation}, but not yet by worker {late}")

    def _end_reload(self, outcome: str) -> None:
        keep = {snapshot_path(self._folder, self._control.generation - back) for back in (0, 1)}
        for path in self._folder.glob("config-*"):
            if path not in keep:
                path.unlink(missing_ok=True)
        notify("READY=1")
        _log.info("%s", outcome)

    # -------------------------------------------------------------------------------------------------------- the end

    def _end(self) -> None:
        """Drain, then stop the workers; a second signal cuts it short."""
        notify("STOPPING=1")
        server = self._config.server
        if not self._exit_status and self._count(WorkerState.READY):
            _log.info(
                "draining for %.1f s, then up to %.0f s for what still runs",
                server.drain_delay_s,
                server.drain_timeout_s,
            )
            self._control.draining = True
            self._wait_for(lambda: self._living() == 0, server.drain_delay_s)
        self._doors.close()
        begun_s = time.monotonic()
        for child in self._children:
            if child.process is not None:
                child.process.terminate()
        while self._living() and self._stops < 2:
            elapsed_s = time.monotonic() - begun_s
            if elapsed_s >= server.drain_timeout_s:
                break
            if elapsed_s >= START_GRACE_S:
                self._kill(lambda index: self._control.state(index) in (WorkerState.ABSENT, WorkerState.STARTING))
            self._sleep(LOOK_S)
        if self._living():
            _log.warning("%d workers still had requests: cut", self._living())
        self._kill(lambda _: True)
        _log.info("ended")

    def _wait_for(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Sleep until something holds, the time is over, or a second signal says at once."""
        deadline_s = time.monotonic() + timeout_s
        while not done() and self._stops < 2 and (left_s := deadline_s - time.monotonic()) > 0:
            self._sleep(left_s)

    def _living(self) -> int:
        return sum(child.lives for child in self._children)

    def _kill(self, which: Callable[[int], bool]) -> None:
        for index, child in enumerate(self._children):
            if child.process is not None and child.lives and which(index):
                child.process.kill()
                child.process.join()


def refuse_open_admin(config: Config) -> None:
    """Raise ConfigError where probes and metrics could be reached from other machines without being asked for."""
    server = config.server
    place = split_listen(server.admin_listen) if server.admin_listen else ("localhost", 0)
    if place is None or not (is_loopback(place[0]) or server.public_admin):
        problem = f"`{server.admin_listen}` can be reached from other machines"
        raise ConfigError([ConfigFault("config", None, "server.admin_listen", problem, "say `public_admin = true`")])


def keep_fixed(running: Config, fresh: Config) -> Config:
    """Return `fresh` with what only a restart can change as it is in `running`; the log names what differs."""
    fixed = {name: getattr(running.server, name) for name in RESTART_KEYS}
    for name, value in fixed.items():
        if getattr(fresh.server, name) != value:
            _log.warning("server.%s needs a restart: `%s` stays", name, value)
    return msgspec.structs.replace(fresh, server=msgspec.structs.replace(fresh.server, **fixed))


def listen_on(address: str, backlog: int) -> socket.socket:
    """Bind a listening socket for workers to share. Raises CannotListen."""
    place = split_listen(address)
    if place is None:
        raise CannotListen(f"`{address}` is no address")
    host, port = place
    try:
        family, _, _, _, resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server((str(resolved[0]), port), family=family, backlog=backlog)
    except OSError as error:
        raise CannotListen(f"cannot listen on `{address}`: {(error.strerror or str(error)).lower()}") from error
    listener.setblocking(False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted from it has it too
    return listener


def address_of(listener: socket.socket) -> str:
    """Return `host:port` as it is bound."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def how_it_ended(exitcode: int | None) -> str:
    """Say how a process ended."""
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-exitcode).name}"
    return f"ended with status {exitcode}"


def raise_file_limit() -> None:
    """Allow more open files, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def leave_no_core() -> None:
    """Have no memory of ours, in which keys and passwords lie, written to a disk when a process of ours dies.

    Whoever needs a core sets the limit of the running process: `prlimit --core=unlimited --pid PID`.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
