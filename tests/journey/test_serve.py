"""The parent and its workers as real processes, around a stub application: start, reload, drain, death."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.journey.stub_app import REFUSED_REALM
from tests.real.http import Answer, Connection, ask, request_bytes
from tests.real.process import START_TIMEOUT_S, ServerProcess, accepts, free_port, wait_until

pytestmark = pytest.mark.journey

START_S_MAX = 5.0


class Stub:
    """A served stub application, its config file and its log."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None, **server: Any) -> None:
        self.folder = folder
        self.path = folder / "portcullis.toml"
        self.port = free_port()
        self.admin_port = free_port()
        self.run_dir = folder / "run"
        self.settings: dict[str, object] = {
            "listen": f"127.0.0.1:{self.port}",
            "admin_listen": f"127.0.0.1:{self.admin_port}",
            "run_dir": str(self.run_dir),
            "drain_delay_s": 0.2,
            "realm": "first",
            **server,
        }
        self.write()
        command = [sys.executable, "-m", "tests.journey.stub_app", str(self.path)]
        self.server = ServerProcess(command, folder / "log", cwd=ROOT, env=env)

    def write(self, **changes: object) -> None:
        self.settings.update(changes)
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.settings.items()]
        self.path.write_text("\n".join(["[server]", *lines, ""]))

    def wait_ready(self) -> None:
        self.server.wait_for(lambda: "ready after" in self.server.output, "the stub")

    def reload(self, **changes: object) -> None:
        self.write(**changes)
        self.server.signal(signal.SIGHUP)

    def logged(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.server.output.count(text) >= times, f"`{text}` in the log:\n{self.server.output}")

    def ask(self, target: str) -> Answer:
        return ask(self.port, "GET", target)

    def text(self, target: str) -> str:
        return self.ask(target).body.decode()

    def admin(self) -> int:
        return ask(self.admin_port, "GET", "/readyz").status

    def wait_end(self, timeout_s: float = 10.0) -> int:
        try:
            return self.server.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not end within {timeout_s} s:\n{self.server.output}")

    def passing_dirs(self) -> list[Path]:
        """Return the folders of shared maps that this process holds."""
        maps = Path(f"/proc/{self.server.process.pid}/maps").read_text()
        return sorted({Path(line.split()[-1]).parent for line in maps.splitlines() if line.endswith("/control")})


@contextlib.contextmanager
def stub(folder: Path, env: dict[str, str] | None = None, **server: Any) -> Iterator[Stub]:
    """Serve the stub for the time of a test."""
    started = Stub(folder, env, **server)
    try:
        started.wait_ready()
        yield started
    finally:
        started.server.stop()


class Clients:
    """Threads that ask in a loop, each in its own way, until they are told to stop; `errors` is what went wrong."""

    def __init__(self, *loops: Callable[[Callable[[], bool]], None]) -> None:
        self.errors: list[str] = []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(loop,)) for loop in loops]

    def _run(self, loop: Callable[[Callable[[], bool]], None]) -> None:
        try:
            loop(lambda: not self._done.is_set())
        except Exception as error:
            self.errors.append(repr(error))

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(START_TIMEOUT_S)
            assert not thread.is_alive()


# ---------------------------------------------------------------------------------------------------------------- start


def test_serve_is_ready_within_five_seconds_and_answers_on_both_listeners(tmp_path: Path) -> None:
    begun = time.monotonic()
    with stub(tmp_path, workers=2) as served:
        assert time.monotonic() - begun < START_S_MAX
        assert served.text("/realm") == "first"
        assert served.admin() == 200


def test_what_a_worker_starts_with_is_not_looked_through_again(tmp_path: Path) -> None:
    with stub(tmp_path) as served:
        assert int(served.text("/frozen")) > 10_000


def test_two_workers_both_answer(tmp_path: Path) -> None:
    with stub(tmp_path, workers=2) as served:
        seen: set[str] = set()

        def saw_both() -> bool:
            seen.add(served.text("/index"))
            return seen == {"0", "1"}

        wait_until(saw_both, "answers of both workers")


def test_zero_workers_means_one_a_core(tmp_path: Path) -> None:
    with stub(tmp_path, workers=0) as served:
        assert f"workers: {len(os.sched_getaffinity(0))}" in served.server.output


@pytest.mark.parametrize(
    ("settings", "place", "message"),
    [
        ({"realm": "x", "lisen": "y"}, "portcullis.toml:", "lisen"),
        ({"admin_listen": "0.0.0.0:0"}, "portcullis.toml:", "other machines"),
        ({"realm": REFUSED_REALM}, "portcullis.toml:1", "the stub does not like it"),
    ],
)
def test_a_config_that_cannot_be_used_ends_with_status_2_and_its_place(
    tmp_path: Path, settings: dict[str, Any], place: str, message: str
) -> None:
    served = Stub(tmp_path, workers=2, **settings)
    try:
        assert served.wait_end() == 2
        line = next(line for line in served.server.output.splitlines() if message in line)
        assert place in line
        assert served.server.output.count(message) == 1, "one line, not one a worker"
    finally:
        served.server.stop()


def test_a_run_dir_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    open_dir = tmp_path / "open"
    open_dir.mkdir()
    open_dir.chmod(0o777)
    served = Stub(tmp_path, run_dir=str(open_dir))
    try:
        assert served.wait_end() == 2
        assert "can be written to by others" in served.server.output
    finally:
        served.server.stop()


def test_an_address_in_use_ends_with_status_1_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        served = Stub(tmp_path, listen=address)
        try:
            assert served.wait_end() == 1
            assert f"cannot listen on `{address}`: address already in use" in served.server.output
        finally:
            served.server.stop()


def test_a_worker_that_fails_to_start_ends_everything_with_status_1(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "started").touch()
    served = Stub(tmp_path, {"STUB_CRASH_AFTER": "1"}, workers=2)
    try:
        assert served.wait_end() == 1
        assert "the stub crashes as it was told to" in served.server.output
    finally:
        served.server.stop()


def test_the_lifespan_ends_and_no_file_is_left(tmp_path: Path) -> None:
    with stub(tmp_path, workers=2) as served:
        folders = served.passing_dirs()
        assert len(folders) == 1
        assert folders[0].stat().st_mode & 0o077 == 0
        served.server.signal(signal.SIGTERM)
        assert served.wait_end() == 0
        assert not folders[0].exists()
        assert {path.name for path in served.run_dir.glob("stopped-*")} == {"stopped-0", "stopped-1"}


def test_systemd_is_told_how_far_it_is(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address = str(tmp_path / "notify")
        systemd.bind(address)
        systemd.settimeout(START_TIMEOUT_S)
        with stub(tmp_path, {"NOTIFY_SOCKET": address}) as served:
            assert systemd.recv(1000).decode() == f"READY=1\nMAINPID={served.server.process.pid}"
            served.reload(realm="second")
            assert systemd.recv(1000).decode().startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(1000) == b"READY=1"
            served.server.signal(signal.SIGTERM)
            assert systemd.recv(1000) == b"STOPPING=1"


def test_workers_can_be_spawned_where_python_does_not_fork(tmp_path: Path) -> None:
    with stub(tmp_path, {"STUB_START_METHOD": "spawn"}, workers=2) as served:
        assert served.text("/realm") == "first"
        assert served.admin() == 200
        served.reload(realm="second")
        served.logged("reloaded: generation 2")
        assert served.text("/realm") == "second"
        os.kill(int(served.text("/pid")), signal.SIGKILL)
        served.logged("takes its place")
        assert {served.text("/realm") for _ in range(10)} == {"second"}
        served.server.signal(signal.SIGTERM)
        assert served.wait_end() == 0


# --------------------------------------------------------------------------------------------------------------- reload


def test_reload_under_load_loses_no_request_and_every_worker_takes_it(tmp_path: Path) -> None:
    with stub(tmp_path, workers=2) as served:
        realms = [f"realm-{i}" for i in range(5)]
        known = {"first", *realms}
        asked = [0, 0]

        def keep_alive(going: Callable[[], bool]) -> None:
            with Connection(served.port) as connection:
                while going():
                    answer = connection.request("GET", "/realm")
                    assert answer.status == 200
                    assert answer.body.decode() in known
                    asked[0] += 1

        def fresh(going: Callable[[], bool]) -> None:
            while going():
                assert served.text("/realm") in known
                asked[1] += 1

        with Clients(keep_alive, keep_alive, fresh, fresh) as clients:
            for count, realm in enumerate(realms, 1):
                served.reload(realm=realm)
                served.logged("reloaded: generation", count)
                assert {served.text("/realm") for _ in range(20)} == {realm}
        assert clients.errors == []
        assert min(asked) > 50
        assert "takes its place" not in served.server.output, "no worker was started anew"
        assert len(list(served.passing_dirs()[0].glob("config-*"))) <= 2


def test_a_config_that_does_not_load_leaves_the_running_one_and_says_why_with_its_place(tmp_path: Path) -> None:
    with stub(tmp_path, workers=2) as served:
        served.reload(realm="second", lisen="x", body_timeout_s=-1)
        served.logged("not reloaded: ", 2)
        served.logged("the running config stays")
        lines = [line for line in served.server.output.splitlines() if "not reloaded: " in line]
        assert len(lines) == 2, "one line a fault"
        assert all(f"{served.path}:" in line for line in lines)
        assert {served.text("/realm") for _ in range(10)} == {"first"}
        served.path.write_text("[server\n")
        served.server.signal(signal.SIGHUP)
        served.logged("the running config stays", 2)
        served.path.unlink()
        served.server.signal(signal.SIGHUP)
        served.logged("the running config stays", 3)
        assert served.text("/realm") == "first"
        del served.settings["lisen"], served.settings["body_timeout_s"]
        served.reload(realm="third")
        served.logged("reloaded: generation 2")
        assert {served.text("/realm") for _ in range(10)} == {"third"}


def test_a_worker_that_is_started_anew_does_not_read_a_broken_file(tmp_path: Path) -> None:
    with stub(tmp_path) as served:
        served.reload(realm="second")
        served.logged("reloaded: generation 2")
        served.path.write_text("broken")
        os.kill(int(served.text("/pid")), signal.SIGKILL)
        served.logged("takes its place")
        assert served.text("/realm") == "second"


def test_a_config_that_one_worker_refuses_is_taken_back_from_all(tmp_path: Path) -> None:
    with stub(tmp_path, {"STUB_REFUSED_BY": "1"}, workers=2) as served:
        served.reload(realm=REFUSED_REALM)
        served.logged("not reloaded: portcullis.toml:1: server.realm")
        served.logged("the former one is back")
        wait_until(lambda: {served.text("/realm") for _ in range(20)} == {"first"}, "the former config everywhere")
        served.reload(realm="second")
        served.logged("reloaded: generation")
        assert {served.text("/realm") for _ in range(20)} == {"second"}


def test_what_only_a_restart_can_change_is_named_and_stays(tmp_path: Path) -> None:
    with stub(tmp_path) as served:
        served.reload(realm="second", listen=f"127.0.0.1:{free_port()}", workers=3)
        served.logged("reloaded: generation 2")
        assert "server.listen needs a restart" in served.server.output
        assert "server.workers needs a restart" in served.server.output
        assert "server.admin_listen needs" not in served.server.output
        assert served.text("/realm") == "second"


# ---------------------------------------------------------------------------------------------------------------- drain


def test_sigterm_under_load_breaks_no_client_that_honours_connection_close(tmp_path: Path) -> None:
    with stub(tmp_path, workers=2, drain_delay_s=0.5) as served:
        sent_away = []

        def keep_alive(going: Callable[[], bool]) -> None:
            with Connection(served.port) as connection:
                while going():
                    answer = connection.request("GET", "/realm")
                    assert answer.status == 200
                    if answer.all("connection") == ["close"]:
                        sent_away.append("kept")
                        return

        def fresh(going: Callable[[], bool]) -> None:
            while going():
                answer = served.ask("/realm")
                assert answer.status == 200
                if answer.all("connection") == ["close"]:
                    sent_away.append("fresh")
                    return

        def slow(going: Callable[[], bool]) -> None:
            assert ask(served.port, "GET", "/slow/2").body == b"slow"
            sent_away.append("slow")

        with Clients(keep_alive, keep_alive, keep_alive, fresh, fresh, slow) as clients:
            wait_until(lambda: accepts(served.port), "some traffic")
            time.sleep(0.3)  # so that all clients are in the middle of it
            served.server.signal(signal.SIGTERM)
            assert served.wait_end() == 0
        assert clients.errors == []
        assert sorted(sent_away) == ["fresh", "fresh", "kept", "kept", "kept", "slow"]


def test_readiness_goes_before_the_doors_do_and_is_told_until_the_end(tmp_path: Path) -> None:
    with stub(tmp_path, drain_delay_s=1.0) as served, Connection(served.port) as busy:
        busy.send(request_bytes("GET", "/slow/3"))
        served.server.signal(signal.SIGTERM)
        wait_until(lambda: served.admin() == 503, "not ready")
        assert served.text("/realm") == "first", "the doors still answer while readiness is gone"
        wait_until(lambda: not accepts(served.port), "closed doors")
        assert served.admin() == 503, "probes are answered until the last request is over"
        assert busy.read_answer().body == b"slow"
        assert served.wait_end() == 0


def test_what_still_runs_after_the_drain_timeout_is_cut(tmp_path: Path) -> None:
    with stub(tmp_path, drain_delay_s=0, drain_timeout_s=0.5) as served, Connection(served.port) as client:
        client.send(request_bytes("GET", "/hang"))
        assert served.text("/realm") == "first"
        served.server.signal(signal.SIGTERM)
        begun = time.monotonic()
        assert served.wait_end() == 0
        assert time.monotonic() - begun < 3
        assert "still had requests: cut" in served.server.output
        assert client.read_to_end() == b""


def test_a_second_sigterm_ends_at_once(tmp_path: Path) -> None:
    with stub(tmp_path, drain_delay_s=20) as served, Connection(served.port) as client:
        client.send(request_bytes("GET", "/hang"))
        served.server.signal(signal.SIGTERM)
        served.logged("draining")
        assert served.server.process.poll() is None
        served.server.signal(signal.SIGTERM)
        assert served.wait_end(2.0) == 0


def test_ctrl_c_drains_though_a_terminal_sends_it_to_the_workers_too(tmp_path: Path) -> None:
    with stub(tmp_path, workers=2, drain_delay_s=1.0) as served:
        os.killpg(served.server.process.pid, signal.SIGINT)
        wait_until(lambda: served.admin() == 503, "not ready")
        assert {served.text("/index") for _ in range(30)} <= {"0", "1"}, "still answered"
        assert served.wait_end() == 0
        assert "takes its place" not in served.server.output


# ----------------------------------------------------------------------------------------------- SIGTERM during start


def test_sigterm_at_any_moment_of_the_start_ends_it_quickly(tmp_path: Path) -> None:
    chooser = random.Random(20_261)
    outcomes = []
    for round_number in range(20):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        slow = {"STUB_BUILD_S": "0.15", "STUB_STARTUP_S": "0.15"} if round_number % 2 else {}
        served = Stub(folder, slow, workers=2)
        try:
            time.sleep(chooser.uniform(0.0, 0.9))
            served.server.signal(signal.SIGTERM)
            begun = time.monotonic()
            status = served.wait_end(5.0)
            assert time.monotonic() - begun < 3.0, served.server.output
            outcomes.append(status)
        finally:
            served.server.stop()
        assert not accepts(served.port)
    # Until Python runs our first line nobody can catch a signal: the system's own end by SIGTERM is as good.
    assert set(outcomes) <= {0, -signal.SIGTERM}
    assert outcomes.count(0) >= 5


@pytest.mark.parametrize("slow", ["STUB_BUILD_S", "STUB_STARTUP_S"])
def test_sigterm_while_workers_start_ends_with_status_0(tmp_path: Path, slow: str) -> None:
    served = Stub(tmp_path, {slow: "30"}, workers=2)
    try:
        wait_until(lambda: len(children_of(served.server.process.pid)) == 2, "two workers that start")
        served.server.signal(signal.SIGTERM)
        assert served.wait_end(3.0) == 0
    finally:
        served.server.stop()


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


# ---------------------------------------------------------------------------------------------------------------- death


def test_a_killed_worker_is_replaced_and_new_connections_wait_for_the_next_one(tmp_path: Path) -> None:
    with stub(tmp_path, {"STUB_BUILD_S": "0.3"}) as served:
        for death in range(1, 4):  # three within seconds: granian would give up at the second
            before = served.text("/pid")
            os.kill(int(before), signal.SIGKILL)
            after = served.text("/pid")
            assert after not in ("", before)
            served.logged("was ended by SIGKILL; another takes its place", death)
        assert served.server.process.poll() is None
        served.server.signal(signal.SIGTERM)
        assert served.wait_end() == 0


def test_the_other_worker_answers_while_one_is_replaced(tmp_path: Path) -> None:
    with stub(tmp_path, workers=2) as served:
        os.kill(children_of(served.server.process.pid)[0], signal.SIGKILL)
        for _ in range(50):
            assert served.text("/realm") == "first"
        served.logged("takes its place")


def test_a_worker_that_is_replaced_takes_the_next_reload(tmp_path: Path) -> None:
    with stub(tmp_path, workers=2) as served:
        os.kill(int(served.text("/pid")), signal.SIGKILL)
        served.logged("takes its place")
        served.reload(realm="second")
        served.logged("reloaded: generation 2")
        assert {served.text("/realm") for _ in range(20)} == {"second"}


def test_the_parent_gives_up_where_no_worker_gets_ready_any_more(tmp_path: Path) -> None:
    with stub(tmp_path, {"STUB_CRASH_AFTER": "1"}) as served:
        os.kill(int(served.text("/pid")), signal.SIGKILL)
        assert served.wait_end(20.0) == 1
        assert "giving up" in served.server.output


def test_workers_end_when_their_parent_was_killed(tmp_path: Path) -> None:
    with stub(tmp_path, workers=2) as served:
        workers = children_of(served.server.process.pid)
        assert len(workers) == 2
        served.server.signal(signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers), "the end of both workers")
        # A process's first thread may be gone while the kernel still ends the others, who share its sockets.
        wait_until(lambda: not accepts(served.port), "the end of the doors")
        wait_until(lambda: not accepts(served.admin_port), "the end of the admin listener")


# ---------------------------------------------------------------------------------------------------------------- admin


def test_probes_are_answered_while_the_doors_are_full(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        served = held.enter_context(stub(tmp_path, backpressure=2, drain_delay_s=0, drain_timeout_s=0.2))
        for _ in range(4):
            held.enter_context(Connection(served.port)).send(request_bytes("GET", "/hang"))
        waiting = held.enter_context(Connection(served.port, timeout_s=0.5))
        waiting.send(request_bytes("GET", "/realm"))
        with pytest.raises(TimeoutError):
            waiting.read_answer()
        begun = time.monotonic()
        assert served.admin() == 200
        assert time.monotonic() - begun < 1


def test_the_admin_listener_can_be_off(tmp_path: Path) -> None:
    with stub(tmp_path, admin_listen="") as served:
        assert served.text("/realm") == "first"
        assert not accepts(served.admin_port)
        assert "admin on no listener" in served.server.output
