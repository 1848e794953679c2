"""WebSocket through the proxy door of a real gateway: judged at the handshake, then passed through both ways."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.real.gateway import Gateway, gateway, issuer_toml, mint
from tests.real.process import free_port

pytestmark = pytest.mark.journey


class EchoApp:
    """An app that says who calls, then echoes; `bye` makes it close with 4001."""

    def __init__(self) -> None:
        self.port = free_port()
        self.server: Server = serve(self._talk, "127.0.0.1", self.port, subprotocols=["chat"])  # type: ignore[list-item]
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        headers = connection.request.headers
        connection.send(f"{connection.request.path} {headers.get_all('X-Auth-Subject')}")
        for message in connection:
            if message == "bye":
                connection.close(4001, "told to")
                return
            connection.send(message)

    def stop(self) -> None:
        self.server.shutdown()
        self._thread.join()


def config_for(folder: Path, port: int) -> str:
    return issuer_toml(folder) + (
        f'\n[[routes]]\npath = "/chat/{{room}}"\nscopes = ["orders:read"]\nupstream = "http://127.0.0.1:{port}"\n'
        f'\n[[routes]]\npath = "/open/{{room}}"\nauth = "none"\nupstream = "http://127.0.0.1:{port}"\n'
        f'\n[[routes]]\npath = "/dead/{{room}}"\nauth = "none"\nupstream = "http://127.0.0.1:{free_port()}"\n'
    )


@pytest.fixture(scope="module")
def app() -> Iterator[EchoApp]:
    started = EchoApp()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def running(app: EchoApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(folder, config_for(folder, app.port)) as started:
        yield started


def socket_to(running: Gateway, path: str, token: str | None = None, **headers: str) -> ClientConnection:
    extra = dict(headers)
    if token is not None:
        extra["Authorization"] = f"Bearer {token}"
    return connect(f"ws://127.0.0.1:{running.port}{path}", additional_headers=extra, subprotocols=["chat"])  # type: ignore[list-item]


def refused_with(running: Gateway, path: str, token: str | None = None) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refused:
        socket_to(running, path, token)
    return refused.value


def test_messages_pass_both_ways_with_our_identity_and_the_subprotocol(running: Gateway) -> None:
    with socket_to(running, "/chat/1?x=2", mint()) as client:
        assert client.recv() == "/chat/1?x=2 ['alice']"
        assert client.subprotocol == "chat"
        client.send("hello")
        assert client.recv() == "hello"
        client.send(b"\x00\xff" * 70_000)
        assert client.recv() == b"\x00\xff" * 70_000


def test_identity_of_the_client_does_not_pass_where_no_auth_is_needed(running: Gateway) -> None:
    with socket_to(running, "/open/1", **{"X-Auth-Subject": "root"}) as client:
        assert client.recv() == "/open/1 ['']"


def test_close_codes_come_through(running: Gateway) -> None:
    with socket_to(running, "/chat/1", mint()) as client:
        client.recv()
        client.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "told to")


@pytest.mark.parametrize(
    ("path", "changes", "status"),
    [("/chat/1", {"exp": 1}, 401), ("/chat/1", {"scope": "other"}, 403), ("/nowhere", {}, 404), ("/livez", {}, 404)],
)
def test_handshake_is_refused_with_the_doors_status(
    running: Gateway, path: str, changes: dict[str, Any], status: int
) -> None:
    assert refused_with(running, path, mint(**changes)).response.status_code == status


def test_handshake_without_a_token_gets_a_challenge(running: Gateway) -> None:
    refused = refused_with(running, "/chat/1")
    assert refused.response.status_code == 401
    assert refused.response.headers["WWW-Authenticate"] == 'Bearer realm="portcullis"'


def test_unknown_kid_is_asked_about_and_refused(running: Gateway) -> None:
    assert refused_with(running, "/chat/1", mint("stranger")).response.status_code == 401


def test_app_that_is_down_is_502(running: Gateway) -> None:
    refused = refused_with(running, "/dead/1")
    assert refused.response.status_code == 502
    assert b"upstream_unreachable" in (refused.response.body or b"")


def test_draining_ends_conversations_with_going_away(app: EchoApp, tmp_path: Path) -> None:
    with gateway(tmp_path, config_for(tmp_path, app.port)) as running, socket_to(running, "/open/1") as client:
        client.recv()
        running.server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
        assert running.server.process.wait(10) == 0
