"""What `[audit]`, `[scim]` and `[admin]` refuse: who could come in that should not, or who never could."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import load_config
from gateway.errors import ConfigError

ENV = {"TOKEN": "t" * 40, "SHORT": "short", "OTHER": "o" * 40}
DIRECTORY = '[directory]\nurl = "embedded"\n'
SCIM = '[scim]\nbase_url = "https://auth.test"\n'
CLIENT = '[[scim.clients]]\nid = "hr"\ntoken = "env:TOKEN"\n'
PROGRAM = '[[admin.tokens]]\nid = "robot"\ntoken = "env:TOKEN"\nroles = ["reader"]\n'


def faults(folder: Path, text: str) -> list[str]:
    path = folder / "portcullis.toml"
    path.write_text(text)
    try:
        load_config(path, env=ENV)
    except ConfigError as error:
        return [f"{fault.key}: {fault.problem}" for fault in error.faults]
    return []


@pytest.mark.parametrize(
    "text",
    [
        DIRECTORY + SCIM + CLIENT,
        DIRECTORY + '[scim]\nbase_url = "http://127.0.0.1:8080"\n' + CLIENT,
        DIRECTORY + PROGRAM,
        DIRECTORY + '[[admin.roles]]\nrole = "owner"\nusers = ["usr_1"]\n',
        '[audit]\nurl = "folder:log"\n',
        '[audit]\nurl = "redis://127.0.0.1:6379/0"\nname = "here"\n',
        '[audit]\nurl = "kafka://127.0.0.1:9092,localhost:9093/audit"\n',
        '[audit]\nurl = "kafkas://kafka.example.com:9093/audit"\n',
        '[audit]\nurl = "off"\n',
    ],
)
def test_what_works_is_taken(tmp_path: Path, text: str) -> None:
    assert faults(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CLIENT, "scim.clients: there is no SCIM"),
        (SCIM + CLIENT, "scim.base_url: there are no users to provision"),
        (DIRECTORY + SCIM, "scim.clients: nobody may provision"),
        (
            DIRECTORY + '[scim]\nbase_url = "http://auth.test"\n' + CLIENT,
            "scim.base_url: tokens would",
        ),
        (DIRECTORY + '[scim]\nbase_url = "auth.test"\n' + CLIENT, "scim.base_url: no address of this gateway"),
        (DIRECTORY + SCIM + CLIENT.replace("TOKEN", "SHORT"), "scim.clients[0].token: shorter than 32 bytes"),
        (DIRECTORY + SCIM + CLIENT + CLIENT, "scim.clients[1].id: the same client"),
        (
            DIRECTORY + SCIM + 'issuers = ["https://stranger.test"]\n' + CLIENT,
            "scim.issuers[0]: `https://stranger.test`",
        ),
        (DIRECTORY + SCIM + 'scope = "a b"\n' + CLIENT, "scim.scope: `a b` is no scope"),
        (DIRECTORY + SCIM + CLIENT + '[[routes]]\npath = "/scim/v2/x"\n', "routes[0].path: the gateway answers there"),
        (PROGRAM, "admin.tokens: there are no users to administer"),
        (DIRECTORY + PROGRAM.replace("reader", "root"), "admin.tokens[0].roles: `root` is no role"),
        (DIRECTORY + PROGRAM.replace('["reader"]', "[]"), "admin.tokens[0].roles: it may do nothing"),
        (DIRECTORY + PROGRAM.replace("TOKEN", "SHORT"), "admin.tokens[0].token: shorter than 32 bytes"),
        (DIRECTORY + PROGRAM.replace("robot", "usr_1"), "admin.tokens[0].id: no name of a program"),
        (DIRECTORY + PROGRAM + '[server]\nadmin_listen = ""\n', "admin.tokens: there is no listener"),
        (
            DIRECTORY + PROGRAM + '[server]\nadmin_listen = "0.0.0.0:8081"\n',
            "server.admin_listen: `0.0.0.0:8081`",
        ),
        (DIRECTORY + PROGRAM + '[audit]\nurl = "off"\n', "audit.url: nobody would know what administrators did"),
        (DIRECTORY + '[[admin.roles]]\nrole = "owner"\n', "admin.roles[0].role: nobody has it"),
        ('[admin]\npolicies = "x.cedar"\n', "admin.policies: nobody administers"),
        (DIRECTORY + '[admin]\npolicies = "x.cedar"\n' + PROGRAM, "admin.policies: "),
        ('[audit]\nurl = "https://log.test"\n', "audit.url: no audit log"),
        ('[audit]\nurl = "kafka://127.0.0.1:9092"\n', "audit.url: no topic is named"),
        ('[audit]\nurl = "kafka:///audit"\n', "audit.url: no address of a Kafka broker"),
        ('[audit]\nurl = "kafka://broker:9092/audit"\n', "audit.url: an unencrypted connection to another machine"),
        ('[audit]\nurl = "kafkas://me:secret@broker/audit"\n', "audit.url: a password stands in the config"),
        ('[audit]\nurl = "folder:a/b/c"\n', "audit.url: its folder does not exist"),
        ('[audit]\nname = "a b"\n', "audit.name: `a b` is no name of a chain"),
        ('[audit]\nkey = "env:SHORT"\n', "audit.key: shorter than 32 bytes"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    found = faults(tmp_path, text)
    assert any(each.startswith(expected) for each in found), found
