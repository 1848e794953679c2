"""`portcullis render`: what of a config ends up in the proxies' files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.routes import Route, RouteSnapshot
from gateway.cli.render import PROXIES, render_proxy
from gateway.cli.render.site import (
    UNTRUSTED_HEADERS,
    CannotRender,
    Site,
    Upstream,
    parse_listen,
    parse_upstream,
    site_of,
)
from gateway.config import Config, IdentityConfig, RouteConfig, ServerConfig

Run = Callable[..., Result]
RunJson = Callable[..., Any]

IDENTITY = ("X-Auth-Subject", "X-Auth-Issuer", "X-Auth-Scopes", "X-Auth-Decision-Id", "X-Auth-Email")


def site(*routes: RouteConfig, **server: Any) -> Site:
    return site_of(Config(server=ServerConfig(**server), routes=routes), listen=":8000")


def apps(*routes: RouteConfig) -> list[tuple[str, int, str]]:
    [host] = site(*routes).hosts
    return [(str(app.pattern), app.upstream.port, app.strip_prefix) for app in host.apps]


def route(path: str, port: int = 9000, **settings: Any) -> RouteConfig:
    return RouteConfig(path=path, upstream=f"http://127.0.0.1:{port}", **settings)


@pytest.fixture
def config(folder: Path) -> Path:
    path = folder / "portcullis.toml"
    path.write_text(
        '[server]\nlisten = "0.0.0.0:8089"\n[identity.headers]\nX-Auth-Email = "email"\n'
        '[[routes]]\nhost = "app.example.com"\npath = "/api/{id}"\nupstream = "http://127.0.0.1:9001"\n'
        '[[routes]]\npath = "/{*rest}"\n'
    )
    return path


# ---------------------------------------------------------------------------------------------------------------- site


def test_one_upstream_is_one_place() -> None:
    assert apps(route("/api/{id}"), route("/health"), route("/{*rest}")) == [("/{*}", 9000, "")]
    assert apps(route("/api/{id}"), route("/health")) == [("/{*}", 9000, "")]


def test_other_upstreams_have_places_of_their_own_the_most_particular_first() -> None:
    assert apps(route("/{*rest}"), route("/api/{*rest}", 9001), route("/api/v2/{id}", 9002)) == [
        ("/api/v2/{}", 9002, ""),
        ("/api/{*}", 9001, ""),
        ("/{*}", 9000, ""),
    ]


def test_a_route_below_a_place_of_another_upstream_keeps_its_own() -> None:
    assert apps(route("/{*rest}"), route("/api/{*rest}", 9001), route("/api/open/{*rest}")) == [
        ("/api/open/{*}", 9000, ""),
        ("/api/{*}", 9001, ""),
        ("/{*}", 9000, ""),
    ]


def test_a_prefix_that_is_stripped_is_kept_apart() -> None:
    assert apps(route("/app/{*rest}", strip_prefix="/app"), route("/{*rest}")) == [
        ("/app/{*}", 9000, "/app"),
        ("/{*}", 9000, ""),
    ]


def test_a_place_takes_no_more_than_its_route() -> None:
    """`/adminx` and `/orders/1/2` are judged by the wide route, and go where that goes."""
    assert apps(route("/{*rest}"), route("/admin", 9001), route("/orders/{id}", 9001)) == [
        ("/admin", 9001, ""),
        ("/orders/{}", 9001, ""),
        ("/{*}", 9000, ""),
    ]


def test_routes_that_differ_by_method_only_cannot_be_told_apart() -> None:
    with pytest.raises(CannotRender, match="only the proxy door can tell apart"):
        apps(route("/api/{id}", methods=("GET",)), route("/api/{name}", 9001, methods=("POST",)))


def test_the_rest_goes_where_the_widest_route_says() -> None:
    assert apps(route("/api/{*rest}", 9001), route("/{*rest}", 9002)) == [("/api/{*}", 9001, ""), ("/{*}", 9002, "")]
    assert apps(route("/api/{*rest}", 9001), route("/b/{*rest}", 9002)) == [("/b/{*}", 9002, ""), ("/{*}", 9001, "")]


def test_a_host_goes_on_with_the_routes_of_wider_names() -> None:
    """What `a.x.test` does not know is judged by `*.x.test` and by any host: the gateway falls through."""
    hosts = site(
        route("/b/{*rest}"),
        route("/w/{*rest}", 9001, host="*.x.test"),
        route("/w/a/{*rest}", 9002),
        route("/a/{*rest}", 9003, host="a.x.test"),
    ).hosts
    places = {host.name: [(str(app.pattern), app.upstream.port) for app in host.apps] for host in hosts}
    assert places == {
        "a.x.test": [("/w/{*}", 9001), ("/b/{*}", 9000), ("/{*}", 9003)],
        "*.x.test": [("/b/{*}", 9000), ("/{*}", 9001)],
        "": [("/b/{*}", 9000), ("/{*}", 9002)],
    }


_PATHS = st.lists(st.sampled_from(["a", "b", "", "{x}"]), min_size=1, max_size=3).flatmap(
    lambda texts: st.sampled_from(["", "/{*rest}"]).map(lambda end: "/" + "/".join(texts) + end)
)
_HOSTS = st.sampled_from(["", "", "h.x.test", "*.x.test", "*.test"])


@given(wanted=st.lists(st.tuples(_HOSTS, _PATHS, st.integers(9000, 9002)), min_size=1, max_size=6))
def test_every_request_goes_where_the_gateway_finds_its_route(wanted: list[tuple[str, str, int]]) -> None:
    chosen: dict[tuple[str, str], RouteConfig] = {}
    for host, path, port in wanted:
        parts = [f"{{p{at}}}" if text == "{x}" else text for at, text in enumerate(path.split("/"))]
        if "" in parts[1:-1]:
            continue  # `//` is no route
        chosen.setdefault((host, "/".join(parts)), route("/".join(parts), port, host=host))
    routes = list(chosen.values())
    found_by = RouteSnapshot([Route(one.path, index=at, host=one.host) for at, one in enumerate(routes)])
    hosts = site(*routes).hosts
    for name in ("h.x.test", "i.x.test", "h.test", "other"):
        fits = [
            one
            for one in hosts
            if one.name in {"", name} or (one.name.startswith("*.") and name.endswith(one.name[1:]))
        ]
        for segments in itertools.product(["a", "b", "c"], repeat=3):
            for length in range(4):
                for end in ("", "/"):
                    path = "/" + "/".join(segments[:length]) + (end if length else "")
                    found = found_by.find(name.encode(), path.encode(), b"GET")
                    if isinstance(found, str):
                        continue
                    app = next(app for app in fits[0].apps if re.fullmatch(app.pattern.regex(), path))
                    assert app.upstream == parse_upstream(routes[found[0].index].upstream), (name, path)


def test_nginx_compares_paths_without_escapes(folder: Path) -> None:
    (folder / "portcullis.toml").write_text(
        '[[routes]]\npath = "/a%20%22b/{*x}"\nupstream = "http://127.0.0.1:1"\n[[routes]]\npath = "/{*rest}"\n'
    )
    assert 'location "/a \\"b/" {' in render_proxy("nginx", folder / "portcullis.toml")["portcullis.nginx.conf"]


def test_exact_hosts_come_first_then_wildcards_by_length_and_any_host_last() -> None:
    hosts = site(
        route("/"), route("/", host="*.com"), route("/", host="*.example.com"), route("/", host="App.example.com")
    ).hosts
    assert [host.name for host in hosts] == ["app.example.com", "*.example.com", "*.com", ""]


def test_a_config_without_routes_gets_one_host_and_the_placeholder() -> None:
    [host] = site().hosts
    assert (host.name, [app.upstream for app in host.apps]) == ("", [Upstream("127.0.0.1", 9000)])


def test_the_gateway_is_asked_where_it_can_be_reached() -> None:
    assert site(listen="0.0.0.0:1").gateway.authority == "127.0.0.1:1"
    assert site(listen="[::]:1").gateway.authority == "[::1]:1"
    assert site(listen="10.0.0.1:1").gateway.authority == "10.0.0.1:1"


def test_the_decision_id_is_ours_where_it_is_sent_only() -> None:
    config = Config(identity=IdentityConfig(headers={"X-B": "b", "X-A": "a"}, decision_id=False))
    assert site_of(config, listen=":1").identity == ("X-Auth-Subject", "X-Auth-Issuer", "X-Auth-Scopes", "X-A", "X-B")


@pytest.mark.parametrize(
    ("url", "upstream"),
    [
        ("http://app", Upstream("app", 80)),
        ("https://app", Upstream("app", 443, tls=True)),
        ("http://[::1]:9000/", Upstream("::1", 9000)),
        ("unix:/run/app.sock", Upstream(socket="/run/app.sock")),
    ],
)
def test_upstreams(url: str, upstream: Upstream) -> None:
    assert parse_upstream(url) == upstream


@pytest.mark.parametrize("path", ["unix:/a b", "unix:/a;b", 'unix:/a"b', "unix:/a}", "unix:relative"])
def test_a_sockets_path_that_would_need_quoting_is_refused(path: str) -> None:
    with pytest.raises(CannotRender):
        parse_upstream(path)


@pytest.mark.parametrize("address", ["8000", "a b:1", "x;y:1", "x:y", ""])
def test_an_address_to_listen_at_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(CannotRender):
        parse_listen(address)


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("full", [True, False])
def test_every_identity_header_is_named_wherever_it_must_be(proxy: str, full: bool, config: Path) -> None:
    text = "".join(render_proxy(proxy, config, full=full).values()).lower()
    for name in IDENTITY:
        # Once where the client's is removed, and once where ours is taken over.
        assert text.count(name.lower()) >= 2, name
    assert "127.0.0.1:8089" in text or ("address: '127.0.0.1', port_value: 8089" in text)
    assert "app.example.com" in text.replace("\\", "")


@pytest.mark.parametrize("proxy", PROXIES)
def test_headers_that_apps_believe_are_taken_from_clients(proxy: str, config: Path) -> None:
    text = "".join(render_proxy(proxy, config).values()).lower()
    for name in UNTRUSTED_HEADERS:
        managed = proxy == "traefik" and (name.startswith("X-Forwarded-") or name == "X-Real-Ip")
        assert managed or name.lower() in text, name


def test_nginx_never_has_a_return_where_auth_request_protects(config: Path) -> None:
    text = render_proxy("nginx", config)["portcullis.nginx.conf"]
    for server in text.split("\nserver {")[1:]:
        for location in re.findall(r"\n    location (.*?) \{\n(.*?)\n    \}", server, re.DOTALL):
            name, body = location
            assert "return" not in body or "auth_request off;" in body, name
        outside = re.sub(r"\n    location .*?\n    \}", "", server, flags=re.DOTALL)
        assert "return" not in re.sub(r"#.*", "", outside)
        assert "auth_request /portcullis-auth;" in outside


def test_haproxy_demands_what_the_action_sets(config: Path) -> None:
    files = render_proxy("haproxy", config)
    text = files["portcullis.haproxy.cfg"]
    asked = text.index("http-request lua.portcullis\n")
    assert "http-request deny deny_status 503 unless { var(txn.portcullis_allowed) -m bool }\n" in text[asked:]
    assert files["portcullis.lua"].count('set_var("txn.portcullis_allowed", true)') == 1


def test_envoy_fails_closed(config: Path) -> None:
    assert "failure_mode_allow: false" in render_proxy("envoy", config)["portcullis.envoy.yaml"]


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_snippet_is_part_of_the_full_config(proxy: str, config: Path) -> None:
    def lines(full: bool) -> list[str]:
        texts = render_proxy(proxy, config, full=full).values()
        return [line.strip() for text in texts for line in text.splitlines() if line.strip()]

    whole = lines(full=True)
    missing = [line for line in lines(full=False) if line not in whole and not line.startswith("#")]
    assert missing in ([], ["filters:"])


def test_the_app_and_the_address_are_options(run: Run, config: Path) -> None:
    text = run("render", "caddy", "--app", "http://10.1.1.1:1", "--listen", "127.0.0.1:81").output
    assert "http://10.1.1.1:1" in text
    assert "http://:81 {" in text


def test_several_files_are_told_apart_on_standard_output(run: Run, config: Path) -> None:
    text = run("render", "haproxy").output
    assert text.startswith("# ==> portcullis.haproxy.cfg <==\n")
    assert "-- ==> portcullis.lua <==\n" in text
    assert "==>" not in run("render", "nginx").output


def test_files_are_written_all_or_none(run: Run, run_json: RunJson, config: Path, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "portcullis.lua").write_text("mine")
    assert "is there already" in run("render", "haproxy", "--out", "out", status=1).stderr
    assert [path.name for path in (folder / "out").iterdir()] == ["portcullis.lua"]
    assert run_json("render", "haproxy", "--out", "out", "--force")["files"] == [
        "out/portcullis.haproxy.cfg",
        "out/portcullis.lua",
    ]


def test_json_has_the_files_by_name(run_json: RunJson, config: Path) -> None:
    assert list(run_json("render", "traefik", "--full")["files"]) == ["traefik.yml", "portcullis.traefik.yml"]


def test_faults_end_with_1(run: Run, folder: Path) -> None:
    (folder / "portcullis.toml").write_text('[[routes]]\npath = "a"\n')
    assert "portcullis.toml:2: routes[0].path" in run("render", "nginx", status=1).stderr
    (folder / "portcullis.toml").write_text('[[routes]]\npath = "/a"\nupstream = "unix:/run/a.sock"\n')
    assert "Traefik cannot connect to the socket" in run("render", "traefik", status=1).stderr
    assert "is no address" in run("render", "nginx", "--listen", "nowhere", status=1).stderr
