"""Which node has what, as far as it can be told without servers."""

from __future__ import annotations

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores.pools import PoolLimits
from gateway.stores.redis_nodes import Command, RedisNodes, _addresses, _epoch, script
from tests.real.process import free_port

FEW = PoolLimits(1, 2, None, connect_timeout_s=0.3, call_timeout_s=0.3)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://one", [("one", 6379)]),
        ("rediss://u:p@one:1,[::1]:2,three/0", [("one", 1), ("::1", 2), ("three", 6379)]),
        ("unix:///run/redis.sock", [("/run/redis.sock", 0)]),
    ],
)
def test_an_address_names_its_nodes(url: str, found: list[tuple[str, int]]) -> None:
    assert _addresses(url)[0] == found


@pytest.mark.parametrize("url", ["http://one", "redis://one,two/5"])
def test_an_address_of_no_redis_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"unknown kind|only the database 0"):
        _addresses(url)


def test_a_view_of_a_minority_counts_less_than_any_other() -> None:
    whole = b"cluster_state:ok\r\ncluster_current_epoch:7\r\n"
    assert _epoch(whole) == 7
    assert _epoch(whole.replace(b"ok", b"fail")) == -1


def test_a_script_goes_where_its_first_key_lies() -> None:
    command = script("return 1", ("{a}:x", "{a}:y"), 5, b"z")
    assert command == Command("{a}:x", ("EVAL", "return 1", 2, "{a}:x", "{a}:y", 5, b"z"))


@pytest.mark.parametrize("places", ["127.0.0.1:{}", "127.0.0.1:{},localhost:{}"])
async def test_where_nobody_listens_a_call_fails_at_once(places: str) -> None:
    nodes = RedisNodes(f"redis://{places.format(free_port(), free_port())}", FEW)
    try:
        with pytest.raises(StoreUnavailable):
            await nodes.ask([Command("k", ("GET", "k"))])
    finally:
        await nodes.close()
    with pytest.raises(StoreUnavailable):
        await nodes.ask([Command("k", ("GET", "k"))])
