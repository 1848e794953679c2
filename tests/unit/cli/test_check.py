"""`portcullis check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.real.issuer import RealIssuer

Run = Callable[..., Result]
RunJson = Callable[..., Any]


def test_a_sound_config_is_told_in_a_few_lines(run: Run, issuer_config: Path) -> None:
    assert run("check").output.splitlines() == [
        "✓ portcullis.toml: 1 issuer, 1 route",
        "✓ https://idp.example.com: 1 usable key",
    ]


def test_every_fault_is_listed_and_the_status_is_1(run: Run, run_json: RunJson, folder: Path) -> None:
    (folder / "portcullis.toml").write_text('[server]\nlistn = "x"\nworkers = "two"\n')
    assert run("check", status=1).stderr.splitlines() == [
        "✗ portcullis.toml:2: server.listn: unknown key; did you mean `listen`?",
        "✗ portcullis.toml:3: server.workers: expected a whole number ≥ 0, got a string; write it without quotes",
    ]
    answer = run_json("check", status=1)
    assert answer["ok"] is False
    assert answer["faults"][0] == {
        "file": "portcullis.toml",
        "line": 2,
        "key": "server.listn",
        "problem": "unknown key",
        "hint": "did you mean `listen`?",
    }


def test_policies_are_judged_as_they_are_served(run: Run, run_json: RunJson, issuer_config: Path, folder: Path) -> None:
    (folder / "policies").mkdir()
    policies = folder / "policies" / "a.cedar"
    policies.write_text("permit (principal, action, resource);\n")
    issuer_config.write_text(issuer_config.read_text() + '\n[policy]\npath = "policies"\n')
    assert "✓ 1 policy" in run("check").output.splitlines()
    assert run_json("check")["policies"] == 1
    policies.write_text("permit (principal, action, resource);\npermit (principal);\n")
    assert f"✗ {policies}:2: unexpected" in run("check", status=1).stderr


def test_types_that_cannot_be_kept_in_a_source_are_faults(run_json: RunJson, issuer_config: Path, folder: Path) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "a.cedarschema").write_text(
        "entity User; action read appliesTo { principal: User, resource: User };"
    )
    (folder / "policies" / "a.cedar").write_text("permit (principal, action, resource);")
    source = '[[policy.sources]]\nname = "{}"\nurl = "embedded"\ntypes = {}\n'
    text = issuer_config.read_text() + '\n[policy]\npath = "policies"\n'
    issuer_config.write_text(text + source.format("one", '["User"]') + source.format("two", '["Usr"]'))
    [fault] = run_json("check", status=1)["faults"]
    assert (fault["key"], fault["problem"]) == ("policy.sources[1].types", "undeclared entity type `Usr`")
    assert (fault["line"], fault["hint"]) == (18, "did you mean `User`?")
    issuer_config.write_text(text + source.format("one", '["User"]'))
    assert run_json("check")["policies"] == 1


def test_relations_that_nothing_keeps_are_a_fault(run_json: RunJson, issuer_config: Path, folder: Path) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "a.cedar").write_text("permit (principal, action, resource);\n")
    (folder / "policies" / "a.cedarschema").write_text(
        "entity User; entity Doc { @relation viewers: Set<User> };"
        "action read appliesTo { principal: User, resource: Doc };"
    )
    text = issuer_config.read_text()
    issuer_config.write_text(text + '\n[policy]\npath = "policies"\n')
    [fault] = run_json("check", status=1)["faults"]
    assert fault["key"] == "policy.relations.url"
    assert fault["problem"] == "the schema has relations, and nothing keeps them"
    issuer_config.write_text(text + '\n[policy]\npath = "policies"\n[policy.relations]\nurl = "embedded"\n')
    assert run_json("check")["policies"] == 1


def test_all_routes_that_do_not_fit_the_schema_are_told_with_their_lines(
    run_json: RunJson, issuer_config: Path, folder: Path
) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "a.cedar").write_text("permit (principal, action, resource);\n")
    (folder / "policies" / "a.cedarschema").write_text(
        "entity User; entity Order; action read appliesTo"
        " { principal: User, resource: Order, context: { floor: Long, must: String, tags?: Set<String> } };"
    )
    text = issuer_config.read_text() + '\n[policy]\npath = "policies"\n'
    first = text.count("\n") + 1
    issuer_config.write_text(
        f"""{text}
[[routes]]
path = "/orders/{{id}}"
action = 'Action::"read"'
resource = 'Thing::"{{nope}}"'
[routes.context]
floor = "{{header.bad name}}"
other = "x"
tags = "a, b"
[[routes]]
path = "/b"
action = 'Action::"reed"'
resource = 'Order::"1"'
[[routes]]
path = "/c"
action = 'Action::"read"'
resource = 'Thing::"1"'
"""
    )
    faults = run_json("check", status=1)["faults"]
    assert [(fault["key"], fault["line"] - first) for fault in faults] == [
        ("routes[1].resource", 4),
        ("routes[1].context.floor", 6),
        ("routes[1].context.other", 7),
        ("routes[1].context", 5),
        ("routes[1].context.tags", 8),
        ("routes[2].action", 11),
        ("routes[3].resource", 16),
        ("routes[3].context", 13),
        ("routes[3].context", 13),
    ]
    assert "needs `must`" in faults[3]["problem"]
    assert "is no resource of the action" in faults[6]["problem"]


def test_texts_that_a_page_could_fail_by_are_a_fault(run_json: RunJson, issuer_config: Path, folder: Path) -> None:
    (folder / "texts").mkdir()
    login = '[login]\nenabled = true\ntexts = "texts"\n'
    parts = '\n[sessions]\nurl = "embedded"\n[directory]\nurl = "embedded"\n'
    issuer_config.write_text(issuer_config.read_text() + parts + login)
    (folder / "texts" / "de.toml").write_text('login_title = "Willkommen"\n')
    assert run_json("check")["ok"] is True
    (folder / "texts" / "de.toml").write_text('login_titel = "Willkommen"\n')
    (fault,) = run_json("check", status=1)["faults"]
    assert fault["key"] == "login.texts"
    assert "a text `login_titel` that no page shows" in fault["problem"]


def test_keys_that_cannot_be_used_are_faults_with_a_line(run: Run, issuer_config: Path, folder: Path) -> None:
    (folder / "keys" / "jwks.json").write_text('{"keys": []}')
    assert "portcullis.toml:5: issuers[0].jwks_file: " in run("check", status=1).stderr
    (folder / "keys" / "jwks.json").write_text("nonsense")
    assert "portcullis.toml:5: issuers[0].jwks_file: " in run("check", status=1).stderr


def test_one_bad_key_beside_a_good_one_is_a_warning(run_json: RunJson, issuer_config: Path, folder: Path) -> None:
    path = folder / "keys" / "jwks.json"
    document = json.loads(path.read_text())
    document["keys"].append({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "weak"})
    path.write_text(json.dumps(document))
    answer = run_json("check")
    assert answer["ok"] is True
    assert [(warning["line"], "weak" in warning["problem"]) for warning in answer["warnings"]] == [(5, True)]


def test_origins_say_where_each_value_came_from(
    run_json: RunJson, issuer_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTCULLIS_SERVER__WORKERS", "2")
    origins = run_json("check")["origins"]
    assert origins["server.workers"] == {"kind": "env", "place": "PORTCULLIS_SERVER__WORKERS"}
    assert origins["issuers[0].issuer"] == {"kind": "file", "place": "portcullis.toml:2"}


def test_an_empty_config_is_warned_of(run: Run, folder: Path) -> None:
    text = run("check").output
    assert "! no file, defaults: issuers: none, so every token is refused; add `[[issuers]]`" in text
    assert "! no file, defaults: routes: none, so every request is refused; add `[[routes]]`" in text


def test_a_named_file_must_be_there(run: Run) -> None:
    assert "absent.toml: there is no such file" in run("check", "-c", "absent.toml", status=1).stderr


def test_the_schema_is_json_schema(run: Run) -> None:
    schema = json.loads(run("check", "--schema").output)
    assert schema["$defs"]["ServerConfig"]["properties"]["listen"]["description"] == "host:port; the doors"


def remote_config(issuer: str) -> str:
    return f'[[issuers]]\nissuer = "{issuer}"\naudiences = ["api"]\nalgorithms = ["ES256"]\n[[routes]]\npath = "/"\n'


def test_issuers_elsewhere_are_asked_online_only(run: Run, run_json: RunJson, folder: Path) -> None:
    (folder / "portcullis.toml").write_text(remote_config("http://127.0.0.1:9"))
    assert "· http://127.0.0.1:9: its keys are fetched when it is served" in run("check").output
    answer = run_json("check", "--online", status=1)
    assert answer["issuers"][0]["status"] == "unavailable"
    assert answer["faults"][0]["key"] == "issuers[0]"
    assert answer["faults"][0]["line"] == 1


async def test_online_finds_the_keys_of_an_issuer(folder: Path) -> None:
    import asyncio
    import sys

    from gateway.tokens.signing import new_key

    async with RealIssuer([new_key("ES256").public_jwk()]) as issuer:
        (folder / "portcullis.toml").write_text(remote_config(issuer.issuer))
        root = str(Path(__file__).resolve().parents[3])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "check", "--online", stdout=-1, stderr=-1, env={"PYTHONPATH": root}
        )
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    assert f"✓ {issuer.issuer}: 1 usable key" in out.decode()
