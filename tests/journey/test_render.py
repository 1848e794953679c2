"""What `portcullis render` prints: the real programs accept it, and without a gateway nobody gets through."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gateway.cli.render import PROXIES, render_proxy
from tests.real.process import ServerProcess, accepts, free_port, running, wait_until
from tests.real.proxies import RealProxy, find_proxy

pytestmark = pytest.mark.journey

TWO_ROUTES = """
[[routes]]
path = "/api/{resource}/{id}"
methods = ["GET"]
upstream = "http://127.0.0.1:@APP@"
[[routes]]
path = "/health"
auth = "none"
upstream = "http://127.0.0.1:@APP@"
"""

# Everything that a snippet has a way to say, and every byte that a path may hold.
EVERYTHING = """
[identity.headers]
X-Auth-Email = "email"
Remote-User = "sub"
[[routes]]
host = "app.example.com"
path = "/it's/$1,(a)&b=c:d@e!*+~._-/{*rest}"
upstream = "http://127.0.0.1:@APP@"
[[routes]]
host = "app.example.com"
path = "/strip.me(x)/{*rest}"
strip_prefix = "/strip.me(x)"
upstream = "http://[::1]:@APP@"
[[routes]]
host = "*.example.org"
path = "/{*rest}"
upstream = "https://127.0.0.1:@APP@"
[[routes]]
path = "/%41%20%C3%A9/{*rest}"
upstream = "http://localhost:@APP@"
[[routes]]
path = "/{*rest}"
@SOCKET@
"""

_MAIN = {
    "nginx": "nginx.conf",
    "traefik": "traefik.yml",
    "caddy": "Caddyfile",
    "haproxy": "haproxy.cfg",
    "envoy": "envoy.yaml",
}


def rendered(proxy: str, folder: Path, text: str, *, full: bool = True, app: int = 9, listen: int = 0) -> Path:
    """Write a config and the proxy's files for it into a folder; give the main one."""
    socket = "" if proxy == "traefik" else 'upstream = "unix:/run/portcullis-test.sock"'
    head = f'[server]\nlisten = "127.0.0.1:{free_port()}"\n'
    config = folder / "portcullis.toml"
    config.write_text(head + text.replace("@APP@", str(app)).replace("@SOCKET@", socket))
    files = render_proxy(proxy, config, full=full, listen=f"127.0.0.1:{listen or free_port()}")
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder / next(iter(files))


def check_command(proxy: str, binary: str, file: Path) -> list[str]:
    return {
        "nginx": [binary, "-t", "-p", str(file.parent), "-e", "stderr", "-c", str(file)],
        "caddy": [binary, "validate", "--adapter", "caddyfile", "--config", str(file)],
        "haproxy": [binary, "-c", "-f", str(file)],
        "envoy": [binary, "--mode", "validate", "-l", "warning", "-c", str(file)],
    }[proxy]


def accepted(proxy: str, file: Path) -> None:
    """Let the proxy judge a file; warnings of its own count as faults."""
    done = subprocess.run(
        check_command(proxy, find_proxy(proxy), file),
        cwd=file.parent,
        env={"HOME": str(file.parent), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not [
        line for line in said.splitlines() if "WARNING" in line or "[warn]" in line or "deprecated" in line.lower()
    ], said


@pytest.mark.parametrize("text", [TWO_ROUTES, EVERYTHING], ids=["two routes", "everything"])
@pytest.mark.parametrize("proxy", [proxy for proxy in PROXIES if proxy != "traefik"])
def test_the_program_accepts_the_full_config(proxy: str, text: str, tmp_path: Path) -> None:
    accepted(proxy, rendered(proxy, tmp_path, text))


@pytest.mark.parametrize("text", [TWO_ROUTES, EVERYTHING], ids=["two routes", "everything"])
def test_traefik_loads_it_without_an_error(text: str, tmp_path: Path) -> None:
    binary = find_proxy("traefik")
    port = free_port()
    file = rendered("traefik", tmp_path, text, listen=port)
    server = ServerProcess([binary, f"--configfile={file}"], tmp_path / "log", cwd=tmp_path)
    with running(server):
        # It reads the file after it listens; from then on `/` is refused by the gateway that is not there.
        server.wait_for(lambda: accepts(port) and b" 404 " not in ask(port, "/health", "app.example.com"), "traefik")
        faults = [line for line in server.output.splitlines() if "ERR" in line and "Error calling" not in line]
        assert faults == []


def test_nginx_accepts_the_snippet_inside_http(tmp_path: Path) -> None:
    snippet = rendered("nginx", tmp_path, EVERYTHING, full=False)
    (tmp_path / "nginx.conf").write_text(f"events {{}}\nhttp {{\n    include {snippet};\n}}\n")
    accepted("nginx", tmp_path / "nginx.conf")


def test_caddy_accepts_the_snippet_alone(tmp_path: Path) -> None:
    accepted("caddy", rendered("caddy", tmp_path, EVERYTHING, full=False))


def test_haproxy_accepts_the_snippet_beside_defaults(tmp_path: Path) -> None:
    snippet = rendered("haproxy", tmp_path, EVERYTHING, full=False)
    text = "defaults\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
    (tmp_path / "whole.cfg").write_text(text + snippet.read_text())
    accepted("haproxy", tmp_path / "whole.cfg")


class Witness:
    """An app that counts who reached it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        witness = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                witness.paths.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture
def witness() -> Iterator[Witness]:
    app = Witness()
    thread = Thread(target=app.server.serve_forever)
    thread.start()
    yield app
    app.server.shutdown()
    app.server.server_close()
    thread.join()


def ask(port: int, path: str, host: str = "app.test") -> bytes:
    """Send one GET with a token; give the whole answer."""
    import socket

    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client:
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer x\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer


@pytest.mark.parametrize("proxy", PROXIES)
def test_without_a_gateway_nobody_reaches_the_app(proxy: str, witness: Witness, tmp_path: Path) -> None:
    find_proxy(proxy)
    port = free_port()
    rendered(proxy, tmp_path, TWO_ROUTES, app=witness.port, listen=port)
    server = RealProxy(proxy, tmp_path, port)
    try:
        # Traefik listens before it has read its routes, and knows nothing until then.
        wait_until(lambda: b" 404 " not in ask(port, "/health"), f"{proxy} serves")
        for path in ("/api/orders/1", "/health", "/", "/portcullis-auth"):
            status = int(ask(port, path).split(b" ")[1])
            assert status >= 500 or path == "/portcullis-auth", (path, status)
            assert status >= 400, (path, status)
    finally:
        server.stop()
    assert witness.paths == []


def test_the_command_writes_what_was_tried_here(tmp_path: Path) -> None:
    rendered("nginx", tmp_path, TWO_ROUTES)
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "render", "nginx", "-c", str(tmp_path / "portcullis.toml"), "--full"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == render_proxy("nginx", tmp_path / "portcullis.toml", full=True)["nginx.conf"]
