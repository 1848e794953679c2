"""Limits that contradict each other do not load, and the complaint says where and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config, load_config
from gateway.errors import ConfigError, ConfigFault


def faults_of(tmp_path: Path, text: str) -> list[ConfigFault]:
    path = tmp_path / "portcullis.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return caught.value.faults


def test_the_numbers_of_the_source_are_the_defaults_and_fit_together() -> None:
    resilience = load_config(None).config.resilience
    assert resilience == Config().resilience
    pools = resilience.pools
    assert (pools.user_auth, pools.admin_auth, pools.token_validation) == (100, 20, 200)
    assert (pools.scim_provisioning, pools.external_idp) == (30, 50)
    assert resilience.db_connections.total == 50
    assert resilience.redis_connections.total == 100
    assert resilience.external_calls.total == 30
    breaker, idp = resilience.breaker, resilience.idp_breaker
    assert (breaker.failure_threshold, breaker.recovery_s, breaker.half_open_requests) == (5, 30.0, 3)
    assert (idp.failure_threshold, idp.recovery_s, idp.half_open_requests) == (3, 60.0, 3)


@pytest.mark.parametrize(
    ("text", "line", "key", "problem"),
    [
        (
            "[resilience.pools]\nuser_auth = 300\n",
            2,
            "resilience.pools.user_auth",
            "300 is larger than its permits allow: with 50 in all, 250 can run or wait for one",
        ),
        (
            "[resilience.running]\nadmin_auth = 21\n",
            2,
            "resilience.running.admin_auth",
            "21 cannot run in a pool of 20",
        ),
        (
            "[resilience.db_connections]\ntotal = 40\n",
            2,
            "resilience.db_connections.total",
            "the shares add up to 50, which is more than 40",
        ),
        (
            "[resilience.idp_breaker]\nhalf_open_requests = 4\n",
            2,
            "resilience.idp_breaker.half_open_requests",
            "more probes than failures that open it: failure_threshold is 3",
        ),
        ("[resilience.breaker]\nrecovery_s = 301\n", 2, "resilience.breaker.recovery_s", "above recovery_s_max"),
        (
            "[resilience]\nrequest_timeout_s = 5\n",
            1,
            "resilience.idp_breaker.slow_call_s",
            "no call takes so long: request_timeout_s is 5",
        ),
        (
            "[resilience]\nwait_s = 0.04\n",
            1,
            "resilience.shedding.target_s",
            "nobody waits so long: wait_s is 0.04",
        ),
        (
            "[resilience.health]\nprobe_timeout_s = 0.6\n",
            2,
            "resilience.health.probe_timeout_s",
            "above interval_s: looks at a dependency that hangs would come later and later",
        ),
        (
            "[resilience.health]\ncache_slow_s = 0.4\n",
            2,
            "resilience.health.cache_slow_s",
            "as long as probe_timeout_s: it would be down before it is slow",
        ),
        ("[resilience.retry]\npause_s = 3\n", 2, "resilience.retry.pause_s", "above pause_s_max"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, text: str, line: int, key: str, problem: str) -> None:
    (fault,) = faults_of(tmp_path, text)
    assert (fault.line, fault.key, fault.problem) == (line, key, problem)


def test_a_wait_as_long_as_the_request_is_refused(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, "[resilience]\nrequest_timeout_s = 0.2\nwait_s = 0.2\n")
    assert ("resilience.wait_s", "as long as request_timeout_s: who got a place would have no time left") in [
        (fault.key, fault.problem) for fault in faults
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[resilience]\nwait_s = 5.1\n", "resilience.wait_s"),
        ("[resilience]\nsoft_limit = 0\n", "resilience.soft_limit"),
        ("[resilience]\nsoft_limit = 1.5\n", "resilience.soft_limit"),
        ("[resilience.pools]\nuser_auth = 0\n", "resilience.pools.user_auth"),
        ("[resilience.db_connections]\nbackground = 0\n", "resilience.db_connections.background"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(tmp_path: Path, text: str, key: str) -> None:
    assert [fault.key for fault in faults_of(tmp_path, text)] == [key]


def test_an_unknown_pool_is_refused_with_its_place(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path, "[resilience.pools]\nguests = 5\n")
    assert (fault.line, fault.key) == (2, "resilience.pools.guests")
