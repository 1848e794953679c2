from __future__ import annotations

import logging
import signal
import socket
from pathlib import Path

import msgspec
import pytest

from gateway.cli import systemd
from gateway.cli.supervisor import (
    RESTART_KEYS,
    CannotListen,
    address_of,
    how_it_ended,
    keep_fixed,
    listen_on,
    refuse_open_admin,
)
from gateway.config import Config, ServerConfig
from gateway.errors import ConfigError


@pytest.mark.parametrize("address", ["0.0.0.0:8081", "[::]:8081", "10.0.0.1:8081", "gateway.example.com:8081"])
def test_an_admin_listener_that_others_can_reach_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        refuse_open_admin(Config(server=ServerConfig(admin_listen=address)))
    refuse_open_admin(Config(server=ServerConfig(admin_listen=address, public_admin=True)))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.8.8:1", "[::1]:8081", "localhost:8081", ""])
def test_an_admin_listener_on_this_machine_or_none_is_fine(address: str) -> None:
    refuse_open_admin(Config(server=ServerConfig(listen="0.0.0.0:80", admin_listen=address)))


def test_what_needs_a_restart_stays_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    running = Config(server=ServerConfig(listen="127.0.0.1:1", workers=2, realm="old"))
    fresh = Config(server=ServerConfig(listen="127.0.0.1:2", workers=2, realm="new"))
    with caplog.at_level(logging.WARNING):
        kept = keep_fixed(running, fresh)
    assert (kept.server.listen, kept.server.realm) == ("127.0.0.1:1", "new")
    assert caplog.messages == ["server.listen needs a restart: `127.0.0.1:1` stays"]


def test_the_keys_that_need_a_restart_exist() -> None:
    assert set(RESTART_KEYS) <= {field.name for field in msgspec.structs.fields(ServerConfig)}


def test_a_config_survives_its_snapshot() -> None:
    config = Config(server=ServerConfig(realm="x", trusted_proxies=("10.0.0.0/8",)))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=Config) == config


def test_a_listener_does_not_block_and_sends_without_delay() -> None:
    with listen_on("127.0.0.1:0", 10) as listener:
        assert address_of(listener).startswith("127.0.0.1:")
        assert not listener.getblocking()
        with socket.create_connection(listener.getsockname()):
            accepted = socket.socket()
            while True:
                try:
                    accepted.close()
                    accepted, _ = listener.accept()
                    break
                except BlockingIOError:
                    continue
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            accepted.close()


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    try:
        listener = listen_on("[::1]:0", 10)
    except CannotListen:
        pytest.skip("this machine has no IPv6 loopback")
    with listener:
        assert address_of(listener).startswith("[::1]:")


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "198.51.100.1:80"])
def test_an_address_that_cannot_be_bound_is_named(address: str) -> None:
    with pytest.raises(CannotListen, match=f"`{address}`"):
        listen_on(address, 10)


def test_ends_are_named() -> None:
    assert how_it_ended(3) == "ended with status 3"
    assert how_it_ended(-signal.SIGKILL) == "was ended by SIGKILL"
    assert how_it_ended(-250) == "ended with status -250"


def test_systemd_is_told_at_a_path_and_at_an_abstract_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, bound in ((str(tmp_path / "n"), str(tmp_path / "n")), ("@portcullis-test", "\0portcullis-test")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(bound)
            listener.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            systemd.notify("READY=1", "STATUS=fine")
            assert listener.recv(100) == b"READY=1\nSTATUS=fine"


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/socket", "vsock:1:2"])
def test_nobody_to_tell_is_no_failure(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify("READY=1")
