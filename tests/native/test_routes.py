from __future__ import annotations

import gc
import random
import time
import weakref
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway._native.routes import (
    LIMITS,
    PATH_ERRORS,
    PathRefused,
    Route,
    RouteConflict,
    RouteInvalid,
    RouteSnapshot,
    canonical_path,
)
from tests.oracle import routes as oracle

PATH_BYTES_MAX = LIMITS["PATH_BYTES_MAX"]


def native_canonical(raw: bytes) -> bytes | tuple[int, str]:
    """Canonicalise like the oracle does: (offset, code) where the compiled module refuses."""
    try:
        return canonical_path(raw)
    except PathRefused as refused:
        return refused.offset, refused.code


# ---------------------------------------------------------------------------------------------------------------- paths

PIECES = [
    "/", ".", "..", "//", "%2e", "%2E", "%2f", "%5C", "\\", ";", "%3b", "%", "%25", "%252e", "%25%32%65", "%00",
    "%0d%0a", "%7f", "\x00", "\x7f", " ", "%20", "?", "#", '"', "<", "{", "%7B", "|", "[", "%c0%af", "%c3%a9",
    "%C3", "%ed%a0%80", "%f4%90%80%80", "%e2%82%ac", "%f0%9f%98%80", "a", "b", "Z", "9", "-", "_", "~", "!", "$", "&",
    "'", "(", ")", "*", "+", "%2B", ",", "=", ":", "@", "%41", "%7e", "%u002f", "4", "1",
    "index.html", "admin", ".well-known",
]  # fmt: skip
raw_paths = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: ("/" + "".join(pieces)).encode()),
    st.lists(st.sampled_from([*PIECES, "é"]), max_size=12).map(lambda pieces: "".join(pieces).encode()),
    st.binary(max_size=24).map(lambda tail: b"/" + tail),
    st.lists(st.integers(0, 255), max_size=12).map(lambda tail: b"/" + b"".join(b"%%%02x" % byte for byte in tail)),
)
# Mostly good from the start: a filter that drops nearly all of `raw_paths` makes Hypothesis give up.
GOOD_PIECES = [piece for piece in PIECES if not oracle.faults_of(f"/a{piece}z".encode())]
accepted_paths = (
    st.lists(st.sampled_from(GOOD_PIECES) | st.integers(0x20, 0x7E).map("%{:02x}".format), max_size=12)
    .map(lambda pieces: ("/" + "".join(pieces)).encode())
    .filter(lambda raw: not oracle.faults_of(raw))
)


@given(raw_paths)
@example(b"/%25%C3%A9")
@example(b"/%c3%25")
def test_canonical_form_and_first_fault_are_the_oracles(raw: bytes) -> None:
    assert native_canonical(raw) == oracle.canonical_path(raw)


def test_every_single_byte_plain_and_escaped_is_read_as_the_oracle_reads_it() -> None:
    for byte in range(256):
        for raw in (b"/a" + bytes([byte]), b"/%%%02x" % byte, b"/a%%%02Xb/c" % byte, b"/.%%%02x" % byte):
            assert native_canonical(raw) == oracle.canonical_path(raw), raw


def test_every_pair_of_escaped_bytes_is_read_as_the_oracle_reads_it() -> None:
    for first in range(256):
        for second in range(256):
            raw = b"/%%%02x%%%02X" % (first, second)
            assert native_canonical(raw) == oracle.canonical_path(raw), raw


def test_three_and_four_byte_characters_are_read_as_strict_utf8() -> None:
    edges = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    for lead in range(0xE0, 0x100):
        for second in edges:
            for third in edges:
                for tail in ((), (0x80,), (0xBF,), (0xC0,), (0x41,)):
                    raw = b"/" + b"".join(b"%%%02x" % byte for byte in (lead, second, third, *tail))
                    assert native_canonical(raw) == oracle.canonical_path(raw), raw


@given(accepted_paths)
def test_canonical_form_is_its_own_canonical_form(raw: bytes) -> None:
    once = canonical_path(raw)
    assert canonical_path(once) == once
    assert len(once) <= len(raw)


@given(accepted_paths)
def test_canonical_form_decodes_to_the_bytes_that_the_app_behind_sees(raw: bytes) -> None:
    assert unquote_to_bytes(canonical_path(raw)) == unquote_to_bytes(raw)


@given(accepted_paths, accepted_paths)
def test_two_paths_share_a_form_exactly_when_they_decode_alike(a: bytes, b: bytes) -> None:
    assert (canonical_path(a) == canonical_path(b)) == (unquote_to_bytes(a) == unquote_to_bytes(b))


@given(accepted_paths, st.data())
def test_spelling_a_character_as_an_escape_changes_nothing(raw: bytes, data: st.DataObject) -> None:
    clean = canonical_path(raw)
    respelled = b""
    for byte in clean:
        plain = byte in b"/%" or data.draw(st.booleans())
        respelled += bytes([byte]) if plain else b"%%%02x" % byte
    # An escape's own digits must stay as they are: only whole characters may be spelled differently.
    if unquote_to_bytes(respelled) == unquote_to_bytes(clean):
        assert canonical_path(respelled) == clean


@given(raw_paths)
def test_no_canonical_path_holds_what_could_be_read_in_two_ways(raw: bytes) -> None:
    form = native_canonical(raw)
    if isinstance(form, tuple):
        return
    decoded = unquote_to_bytes(form)
    assert not {b".", b".."} & set(decoded.split(b"/"))
    assert b"//" not in decoded
    assert decoded.count(b"/") == form.count(b"/")
    assert not set(decoded) & set(b"\\;\x00\x7f\r\n")
    assert unquote_to_bytes(decoded) == decoded, "decoding once more changes nothing"
    decoded.decode()


@pytest.mark.parametrize(
    ("raw", "code", "offset"),
    [
        (b"", "path_not_absolute", 0),
        (b"*", "path_not_absolute", 0),
        (b"a/b", "path_not_absolute", 0),
        (b"http://a/b", "path_not_absolute", 0),
        (b"/pub/../admin", "path_dot_segment", 5),
        (b"/pub/%2e%2e/admin", "path_dot_segment", 5),
        (b"/pub/.%2E/admin", "path_dot_segment", 5),
        (b"/pub/..", "path_dot_segment", 5),
        (b"/.", "path_dot_segment", 1),
        (b"/./", "path_dot_segment", 1),
        (b"/..%2fadmin", "path_separator", 3),
        (b"/a%5cb", "path_separator", 2),
        (b"/a\\b", "path_separator", 2),
        (b"/..;/admin", "path_parameter", 3),
        (b"/admin;x=1", "path_parameter", 6),
        (b"/admin%3Bx", "path_parameter", 6),
        (b"//evil.example", "path_double_slash", 1),
        (b"/a//b", "path_double_slash", 3),
        (b"/a//", "path_double_slash", 3),
        (b"/a%00.html", "path_control", 2),
        (b"/a\x00", "path_control", 2),
        (b"/a%0d%0aX: y", "path_control", 2),
        (b"/a%7F", "path_control", 2),
        (b"/\t", "path_control", 1),
        (b"/%c0%af", "path_utf8", 1),
        (b"/%c0%ae%c0%ae/", "path_utf8", 1),
        (b"/%ff", "path_utf8", 1),
        (b"/%ed%a0%80", "path_utf8", 1),
        (b"/%f4%90%80%80", "path_utf8", 1),
        (b"/a%e2%82", "path_utf8", 2),
        (b"/a%e2%82/%ac", "path_utf8", 2),
        (b"/%80", "path_utf8", 1),
        (b"/100%", "path_escape", 4),
        (b"/%zz", "path_escape", 1),
        (b"/%4", "path_escape", 1),
        (b"/%u002e", "path_escape", 1),
        (b"/%252e%252e/", "path_escape", 1),
        (b"/%25%32%65", "path_escape", 1),
        (b"/%25252e", "path_escape", 1),
        (b"/a b", "path_raw", 2),
        (b"/a?b", "path_raw", 2),
        (b"/a#b", "path_raw", 2),
        (b'/"', "path_raw", 1),
        (b"/<script>", "path_raw", 1),
        (b"/[1]", "path_raw", 1),
        (b"/{a}", "path_raw", 1),
        (b"/a|b", "path_raw", 2),
        ("/é".encode(), "path_raw", 1),
        (b"/\xff", "path_raw", 1),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(raw: bytes, code: str, offset: int) -> None:
    with pytest.raises(PathRefused) as refused:
        canonical_path(raw)
    assert (refused.value.code, refused.value.offset) == (code, offset)
    assert code in PATH_ERRORS


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        (b"/", b"/"),
        (b"/a/", b"/a/"),
        (b"/...", b"/..."),
        (b"/..a/.b/c..", b"/..a/.b/c.."),
        (b"/.well-known/jwks.json", b"/.well-known/jwks.json"),
        (b"/%7Euser/%41%2d%5f", b"/~user/A-_"),
        (b"/a%20b", b"/a%20b"),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
        (b"/%f0%9f%98%80", b"/%F0%9F%98%80"),
        (b"/a%21%24%26%27%28%29%2a%2b%2c%3d%3a%40", b"/a!$&'()*+,=:@"),
        (b"/%5b1%5d%7c%22", b"/%5B1%5D%7C%22"),
        (b"/100%25", b"/100%25"),
        (b"/100%25%20off", b"/100%25%20off"),
        (b"/%3f%23", b"/%3F%23"),
        (b"/%e2%82%ac/%e2%82%ac", b"/%E2%82%AC/%E2%82%AC"),
    ],
)
def test_what_can_be_read_in_one_way_has_one_form(raw: bytes, form: bytes) -> None:
    assert canonical_path(raw) == form


def test_a_path_may_have_4096_bytes_and_not_one_more() -> None:
    for path in (b"/" + b"a" * (PATH_BYTES_MAX - 1), b"/%41" + b"a" * (PATH_BYTES_MAX - 4)):
        assert len(path) == PATH_BYTES_MAX
        assert canonical_path(path).strip(b"aA") == b"/"
        with pytest.raises(PathRefused) as refused:
            canonical_path(path + b"a")
        assert (refused.value.code, refused.value.offset) == ("path_too_long", PATH_BYTES_MAX)


def test_a_path_of_escapes_alone_is_decoded_to_the_last_byte() -> None:
    assert canonical_path(b"/" + b"%61" * 1365) == b"/" + b"a" * 1365


# --------------------------------------------------------------------------------------------------------------- routes


def snapshot(*patterns: str, host: str = "") -> RouteSnapshot:
    return RouteSnapshot([Route(pattern, index=i, host=host) for i, pattern in enumerate(patterns)])


def found(routes: RouteSnapshot, path: str, method: str = "GET", host: str = "") -> tuple[int, dict[str, str]] | str:
    answer = routes.find(host.encode(), path.encode(), method.encode())
    return answer if isinstance(answer, str) else (answer[0].index, answer[1])


SEGMENTS = ["a", "b", "ab", "a.b", "%C3%A9", "x!"]
HOSTS = ["", "a.test", "b.a.test", "*.a.test", "*.test", "*.b.a.test", "test"]
segments = st.sampled_from([*SEGMENTS, "{}"])
endings = st.sampled_from(["", "/", "/{*}"])


@st.composite
def patterns(draw: st.DrawFn) -> oracle.Pattern:
    parts = draw(st.lists(segments, max_size=4))
    path = "".join("/" + part for part in parts) + draw(endings) or "/"
    prefix = draw(st.sampled_from(["p", "q"]))
    for i in range(path.count("{}")):
        path = path.replace("{}", f"{{{prefix}{i}}}", 1)
    path = path.replace("{*}", f"{{*{prefix}}}")
    methods = draw(st.sets(st.sampled_from(["GET", "HEAD", "POST", "PUT"]), max_size=3))
    return oracle.Pattern(path, draw(st.sampled_from(HOSTS)), tuple(sorted(methods)))


request_paths = st.builds(
    lambda parts, ending: "".join("/" + part for part in parts) + ending or "/",
    st.lists(st.sampled_from([*SEGMENTS, "c"]), max_size=5),
    st.sampled_from(["", "/"]),
)
request_hosts = st.sampled_from(
    ["", "a.test", "A.Test.", "b.a.test", "c.b.a.test", "x.test", "test", "other", ".test", "..", "."]
)
request_methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "get", ""])


@given(
    st.lists(patterns(), max_size=12), st.lists(st.tuples(request_hosts, request_paths, request_methods), max_size=12)
)
def test_choice_of_route_is_the_oracles(wanted: list[oracle.Pattern], requests: list[tuple[str, str, str]]) -> None:
    compiled = [
        Route(pattern.path, index=i, host=pattern.host, methods=pattern.methods) for i, pattern in enumerate(wanted)
    ]
    if oracle.conflicts(wanted):
        with pytest.raises(RouteConflict):
            RouteSnapshot(compiled)
        return
    routes = RouteSnapshot(compiled)
    for host, path, method in requests:
        assert found(routes, path, method, host) == oracle.find(wanted, host, path, method)
        assert routes.visited_nodes(host.encode(), path.encode()) <= routes.node_count


def test_choice_does_not_depend_on_the_order_of_the_routes() -> None:
    names = ["/a/{x}", "/a/b", "/{*rest}", "/a/b/", "/{y}/b/c", "/a/{x}/{*rest}", "/a/b/{z}"]
    shuffler = random.Random(7)
    paths = ["/a/b", "/a/c", "/a/b/", "/a/b/c", "/x/b/c", "/a/x/y/z", "/q"]
    expected = None
    for _ in range(20):
        shuffler.shuffle(names)
        routes = snapshot(*names)
        chosen = [routes.routes[answer[0]].name for path in paths if not isinstance(answer := found(routes, path), str)]
        expected = expected or chosen
        assert chosen == expected
    assert expected == ["/a/b", "/a/{x}", "/a/b/", "/a/b/{z}", "/{y}/b/c", "/a/{x}/{*rest}", "/{*rest}"]


def test_a_literal_branch_that_leads_nowhere_falls_back() -> None:
    routes = snapshot("/a/b/c", "/a/{x}/d", "/{y}/b/e", "/{*rest}")
    assert found(routes, "/a/b/c") == (0, {})
    assert found(routes, "/a/b/d") == (1, {"x": "b"})
    assert found(routes, "/a/b/e") == (2, {"y": "a"})
    assert found(routes, "/a/b/f") == (3, {"rest": "a/b/f"})


def test_a_parameter_takes_one_segment_that_is_not_empty() -> None:
    routes = snapshot("/u/{id}")
    assert found(routes, "/u/7") == (0, {"id": "7"})
    assert found(routes, "/u/") == "no_route"
    assert found(routes, "/u/7/") == "no_route"
    assert found(routes, "/u") == "no_route"


def test_the_rest_may_be_empty_but_its_slash_may_not_lack() -> None:
    routes = snapshot("/files/{*path}")
    assert found(routes, "/files/") == (0, {"path": ""})
    assert found(routes, "/files/a/b/") == (0, {"path": "a/b/"})
    assert found(routes, "/files") == "no_route"
    assert found(snapshot("/{*path}"), "/") == (0, {"path": ""})


def test_a_trailing_slash_makes_another_place() -> None:
    routes = snapshot("/a", "/a/", "/")
    assert found(routes, "/a") == (0, {})
    assert found(routes, "/a/") == (1, {})
    assert found(routes, "/") == (2, {})


def test_a_method_that_the_place_lacks_never_reaches_a_laxer_route() -> None:
    # Verb tampering (CWE-650): an odd method must not fall through to the catch-all that needs no token.
    routes = RouteSnapshot(
        [
            Route("/admin/{*rest}", index=0, methods=("GET", "POST"), scopes=("admin",)),
            Route("/{*rest}", index=1, auth="none"),
        ]
    )
    for method in ("PUT", "DELETE", "get", "GET ", "", "X"):
        assert found(routes, "/admin/users", method) == "no_method"
    assert routes.allowed_methods(b"", b"/admin/users") == "GET, HEAD, POST"
    assert routes.allowed_methods(b"", b"/other") == ""


def test_get_answers_head_unless_head_is_named() -> None:
    assert found(RouteSnapshot([Route("/a", index=0, methods=("GET",))]), "/a", "HEAD") == (0, {})
    routes = RouteSnapshot([Route("/a", index=0, methods=("GET",)), Route("/a", index=1, methods=("HEAD",))])
    assert found(routes, "/a", "HEAD") == (1, {})
    with_any = RouteSnapshot([Route("/a", index=0), Route("/a", index=1, methods=("GET",))])
    assert found(with_any, "/a", "HEAD") == (1, {})
    assert found(with_any, "/a", "POST") == (0, {})
    assert found(RouteSnapshot([Route("/a", index=0, methods=("POST",))]), "/a", "HEAD") == "no_method"


def test_hosts_go_from_exact_over_the_longest_suffix_to_any() -> None:
    hosts = ["", "*.example.com", "*.a.example.com", "x.a.example.com"]
    routes = RouteSnapshot([Route("/", index=i, host=host) for i, host in enumerate(hosts)])
    assert found(routes, "/", host="x.a.example.com") == (3, {})
    assert found(routes, "/", host="y.a.example.com") == (2, {})
    assert found(routes, "/", host="deep.down.a.example.com") == (2, {})
    assert found(routes, "/", host="b.example.com") == (1, {})
    assert found(routes, "/", host="example.com") == (0, {})
    assert found(routes, "/", host="badexample.com") == (0, {})
    assert found(routes, "/", host="") == (0, {})


def test_a_host_cannot_slip_past_its_routes_by_case_or_a_trailing_dot() -> None:
    routes = RouteSnapshot([Route("/", index=0, host="Admin.Example.com."), Route("/", index=1, auth="none")])
    for host in ("admin.example.com", "ADMIN.example.COM", "admin.example.com.", "Admin.Example.com."):
        assert found(routes, "/", host=host) == (0, {})


def test_a_path_that_the_host_lacks_is_looked_for_under_wider_hosts() -> None:
    routes = RouteSnapshot(
        [Route("/a", index=0, host="h.test"), Route("/b", index=1, host="*.test"), Route("/c", index=2)]
    )
    assert [found(routes, path, host="h.test") for path in ("/a", "/b", "/c", "/d")] == [
        (0, {}),
        (1, {}),
        (2, {}),
        "no_route",
    ]


def test_an_ipv6_host_is_matched_in_its_brackets() -> None:
    routes = RouteSnapshot([Route("/", index=0, host="[::1]")])
    assert found(routes, "/", host="[::1]") == (0, {})
    assert found(routes, "/", host="::1") == "no_route"


def test_literals_are_compared_in_canonical_form() -> None:
    routes = snapshot("/café/%7euser/a%21", "/x")
    assert found(routes, canonical_path(b"/caf%c3%a9/~user/a!").decode()) == (0, {})


@pytest.mark.parametrize("path", ["", "x", "*", "//", "/a//b"])
def test_a_path_that_is_not_canonical_finds_nothing_and_harms_nothing(path: str) -> None:
    assert found(snapshot("/a/b", "/{x}/{y}"), path) == "no_route"


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=40))
def test_any_bytes_at_all_get_an_answer(host: bytes, path: bytes, method: bytes) -> None:
    routes = RouteSnapshot(
        [Route("/a/{x}/{*r}", index=0, host="*.a"), Route("/{y}", index=1), Route("/b", index=2, methods=("GET",))]
    )
    routes.find(host, path, method)
    routes.find(host, b"/" + path, method)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Route("/a/{x}", index=0), Route("/a/{y}", index=1)),
        (Route("/a", index=0, methods=("GET", "POST")), Route("/a", index=1, methods=("POST",))),
        (Route("/{*a}", index=0), Route("/{*b}", index=1)),
        (Route("/a", index=0, host="H.test"), Route("/a", index=1, host="h.TEST.")),
        (Route("/%41", index=0), Route("/A", index=1)),
    ],
)
def test_two_routes_that_match_the_same_are_refused_and_both_named(first: Route, second: Route) -> None:
    with pytest.raises(RouteConflict) as conflict:
        RouteSnapshot([first, second])
    assert (conflict.value.first, conflict.value.second) == (first, second)
    assert f"route 0 `{first.name}`" in str(conflict.value)
    assert f"route 1 `{second.name}`" in str(conflict.value)


def test_routes_of_different_hosts_methods_or_slashes_do_not_conflict() -> None:
    RouteSnapshot(
        [
            Route("/a", index=0, methods=("GET",)),
            Route("/a", index=1, methods=("POST",)),
            Route("/a", index=2),
            Route("/a/", index=3),
            Route("/a", index=4, host="h.test"),
            Route("/a", index=5, host="*.h.test"),
        ]
    )


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "begins with `/`"),
        ("a", "begins with `/`"),
        ("/a//b", "path_double_slash"),
        ("/a/../b", "path_dot_segment"),
        ("/a;b", "path_parameter"),
        ("/a b", "path_raw"),
        ("/a%2fb", "path_separator"),
        ("/a{x}", "whole segment"),
        ("/{x}b", "whole segment"),
        ("/{}", "whole segment"),
        ("/{1x}", "whole segment"),
        ("/{x", "whole segment"),
        ("/x}", "whole segment"),
        ("/{*x}/b", "takes the rest"),
        ("/{*x}/", "takes the rest"),
        ("/{x}/{x}", "two parameters are named `x`"),
        ("/\ud800", "lone surrogate"),
    ],
)
def test_patterns_that_no_request_could_match_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(RouteInvalid, match=message):
        Route(pattern, index=0)


@pytest.mark.parametrize(
    "host", ["a:80", "*", "*.", "*a.test", "a.*.test", "a..b", ".a", "a b", "é.test", "-a", "[zz]", "http://a"]
)
def test_hosts_that_no_request_could_name_are_refused(host: str) -> None:
    with pytest.raises(RouteInvalid, match=r"neither a host|as it is sent"):
        Route("/", index=0, host=host)


@pytest.mark.parametrize("methods", [("get",), ("",), ("GET POST",), ("G\n",), ("GET", "GET"), ("É",)])
def test_methods_that_are_none_are_refused(methods: tuple[str, ...]) -> None:
    with pytest.raises(RouteInvalid):
        Route("/", index=0, methods=methods)


@pytest.mark.parametrize("scope", ["", "a b", 'a"b', "a\\b", "é", "a\r\nb"])
def test_scopes_that_could_break_out_of_a_header_are_refused(scope: str) -> None:
    with pytest.raises(RouteInvalid, match="scope"):
        Route("/", index=0, scopes=(scope,))


def test_unknown_auth_is_refused() -> None:
    with pytest.raises(RouteInvalid, match="`maybe`"):
        Route("/", index=0, auth="maybe")


def test_a_route_says_what_it_was_made_of() -> None:
    upstream, extra = object(), object()
    route = Route(
        "/a/{x}/{*y}",
        index=7,
        host="*.H.test",
        methods=("GET",),
        auth="session",
        scopes=("r", "w:all"),
        upstream=upstream,
        extra=extra,
    )
    assert (route.name, route.index, route.host, route.methods) == ("/a/{x}/{*y}", 7, "*.h.test", ("GET",))
    assert (route.auth, route.scopes, route.scope_text) == (2, (b"r", b"w:all"), b"r w:all")
    assert (route.parameter_names, route.upstream, route.extra) == (("x", "y"), upstream, extra)
    assert repr(route) == "Route('/a/{x}/{*y}', index=7, host='*.h.test', methods=('GET',))"


# --------------------------------------------------------------------------------------------------------------- limits


def test_a_pattern_may_have_64_segments_and_not_one_more() -> None:
    most = LIMITS["ROUTE_SEGMENTS_MAX"]
    assert found(snapshot("/a" * most), "/a" * most) == (0, {})
    assert found(snapshot("/a" * (most - 1) + "/{*r}"), "/a" * 2000) == (0, {"r": "a/" * (2000 - most) + "a"})
    with pytest.raises(RouteInvalid, match="64 segments"):
        Route("/a" * (most + 1), index=0)


def test_a_pattern_may_have_16_parameters_and_not_one_more() -> None:
    most = LIMITS["ROUTE_PARAMETERS_MAX"]
    pattern = "".join(f"/{{p{i}}}" for i in range(most - 1)) + "/{*last}"
    answer = found(snapshot(pattern), "/v" * (most + 3))
    assert answer == (0, {f"p{i}": "v" for i in range(most - 1)} | {"last": "v/v/v/v"})
    with pytest.raises(RouteInvalid, match="16 parameters"):
        Route("/{first}" + pattern, index=0)


def test_a_pattern_may_be_4096_long_and_not_one_more() -> None:
    longest = "/" + "a" * (PATH_BYTES_MAX - 1)
    assert found(snapshot(longest), longest) == (0, {})
    with pytest.raises(RouteInvalid, match="longer than"):
        Route(longest + "a", index=0)


def test_a_non_ascii_literal_longer_than_a_path_once_encoded_is_refused() -> None:
    with pytest.raises(RouteInvalid, match="path_too_long"):
        Route("/" + "é" * 683, index=0)


def test_a_route_may_have_32_methods_and_not_one_more() -> None:
    most = LIMITS["ROUTE_METHODS_MAX"]
    methods = tuple(f"M{i}" for i in range(most))
    assert found(RouteSnapshot([Route("/", index=0, methods=methods)]), "/", "M31") == (0, {})
    with pytest.raises(RouteInvalid, match="32 methods"):
        Route("/", index=0, methods=(*methods, "ONE-MORE"))


def test_a_method_may_have_32_characters_and_not_one_more() -> None:
    Route("/", index=0, methods=("A" * 32,))
    with pytest.raises(RouteInvalid):
        Route("/", index=0, methods=("A" * 33,))


def test_a_host_may_have_255_characters_and_not_one_more() -> None:
    most = LIMITS["ROUTE_HOST_BYTES_MAX"]
    host = "a." * (most // 2) + "a"
    assert len(host) == most
    routes = RouteSnapshot([Route("/", index=0, host=host), Route("/", index=1)])
    assert found(routes, "/", host=host) == (0, {})
    assert found(routes, "/", host=host + ".") == (0, {})
    assert found(routes, "/", host="b" + host) == (1, {})
    with pytest.raises(RouteInvalid, match="longer than"):
        Route("/", index=0, host=host + "a")


def test_a_snapshot_may_have_65536_routes_and_not_one_more() -> None:
    most = LIMITS["ROUTES_MAX"]
    routes = [Route(f"/r{i}", index=i) for i in range(most)]
    full = RouteSnapshot(routes)
    assert full.route_count == most
    assert found(full, "/r65535") == (most - 1, {})
    with pytest.raises(RouteInvalid, match="65536"):
        RouteSnapshot([*routes, Route("/one/more", index=most)])


def test_no_routes_at_all_match_nothing() -> None:
    assert found(RouteSnapshot([]), "/") == "no_route"


def test_the_worst_backtracking_looks_at_each_node_once() -> None:
    # Every mixture of `a` and {p} over ten segments: a path that fails at its last segment tries them all.
    mixtures = ["".join("/a" if bits >> i & 1 else f"/{{p{i}}}" for i in range(10)) + "/end" for bits in range(1024)]
    routes = snapshot(*mixtures)
    assert found(routes, "/a" * 10 + "/other") == "no_route"
    assert routes.visited_nodes(b"", b"/a" * 10 + b"/other") == 2**11 - 1
    assert routes.visited_nodes(b"", b"/a" * 10 + b"/other") < routes.node_count
    assert found(routes, "/a" * 10 + "/end") == (1023, {})


def test_ten_thousand_routes_are_built_and_searched_fast() -> None:
    # Orders of magnitude only: measured 0.03 s and 0.05 µs (2026, one busy core); a linear search would need > 100 µs.
    begun = time.perf_counter()
    routes = snapshot(*(f"/api/v{i % 10}/thing{i}/{{id}}" for i in range(10_000)))
    assert time.perf_counter() - begun < 5
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        assert routes.bench(b"app.example.com", b"/api/v7/thing4567/abc", b"GET", 20_000)
        best = min(best, (time.perf_counter() - begun) / 20_000)
    assert best < 1e-6


class Watched:
    """An object that a weak reference can watch."""


def test_a_snapshot_keeps_its_routes_alive_and_lets_them_go() -> None:
    upstream = Watched()
    watch = weakref.ref(upstream)
    routes = RouteSnapshot([Route("/a", index=0, upstream=upstream)])
    del upstream
    gc.collect()
    answer = routes.find(b"", b"/a", b"GET")
    assert not isinstance(answer, str)
    assert answer[0].upstream is watch()
    del routes, answer
    gc.collect()
    assert watch() is None
