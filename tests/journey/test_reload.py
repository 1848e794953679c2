"""SIGHUP under load, whatever it changes: the new config holds whole and soon, no request is lost or let through."""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGHUP
from types import TracebackType

import pytest

from tests.conftest import ROOT
from tests.real.gateway import AUDIENCE, ISSUER, Gateway, bearer, gateway, issuer_toml, jwks_file, mint, public_jwk
from tests.real.http import Answer, Connection, ask, request_bytes
from tests.real.issuer_thread import IssuerThread
from tests.real.lines import lines_of, logged
from tests.real.process import ServerProcess, free_port, wait_until
from tests.real.recorder import Recorder, Request, Talk, recorder, respond

pytestmark = pytest.mark.journey

Header = tuple[str, str]

SETTLE_S = 1.0


@pytest.fixture(scope="module")
def app() -> Iterator[Recorder]:
    with recorder() as running:
        yield running


def route(path: str, app: Recorder, *lines: str) -> str:
    return "\n".join(["[[routes]]", f'path = "{path}"', f'upstream = "{app.url}"', *lines, ""])


def reload_with(running: Gateway, config: str, *, expect: str = "reloaded: generation") -> None:
    """Put another config in place and wait for what the gateway says to it."""
    before = running.server.output.count(expect)
    running.write_config(config)
    running.server.signal(SIGHUP)
    wait_until(lambda: running.server.output.count(expect) > before, expect)


class Load:
    """Clients on kept connections that ask all the time; each notes the statuses that it gets, in order."""

    def __init__(self, port: int, *requests: tuple[str, list[Header]], clients: int = 2) -> None:
        self.statuses: list[list[int]] = []
        self.errors: list[Exception] = []
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(port, target, headers), daemon=True)
            for target, headers in requests * clients
        ]

    def _run(self, port: int, target: str, headers: list[Header]) -> None:
        seen: list[int] = []
        self.statuses.append(seen)
        try:
            with Connection(port) as connection:
                while not self._done.is_set():
                    answer = connection.request("GET", target, headers)
                    seen.append(answer.status)
                    if "close" in answer.all("connection"):
                        raise AssertionError("sent away")
        except Exception as error:
            self.errors.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.statuses) == len(self._threads) and all(self.statuses), "the first answers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(10)
        if kind is None:
            assert self.errors == []

    def wait_for(self, status: int) -> None:
        """Wait until every client gets this status."""
        wait_until(lambda: all(seen[-1] == status for seen in self.statuses), f"{status} for everybody")

    def phases(self) -> set[tuple[int, ...]]:
        """Give the order in which each client saw another status."""
        return {tuple(status for status, _ in itertools.groupby(seen)) for seen in self.statuses}


def doors(path: str, header: Header) -> list[tuple[str, list[Header]]]:
    forward = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", path), ("X-Forwarded-Host", "app.test")]
    return [(path, [header]), ("/auth/forward", [*forward, header]), (f"/auth/envoy{path}", [header])]


@pytest.fixture(params=["true", "false"], ids=["inline", "public"])
def inline(request: pytest.FixtureRequest) -> str:
    return f"inline = {request.param}\n#server\n"


def test_scopes_that_a_route_asks_for_change_once_and_for_all(tmp_path: Path, app: Recorder, inline: str) -> None:
    """Another set of scopes needs another validator, with its own keys and an empty cache."""
    config = inline + issuer_toml(tmp_path)
    before = config + route("/orders/{id}", app, 'scopes = ["orders:read"]')
    after = config + route("/orders/{id}", app, 'scopes = ["orders:read", "orders:write"]')
    with gateway(tmp_path, before) as running:
        with Load(running.port, *doors("/orders/1", bearer())) as load:
            reload_with(running, after)
            load.wait_for(403)
            reload_with(running, before)
            load.wait_for(200)
        assert load.phases() == {(200, 403, 200)}
        logged(running.server, event="denied", reason="insufficient_scope", status=403)
        app.take()


def test_identity_headers_change_also_for_tokens_that_are_known(tmp_path: Path, app: Recorder, inline: str) -> None:
    config = inline + issuer_toml(tmp_path)
    ending = route("/orders/{id}", app) + route("/open/{id}", app, 'auth = "none"')
    mapped = '[identity.headers]\nX-Email = "email"\n'
    header = bearer(mint(email="a@example.com"))
    spoofed = ("X-Email", "root@example.com")

    def emails(running: Gateway, target: str) -> list[str]:
        app.take()
        assert running.ask("GET", target, header, spoofed).status == 200
        return app.only().all("x-email")

    with gateway(tmp_path, config + ending) as running:
        assert emails(running, "/orders/1") == ["root@example.com"], "nobody said that this header is ours"
        with Load(running.port, ("/orders/1", [header]), ("/open/1", [])) as load:
            reload_with(running, config + mapped + ending)
            wait_until(lambda: emails_under_load(running, header, spoofed) == ["a@example.com"], "the claim")
        assert load.phases() == {(200,)}
        assert emails(running, "/orders/1") == ["a@example.com"]
        assert emails(running, "/open/1") == [""]


def emails_under_load(running: Gateway, header: Header, spoofed: Header) -> list[str]:
    return running.ask("GET", "/auth/envoy/orders/1", header, spoofed).all("x-email")


def test_issuers_come_and_go(tmp_path: Path, app: Recorder, inline: str) -> None:
    ending = route("/orders/{id}", app)
    first = issuer_toml(tmp_path, "one")
    folder = tmp_path / "second"
    folder.mkdir()
    second = issuer_toml(folder, "two").replace(ISSUER, "https://second.test")
    old, new = bearer(mint("one")), bearer(mint("two", iss="https://second.test"))
    with gateway(tmp_path, inline + first + ending) as running:
        assert running.ask("GET", "/orders/1", new).status == 401
        with Load(running.port, *doors("/orders/1", old)) as load:
            reload_with(running, inline + first + second + ending)
            wait_until(lambda: running.ask("GET", "/orders/1", new).status == 200, "the second issuer")
        assert load.phases() == {(200,)}, "who is known stays known"
        with Load(running.port, *doors("/orders/1", old)) as load:
            reload_with(running, inline + second + ending)
            load.wait_for(401)
        assert load.phases() == {(200, 401)}
        logged(running.server, event="denied", reason="issuer_unknown", status=401)
        assert running.ask("GET", "/orders/1", new).status == 200
        app.take()


def test_audiences_and_algorithms_bind_known_tokens_too(tmp_path: Path, app: Recorder) -> None:
    ending = route("/orders/{id}", app)
    config = issuer_toml(tmp_path)
    with gateway(tmp_path, config + ending) as running, Load(running.port, *doors("/orders/1", bearer())) as load:
        reload_with(running, config.replace(f'"{AUDIENCE}"', '"other"') + ending)
        load.wait_for(401)
        reload_with(running, config + ending)
        load.wait_for(200)
        reload_with(running, config.replace('"RS256"', '"PS256"') + ending)
        load.wait_for(401)
    assert load.phases() == {(200, 401, 200, 401)}
    app.take()


def test_a_key_that_left_the_file_is_used_no_more(tmp_path: Path, app: Recorder) -> None:
    config = issuer_toml(tmp_path, "one", "two") + route("/orders/{id}", app)
    with gateway(tmp_path, config, workers=2) as running:
        with Load(running.port, *doors("/orders/1", bearer(mint("one")))) as load:
            jwks_file(tmp_path, "two")
            reload_with(running, config)
            load.wait_for(401)
        assert load.phases() == {(200, 401)}
        for _ in range(10):
            assert running.ask("GET", "/orders/1", bearer(mint("two"))).status == 200
        app.take()


BROKEN: dict[str, tuple[Callable[[Path], str], str]] = {
    "unknown key": (lambda folder: issuer_toml(folder) + '[[routes]]\npath = "/x"\nscope = "y"\n', "routes[0].scope"),
    "no TOML": (lambda _: "[[routes\n", "TOML"),
    "key file that is missing": (
        lambda folder: issuer_toml(folder).replace("jwks.json", "absent.json"),
        "issuers[0].jwks_file",
    ),
    "routes that collide": (
        lambda folder: issuer_toml(folder) + '[[routes]]\npath = "/{a}"\n[[routes]]\npath = "/{b}"\n',
        "routes",
    ),
    "secret that is missing": (
        lambda folder: issuer_toml(folder) + '[[introspection.clients]]\nid = "x"\nsecret = "env:PORTCULLIS_ABSENT"\n',
        "introspection.clients[0].secret",
    ),
    "network that is none": (
        lambda folder: 'trusted_proxies = ["10.0.0.0/99"]\n#server\n' + issuer_toml(folder),
        "server.trusted_proxies",
    ),
}


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory, app: Recorder) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("steady")
    config = issuer_toml(folder) + route("/orders/{id}", app, 'scopes = ["orders:read"]')
    with gateway(folder, config, workers=2) as started:
        yield started


@pytest.mark.parametrize("name", BROKEN)
def test_a_config_with_a_fault_changes_nothing_and_says_where_it_is(steady: Gateway, app: Recorder, name: str) -> None:
    broken, place = BROKEN[name]
    with Load(steady.port, *doors("/orders/1", bearer()), clients=1) as load:
        reload_with(steady, broken(steady.folder), expect="the running config stays")
    assert load.phases() == {(200,)}
    lines = [line for line in lines_of(steady.server) if line.get("level") == "error" and place in line["message"]]
    assert lines
    assert f"{steady.path}:" in lines[-1]["message"]
    assert steady.ask("GET", "/orders/1").status == 401
    app.take()


def test_a_key_file_with_a_fault_keeps_the_former_keys(tmp_path: Path, app: Recorder) -> None:
    config = issuer_toml(tmp_path) + route("/orders/{id}", app)
    with gateway(tmp_path, config) as running:
        with Load(running.port, *doors("/orders/1", bearer())) as load:
            (tmp_path / "jwks.json").write_text('{"keys": [')
            running.server.signal(SIGHUP)
            wait_until(
                lambda: "jwks.json" in running.server.output or "not reloaded" in running.server.output, "a line"
            )
        assert load.phases() == {(200,)}
        app.take()


def test_trust_in_a_proxy_is_given_and_taken_at_once(tmp_path: Path, app: Recorder, inline: str) -> None:
    ending = issuer_toml(tmp_path) + route("/open/{id}", app, 'auth = "none"')
    forwarded = ("X-Forwarded-For", "203.0.113.9")

    def chain(running: Gateway) -> str:
        app.take()
        assert running.ask("GET", "/open/1", forwarded).status == 200
        return app.only().one("x-forwarded-for")

    with gateway(tmp_path, inline + ending) as running:
        assert chain(running) == "203.0.113.9, 127.0.0.1"
        with Load(running.port, *doors("/open/1", ("X", "y"))[1:]) as load:
            reload_with(running, 'trusted_proxies = ["192.0.2.1/32"]\n' + inline + ending)
            load.wait_for(403)
        assert load.phases() == {(200, 403)}
        assert chain(running) == "127.0.0.1"
        reload_with(running, inline + ending)
        assert chain(running) == "203.0.113.9, 127.0.0.1"
        assert running.ask("GET", "/auth/envoy/open/1").status == 200


FORM = [("Content-Type", "application/x-www-form-urlencoded")]


def introspect(running: Gateway, client: str, secret: str) -> Answer:
    body = f"token={mint()}&client_id={client}&client_secret={secret}".encode()
    return running.ask("POST", "/oauth2/introspect", *FORM, body=body)


def test_introspection_clients_change_at_once(tmp_path: Path) -> None:
    def client(name: str, secret: str) -> str:
        (tmp_path / name).write_text(secret)
        return f'[[introspection.clients]]\nid = "{name}"\nsecret = "file:{tmp_path / name}"\n'

    config = issuer_toml(tmp_path)
    with gateway(tmp_path, config + client("one", "first-secret")) as running:
        assert introspect(running, "one", "first-secret").json["active"] is True
        reload_with(running, config + client("one", "second-secret") + client("two", "third-secret"))
        assert introspect(running, "one", "first-secret").status == 401
        assert introspect(running, "one", "second-secret").json["active"] is True
        assert introspect(running, "two", "third-secret").json["active"] is True
        reload_with(running, config + client("two", "third-secret"))
        assert introspect(running, "one", "second-secret").status == 401
        reload_with(running, config)
        assert introspect(running, "two", "third-secret").status == 404, "no clients, no endpoint"


def test_a_request_that_is_under_way_ends_at_the_app_where_it_began(tmp_path: Path) -> None:
    """Its route goes to another app, or is gone: what was begun is finished."""
    go_on = threading.Event()

    def slowly(talk: Talk, _request: Request) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nol")
        assert go_on.wait(10)
        talk.send(b"d!")

    def late(talk: Talk, _request: Request) -> None:
        assert go_on.wait(10)
        respond(talk, 200, b"old!")

    config = issuer_toml(tmp_path)
    with (
        recorder() as app,
        recorder() as other,
        gateway(tmp_path, config + route("/a/{x}", app, 'auth = "none"')) as running,
    ):
        app.acts.update({"/a/slowly": slowly, "/a/late": late})
        with Connection(running.port) as begun, Connection(running.port) as waiting:
            begun.send(request_bytes("GET", "/a/slowly"))
            waiting.send(request_bytes("GET", "/a/late"))
            app.wait_for_requests(2)
            reload_with(running, config + route("/a/{x}", other, 'auth = "none"'))
            assert running.ask("GET", "/a/1").status == 200
            assert other.only().target == "/a/1"
            reload_with(running, config)
            assert running.ask("GET", "/a/1").status == 404
            go_on.set()
            assert begun.read_answer().body == b"old!"
            assert waiting.read_answer().body == b"old!"
        app.wait_until_idle(0)


@pytest.mark.parametrize("shape", ["", 'scopes = ["orders:read"]'], ids=["routes only", "another validator"])
@pytest.mark.parametrize("kind", ["opaque", "new key"])
def test_a_question_to_the_issuer_that_is_under_way_is_asked_again(tmp_path: Path, shape: str, kind: str) -> None:
    """Regression: who waited for introspection was refused by any reload; by one with other scopes, everybody."""
    with IssuerThread(free_port(), [public_jwk("one")]) as thread:
        url = thread.issuer.issuer
        thread.issuer.introspect = lambda _: {"active": True, "sub": "alice", "aud": AUDIENCE, "scope": "orders:read"}
        config = (
            f'[[issuers]]\nissuer = "{url}"\naudiences = ["{AUDIENCE}"]\nmin_refresh_s = 0.1\n'
            f'introspection_endpoint = "{url}/introspect"\nintrospection_client_id = "gateway"\n'
            'introspection_client_secret = "env:ISSUER_SECRET"\n\n[[routes]]\npath = "/orders/{id}"\n'
        )
        with gateway(tmp_path, config, env={"ISSUER_SECRET": "s3cret"}) as running, Connection(running.port) as client:
            known = bearer(mint("one", iss=url))
            wait_until(lambda: running.ask("GET", "/auth/envoy/orders/1", known).status == 200, "the first key")
            time.sleep(0.2)  # more than min_refresh_s
            thread.issuer.keys.append(public_jwk("two"))
            thread.hold()
            asked = thread.issuer.total
            header = bearer("opaque-token") if kind == "opaque" else bearer(mint("two", iss=url))
            client.send(request_bytes("GET", "/auth/envoy/orders/1", [header]))
            wait_until(lambda: thread.issuer.total > asked, "the question")
            reload_with(running, f'{config}{shape}\n[[routes]]\npath = "/new"\n')
            thread.release()
            assert client.read_answer().status == 200
            wait_until(lambda: running.ask("GET", "/auth/envoy/new", known).status == 200, "the new config")
            assert running.ask("GET", "/auth/envoy/orders/1", known).status == 200


# ------------------------------------------------------------------------------------------- one reload upon the other


class Hasty(Gateway):
    """A gateway whose reload waits SETTLE_S at most for new keys."""

    def _start(self) -> ServerProcess:
        patched = (
            f"import runpy, gateway.app as app; app.SETTLE_S = {SETTLE_S}; "
            "runpy.run_module('gateway', run_name='__main__', alter_sys=True)"
        )
        command = [sys.executable, "-c", patched, "serve", "-c", str(self.path)]
        server = ServerProcess(command, self.folder / "gateway.log", cwd=ROOT)
        server.wait_for(self._is_live, "the gateway")
        return server


@contextmanager
def silent_issuer() -> Iterator[str]:
    """Accept connections and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        yield (
            f'[[issuers]]\nissuer = "https://silent.test"\naudiences = ["x"]\njwks_uri = "http://127.0.0.1:{port}/jwks"\n'
        )


def test_the_newest_config_wins_also_where_an_older_one_still_waits_for_keys(tmp_path: Path, app: Recorder) -> None:
    """Regression: a reload that waited for its keys took the place of the one that came after it."""
    config = issuer_toml(tmp_path)
    strict = config + route("/orders/{id}", app, 'scopes = ["orders:read"]')
    with silent_issuer() as silent:
        lax = config + silent + route("/orders/{id}", app, 'auth = "none"') + route("/x", app, 'scopes = ["x"]')
        running = Hasty(tmp_path, strict)
        try:
            reload_with(running, lax)
            assert running.ask("GET", "/orders/1").status == 401, "the new one has no keys yet"
            reload_with(running, strict)
            deadline = time.monotonic() + SETTLE_S + 1
            while time.monotonic() < deadline:
                assert running.ask("GET", "/orders/1").status == 401
                assert running.ask("GET", "/orders/1", bearer()).status == 200
                time.sleep(0.02)
            reload_with(running, lax)
            wait_until(lambda: running.ask("GET", "/orders/1").status == 200, "the new config, without those keys")
        finally:
            running.server.stop()
    app.take()


def test_many_reloads_in_a_row_end_with_the_last(tmp_path: Path, app: Recorder) -> None:
    config = issuer_toml(tmp_path)
    with gateway(tmp_path, config + route("/round/0", app)) as running:
        header = bearer()
        with Load(running.port, ("/auth/envoy/round/0", [header])) as load:
            for number in range(1, 8):
                scopes = 'scopes = ["orders:read"]' if number % 2 else ""
                running.write_config(config + route("/round/0", app) + route(f"/round/{number}", app, scopes))
                running.server.signal(SIGHUP)
                time.sleep(0.03)
            wait_until(lambda: ask(running.port, "GET", "/round/7", [header]).status == 200, "the last config")
            assert all(ask(running.port, "GET", f"/round/{number}", [header]).status == 404 for number in range(1, 7))
        assert load.phases() == {(200,)}
        app.take()
