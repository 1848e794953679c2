"""A real gateway, and an issuer of opaque tokens that hangs: nobody else notices, and it is found again by itself."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.real.gateway import AUDIENCE, Gateway, bearer, gateway, issuer_toml, public_jwk
from tests.real.http import Answer
from tests.real.issuer_thread import IssuerThread
from tests.real.lines import metric
from tests.real.process import free_port, wait_until

pytestmark = pytest.mark.journey

FETCH_TIMEOUT_S = 2.0
FLOOD = 120  # opaque tokens at once: more than twice what their permits let in
SLACK_S = 2.5  # of a machine that does other work meanwhile


@pytest.fixture
def issuer() -> Iterator[IssuerThread]:
    with IssuerThread(free_port(), [public_jwk()]) as started:
        started.issuer.introspect = lambda token: {"active": True, "sub": "bob", "aud": AUDIENCE, "scope": token}
        yield started


@pytest.fixture
def running(tmp_path: Path, issuer: IssuerThread) -> Iterator[Gateway]:
    config = f"""
{issuer_toml(tmp_path)}
[[issuers]]
issuer = "{issuer.issuer.issuer}"
audiences = ["{AUDIENCE}"]
jwks_uri = "{issuer.issuer.issuer}/jwks"
fetch_timeout_s = {FETCH_TIMEOUT_S}
introspection_endpoint = "{issuer.issuer.issuer}/introspect"
introspection_client_id = "gateway"
introspection_client_secret = "env:SECRET"

[[routes]]
path = "/orders/{{id}}"

[resilience.idp_breaker]
recovery_s = 0.5
recovery_s_max = 1.0
"""
    with gateway(tmp_path, config, env={"SECRET": "secret"}) as started:
        yield started


def timed(running: Gateway, token: str | None = None) -> tuple[Answer, float]:
    began_s = time.monotonic()
    answer = running.ask("GET", "/auth/envoy/orders/1", bearer(token))
    return answer, time.monotonic() - began_s


def test_an_issuer_that_hangs_is_nobody_elses_trouble(running: Gateway, issuer: IssuerThread) -> None:
    assert timed(running, "opaque-0")[0].status == 200
    issuer.hold()
    with ThreadPoolExecutor(FLOOD) as flood:
        asked = [flood.submit(timed, running, f"opaque-{number}") for number in range(1, FLOOD + 1)]
        # Meanwhile tokens that need nobody are judged, and probes answered.
        judged = [timed(running) for _ in range(50)]
        probe = running.admin("/readyz")
        answers = [each.result() for each in asked]
    assert Counter(answer.status for answer, _ in judged) == {200: 50}
    assert max(elapsed_s for _, elapsed_s in judged) < SLACK_S
    assert probe.status == 200

    # Nobody was let in, nobody waited beyond the deadline, and most were told at once.
    assert Counter(answer.status for answer, _ in answers) == {503: FLOOD}
    assert {answer.json["code"] for answer, _ in answers} == {"introspection_unavailable"}
    assert all(answer.one("retry-after") for answer, _ in answers)
    assert max(elapsed_s for _, elapsed_s in answers) < FETCH_TIMEOUT_S + SLACK_S
    metrics = running.admin("/metrics").body.decode()
    refused = metric(metrics, "portcullis_permits_refused_total", resource="external_calls", pool="token_validation")
    assert refused >= FLOOD - 60
    assert metric(metrics, "portcullis_pool_refused_total", pool="external_idp") == 0
    assert metric(metrics, "portcullis_pool_refused_total", pool="user_auth") == 0

    # The issuer is left alone now: who comes is refused without being kept.
    assert metric(metrics, "portcullis_breaker_transitions_total", dependency="external_idp", state="open") >= 1
    issuer.release()
    wait_until(lambda: timed(running, "opaque-later")[0].status == 200, "the issuer to be asked again", 10)


def test_while_an_issuer_is_left_alone_its_callers_are_told_at_once(running: Gateway, issuer: IssuerThread) -> None:
    issuer.hold()
    with ThreadPoolExecutor(12) as callers:
        list(callers.map(lambda number: timed(running, f"opaque-{number}"), range(12)))
    (breaker,) = running.admin("/readyz").json["breakers"]
    assert (breaker["dependency"], breaker["operation"]) == ("external_idp", "introspect")
    assert breaker["tenant"] == issuer.issuer.issuer
    # One probe at a time may still find out for itself; everybody else is answered without it.
    elapsed_s = sorted(timed(running, f"opaque-new-{number}")[1] for number in range(9))
    assert elapsed_s[4] < FETCH_TIMEOUT_S / 2
    issuer.release()
    tokens = itertools.count()

    def is_closed() -> bool:
        timed(running, f"opaque-probe-{next(tokens)}")  # a token that nobody remembers
        return bool(running.admin("/readyz").json["breakers"] == [])

    wait_until(is_closed, "the breaker to close", 10)
    # Where this machine had no time for it, it says so, and who comes again is served.
    wait_until(lambda: timed(running, f"opaque-last-{next(tokens)}")[0].status == 200, "the issuer to be asked", 10)
