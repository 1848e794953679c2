"""Addresses of stores on several servers, and what is complained of in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.addresses import each_server
from gateway.config.check_parts import logged_store, postgres_address


@pytest.mark.parametrize(
    ("address", "servers"),
    [
        ("redis://one:6379/0", ["redis://one:6379/0"]),
        ("redis://one:1,two:2/0", ["redis://one:1/0", "redis://two:2/0"]),
        ("rediss://u:p%40@[::1]:1,two?x=1", ["rediss://u:p%40@[::1]:1?x=1", "rediss://u:p%40@two?x=1"]),
        (
            "postgresql://u@a,b:5/d?sslmode=require",
            ["postgresql://u@a/d?sslmode=require", "postgresql://u@b:5/d?sslmode=require"],
        ),
        ("unix:///run/a,b.sock", ["unix:///run/a,b.sock"]),
        ("postgresql:///d?host=/run/pg", ["postgresql:///d?host=/run/pg"]),
    ],
)
def test_an_address_names_one_or_several_servers(address: str, servers: list[str]) -> None:
    assert each_server(address) == servers


def problems(url: str, *, several: bool = True, env: dict[str, str] | None = None) -> list[str]:
    found = logged_store(url, ("s", "url"), Path(), env or {}, workers=2, what="sessions", several=several)
    return [complaint.problem for complaint in found]


def test_each_of_several_servers_has_to_be_good() -> None:
    assert problems("redis://127.0.0.1:1,localhost:2/0") == []
    assert problems("rediss://one:1,two:2/0") == []
    assert problems("redis://127.0.0.1:1,elsewhere:2/0") == ["an unencrypted connection to another machine"]
    assert problems("redis://elsewhere:1,elsewhere:2/0") == ["an unencrypted connection to another machine"]
    assert problems("redis://127.0.0.1:1,127.0.0.1:none/0") == ["no address of a Redis server"]
    assert problems("rediss://u:secret@one:1,two:2") == ["a password stands in the config"]
    assert problems("env:URL", env={"URL": "rediss://u:secret@one:1,two:2"}) == []
    assert problems("postgresql://u@127.0.0.1:1,127.0.0.1:2/d") == []
    assert problems("postgresql://u@127.0.0.1:1,elsewhere:2/d") == ["an unencrypted connection to another machine"]
    assert problems("postgresql://u@one,two/d?sslmode=verify-full") == []


def test_a_store_of_one_server_takes_no_several() -> None:
    assert problems("redis://127.0.0.1:1,127.0.0.1:2/0", several=False) == ["more than one server"]
    assert problems("redis://127.0.0.1:1/0", several=False) == []


def test_one_complaint_says_it_for_all_servers() -> None:
    assert len(list(postgres_address("postgresql://u:p@a,b,c/d", "postgresql://u:p@a,b,c/d", ("d", "url")))) == 2
