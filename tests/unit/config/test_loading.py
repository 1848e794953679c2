"""`load_config`: every fault at once, each with its place and its remedy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, LoadedConfig, load_config
from gateway.config.checks import SCOPES_MAX
from gateway.config.loading import CONFIG_BYTES_MAX
from gateway.errors import ConfigError, ConfigFault

Load = Callable[..., LoadedConfig]

ISSUER = '[[issuers]]\nissuer = "https://idp.example.com"\naudiences = ["api"]\n'


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a text to a file of its own and load that."""

    def loading(text: str, **sources: Mapping[str, object]) -> LoadedConfig:
        path = tmp_path / "portcullis.toml"
        path.write_text(text)
        return load_config(path, **sources)  # type: ignore[arg-type]

    return loading


@pytest.fixture
def faults(load: Load) -> Callable[..., list[ConfigFault]]:
    """Load a text that must not load; give its faults."""

    def failing(text: str, **sources: Mapping[str, object]) -> list[ConfigFault]:
        with pytest.raises(ConfigError) as caught:
            load(text, **sources)
        return caught.value.faults

    return failing


Faults = Callable[..., list[ConfigFault]]


def one(faults: list[ConfigFault]) -> ConfigFault:
    assert len(faults) == 1, [str(fault) for fault in faults]
    return faults[0]


def warnings_of(loaded: LoadedConfig) -> list[tuple[str, str]]:
    return [(warning.key, warning.problem) for warning in loaded.warnings]


# -------------------------------------------------------------------------------------------------- sources, origins


def test_no_file_gives_the_defaults() -> None:
    loaded = load_config(None)
    assert loaded.config == Config()
    assert loaded.warnings == ()
    assert loaded.origin_of("server.listen").kind == "default"


def test_file_then_environment_then_flags(load: Load) -> None:
    loaded = load(
        '[server]\nlisten = "127.0.0.1:1"\nworkers = 2\nbacklog = 3\n',
        env={"PORTCULLIS_SERVER__LISTEN": "127.0.0.1:2", "PORTCULLIS_SERVER__WORKERS": "3", "HOME": "/"},
        overrides={"server.listen": "127.0.0.1:3"},
    )
    server = loaded.config.server
    assert (server.listen, server.workers, server.backlog) == ("127.0.0.1:3", 3, 3)
    assert (loaded.origin_of("server.listen").kind, loaded.origin_of("server.listen").place) == (
        "flag",
        "server.listen",
    )
    assert loaded.origin_of("server.workers").place == "PORTCULLIS_SERVER__WORKERS"
    assert loaded.origin_of("server.backlog").place.endswith("portcullis.toml:4")


def test_the_environment_alone_can_make_a_whole_config() -> None:
    env = {
        "PORTCULLIS_ISSUERS__0__ISSUER": "https://one.example.com",
        "PORTCULLIS_ISSUERS__0__AUDIENCES": '["api"]',
        "PORTCULLIS_ISSUERS__0__ALGORITHMS": "['ES256']",
        "PORTCULLIS_ISSUERS__0__ANY_AUDIENCE": "false",
        "PORTCULLIS_ISSUERS__1__ISSUER": "https://two.example.com",
        "PORTCULLIS_ISSUERS__1__ANY_AUDIENCE": "true",
        "PORTCULLIS_ROUTES": '[{"path": "/a", "methods": ["GET"]}]',
        "PORTCULLIS_IDENTITY__HEADERS": '{"X-Auth-Email": "email"}',
        "PORTCULLIS_CACHE__TOKENS_TTL_S": "1.5",
        "PORTCULLIS_SERVER__REALM": "12",
    }
    config = load_config(None, env=env).config
    assert [issuer.issuer for issuer in config.issuers] == ["https://one.example.com", "https://two.example.com"]
    assert config.issuers[0].algorithms == ("ES256",)
    assert config.routes[0].methods == ("GET",)
    assert config.identity.headers == {"X-Auth-Email": "email"}
    assert config.cache.tokens_ttl_s == 1.5
    assert config.server.realm == "12"


def test_the_tenth_element_of_the_environment_comes_after_the_second() -> None:
    env = {f"PORTCULLIS_ROUTES__{index}__PATH": f"/{index}" for index in range(12)}
    assert [route.path for route in load_config(None, env=env).config.routes] == [f"/{index}" for index in range(12)]


def test_faults_of_the_environment_name_the_variable(faults: Faults) -> None:
    found = faults("", env={"PORTCULLIS_SERVER__WORKERS": "many", "PORTCULLIS_SERVR__LISTEN": "x"})
    assert {(fault.file, fault.key) for fault in found} == {
        ("environment", "PORTCULLIS_SERVER__WORKERS"),
        ("environment", "PORTCULLIS_SERVR__LISTEN"),
    }
    assert sorted(fault.hint for fault in found) == ["did you mean `server`?", "write it without quotes"]


def test_what_is_missing_or_wrong_inside_a_variables_value_is_named(faults: Faults) -> None:
    found = faults("", env={"PORTCULLIS_ROUTES": '[{"pth": "/a"}]', "PORTCULLIS_ISSUERS__0__ISSUER": "https://a"})
    assert [(fault.file, fault.key, fault.problem) for fault in found] == [
        ("environment", "PORTCULLIS_ROUTES[0].pth", "unknown key"),
        ("environment", "PORTCULLIS_ROUTES[0].path", "missing"),
        ("environment", "issuers[0].audiences", "tokens meant for other services would be accepted"),
    ]


def test_a_gap_in_the_environments_array_is_a_fault(faults: Faults) -> None:
    fault = one(faults("", env={"PORTCULLIS_ROUTES__1__PATH": "/a"}))
    assert fault.key == "PORTCULLIS_ROUTES__1__PATH"
    assert fault.hint == "the next one is 0"


@pytest.mark.parametrize("index", ["99999", "123456789012345678901234567890", "-1", "²"])
def test_hostile_indexes_of_the_environment_are_faults(index: str, faults: Faults) -> None:
    assert faults("", env={f"PORTCULLIS_ROUTES__{index}__PATH": "/a"})


def test_a_variable_cannot_smuggle_in_other_keys(faults: Faults) -> None:
    fault = one(faults("", env={"PORTCULLIS_SERVER__WORKERS": "1\npublic_admin = true"}))
    assert fault.problem == "expected a whole number ≥ 0, got a string"


def test_one_underscore_too_few_is_a_warning() -> None:
    loaded = load_config(None, env={"PORTCULLIS_SERVER_LISTEN": "0.0.0.0:1", "PORTCULLIS_DEBUG": "1"})
    assert [warning.hint for warning in loaded.warnings] == ["write `PORTCULLIS_SERVER__LISTEN`"]


def test_a_flags_fault_names_the_flag() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides={"server.listen": "nowhere"})
    assert str(caught.value).startswith("command line: server.listen: `nowhere` is no address")


# ------------------------------------------------------------------------------------------------ file, syntax, types


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file; `portcullis init` writes one"):
        load_config(tmp_path / "absent.toml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        load_config(tmp_path)


def test_a_syntax_error_has_line_and_column(faults: Faults) -> None:
    fault = one(faults('[server]\nlisten = "a\n'))
    assert fault.line == 2
    assert fault.problem.startswith("column 12: no TOML: ")


def test_a_syntax_error_at_the_end_has_the_last_line(faults: Faults) -> None:
    assert one(faults("[server]\nlisten = [\n")).line == 2


def test_bytes_that_are_no_utf8_have_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"# one\n# \xff\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert (caught.value.faults[0].line, caught.value.faults[0].problem) == (2, "not UTF-8")


def test_a_file_may_be_as_long_as_the_limit_and_no_longer(load: Load, faults: Faults) -> None:
    assert load("#" * CONFIG_BYTES_MAX).config == Config()
    assert "longer than" in one(faults("#" * (CONFIG_BYTES_MAX + 1))).problem


def test_deep_nesting_is_a_fault_not_a_crash(faults: Faults) -> None:
    assert one(faults("a = " + "[" * 100_000)).problem == "nested too deeply"


def test_windows_line_ends_count_once(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"[server]\r\n\r\nlistn = 1\r\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.faults[0].line == 3


def test_all_faults_come_at_once_in_the_order_of_the_file(faults: Faults) -> None:
    text = """[server]
listn = "127.0.0.1:1"
workers = "two"
[[issuers]]
audiences = "api"
algorithms = ["RS265"]
[[issuers]]
issuer = "http://idp.example.com"
[[routes]]
path = "/a"
strip_prefix = "/b"
upstream = "http://127.0.0.1:1"
"""
    assert [(fault.line, fault.key) for fault in faults(text)] == [
        (2, "server.listn"),
        (3, "server.workers"),
        (4, "issuers[0].issuer"),
        (5, "issuers[0].audiences"),
        (6, "issuers[0].algorithms[0]"),
        (7, "issuers[1].audiences"),
        (8, "issuers[1].issuer"),
        (11, "routes[0].strip_prefix"),
    ]


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("[server]\nlistn = 1", "unknown key", "did you mean `listen`?"),
        ("[servers]", "unknown section", "did you mean `server`?"),
        ("[xyz]", "unknown section", "known: `admin`, `audit`, `authzen`, `cache`"),
        ("[server]\nworkers = true", "expected a whole number ≥ 0, got `true`", ""),
        ("[server]\nworkers = 1.0", "expected a whole number ≥ 0, got `1.0`", ""),
        ("[server]\nworkers = -1", "expected a whole number ≥ 0, got `-1`", ""),
        ("[server]\nbacklog = 0", "expected a whole number ≥ 1, got `0`", ""),
        ("[server]\nbacklog = 9223372036854775807", "expected a whole number ≥ 1, got a number out of bounds", ""),
        ("[server]\nbody_timeout_s = inf", "expected a number > 0, got a number out of bounds", ""),
        ("[server]\nbody_timeout_s = nan", "expected a number > 0, got a number out of bounds", ""),
        ("[server]\nbody_timeout_s = 0", "expected a number > 0, got `0`", ""),
        ("[server]\ninline = 1", "expected true or false, got `1`", ""),
        ('[server]\ninline = "yes"', "expected true or false, got a string", "write it without quotes"),
        ("[server]\nlisten = 8080", "expected a string, got `8080`", "write it in quotes"),
        ("[server]\nlisten = 2026-01-01", "expected a string, got a date or time", ""),
        ("server = 1", "expected a table, got `1`", ""),
        ('[log]\nlevel = "warn"', "unknown value `warn`", "did you mean `warning`?"),
        ("[issuers]", "expected an array of tables, got a table", "write the header in double brackets"),
        ('[identity]\nheaders = ["a"]', "expected a table, got an array", ""),
        ("[identity.headers]\nX-Mail = 1", "expected a string, got `1`", ""),
        ("[policies]\npath = 'p'", "unknown section", "did you mean `policy`?"),
        ("[[issuer]]", "unknown section", "write `[[issuers]]`"),
    ],
)
def test_what_does_not_fit_is_explained(text: str, problem: str, hint: str, faults: Faults) -> None:
    fault = one(faults(text))
    assert fault.problem == problem
    assert fault.hint.startswith(hint)
    assert fault.line is not None


def test_a_whole_number_serves_where_a_number_is_wanted(load: Load) -> None:
    assert load("[server]\nbody_timeout_s = 5").config.server.body_timeout_s == 5.0


# -------------------------------------------------------------------------------------------------------- semantics


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ('listen = "8080"', "listen", "`8080` is no address"),
        ('listen = ":8080"', "listen", "`:8080` is no address"),
        ('listen = "127.0.0.1:65536"', "listen", "`127.0.0.1:65536` is no address"),
        ('listen = "[::1:80"', "listen", "`[::1:80` is no address"),
        ('listen = "[::z]:80"', "listen", "`[::z]:80` is no address"),
        ('listen = "::1:80"', "listen", "`::1:80` is no address"),
        ('admin_listen = "0.0.0.0:1"', "admin_listen", "`0.0.0.0:1` can be reached from other machines"),
        ('admin_listen = "[::]:1"', "admin_listen", "`[::]:1` can be reached from other machines"),
        ('admin_listen = "intern.example:1"', "admin_listen", "`intern.example:1` can be reached from other machines"),
        ('admin_listen = "127.0.0.1:8080"', "admin_listen", "the same address as listen"),
        ("realm = 'a\"b'", "realm", "not fit for a quoted string"),
        ('trusted_proxies = ["10.0.0.0/33"]', "trusted_proxies[0]", "`10.0.0.0/33` is no network"),
        ('trusted_proxies = ["::1", "proxy"]', "trusted_proxies[1]", "`proxy` is no network"),
        ('run_dir = "/no/such/place"', "run_dir", "its parent folder does not exist"),
    ],
)
def test_server_settings_that_cannot_work_are_faults(text: str, key: str, problem: str, faults: Faults) -> None:
    fault = one(faults(f"[server]\n{text}\n"))
    assert (fault.line, fault.key, fault.problem) == (2, f"server.{key}", problem)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:80", "localhost:80", "0.0.0.0:65535", "my_host.example:80"])
def test_addresses_to_listen_at(address: str, load: Load) -> None:
    assert load(f'[server]\nlisten = "{address}"').config.server.listen == address


def test_a_public_admin_listener_must_be_asked_for(load: Load) -> None:
    assert load('[server]\nadmin_listen = "0.0.0.0:1"\npublic_admin = true').warnings == ()
    assert load('[server]\nadmin_listen = ""').config.server.admin_listen == ""


def test_trusting_everyone_is_a_warning(load: Load) -> None:
    loaded = load('[server]\ntrusted_proxies = ["0.0.0.0/0", "10.0.0.1/8"]')
    assert warnings_of(loaded) == [
        ("server.trusted_proxies[0]", "`0.0.0.0/0` trusts the forwarding headers of everyone"),
        ("server.trusted_proxies[1]", "`10.0.0.1/8` has bits behind its mask"),
    ]


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ('issuer = "https://a"', "audiences", "tokens meant for other services would be accepted"),
        ('issuer = "https://a"\naudiences = ["x"]\nany_audience = true', "any_audience", "contradicts audiences"),
        ('issuer = "https://a"\naudiences = [""]', "audiences[0]", "empty"),
        (
            'issuer = "http://a"\nany_audience = true',
            "issuer",
            "`http://a` is not https, so its keys cannot be discovered",
        ),
        ('issuer = "a"\nany_audience = true', "issuer", "`a` is no http address, so its keys cannot be discovered"),
        (
            'issuer = "https://a/?x=1"\nany_audience = true',
            "issuer",
            "has a query or a fragment, so its keys cannot be discovered",
        ),
        (
            'issuer = "https://u:p@a"\nany_audience = true',
            "issuer",
            "there are credentials in the address, so its keys cannot be discovered",
        ),
        ('issuer = "a"\nany_audience = true\njwks_uri = "http://b/keys"', "jwks_uri", "`http://b/keys` is not https"),
        ('issuer = "a"\nany_audience = true\njwks_uri = "ftp://b"', "jwks_uri", "`ftp://b` is no http address"),
        ('issuer = "a"\nany_audience = true\njwks_uri = "https://[b"', "jwks_uri", "`https://[b` is no http address"),
        ('issuer = "a"\nany_audience = true\njwks_file = "absent.json"', "jwks_file", "`absent.json` is no file"),
        (
            'issuer = "a"\nany_audience = true\njwks_uri = "https://b"\nsecret = "env:HMAC"\nalgorithms = ["HS256"]',
            "secret",
            "contradicts jwks_uri",
        ),
        ('issuer = "https://a"\nany_audience = true\nalgorithms = ["HS256"]', "algorithms", "`HS256` needs secret"),
        ('issuer = "https://a"\nany_audience = true\nalgorithms = []', "algorithms", "no algorithm is accepted"),
        (
            'issuer = "a"\nany_audience = true\nalgorithms = ["HS256", "RS256"]\nsecret = "env:HMAC"',
            "algorithms",
            "`RS256` cannot be used with secret",
        ),
        (
            'issuer = "a"\nany_audience = true\nalgorithms = ["HS512"]\nsecret = "env:HMAC"',
            "secret",
            "shorter than 64 bytes",
        ),
        (
            'issuer = "a"\nany_audience = true\nalgorithms = ["HS256"]\nsecret = "hunter2-hunter2-hunter2-hunter2!"',
            "secret",
            "a secret is written as `env:NAME` or `file:PATH`, never as itself",
        ),
        (
            'issuer = "a"\nany_audience = true\nalgorithms = ["HS256"]\nsecret = "env:ABSENT_HMAC"',
            "secret",
            "the environment has no `ABSENT_HMAC`",
        ),
        (
            'issuer = "a"\nany_audience = true\nalgorithms = ["HS256"]\nsecret = "file:absent"',
            "secret",
            "cannot read `absent`: no such file or directory",
        ),
        (
            'issuer = "https://a"\nany_audience = true\nintrospection_client_id = "x"',
            "introspection_client_id",
            "introspection_endpoint is missing",
        ),
        ('issuer = "https://a"\nany_audience = true\nstale_s = 60', "stale_s", "less than jwks_refresh_s"),
        ('issuer = "https://a"\nany_audience = true\ntypes = []', "types", "no token has a type of none"),
        ('issuer = ""\nany_audience = true', "issuer", "empty"),
    ],
)
def test_issuers_that_cannot_be_trusted_are_faults(text: str, key: str, problem: str, faults: Faults) -> None:
    fault = one(faults(f"[[issuers]]\n{text}\n", env={"HMAC": "k" * 32}))
    assert (fault.key, fault.problem) == (f"issuers[0].{key}", problem)
    assert fault.line is not None


def test_no_secret_appears_in_a_fault(faults: Faults) -> None:
    text = '[[issuers]]\nissuer = "a"\nany_audience = true\nalgorithms = ["HS256"]\nsecret = "hunter2-hunter2"\n'
    assert "hunter2" not in str(one(faults(text)))


def test_introspection_needs_a_client_and_a_safe_address(faults: Faults) -> None:
    found = faults(ISSUER + 'introspection_endpoint = "http://idp.example.com/introspect"\n')
    assert sorted(fault.key for fault in found) == [
        "issuers[0].introspection_client_id",
        "issuers[0].introspection_client_secret",
        "issuers[0].introspection_endpoint",
    ]


def test_plain_http_serves_on_loopback(load: Load) -> None:
    text = '[[issuers]]\nissuer = "{}"\nany_audience = true\n'
    for address in ("http://127.0.0.1:9/", "http://[::1]:9", "http://localhost:9"):
        assert load(text.format(address)).config.issuers[0].issuer == address


def test_two_equal_issuers_name_both_lines(faults: Faults) -> None:
    fault = one(faults(f"{ISSUER}\n{ISSUER}"))
    assert (fault.line, fault.problem) == (6, "the same issuer stands at line 2")


def test_lines_stay_right_when_an_element_before_does_not_fit(faults: Faults) -> None:
    found = faults('[[routes]]\nx = 1\n[[routes]]\npath = "/a"\n[[routes]]\npath = "/b"\n[[routes]]\npath = "/b"\n')
    assert [(fault.line, fault.key, fault.problem) for fault in found][2:] == [
        (8, "routes[3].path", "the same requests are taken already by the route at line 6")
    ]


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ('path = "a"', "path", "`a`: a path begins with `/`"),
        ('path = "/a"\nhost = "a:80"', "path", "`a:80`: neither a host without a port nor `*.` and a suffix"),
        ('path = "/a"\nauth = "session"', "auth", "there are no sessions"),
        ('path = "/a"\naction = "x"', "action", "there are no policies to ask"),
        ('path = "/a"\nresource = "x"', "resource", "there are no policies to ask"),
        ('path = "/a"\ncontext = {a = "x"}', "context", "there are no policies to ask"),
        ('path = "/a"\nauth = "none"\nscopes = ["x"]', "scopes", 'nothing checks them with auth = "none"'),
        ('path = "/a"\nupstream = "127.0.0.1:1"', "upstream", "no address of an upstream"),
        ('path = "/a"\nupstream = "http://h:99999"', "upstream", "no address of an upstream"),
        ('path = "/a"\nupstream = "http://h/x"', "upstream", "an upstream has no path, query or fragment"),
        ('path = "/a"\nupstream = "http://u:p@h"', "upstream", "credentials in the address are not sent"),
        ('path = "/a"\nupstream = "http://a;b{}"', "upstream", "no address of an upstream"),
        ('path = "/a"\nupstream = "unix:"', "upstream", "no path of a socket"),
        (
            'path = "/ab/c"\nupstream = "http://h"\nstrip_prefix = "/a"',
            "strip_prefix",
            "the route's path `/ab/c` does not begin with it",
        ),
        ('path = "/a"\nupstream = "http://h"\nstrip_prefix = "a"', "strip_prefix", "no plain path"),
    ],
)
def test_routes_that_cannot_work_are_faults(text: str, key: str, problem: str, faults: Faults) -> None:
    fault = one(faults(f"[[routes]]\n{text}\n"))
    assert (fault.key, fault.problem) == (f"routes[0].{key}", problem)


@pytest.mark.parametrize("upstream", ["http://[::1]:1", "https://app", "http://10.0.0.1/", "http://my_app.local:80"])
def test_upstreams(upstream: str, load: Load) -> None:
    assert load(f'[[routes]]\npath = "/a"\nupstream = "{upstream}"\n').config.routes[0].upstream == upstream


@pytest.mark.parametrize(
    ("upstream", "path"), [("unix:/run/a", "/run/a"), ("unix:///run/a", "/run/a"), ("unix://a", "a"), ("unix:a", "a")]
)
def test_sockets(upstream: str, path: str, load: Load, tmp_path: Path) -> None:
    loaded = load(f'[[routes]]\npath = "/a"\nupstream = "{upstream}"\n')
    assert loaded.config.routes[0].upstream == f"unix:{tmp_path / path}"


def test_two_routes_for_the_same_requests_name_both_lines(faults: Faults) -> None:
    route = '[[routes]]\npath = "/a/{{{}}}"\nmethods = ["GET", "{}"]\n'
    found = faults(route.format("x", "PUT") + route.format("y", "POST") + route.format("z", "PATCH"))
    assert [(fault.line, fault.problem) for fault in found] == [
        (5, "requests with method `GET` are taken already by the route at line 2"),
        (8, "requests with method `GET` are taken already by the route at line 2"),
    ]


def test_as_many_scopes_as_the_limit_and_no_more(load: Load, faults: Faults) -> None:
    def text(count: int) -> str:
        return "".join(f'[[routes]]\npath = "/{index}"\nscopes = ["s{index}"]\n' for index in range(count))

    assert len(load(text(SCOPES_MAX)).config.routes) == SCOPES_MAX
    assert one(faults(text(SCOPES_MAX + 1))).problem == "65 different scopes; at most 64 can be told apart"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("X_Auth_Mail", "no name for a header"),
        ("X Auth", "no name for a header"),
        ("x-auth-SUBJECT", "the gateway sets this header itself"),
        ("X-Auth-Status", "the gateway sets this header itself"),
        ("Content-Length", "means something else in HTTP"),
        ("Transfer-Encoding", "means something else in HTTP"),
        ("Connection", "means something else in HTTP"),
        ("Authorization", "means something else in HTTP"),
        ("X-Forwarded-For", "means something else in HTTP"),
        ("X-Original-URL", "means something else in HTTP"),
    ],
)
def test_headers_that_must_not_carry_a_claim_are_faults(name: str, problem: str, faults: Faults) -> None:
    assert one(faults(f'[identity.headers]\n"{name}" = "email"\n')).problem == problem


def test_one_header_in_two_spellings_is_a_fault(faults: Faults) -> None:
    found = one(faults('[identity.headers]\nX-Auth-Mail = "email"\nx-auth-mail = "sub"\n'))
    assert (found.line, found.problem) == (3, "the same header as `X-Auth-Mail`")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('url = "redis://:hunter2@127.0.0.1/0"', "a password stands in the config"),
        ('url = "mysql://h"', "no store of ours"),
        ('url = "redis://"', "no address of a Redis server"),
        ('url = "redis://redis.example.com/0"', "an unencrypted connection to another machine"),
        ('url = "unix://redis.sock"', "no path of a Redis server's socket"),
        ('url = "sqlite:/no/such/folder/a.db"', "its folder does not exist"),
        ('url = "env:ABSENT_STORE"', "the environment has no `ABSENT_STORE`"),
    ],
)
def test_stores_that_cannot_be_opened_are_faults(text: str, problem: str, faults: Faults) -> None:
    fault = one(faults(f"[store]\n{text}\n"))
    assert fault.problem == problem
    assert "hunter2" not in str(fault)


def test_a_store_in_memory_serves_one_worker_only(load: Load, faults: Faults) -> None:
    assert load('[store]\nurl = "memory:"').config.store.url == "memory:"
    fault = one(faults('[server]\nworkers = 2\n[store]\nurl = "memory:"'))
    assert fault.problem == "each worker would keep revocations of its own"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('url = "mysql://h"', "no store of relations"),
        ('url = "sqlite:/no/such/folder/a.db"', "its folder does not exist"),
        ('url = "redis://redis.example:6379/0"', "an unencrypted connection to another machine"),
        ('url = "postgresql://db.example/app"', "an unencrypted connection to another machine"),
        ('url = "postgres://db.example/app?sslmode=prefer"', "an unencrypted connection to another machine"),
        ('url = "postgresql:///app?host=db.example"', "an unencrypted connection to another machine"),
        ('url = "postgresql://me:pw@localhost/app"', "a password stands in the config"),
        ('url = "postgresql://localhost/app?password=pw"', "a password stands in the config"),
        ('url = "postgresql://h:port/app"', "no address of a PostgreSQL server"),
        ('url = "env:NO_SUCH_STORE"', "the environment has no `NO_SUCH_STORE`"),
    ],
)
def test_stores_of_relations_that_cannot_be_opened_are_faults(
    text: str, problem: str, faults: Faults, tmp_path: Path
) -> None:
    (tmp_path / "policies").mkdir()
    fault = one(faults(f'[policy]\npath = "policies"\n[policy.relations]\n{text}\n'))
    assert (fault.key, fault.problem) == ("policy.relations.url", problem)


@pytest.mark.parametrize(
    "url",
    [
        "embedded",
        "memory:",
        "sqlite:relations.db",
        "redis://localhost:6379/0",
        "unix:///run/redis.sock",
        "postgresql://localhost/app",
        "postgresql:///app?host=/run/postgresql",
        "postgresql://db.example/app?sslmode=verify-full",
        "env:STORE",
    ],
)
def test_relations_are_kept_where_the_config_says(url: str, load: Load, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    text = f'[policy]\npath = "policies"\n[policy.relations]\nurl = "{url}"\n'
    loaded = load(text, env={"STORE": "postgresql://me:pw@db.example/app?sslmode=require"})
    shown = f"sqlite:{tmp_path / 'relations.db'}" if url.startswith("sqlite:") else url
    assert loaded.config.policy.relations.url == shown


def test_relations_need_policies_and_in_memory_one_worker(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    fault = one(faults('[policy.relations]\nurl = "embedded"\n'))
    assert (fault.key, fault.hint) == ("policy.relations.url", "say where they are: `policy.path`")
    fault = one(faults('[server]\nworkers = 2\n[policy]\npath = "policies"\nrelations = { url = "memory:" }\n'))
    assert (fault.line, fault.problem) == (5, "each worker would keep relations of its own")
    fault = one(faults('[policy]\npath = "policies"\nrelations = { lease_s = 0.1 }\n'))
    assert fault.key == "policy.relations.lease_s"


def test_relations_can_be_configured_by_variables(load: Load, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    env = {"PORTCULLIS_POLICY__RELATIONS__URL": "embedded", "PORTCULLIS_POLICY__RELATIONS__LEASE_S": "2.5"}
    relations = load('[policy]\npath = "policies"\n', env=env).config.policy.relations
    assert (relations.url, relations.lease_s) == ("embedded", 2.5)


SOURCE = '[policy]\npath = "policies"\n[[policy.sources]]\nname = "hr"\ntypes = ["User"]\n'


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ('url = ""', "url", "no address"),
        ('url = "mysql://h"', "url", "no store of entities"),
        ('url = "redis://redis.example:6379/0"', "url", "an unencrypted connection to another machine"),
        ('url = "http://hr.example/entities"', "url", "an unencrypted connection to another machine"),
        ('url = "https://me:pw@hr.example/entities"', "url", "a password stands in the config"),
        ('url = "https://hr.example/"\nsecret = "env:NO_SUCH"', "secret", "the environment has no `NO_SUCH`"),
        ('url = "embedded"\nsecret = "env:TOKEN"', "secret", "only an https source takes a bearer token"),
        ('url = "embedded"\nlease_s = 0.1', "lease_s", "below the minimum of 0.5"),
    ],
)
def test_sources_that_cannot_be_asked_are_faults(
    text: str, key: str, problem: str, faults: Faults, tmp_path: Path
) -> None:
    (tmp_path / "policies").mkdir()
    fault = one(faults(SOURCE + text + "\n"))
    assert fault.key == f"policy.sources[0].{key}"
    assert fault.problem == problem or key == "lease_s"


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ('name = "HR"\ntypes = ["Group"]\n', "name", "`HR` is no name of a source"),
        ('name = "hr"\ntypes = ["Group"]\n', "name", "another source has this name at line 4"),
        ('name = "more"\ntypes = []\n', "types", "no types"),
        ('name = "more"\ntypes = ["a b"]\n', "types", "`a b` is no Cedar type"),
        ('name = "more"\ntypes = ["Shop::Action"]\n', "types", "actions are declared by the schema"),
        ('name = "more"\ntypes = ["Group", "User"]\n', "types", "`User` is kept in the source at line 5"),
    ],
)
def test_sources_have_names_and_types_of_their_own(
    text: str, key: str, problem: str, faults: Faults, tmp_path: Path
) -> None:
    (tmp_path / "policies").mkdir()
    fault = one(faults(f'{SOURCE}url = "embedded"\n[[policy.sources]]\n{text}url = "https://127.0.0.1:1/x"\n'))
    assert (fault.key, fault.problem) == (f"policy.sources[1].{key}", problem)


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ('principal_claims = {level = ""}', "principal_claims.level", "no claim is named"),
        ('principal_parents = {"\\u0000" = "Role"}', "principal_parents.\0", "no claim is named"),
        ('principal_parents = {roles = "a b"}', "principal_parents.roles", "`a b` is no Cedar type"),
    ],
)
def test_claims_of_principals_have_names(text: str, key: str, problem: str, faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    fault = one(faults(f'[policy]\npath = "policies"\n{text}\n'))
    assert (fault.key, fault.problem) == (f"policy.{key}", problem)


@pytest.mark.parametrize(
    ("mapping", "count"),
    [
        ('principal_parents = {roles = "Role"}', 1),
        ('principal_claims = {level = "level"}', 1),
        ('principal_parents = {roles = "Role"}\nprincipal_claims = {issuer = "iss"}', 0),
        ("", 0),
    ],
)
@pytest.mark.parametrize("issuers", [1, 2])
def test_claims_of_several_issuers_that_count_alike_are_a_warning(
    mapping: str, count: int, issuers: int, load: Load, tmp_path: Path
) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "keys.json").write_text('{"keys": []}')
    text = f'[policy]\npath = "policies"\n{mapping}\n' + "".join(
        f'[[issuers]]\nissuer = "https://{name}.test"\naudiences = ["a"]\njwks_file = "keys.json"\n'
        for name in "ab"[:issuers]
    )
    told = [problem for key, problem in warnings_of(load(text)) if key.startswith("policy.principal_")]
    assert told == ["claims of all 2 issuers define principals alike"] * (count if issuers > 1 else 0)


def test_sources_need_policies_and_in_memory_one_worker(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    fault = one(faults('[[policy.sources]]\nname = "hr"\ntypes = ["User"]\nurl = "embedded"\n'))
    assert fault.problem == "there are no policies that it could serve"
    fault = one(faults(f'[server]\nworkers = 2\n{SOURCE}url = "memory:"\n'))
    assert fault.problem == "each worker would keep entities of its own"


def test_sources_and_shared_decisions_are_where_the_config_says(load: Load, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "token").write_text("secret")
    (tmp_path / "token").chmod(0o600)
    text = f"""{SOURCE}url = "sqlite:hr.db"
[[policy.sources]]
name = "orders"
types = ["Order"]
url = "https://orders.example/entities"
secret = "file:token"
[policy.cache]
shared_url = "unix:///run/redis.sock"
"""
    policy = load(text).config.policy
    assert policy.sources[0].url == f"sqlite:{tmp_path / 'hr.db'}"
    assert policy.sources[1].secret == f"file:{tmp_path / 'token'}"
    assert policy.cache.shared_url == "unix:///run/redis.sock"


@pytest.mark.parametrize("url", ["sqlite:decisions.db", "memory:", "postgresql://localhost/app"])
def test_decisions_are_shared_by_redis_alone(url: str, faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    fault = one(faults(f'[policy]\npath = "policies"\n[policy.cache]\nshared_url = "{url}"\n'))
    assert (fault.key, fault.problem) == ("policy.cache.shared_url", "no Redis server")


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ('url = "redis://localhost:6379/0"', "key", "missing"),
        ('url = "embedded"\nkey = "env:NONE"', "key", "the environment has no `NONE`"),
        ('url = "embedded"\ncookie = "a b"', "cookie", "`a b` is no name of a cookie"),
        ('url = "embedded"\nregion = "EU"', "region", "`EU` is no name of a region"),
        ('url = "embedded"\nidle_s = 50000', "idle_s", "above absolute_s"),
        ('url = "mysql://h"', "url", "no store of sessions"),
    ],
)
def test_sessions_that_could_not_be_kept_are_faults(text: str, key: str, problem: str, faults: Faults) -> None:
    fault = one(faults(f"[sessions]\n{text}\n"))
    assert (fault.key, fault.problem) == (f"sessions.{key}", problem)


def test_routes_for_sessions_are_served_where_there_are_sessions(load: Load) -> None:
    text = '[sessions]\nurl = "embedded"\n[[routes]]\npath = "/a"\nauth = "session"\n'
    loaded = load(text, env={"PORTCULLIS_SESSIONS__IDLE_S": "60"})
    assert (loaded.config.routes[0].auth, loaded.config.sessions.idle_s) == ("session", 60)


def test_a_store_with_a_password_comes_from_a_variable(load: Load) -> None:
    loaded = load('[store]\nurl = "env:STORE"', env={"STORE": "rediss://:hunter2@redis.example:6379/0"})
    assert loaded.config.store.url == "env:STORE"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('login_url = "login"', "login_url"),
        ('login_url = "javascript://a/"', "login_url"),
        ('login_url = "https://a/#x"', "login_url"),
        ('login_parameter = "a&b"', "login_parameter"),
        ('login_hosts = ["https://a"]', "login_hosts[0]"),
    ],
)
def test_login_settings_that_open_a_redirect_are_faults(text: str, key: str, faults: Faults) -> None:
    assert one(faults(f"[forward_auth]\n{text}\n")).key == f"forward_auth.{key}"


def test_introspection_clients_are_told_apart_and_have_secrets(faults: Faults) -> None:
    client = '[[introspection.clients]]\nid = "a"\nsecret = "env:ABSENT_CLIENT"\n'
    found = faults(client + client)
    assert [(fault.line, fault.key) for fault in found] == [
        (3, "introspection.clients[0].secret"),
        (5, "introspection.clients[1].id"),
        (6, "introspection.clients[1].secret"),
    ]
    assert found[1].problem == "the same client stands at line 2"


def test_logs_go_to_folders_that_exist(faults: Faults) -> None:
    assert one(faults('[log]\naccess = "/no/such/folder/log"\n')).key == "log.access"
    assert one(faults('[log]\ndecisions_to = "/no/such/folder/log"\n')).key == "log.decisions_to"
    assert one(faults('[log]\ndecisions_to = "off"\n')).key == "log.decisions_to"
    assert one(faults('[log]\ndecisions = "all"\n')).key == "log.decisions"


def test_a_route_behind_a_door_is_a_warning(load: Load) -> None:
    assert warnings_of(load('[[routes]]\npath = "/auth/request"\n')) == [
        ("routes[0].path", "the gateway answers there itself, so the route is not reached")
    ]


# ---------------------------------------------------------------------------------------------- paths, secrets, modes


def test_relative_paths_start_at_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"keys": []}')
    (tmp_path / "pw").write_text("k" * 32)
    (tmp_path / "pw").chmod(0o600)
    loaded = load(
        '[server]\nrun_dir = "run"\n[store]\nurl = "sqlite:a.db"\n'
        '[log]\naccess = "access.log"\ndecisions_to = "d.log"\n'
        '[[issuers]]\nissuer = "a"\nany_audience = true\njwks_file = "keys.json"\n'
        '[[issuers]]\nissuer = "b"\nany_audience = true\nalgorithms = ["HS256"]\nsecret = "file:pw"\n'
        '[[routes]]\npath = "/a"\nupstream = "unix:app.sock"\n'
        '[[introspection.clients]]\nid = "c"\nsecret = "file:pw"\n'
    )
    config = loaded.config
    assert config.server.run_dir == str(tmp_path / "run")
    assert config.store.url == f"sqlite:{tmp_path / 'a.db'}"
    assert (config.log.access, config.log.audit) == (str(tmp_path / "access.log"), "-")
    assert config.log.decisions_to == str(tmp_path / "d.log")
    assert config.issuers[0].jwks_file == str(tmp_path / "keys.json")
    assert config.issuers[1].secret == f"file:{tmp_path / 'pw'}"
    assert config.routes[0].upstream == f"unix:{tmp_path / 'app.sock'}"
    assert config.introspection.clients[0].secret == f"file:{tmp_path / 'pw'}"
    assert loaded.base_dir == tmp_path
    assert loaded.warnings == ()


@pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)])
def test_a_secret_that_others_can_read_is_a_warning(mode: int, count: int, load: Load, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("k" * 32)
    os.chmod(tmp_path / "pw", mode)
    loaded = load('[[introspection.clients]]\nid = "c"\nsecret = "file:pw"\n')
    assert len(loaded.warnings) == count
    for warning in loaded.warnings:
        assert (warning.line, warning.hint) == (3, "chmod 600")


def test_a_fault_that_is_found_later_gets_the_place_of_its_key(load: Load) -> None:
    loaded = load(ISSUER, env={"PORTCULLIS_SERVER__WORKERS": "2"})
    assert loaded.fault_at("issuers[0].issuer", "no answer").line == 2
    assert loaded.fault_at("server.workers", "too many").key == "PORTCULLIS_SERVER__WORKERS"
    assert loaded.fault_at("server.listen", "taken").line is None


WHOLE = (
    (Path(__file__).resolve().parents[3] / "docs" / "configuration.md")
    .read_text()
    .split("```toml\n")[1]
    .split("```")[0]
)
edits = st.tuples(
    st.integers(0, len(WHOLE)),
    st.integers(0, 12),
    st.sampled_from(
        ["", '"', "'", "[", "]", "{", "}", "=", "\n", ",", ".", "1", "true", "#", '"""', "é", "/", "{x}", "\\"]
    ),
)


@given(st.lists(edits, min_size=1, max_size=4))
def test_a_garbled_config_loads_or_has_faults_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, str]]
) -> None:
    text = WHOLE
    for place, removed, added in changes:
        text = text[:place] + added + text[place + removed :]
    path = tmp_path_factory.getbasetemp() / "garbled.toml"
    path.write_text(text)
    try:
        load_config(path, env={"ORDERS_CLIENT_SECRET": "s" * 32})
    except ConfigError as error:
        assert error.faults


@given(st.dictionaries(st.from_regex(r"PORTCULLIS_[A-Z_0-9]{1,24}", fullmatch=True), st.text(max_size=12), max_size=4))
def test_a_garbled_environment_loads_or_has_faults_and_nothing_else(env: dict[str, str]) -> None:
    try:
        load_config(None, env=env)
    except ConfigError as error:
        assert error.faults


# ------------------------------------------------------------------------------------------- policies and their callers


def test_policy_files_exist_and_start_at_the_config(load: Load, faults: Faults, tmp_path: Path) -> None:
    found = faults('[policy]\nschema = "s.cedarschema"\nentities = "e.json"\n')
    assert [(fault.key, fault.problem) for fault in found] == [
        ("policy.schema", "`s.cedarschema` does not exist"),
        ("policy.schema", "no policies: path is missing"),
        ("policy.entities", "`e.json` does not exist"),
        ("policy.entities", "no policies: path is missing"),
    ]
    (tmp_path / "policies").mkdir()
    config = load('[policy]\npath = "policies"\n').config
    assert config.policy.path == str(tmp_path / "policies")


def test_the_decision_api_is_never_open_by_accident(load: Load, faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    policy = '[policy]\npath = "policies"\n'
    assert one(faults("[authzen]\nopen_on_loopback = true\n")).key == "authzen.open_on_loopback"
    assert load(policy + "[authzen]\nopen_on_loopback = true\n").config.authzen.open_on_loopback
    for listen in ("0.0.0.0:80", "[::]:80", "pdp.example.com:80"):
        found = one(faults(f'{policy}[server]\nlisten = "{listen}"\n[authzen]\nopen_on_loopback = true\n'))
        assert found.problem == f"`{listen}` can be reached from other machines"


def test_callers_of_the_decision_api_are_told_apart_and_have_secrets(faults: Faults) -> None:
    client = '[[authzen.clients]]\nid = "a"\nsecret = "env:ABSENT_CLIENT"\n'
    assert sorted(fault.key for fault in faults(client + client)) == [
        "authzen.clients",
        "authzen.clients[0].secret",
        "authzen.clients[1].id",
        "authzen.clients[1].secret",
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('base_url = "http://pdp.example.com"', "base_url"),
        ('base_url = "https://pdp.example.com/"', "base_url"),
        ('base_url = "https://pdp.example.com?x"', "base_url"),
        ('base_url = "pdp.example.com"', "base_url"),
        ('action_type = "My Action"', "action_type"),
        ('types = { user = "User::" }', "types.user"),
        ("page_limit = 9\npage_limit_max = 8", "page_limit"),
    ],
)
def test_settings_of_the_decision_api_that_cannot_work_are_faults(text: str, key: str, faults: Faults) -> None:
    assert one(faults(f"[authzen]\n{text}\n")).key == f"authzen.{key}"


def test_a_route_behind_the_decision_api_is_a_warning(load: Load, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    text = '[policy]\npath = "policies"\n[[routes]]\npath = "/access/v1/evaluation"\n'
    assert load(text).warnings == ()
    assert warnings_of(load(text + "[authzen]\nopen_on_loopback = true\n")) == [
        ("routes[0].path", "the gateway answers there itself, so the route is not reached")
    ]


def test_every_section_is_read(load: Load) -> None:
    """One that is not known here would load as if it were not there."""
    loaded = load('[directory]\nurl = "embedded"\n[resilience]\nwait_s = 0.5\n').config
    assert (loaded.directory.url, loaded.resilience.wait_s) == ("embedded", 0.5)
    environment = {"PORTCULLIS_DIRECTORY__URL": "embedded"}
    assert load("", env=environment).config.directory.url == "embedded"
