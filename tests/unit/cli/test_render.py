"""`portcullis render`: what of a config ends up in the proxies' files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

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
    return [(app.prefix, app.upstream.port, app.strip_prefix) for app in host.apps]


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


def test_one_upstream_is_one_prefix() -> None:
    assert apps(route("/api/{id}"), route("/health"), route("/{*rest}")) == [("/", 9000, "")]


def test_other_upstreams_have_prefixes_of_their_own_the_longest_first() -> None:
    assert apps(route("/{*rest}"), route("/api/{id}", 9001), route("/api/v2/{id}", 9002)) == [
        ("/api/v2/", 9002, ""),
        ("/api/", 9001, ""),
        ("/", 9000, ""),
    ]


def test_a_route_below_a_prefix_of_another_upstream_keeps_its_own() -> None:
    assert apps(route("/{*rest}"), route("/api/{*rest}", 9001), route("/api/open/{*rest}")) == [
        ("/api/open/", 9000, ""),
        ("/api/", 9001, ""),
        ("/", 9000, ""),
    ]


def test_a_prefix_that_is_stripped_is_kept_apart() -> None:
    assert apps(route("/app/{*rest}", strip_prefix="/app"), route("/{*rest}")) == [
        ("/app/", 9000, "/app"),
        ("/", 9000, ""),
    ]
    assert apps(route("/app/{*rest}", 9001, strip_prefix="/app")) == [("/app/", 9001, "/app"), ("/", 9000, "")]


def test_routes_that_differ_behind_a_parameter_only_cannot_be_told_apart() -> None:
    with pytest.raises(CannotRender, match="only the proxy door can tell apart"):
        apps(route("/api/{id}", methods=("GET",)), route("/api/{id}", 9001, methods=("POST",)))
    with pytest.raises(CannotRender):
        apps(route("/{a}/x"), route("/{a}/y", 9001))
    with pytest.raises(CannotRender):
        apps(route("/api/{*rest}", 9001), route("/{a}/x", 9002), route("/{*rest}"))


def test_the_rest_goes_where_the_widest_route_says() -> None:
    assert apps(route("/api/{*rest}", 9001), route("/{*rest}", 9002)) == [("/api/", 9001, ""), ("/", 9002, "")]
    assert apps(route("/api/{*rest}", 9001), route("/b/{*rest}", 9002)) == [("/b/", 9002, ""), ("/", 9001, "")]


def test_nginx_compares_paths_without_escapes(folder: Path) -> None:
    (folder / "portcullis.toml").write_text(
        '[[routes]]\npath = "/a%20%22b/{x}"\nupstream = "http://127.0.0.1:1"\n[[routes]]\npath = "/{*rest}"\n'
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
    assert "app.example.com" in text


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
    assert "http://app.example.com:81 {" in text


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
