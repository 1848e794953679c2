"""What `[oauth]` must not say: each fault is found at its place, with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import load_config
from gateway.errors import ConfigError

ENV = {"SEALING": "s" * 32, "SECRET": "c" * 32, "SHORT": "x"}
GOOD = """
[oauth]
issuer = "https://auth.example"
encryption_key = "env:SEALING"

[[oauth.clients]]
id = "web"
secret = "env:SECRET"
redirect_uris = ["https://app.example/cb", "http://127.0.0.1/cb", "com.example.app:/cb"]
post_logout_redirect_uris = ["https://app.example/bye"]
scopes = ["openid", "read"]
resources = ["https://mcp.example/mcp"]

[[oauth.resources]]
id = "https://mcp.example/mcp"
scopes = ["read"]
"""


def faults(folder: Path, text: str) -> list[tuple[str, str]]:
    path = folder / "portcullis.toml"
    path.write_text(text)
    try:
        load_config(path, env=ENV)
    except ConfigError as error:
        return [(fault.key, fault.problem) for fault in error.faults]
    return []


def test_a_good_one_has_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("given", "instead", "key"),
    [
        ("https://auth.example", "http://auth.example", "oauth.issuer"),
        ("https://auth.example", "https://auth.example/", "oauth.issuer"),
        ("https://auth.example", "https://auth.example/path", "oauth.issuer"),
        ("https://auth.example", "https://auth.example?x", "oauth.issuer"),
        ("https://auth.example", "https://u:p@auth.example", "oauth.issuer"),
        ("https://auth.example", "auth.example", "oauth.issuer"),
        ('encryption_key = "env:SEALING"', "", "oauth.encryption_key"),
        ("env:SEALING", "env:SHORT", "oauth.encryption_key"),
        ("env:SEALING", "plain text of thirty-two characters", "oauth.encryption_key"),
        ('id = "web"', 'id = "dyn_web"', "oauth.clients[0].id"),
        ('id = "web"', 'id = "usr_web"', "oauth.clients[0].id"),
        ('id = "web"', 'id = "a b"', "oauth.clients[0].id"),
        ('id = "web"', 'id = "https://app.example/client"', "oauth.clients[0].id"),
        ('secret = "env:SECRET"', "", "oauth.clients[0].secret"),
        ('secret = "env:SECRET"', 'secret = "env:SHORT"', "oauth.clients[0].secret"),
        ('secret = "env:SECRET"', 'secret = "env:SECRET"\nauth = "none"', "oauth.clients[0].secret"),
        ('secret = "env:SECRET"', 'auth = "private_key_jwt"', "oauth.clients[0].jwks_file"),
        ('secret = "env:SECRET"', 'auth = "private_key_jwt"\njwks_file = "none.json"', "oauth.clients[0].jwks_file"),
        ("https://app.example/cb", "http://app.example/cb", "oauth.clients[0].redirect_uris[0]"),
        ("https://app.example/bye", "http://app.example/bye", "oauth.clients[0].post_logout_redirect_uris[0]"),
        ("https://app.example/cb", "https://*.example/cb", "oauth.clients[0].redirect_uris[0]"),
        ("https://app.example/cb", "https://app.example/cb#x", "oauth.clients[0].redirect_uris[0]"),
        ("https://app.example/cb", "javascript:alert(1)", "oauth.clients[0].redirect_uris[0]"),
        ("https://app.example/cb", "/cb", "oauth.clients[0].redirect_uris[0]"),
        ('["openid", "read"]', '["open id"]', "oauth.clients[0].scopes[0]"),
        ('resources = ["https://mcp.example/mcp"]', 'resources = ["https://x"]', "oauth.clients[0].resources[0]"),
        ('id = "https://mcp', 'id = "mcp', "oauth.resources[0].id"),
        ('id = "https://mcp.example/mcp', 'id = "https://mcp.example/m cp', "oauth.resources[0].id"),
        ('mcp"\nscopes = ["read"]\n', 'mcp"\nscopes = [""]\n', "oauth.resources[0].scopes[0]"),
        ("[[oauth.resources]]", "refresh_idle_s = 9000000\n[[oauth.resources]]", "oauth.clients[0].refresh_idle_s"),
        ("[[oauth.clients]]", "refresh_idle_s = 9000000\n[[oauth.clients]]", "oauth.refresh_idle_s"),
        ("[[oauth.clients]]", "key_rotation_s = 60\n[[oauth.clients]]", "oauth.key_announce_s"),
        ("[[oauth.clients]]", 'keys_path = "no/such"\n[[oauth.clients]]', "oauth.keys_path"),
        ("[[oauth.clients]]", 'store_url = "mysql://x"\n[[oauth.clients]]', "oauth.store_url"),
    ],
)
def test_a_fault_is_found_at_its_place(tmp_path: Path, given: str, instead: str, key: str) -> None:
    assert given in GOOD
    found = faults(tmp_path, GOOD.replace(given, instead, 1))
    assert key in [each for each, _ in found]


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('[oauth.strangers]\nregistration = "token"', "oauth.strangers.initial_token"),
        ('[oauth.strangers]\nregistration = "open"\ninitial_token = "env:SECRET"', "oauth.strangers.initial_token"),
        ('[oauth.strangers]\ndocument_hosts = ["https://x.example"]', "oauth.strangers.document_hosts[0]"),
        ('[oauth.strangers]\ndocument_hosts = ["*"]', "oauth.strangers.document_hosts[0]"),
        ('[oauth.strangers]\nscopes = ["a b"]', "oauth.strangers.scopes[0]"),
        ('[[oauth.clients]]\nid = "web"\nauth = "none"\nredirect_uris = ["https://a.example/"]', "oauth.clients[1].id"),
        ('[[oauth.clients]]\nid = "x"\nauth = "none"', "oauth.clients[1].redirect_uris"),
        (
            '[[oauth.clients]]\nid = "x"\nauth = "none"\ngrant_types = ["client_credentials"]',
            "oauth.clients[1].grant_types",
        ),
        (
            '[[oauth.clients]]\nid = "x"\nsecret = "env:SECRET"\ngrant_types = ["client_credentials", "refresh_token"]',
            "oauth.clients[1].grant_types",
        ),
        ('[[oauth.resources]]\nid = "https://mcp.example/mcp"', "oauth.resources[1].id"),
        ('[[oauth.resources]]\nid = "https://mcp.example/"', "oauth.resources[1].id"),
        ('[[issuers]]\nissuer = "https://auth.example"\nany_audience = true', "issuers[0].issuer"),
    ],
)
def test_what_comes_beside_it_is_looked_at_too(tmp_path: Path, more: str, key: str) -> None:
    assert key in [each for each, _ in faults(tmp_path, f"{GOOD}\n{more}\n")]


def test_clients_without_a_token_service_are_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, GOOD.replace('issuer = "https://auth.example"', ""))[0][0] == "oauth.clients"


def test_on_this_machine_http_will_do(tmp_path: Path) -> None:
    assert faults(tmp_path, GOOD.replace("https://auth.example", "http://127.0.0.1:8080")) == []
