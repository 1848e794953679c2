"""Canaries in every place where a secret can come in; none of them may be seen anywhere outside."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP
from urllib.parse import quote

import pytest

from tests.forge import hs_signer
from tests.real.gateway import AUDIENCE, Gateway, bearer, gateway, issuer_toml, mint
from tests.real.http import Answer, Connection
from tests.real.issuer_thread import IssuerThread
from tests.real.lines import lines_of, logged
from tests.real.process import free_port, wait_until
from tests.real.recorder import Recorder, Request, Talk, recorder

pytestmark = pytest.mark.journey

CLIENT_SECRET = "canary-client-secret-1b7e"
ISSUER_SECRET = "canary-issuer-secret-9f2c"
HMAC_SECRET = "canary-hmac-secret-0123456789abcdef0123456789abcdef-44d1"
PASSWORD = "canary-password-5a5a"
OPAQUE = "canary-opaque-token-7c21"
STORE_PASSWORD = "canary-store-password-33ab"

SECRETS = {
    "RS_SECRET": CLIENT_SECRET,
    "ISSUER_SECRET": ISSUER_SECRET,
    "HMAC_SECRET": HMAC_SECRET,
}


@pytest.fixture(scope="module")
def app() -> Iterator[Recorder]:
    def repeat(talk: Talk, request: Request) -> None:
        """Give no answer, but the token once more."""
        talk.send(b"HTTP/1.1 " + request.head)
        talk.link.close()

    with recorder() as running:
        running.acts["/garbage"] = repeat
        yield running


@pytest.fixture(scope="module")
def issuer() -> Iterator[IssuerThread]:
    with IssuerThread(free_port(), []) as running:
        yield running


@pytest.fixture(scope="module", params=["true", "false"], ids=["inline", "public"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, app: Recorder, issuer: IssuerThread
) -> Iterator[Gateway]:
    """Everything that logs is on, as talkative as can be."""
    folder = tmp_path_factory.mktemp("gateway")
    url = issuer.issuer.issuer
    config = f"""inline = {request.param}
body_timeout_s = 0.3
header_count_max = 30
#server
{issuer_toml(folder)}
[[issuers]]
issuer = "{url}"
audiences = ["{AUDIENCE}"]
fetch_timeout_s = 0.5
min_refresh_s = 0.1
introspection_endpoint = "{url}/introspect"
introspection_client_id = "gateway"
introspection_client_secret = "env:ISSUER_SECRET"

[[issuers]]
issuer = "https://hmac.test"
audiences = ["{AUDIENCE}"]
algorithms = ["HS256"]
secret = "env:HMAC_SECRET"

[forward_auth]
login_url = "https://login.test/start"
login_hosts = ["app.test"]

[[introspection.clients]]
id = "rs"
secret = "env:RS_SECRET"

[log]
level = "debug"
access = "-"

[[routes]]
path = "/gone/{{*rest}}"
auth = "none"
upstream = "http://127.0.0.1:{free_port()}"

[[routes]]
path = "/scoped/{{*rest}}"
scopes = ["nobody:has"]
upstream = "{app.url}"

[[routes]]
path = "/open/{{*rest}}"
auth = "none"
upstream = "{app.url}"
body_bytes_max = 100

[[routes]]
path = "/{{*rest}}"
upstream = "{app.url}"
"""
    with gateway(folder, config, env=SECRETS) as started:
        yield started


def tokens(issuer: str) -> list[str]:
    """Give tokens of every fate."""
    good = mint(jti="canary")
    hmac = hs_signer("", HMAC_SECRET.encode())
    claims = {"iss": "https://hmac.test", "aud": AUDIENCE, "sub": "alice", "exp": 4_000_000_000}
    return [
        good,
        mint(exp=1),
        mint("stranger"),
        mint(iss="https://nobody.test"),
        mint(iss=issuer),
        good[:-10] + "AAAAAAAAAA",
        good.rpartition(".")[0],
        hmac.token(claims).decode(),
        hs_signer("", b"x" * 64).token(claims).decode(),
        mint(email="canary\r\nx: y", sub="canary\n"),
        OPAQUE,
    ]


def pieces_of(token: str) -> list[str]:
    """Give what must not be seen of a token: payload and signature; headers are no secret."""
    return [piece for piece in token.split(".")[1:] if len(piece) > 8] or [token]


def ask_everywhere(running: Gateway, token: str) -> Iterator[Answer]:
    """Bring one token to every door, in every place where clients put such things."""
    in_path = f"/orders/{token}" if "." in token else "/orders/2"  # nobody can tell an opaque token from a name
    ways: list[list[tuple[str, str]]] = [
        [bearer(token)],
        [bearer(token), bearer(token)],
        [("Authorization", f"Bearer {token} {token}")],
        [("Authorization", f"Basic {base64.b64encode(f'alice:{PASSWORD}'.encode()).decode()}")],
        [("Authorization", token)],
        [("Cookie", f"session={token}"), ("X-Api-Key", PASSWORD), ("X-Request-Id", token)],
        [("X_Token", token)],
        [("Proxy-Authorization", f"Bearer {token}"), bearer(token), ("Accept", "text/html")],
        [("X-Filler", token)] * 40,
    ]
    paths = (
        "/orders/1",
        f"/orders/1?access_token={token}&password={PASSWORD}",
        in_path,
        "/a/../b",
        "/scoped/1",
    )
    for headers, path in itertools.product(ways, paths):
        forward = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", path), ("X-Forwarded-Host", "app.test")]
        nginx = [("X-Original-Method", "GET"), ("X-Original-URL", f"http://app.test{path}")]
        yield running.ask("GET", path, *headers)
        yield running.ask("GET", "/auth/forward", *forward, *headers)
        yield running.ask("GET", "/auth/request", *nginx, *headers)
        yield running.ask("GET", f"/auth/envoy{path}", *headers)
    for target in (f"/gone/1?t={token}", "/garbage", f"/open/1?t={token}", f"/livez?t={token}", f"/readyz?t={token}"):
        yield running.ask("GET", target, bearer(token))
    yield running.ask("POST", "/open/1", bearer(token), body=f"{token}{PASSWORD}".encode() * 10)
    with Connection(running.port) as connection:
        connection.send(
            f"GET /orders/1 HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {token}\r\n {token}\r\n\r\n".encode()
        )
        yield connection.read_answer()
    form = ("Content-Type", "application/x-www-form-urlencoded")
    for client, secret in (("rs", CLIENT_SECRET), ("rs", PASSWORD), (PASSWORD, CLIENT_SECRET)):
        body = f"token={quote(token)}&client_id={client}&client_secret={secret}".encode()
        yield running.ask("POST", "/oauth2/introspect", form, body=body)
        yield running.ask("POST", f"/oauth2/introspect?token={token}", body=body)


def test_no_secret_is_in_logs_metrics_probes_files_or_refusals(
    running: Gateway, app: Recorder, issuer: IssuerThread
) -> None:
    all_tokens = tokens(issuer.issuer.issuer)
    answers: list[Answer] = []
    issuer.issuer.introspect = lambda token: {"active": False, "note": token}
    for token in all_tokens:
        answers += ask_everywhere(running, token)
    with Connection(running.port) as connection:
        body = all_tokens[0][-90:]
        connection.send(f"POST /open/1 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 99\r\n\r\n{body}".encode())
        answers.append(connection.read_answer())
    for mode in ("500", "garbage", "bad_json", "cut"):
        issuer.issuer.mode = mode
        for header in (bearer(f"{OPAQUE}-{mode}"), bearer(mint("stranger", iss=issuer.issuer.issuer))):
            answers.append(running.ask("GET", "/orders/1", header))
    issuer.issuer.mode = "ok"
    config = running.path.read_text()
    for broken in (
        config + f'password = "{PASSWORD}"\n',
        config.replace('"env:RS_SECRET"', f'"{CLIENT_SECRET}"'),
        config.replace('"env:HMAC_SECRET"', '"env:CANARY_ABSENT"'),
        config + f'[store]\nurl = "redis://:{STORE_PASSWORD}@127.0.0.1:1/0"\n',
    ):
        before = running.server.output.count("the running config stays")
        running.path.write_text(broken)
        running.server.signal(SIGHUP)
        wait_until(lambda before=before: running.server.output.count("the running config stays") > before, "a refusal")  # type: ignore[misc]
    assert {200, 302, 400, 401, 403, 408, 413, 431, 502, 503} <= {answer.status for answer in answers}
    last = running.ask("GET", "/auth/envoy/a/../b")
    logged(running.server, event="denied", request_id=last.json["request_id"])

    shown = {
        "log": running.server.output,
        "metrics": running.admin("/metrics").body.decode(),
        "readyz": json.dumps(running.admin("/readyz").json),
        **{
            str(path): path.read_bytes().decode("latin-1")
            for path in (running.folder / "run").rglob("*")
            if path.is_file()
        },
        **{
            f"answer {answer.status}": answer.body.decode()
            + json.dumps([h for h in answer.headers if h[0] != "location"])
            for answer in answers
            if answer.status >= 300
        },
    }
    assert len(lines_of(running.server)) > len(answers)
    hidden = [CLIENT_SECRET, ISSUER_SECRET, HMAC_SECRET, PASSWORD, STORE_PASSWORD, OPAQUE]
    hidden += [base64.b64encode(f"alice:{PASSWORD}".encode()).decode()]
    hidden += [piece for token in all_tokens for piece in pieces_of(token)]
    for secret, (place, text) in itertools.product(hidden, shown.items()):
        assert secret not in text, f"{place} has {secret[:60]}: {around(text, secret)}"
    assert [line for line in lines_of(running.server) if "Traceback" in str(line.get("message"))] == []
    app.take()


def around(text: str, secret: str) -> str:
    at = text.find(secret)
    return text[max(0, at - 300) : at + 40]


def test_files_of_the_gateway_are_its_users_alone(running: Gateway) -> None:
    folder = running.folder / "run"
    assert folder.stat().st_mode & 0o077 == 0
    inside: list[Path] = [path for path in folder.rglob("*") if path.is_file()]
    assert inside
    assert [path for path in inside if path.stat().st_mode & 0o077] == []


def test_no_process_of_the_gateway_leaves_its_memory_in_a_core(running: Gateway) -> None:
    first = running.server.process.pid
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    assert children
    for pid in (str(first), *children):
        (line,) = re.findall(r"^Max core file size +(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
        assert line == "0"
