"""The engine and the front door, without a server: what each door answers, and what it refuses."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.front import PROVEN, REASONS
from gateway.config import RouteConfig
from tests.native.front_harness import Asked, Harness
from tests.real.gateway import ISSUER, bearer, mint
from tests.real.http import Answer


@pytest.fixture
def harness() -> Harness:
    return Harness()


def challenge(answer: Answer) -> str:
    return answer.one("www-authenticate")


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_no_token_is_401_with_a_challenge_that_has_no_error_code(harness: Harness) -> None:
    """RFC 6750 §3.1: without credentials the challenge carries no error code."""
    answer = harness.forward("GET", "/orders/1")
    assert answer.status == 401
    assert challenge(answer) == 'Bearer realm="portcullis"'
    assert answer.json["code"] == "no_credentials"
    assert answer.json["request_id"] == answer.one("x-request-id")


def test_good_token_is_200_with_identity(harness: Harness) -> None:
    answer = harness.forward("GET", "/orders/1", bearer())
    assert answer.status == 200
    assert answer.one("x-auth-subject") == "alice"
    assert answer.one("x-auth-issuer") == ISSUER
    assert answer.one("x-auth-scopes") == "orders:read"
    assert len(answer.one("x-auth-decision-id")) == 32


def test_decision_ids_differ(harness: Harness) -> None:
    header = bearer()
    ids = {harness.forward("GET", "/orders/1", header).one("x-auth-decision-id") for _ in range(50)}
    assert len(ids) == 50


def test_missing_scope_is_403_and_names_the_scope(harness: Harness) -> None:
    answer = harness.forward("GET", "/admin/users", bearer())
    assert answer.status == 403
    assert 'error="insufficient_scope"' in challenge(answer)
    assert 'scope="admin"' in challenge(answer)


def test_mapped_claims_become_headers_and_absent_ones_are_empty() -> None:
    harness = Harness(identity={"X-Auth-Email": "email", "X-Auth-Groups": "groups"})
    answer = harness.forward("GET", "/orders/1", bearer(mint(email="a@example.com")))
    assert answer.one("x-auth-email") == "a@example.com"
    assert answer.one("x-auth-groups") == ""


def test_route_without_auth_passes_and_blanks_every_identity_header() -> None:
    harness = Harness(identity={"X-Auth-Email": "email"})
    answer = harness.forward("GET", "/public/x", ("X-Auth-Subject", "root"), bearer())
    assert answer.status == 200
    for name in ("x-auth-subject", "x-auth-issuer", "x-auth-scopes", "x-auth-email"):
        assert answer.one(name) == ""


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: mint(exp=int(time.time()) - 3600), id="expired"),
        pytest.param(lambda: mint(aud="somebody-else"), id="audience"),
        pytest.param(lambda: mint(iss="https://evil.test"), id="issuer"),
        pytest.param(lambda: mint(nbf=int(time.time()) + 3600), id="not-yet-valid"),
        pytest.param(lambda: mint()[:-4] + "AAAA", id="signature"),
        pytest.param(lambda: "a.b.c", id="garbage"),
        pytest.param(lambda: "eyJhbGciOiJub25lIn0.e30.", id="none"),
        pytest.param(lambda: "x" * 9000, id="too-large"),
    ],
)
def test_every_fault_of_a_token_gets_the_same_answer(harness: Harness, token: object) -> None:
    expected = harness.forward("GET", "/orders/1", bearer("a.b.c"))
    answer = harness.forward("GET", "/orders/1", bearer(token()))  # type: ignore[operator]
    assert answer.status == 401
    assert challenge(answer) == challenge(expected)
    assert {**answer.json, "request_id": ""} == {**expected.json, "request_id": ""}
    assert answer.json["code"] == "invalid_token"


def test_audit_has_the_reason_that_the_client_does_not_get(harness: Harness) -> None:
    harness.forward("GET", "/orders/1", bearer(mint(exp=1)))
    [(verdict, status)] = harness.audited
    assert (verdict.reason, status, verdict.door, verdict.path) == ("expired", 401, "forward", "/orders/1")


def test_unknown_kid_asks_and_a_second_time_is_final(harness: Harness) -> None:
    with pytest.raises(Asked) as asked:
        harness.forward("GET", "/orders/1", bearer(mint("two")))
    assert asked.value.verdict.reason == "kid_unknown"
    assert asked.value.verdict.issuer_index == 0
    harness.engine.hold(0, int(time.time()) + 60)
    assert harness.forward("GET", "/orders/1", bearer(mint("two"))).status == 401


def test_keys_that_are_too_old_are_503_and_never_401(harness: Harness) -> None:
    from tests.native.front_harness import validator_for

    stale = Harness(validator=validator_for(harness.config, usable_until_s=1))
    verdict = stale.door.judge_scope(stale.scope("GET", "/auth/envoy/orders/1", [bearer()]), final=True)
    assert (verdict.kind, verdict.reason) == ("deny", "keys_unavailable")
    with pytest.raises(Asked):
        stale.envoy("GET", "/orders/1", bearer())


# --- the doors' conventions ------------------------------------------------------------------------------------------


def test_nginx_gets_statuses_that_it_can_pass_on(harness: Harness) -> None:
    """nginx turns anything but 2xx, 401 and 403 of an auth_request into 500."""
    refused = harness.nginx("GET", "https://app.test/orders/../1", bearer())
    assert (refused.status, refused.one("x-auth-status")) == (403, "400")
    none = harness.nginx("GET", "https://app.test/orders/1")
    assert (none.status, none.one("x-auth-status")) == (401, "401")
    unknown = harness.nginx("GET", "https://app.test/nowhere", bearer())
    assert (unknown.status, unknown.one("x-auth-status"), unknown.json["status"]) == (403, "403", 403)
    assert harness.nginx("GET", "https://app.test/orders/1", bearer()).status == 200


def test_nginx_may_send_the_path_alone(harness: Harness) -> None:
    assert harness.nginx("GET", "/orders/1?x=1", bearer()).status == 200


def test_envoy_asks_with_the_path_behind_the_prefix(harness: Harness) -> None:
    assert harness.envoy("GET", "/orders/1?a=b", bearer()).status == 200
    assert harness.envoy("GET", "/orders/%2e%2e/admin/x", bearer()).status == 400


def test_proxy_door_without_upstream_is_404(harness: Harness) -> None:
    answer = harness.call("GET", "/orders/1", [bearer()])
    assert (answer.status, answer.json["code"]) == (404, "no_upstream")


def test_proxy_door_names_the_methods_that_a_route_takes(harness: Harness) -> None:
    answer = harness.call("DELETE", "/only-get", [bearer()])
    assert answer.status == 405
    assert "GET" in answer.one("allow")
    assert harness.forward("DELETE", "/only-get", bearer()).status == 403


def test_untrusted_peer_may_not_ask_on_behalf_of_others(harness: Harness) -> None:
    answer = harness.forward("GET", "/public/x", peer="203.0.113.9")
    assert (answer.status, answer.json["code"]) == (403, "proxy_untrusted")


def test_forward_auth_without_the_original_request_is_refused(harness: Harness) -> None:
    answer = harness.call("GET", "/auth/forward", [bearer()])
    assert (answer.status, answer.json["code"]) == (400, "original_request_missing")
    assert harness.call("GET", "/auth/request", [bearer()]).one("x-auth-status") == "400"
    assert harness.nginx("GET", "ftp://app.test/orders/1", bearer()).one("x-auth-status") == "400"


def test_native_endpoints_reach_the_app_and_cannot_be_judged(harness: Harness) -> None:
    with pytest.raises(AssertionError):
        harness.call("GET", "/livez")
    assert [scope["path"] for scope in harness.native] == ["/livez"]


def test_unknown_route_is_never_allowed(harness: Harness) -> None:
    assert harness.forward("GET", "/nowhere", bearer()).status == 403
    assert harness.call("GET", "/nowhere", [bearer()]).status == 404


def test_browsers_get_a_page_and_api_clients_a_problem(harness: Harness) -> None:
    page = harness.forward("GET", "/orders/1", ("Accept", "text/html,application/xhtml+xml"))
    assert page.one("content-type").startswith("text/html")
    assert page.one("x-request-id").encode() in page.body
    problem = harness.forward("GET", "/orders/1", ("Accept", "*/*"))
    assert problem.one("content-type") == "application/problem+json"


def test_browsers_are_sent_to_the_login_where_one_is_configured() -> None:
    harness = Harness(login=lambda verdict: f"https://login.test/?rd={verdict.path}".encode())
    accept = ("Accept", "text/html")
    answer = harness.forward("GET", "/orders/1", accept)
    assert (answer.status, answer.one("location")) == (302, "https://login.test/?rd=/orders/1")
    assert harness.forward("GET", "/orders/1").status == 401
    assert harness.forward("GET", "/orders/1", accept, ("Sec-Fetch-Mode", "cors")).status == 401
    nginx = harness.nginx("GET", "/orders/1", accept)
    assert (nginx.status, nginx.one("x-auth-status")) == (401, "302")
    assert nginx.one("x-auth-login").startswith("https://login.test/")
    assert harness.forward("GET", "/admin/x", accept, bearer()).status == 403


def test_draining_tells_clients_to_close(harness: Harness) -> None:
    harness.door.draining = True
    assert harness.forward("GET", "/orders/1", bearer()).one("connection") == "close"
    assert harness.forward("GET", "/orders/1").one("connection") == "close"


# --- the gate: what is ambiguous is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param(
            [("Authorization", "Bearer a.b.c"), ("Authorization", "Bearer a.b.c")],
            "invalid_request",
            id="authorization-twice",
        ),
        pytest.param([("Host", "other.test")], "host_invalid", id="host-twice"),
        pytest.param([("X_Auth_Subject", "root")], "header_refused", id="underscore"),
        pytest.param([("X.Auth.Subject", "root")], "header_refused", id="dot"),
        pytest.param([("X~Auth~Subject", "root")], "header_refused", id="tilde"),
        pytest.param([("Authorization", "Bearer a.b.c, Bearer d.e.f")], "invalid_request", id="comma-list"),
        pytest.param([("Authorization", "Bearer\ta.b.c")], "invalid_request", id="tab"),
        pytest.param([("Authorization", "Bearer a.b.c d")], "invalid_request", id="two-words"),
        pytest.param([("Authorization", "Bearer")], "invalid_request", id="no-token"),
        pytest.param([("Authorization", "Bearer ")], "invalid_request", id="empty-token"),
    ],
)
def test_ambiguous_headers_are_400_at_every_door(harness: Harness, headers: list[tuple[str, str]], code: str) -> None:
    for answer in (harness.forward("GET", "/orders/1", *headers), harness.envoy("GET", "/orders/1", *headers)):
        assert (answer.status, answer.json["code"]) == (400, code)
    assert harness.nginx("GET", "/orders/1", *headers).one("x-auth-status") == "400"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_scheme_is_case_insensitive(harness: Harness, scheme: str) -> None:
    assert harness.forward("GET", "/orders/1", ("Authorization", f"{scheme} {mint()}")).status == 200


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearerx", "DPoP a.b.c", ""])
def test_other_schemes_are_no_credentials(harness: Harness, value: str) -> None:
    answer = harness.forward("GET", "/orders/1", ("Authorization", value))
    assert (answer.status, answer.json["code"]) == (401, "no_credentials")


@pytest.mark.parametrize("scheme", ["DPoP", "dpop", "DPOP"])
def test_a_token_with_a_proof_is_asked_about_each_time(scheme: str) -> None:
    harness = Harness(proofs=True)
    for _ in range(2):
        with pytest.raises(Asked) as asked:
            harness.forward("GET", "/orders/1", ("Authorization", f"{scheme} {mint()}"))
        verdict = asked.value.verdict
        assert (verdict.reason, verdict.by_proof, verdict.method) == ("sender_constrained", True, "GET")
        assert verdict.token.count(b".") == 2


@pytest.mark.parametrize("value", ["DPoP", "DPoP ", "DPoP a b", "DPoP a,b", "DPoP\ta"])
def test_a_proof_is_for_one_token(value: str) -> None:
    answer = Harness(proofs=True).forward("GET", "/orders/1", ("Authorization", value))
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


def test_a_proof_that_was_checked_counts_for_its_scope_and_for_nothing_else() -> None:
    harness = Harness(proofs=True)
    headers = [
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Uri", "/orders/1"),
        ("X-Forwarded-Host", "app.test"),
        ("X-Forwarded-Proto", "https"),
        ("Authorization", f"DPoP {mint()}"),
    ]
    identity, reason = harness.validator.judge_token(mint().encode())
    assert identity is not None, reason

    def scope() -> dict[str, object]:
        return harness.scope("GET", "/auth/forward", headers)

    assert harness.finish(scope()).status == 401  # for good, and nobody has checked anything
    assert harness.finish({**scope(), PROVEN: "alice"}).status == 401
    answer = harness.finish({**scope(), PROVEN: identity})
    assert (answer.status, answer.one("x-auth-subject")) == (200, "alice")
    assert harness.finish(scope()).status == 401
    admin = [(name, "/admin/1" if name == "X-Forwarded-Uri" else value) for name, value in headers]
    assert harness.finish({**harness.scope("GET", "/auth/forward", admin), PROVEN: identity}).status == 403
    bearer_too = [*headers[:-1], ("Authorization", "Bearer x.y.z")]
    assert harness.finish({**harness.scope("GET", "/auth/forward", bearer_too), PROVEN: identity}).status == 401


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Original-URL"]
)
def test_repeated_forwarding_header_is_refused(harness: Harness, name: str) -> None:
    answer = harness.forward("GET", "/public/x", (name, "/a"), (name, "/b"))
    assert (answer.status, answer.json["code"]) == (400, "forwarding_header_repeated")


def test_repeated_forwarding_headers_decide_nothing_at_the_proxy_door(harness: Harness) -> None:
    answer = harness.call("GET", "/only-get", [("X-Forwarded-Uri", "/a"), ("X-Forwarded-Uri", "/b"), bearer()])
    assert answer.json["code"] == "no_upstream"


@pytest.mark.parametrize(
    "host",
    ["", "a/b?x=", "user@host", "a b", "app.test:x", "app.test:123456", ".", "", "%61pp.test", "[::1", "app.test, b"],
)
def test_bad_host_is_400(harness: Harness, host: str) -> None:
    answer = harness.call("GET", "/orders/1", [bearer()], host=host)
    assert (answer.status, answer.json["code"]) == (400, "host_invalid")


def test_host_is_compared_without_case_port_and_final_dot() -> None:
    harness = Harness(routes=[RouteConfig(path="/{*rest}", host="app.test", auth="none")])
    for host in ("app.test", "APP.test", "app.test:8443", "app.test."):
        assert harness.envoy("GET", "/x", host=host).status == 200
    assert harness.envoy("GET", "/x", host="other.test").status == 403


@pytest.mark.parametrize("size", [HEADER_BYTES := 2000])
def test_header_bytes_are_bounded(size: int) -> None:
    harness = Harness(header_bytes_max=size)
    used = sum(len(name) + len(value) for name, value in harness.scope("GET", "/only-get")["headers"])
    room = size - used - len("x-pad")
    assert harness.call("GET", "/only-get", [("X-Pad", "a" * room)]).status == 401
    assert harness.call("GET", "/only-get", [("X-Pad", "a" * (room + 1))]).status == 431


def test_header_count_is_bounded() -> None:
    harness = Harness(header_count_max=10)
    assert harness.call("GET", "/only-get", [("X-A", "b")] * 9).status == 401
    assert harness.call("GET", "/only-get", [("X-A", "b")] * 10).status == 431


def test_a_request_with_too_many_headers_is_seen_as_itself() -> None:
    """Regression: its method, path and query were slices of the request before, whose bytes were freed."""
    harness = Harness(header_count_max=10)
    harness.call("DELETE", "/auth/envoy/orders/secret?token=canary")
    answer = harness.call("GET", "/auth/request?mine", [("X-A", "b")] * 10)
    assert (answer.status, answer.one("x-auth-status")) == (403, "431")
    verdict, status = harness.audited[-1]
    assert (verdict.door, verdict.method, verdict.query, status) == ("nginx", "GET", b"mine", 403)


@pytest.mark.parametrize("method", ["", "GET\x00", "G ET", "A" * 33, "GET\r\nX: y", "gét"])
def test_strange_methods_are_400(harness: Harness, method: str) -> None:
    answer = harness.forward(method, "/orders/1", bearer())
    assert answer.status in {400, 403}
    assert answer.status == 400 or answer.json["code"] == "no_route"


AMBIGUOUS_PATHS = [
    "/public/../admin",
    "/public/%2e%2e/admin",
    "/public/..%2fadmin",
    "/public;x=1",
    "/public\\x",
    "//public",
    "/public/%00",
    "/public/%ff",
    "/public/%252e",
    "public",
    "*",
    "http://app.test/public/x",
    "/public/#x",
]


@pytest.mark.parametrize("path", [*AMBIGUOUS_PATHS, "/public/a b"])
def test_ambiguous_paths_are_400_even_where_no_auth_is_needed(harness: Harness, path: str) -> None:
    assert harness.forward("GET", path).status == 400
    assert harness.nginx("GET", "https://app.test" + path).one("x-auth-status") == "400"


def test_every_reason_has_an_answer_that_refuses(harness: Harness) -> None:
    from gateway.front.answers import refusal_of

    for reason in REASONS:
        assert refusal_of(reason).status >= 400


BYTES = st.characters(codec="latin-1")
HEADERS = st.lists(st.tuples(st.text(BYTES, max_size=20), st.text(BYTES, max_size=60)), max_size=8)
PATHS = st.text(st.characters(codec="latin-1", exclude_characters="?"), max_size=40)


@given(HEADERS, PATHS, st.sampled_from(["GET", "POST", "x"]))
def test_no_request_without_a_valid_token_is_ever_allowed(
    headers: list[tuple[str, str]], path: str, method: str
) -> None:
    harness = _harness_of_module()
    scope = harness.scope(method, "/", [(name.replace("?", ""), value) for name, value in headers])
    for prefix in (b"", b"/auth/forward", b"/auth/request", b"/auth/envoy/"):
        scope["raw_path"] = prefix + path.encode("latin-1")
        verdict = harness.door.judge_scope(dict(scope))
        assert verdict.kind != "allow" or (verdict.route is not None and verdict.route.name == "/public/{*rest}")


_module_harness: Harness | None = None


def _harness_of_module() -> Harness:
    global _module_harness
    if _module_harness is None:
        _module_harness = Harness()
    return _module_harness
