"""A token service with everything around it in memory, a browser with a session, and a client that talks to it."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import msgspec
from starlette.applications import Starlette

from gateway.config import (
    OAuthClientConfig,
    OAuthConfig,
    OAuthResourceConfig,
    OAuthStrangersConfig,
    ResilienceConfig,
)
from gateway.errors import GatewayError
from gateway.flows.oauth import LoginWish, OAuthService, Surroundings, open_keys
from gateway.flows.sessions import origin_of
from gateway.flows.trail import Caller
from gateway.front.callers import Callers
from gateway.front.introspect import Introspection
from gateway.front.login.reader_language import Languages
from gateway.front.login.texts import read_catalogue
from gateway.front.oauth import OAuthEndpoints
from gateway.front.oauth.pages import OAuthPages
from gateway.front.refusals import gateway_error
from gateway.front.trust import TrustedProxies
from gateway.resilience import Resilience
from gateway.stores.fetch import FetchFailed
from gateway.stores.grants import TokenStore
from gateway.stores.grants_records import KIND, RecordTokenStore
from gateway.stores.records_memory import MemoryRecordStore
from gateway.tokens.signing import SigningKey, thumbprint
from gateway.types import AuditEvent, Secret, Session, Subject
from tests.unit.tokens.fakes import MovedClock

ISSUER = "https://auth.example"
RESOURCE = "https://mcp.example/mcp"
CALLBACK = "https://app.example/callback"
USER = Subject("", "usr_alice")
SEALING = Secret("0123456789abcdef0123456789abcdef")
COOKIE = "__Host-session"
GOODBYE = "https://app.example/goodbye"
SECRET = "a-secret-of-thirty-two-characters-0"


class Browser:
    """The Authenticator: one session, or none."""

    def __init__(self, clock: MovedClock) -> None:
        self._clock = clock
        self.session: Session | None = None
        self.wishes: list[LoginWish] = []
        self.ended: list[bytes] = []
        self.joined: list[str] = []

    def log_in(self, subject: Subject = USER, *, acr: str = "", **changes: Any) -> Session:
        now_s = int(self._clock.wall_s())
        made = Session(
            id_hash=secrets.token_bytes(32),
            subject=subject,
            home_region="local",
            created_s=now_s,
            last_seen_s=now_s,
            idle_timeout_s=0,
            expires_s=now_s + 400 * 86_400,
            authenticated_s=now_s,
            csrf_secret=secrets.token_bytes(32),
            amr=("pwd",),
            acr=acr,
        )
        self.session = replace(made, **changes)
        return self.session

    async def current(self, cookies: Mapping[str, str]) -> Session | None:
        return self.session

    def login_url(self, wish: LoginWish) -> str:
        self.wishes.append(wish)
        return "/login"

    def meets(self, session: Session, acr_values: tuple[str, ...]) -> bool:
        return session.acr in acr_values

    async def join(self, session: Session, client_id: str) -> bool:
        self.joined.append(client_id)
        return session is self.session

    async def is_live(self, subject: Subject, origin: bytes) -> bool:
        session = self.session
        return session is not None and session.subject == subject and origin_of(session) == origin

    async def end(self, subject: Subject, origin: bytes) -> None:
        self.ended.append(origin)
        self.session = None

    async def log_out(self, session: Session, caller: Caller) -> None:
        await self.end(session.subject, origin_of(session))


class People:
    """The Profiles: everybody has a name, but who is gone."""

    def __init__(self) -> None:
        self.gone: set[str] = set()

    async def claims_of(self, subject: Subject, scopes: tuple[str, ...]) -> Mapping[str, object] | None:
        if subject.id in self.gone:
            return None
        return {"name": "Alice"} if "profile" in scopes else {}


class Events(list[AuditEvent]):
    """The Auditor: a list."""

    def tell(self, event: AuditEvent) -> None:
        self.append(event)

    def of(self, action: str) -> list[AuditEvent]:
        return [event for event in self if event.action == action]


class NoTokens:
    """The engine behind introspection: it knows no token of anybody else."""

    async def judge(self, token: bytes) -> tuple[Mapping[str, Any] | None, str]:
        return None, "malformed"


CLIENTS = (
    OAuthClientConfig(
        id="app", name="The App", auth="none", redirect_uris=(CALLBACK, "http://127.0.0.1/back"), consent="implied",
        scopes=("openid", "profile", "offline_access", "read", "write"),
        post_logout_redirect_uris=(GOODBYE, "https://app.example/bye?x=1"),
    ),
    OAuthClientConfig(
        id="web", name="Web", secret="env:WEB_SECRET", redirect_uris=(CALLBACK,), consent="ask",
        scopes=("openid", "profile", "offline_access", "read"),
    ),
    OAuthClientConfig(
        id="job", secret="env:WEB_SECRET", grant_types=("client_credentials",), scopes=("read", "write"),
    ),
    OAuthClientConfig(
        id="strict", auth="none", redirect_uris=(CALLBACK,), consent="implied", dpop=True, par=True,
    ),
)  # fmt: skip


class World:
    """One gateway's token service, and what is around it."""

    def __init__(
        self,
        folder: Path,
        store: Callable[[MovedClock], TokenStore] | None = None,
        *,
        clock: MovedClock | None = None,
        has_sessions: bool = True,
        **changes: Any,
    ) -> None:
        self._has_sessions = has_sessions
        self.clock = clock or MovedClock()
        self.browser = Browser(self.clock)
        self.people = People()
        self.events = Events()
        self.revoked: list[tuple[str, str, str, int]] = []
        self.documents: dict[str, dict[str, Any]] = {}
        self.fetched: list[str] = []
        made = RecordTokenStore(MemoryRecordStore(KIND), self.clock) if store is None else store(self.clock)
        self.store: TokenStore = made
        self.level = 0
        self.counted: Counter[tuple[str, str]] = Counter()
        folder.joinpath("secret").write_text(SECRET)
        config = OAuthConfig(
            issuer=ISSUER,
            encryption_key="file:secret",
            algorithm="ES256",  # a key of RSA takes long to make
            clients=tuple(
                msgspec.structs.replace(each, secret="file:secret") if each.secret else each for each in CLIENTS
            ),
            resources=(
                OAuthResourceConfig(id=RESOURCE, name="Tools", scopes=("read",)),
                OAuthResourceConfig(id="https://other.example", scopes=("write",)),
            ),
            strangers=OAuthStrangersConfig(),
        )
        self.config = msgspec.structs.replace(config, **changes)
        self.resilience = Resilience(ResilienceConfig(), clock=self.clock)
        self.keys, self.sealer = open_keys(self.config, folder, folder, self.clock)
        self.service = self.new_service(folder)
        self.app = self.new_app(self.service)
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self.app), base_url=ISSUER)

    def new_service(self, folder: Path) -> OAuthService:
        around = Surroundings(
            store=self.store,
            authenticator=self.browser,
            profiles=self.people,
            auditor=self.events,
            revoke=self._revoke,
            resilience=self.resilience,
            clock=self.clock,
            fetch=self._fetch,
            level=lambda: self.level,
            has_sessions=self._has_sessions,
            count=lambda grant, outcome: self.counted.update([(grant, outcome)]),
        )
        return OAuthService(self.config, self.keys, self.sealer, around, folder)

    def new_app(self, service: OAuthService) -> Starlette:
        endpoints = OAuthEndpoints(
            service,
            pages=OAuthPages(Languages(read_catalogue())),
            body_timeout_s=5.0,
            caller_of=Callers(TrustedProxies([])),
            session_cookie=COOKIE,
        )
        introspection = Introspection(
            NoTokens(),
            {"rs": Secret("rs-secret")},
            body_timeout_s=5.0,
            resilience=self.resilience,
            own=endpoints,
        )
        app = Starlette(routes=endpoints.routes(), exception_handlers={GatewayError: gateway_error})
        app.add_route("/oauth2/introspect", introspection.endpoint, methods=["POST"])
        return app

    async def _revoke(self, kind: str, issuer: str, value: str, *, until_s: int) -> None:
        self.revoked.append((kind, issuer, value, until_s))
        self.service.own.revoke_many([(kind, issuer.encode(), value.encode(), until_s, 0)])

    async def _fetch(self, url: str) -> dict[str, Any]:
        self.fetched.append(url)
        if url not in self.documents:
            raise FetchFailed("unreachable", "nothing there")
        return self.documents[url]

    # -- what a client does -------------------------------------------------------------------------------------------

    async def authorize(self, **changes: str | Sequence[str] | None) -> dict[str, str]:
        """Send the browser to the authorization endpoint, and return what the redirect carries."""
        answer = await self.http.get("/oauth2/authorize", params=query(**changes))
        assert answer.status_code == 303, answer.text
        return carried(answer)

    async def code(self, **changes: str | Sequence[str] | None) -> str:
        if self.browser.session is None:
            self.browser.log_in()
        got = await self.authorize(**changes)
        assert "code" in got, got
        return got["code"]

    async def token(
        self,
        form: Mapping[str, str | Sequence[str]],
        *,
        key: SigningKey | None = None,
        auth: tuple[str, str] | None = None,
    ) -> httpx2.Response:
        """Ask the token endpoint, with a proof by `key`, sent again with the nonce that it asks for."""
        headers = {"dpop": self.proof(key)} if key is not None else {}
        basic = httpx2.USE_CLIENT_DEFAULT if auth is None else httpx2.BasicAuth(*auth)
        answer = await self.http.post("/oauth2/token", data=form, headers=headers, auth=basic)
        if key is not None and answer.json().get("error") == "use_dpop_nonce":
            headers = {"dpop": self.proof(key, nonce=answer.headers["dpop-nonce"])}
            answer = await self.http.post("/oauth2/token", data=form, headers=headers, auth=basic)
        return answer

    async def redeem(
        self, code: str, *, key: SigningKey | None = None, more: Mapping[str, str] | None = None, **changes: str
    ) -> httpx2.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": "app",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
        }
        return await self.token({**form, **changes, **(more or {})}, key=key)

    async def refresh(self, token: str, *, key: SigningKey | None = None, **changes: str) -> httpx2.Response:
        form = {"grant_type": "refresh_token", "client_id": "app", "refresh_token": token, **changes}
        return await self.token(form, key=key)

    async def log_in(self, **changes: str | Sequence[str] | None) -> dict[str, Any]:
        """Go the whole way, and return the token response."""
        answer = await self.redeem(await self.code(**changes))
        assert answer.status_code == 200, answer.text
        members: dict[str, Any] = answer.json()
        return members

    async def introspect(self, token: str) -> dict[str, Any]:
        answer = await self.http.post("/oauth2/introspect", data={"token": token}, auth=("rs", "rs-secret"))
        assert answer.status_code == 200, answer.text
        members: dict[str, Any] = answer.json()
        return members

    def proof(
        self, key: SigningKey, *, url: str = f"{ISSUER}/oauth2/token", method: str = "POST", **claims: Any
    ) -> str:
        return proof_of(
            key, {"jti": secrets.token_hex(8), "htm": method, "htu": url, "iat": int(self.clock.wall_s()), **claims}
        )


VERIFIER = "v" * 50
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


def query(**changes: str | Sequence[str] | None) -> httpx2.QueryParams:
    given: dict[str, str | Sequence[str] | None] = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": CALLBACK,
        "scope": "openid profile read",
        "state": "st&ate=1",
        "nonce": "n-1",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    pairs: list[tuple[str, str]] = []
    for name, value in given.items():
        if value is not None:
            pairs += [(name, value)] if isinstance(value, str) else [(name, each) for each in value]
    return httpx2.QueryParams(tuple(pairs))


def carried(answer: httpx2.Response) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def proof_of(key: SigningKey, claims: Mapping[str, Any], **header: Any) -> str:
    """Make a DPoP proof by hand: header and claims as a test wants them."""
    public = {name: value for name, value in key.public_jwk().items() if name not in ("kid", "alg", "use")}
    head = {"typ": "dpop+jwt", "alg": key.algorithm, "jwk": public, **header}
    import jwt

    assert not isinstance(key.material, Secret)
    return jwt.encode(dict(claims), key.material, algorithm=key.algorithm, headers=head)


def jkt_of(key: SigningKey) -> str:
    return thumbprint(key.public_jwk())


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
