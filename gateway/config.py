"""Every knob: frozen structs, one a chapter; the unit in the name, a safe default, a reason.

Read from `portcullis.toml`, then from `PORTCULLIS_SECTION__KEY`, then from flags (design §4.2). Unknown keys and wrong
types are refused with file, line, key and remedy (`load_config`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

KIB = 1024
MIB = 1024 * KIB

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]


class Chapter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: unknown keys are errors."""


class ServerConfig(Chapter):
    listen: str = "127.0.0.1:8080"  # host:port; the doors
    admin_listen: str = "127.0.0.1:8081"  # probes, metrics, admin; "" turns it off
    workers: int = 1  # processes; 0 = one a core
    realm: str = "portcullis"  # of WWW-Authenticate
    inline: bool = True  # answer known tokens on the server's own thread (falls back by itself)
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")  # networks whose forwarding headers count
    drain_delay_s: float = 0.5  # between "not ready" and the closed listener
    drain_timeout_s: float = 30.0  # then what still runs is cut
    backlog: int = 2048  # connections the kernel may hold for us
    backpressure: int = 1024  # requests a worker takes at once; the rest waits in the server
    header_bytes_max: int = 32 * KIB  # all header names and values of one request
    header_count_max: int = 100
    body_timeout_s: float = 30.0  # between two pieces of a request body
    public_admin: bool = False  # allow admin_listen off loopback (law 9)
    run_dir: str = ""  # sockets, snapshots of keys, embedded stores; "" = a private folder under the user's state


class IssuerConfig(Chapter):
    issuer: str  # the exact `iss`
    audiences: tuple[str, ...] = ()  # one of them must be in `aud`; () is refused unless any_audience
    any_audience: bool = False  # do not look at `aud`
    algorithms: tuple[Algorithm, ...] = ("RS256",)  # never inferred from the token
    jwks_uri: str = ""  # else discovered from the issuer
    jwks_file: str = ""  # a JWKS on disk, read again on reload
    secret: str = ""  # HMAC key, `env:NAME` or `file:PATH`; needed for, and allows only, HS*
    jwks_refresh_s: float = 3600.0  # design §6
    stale_s: float = 86_400.0  # keys older than this are not used any more: 503 keys_unavailable
    min_refresh_s: float = 5.0  # at most one fetch in this time, whatever unknown `kid`s arrive
    fetch_timeout_s: float = 5.0  # the whole fetch, not one read
    jwks_bytes_max: int = 512 * KIB
    leeway_s: int = 30  # for exp, nbf and iat
    types: tuple[str, ...] = ("at+jwt", "JWT", "")  # accepted `typ`, "" = absent (RFC 9068 §4: only "at+jwt")
    required_claims: tuple[str, ...] = ()  # besides exp and iss
    allow_sender_constrained: bool = False  # accept a token with `cnf` as a plain bearer token
    lifetime_max_s: int = 0  # refuse tokens with exp - iat above this; 0 = no bound
    introspection_endpoint: str = ""  # for opaque tokens (RFC 7662)
    introspection_client_id: str = ""
    introspection_client_secret: str = ""  # `env:NAME` or `file:PATH`
    introspection_ttl_s: float = 10.0  # an active answer is kept this long at most
    introspection_cache_entries: int = 10_000


class CacheConfig(Chapter):
    tokens_entries: int = 16_384  # verified tokens a worker keeps
    tokens_ttl_s: float = 60.0  # then verified again, whatever `exp` says
    structures_entries: int = 1_000  # parsed token headers (seed)
    token_bytes_max: int = 8 * KIB  # a longer token is refused unread


class StoreConfig(Chapter):
    url: str = ""  # "" embedded | "memory:" | "sqlite:PATH" | "redis://…"
    poll_ms: int = 200  # how soon another worker's revocation is seen in the embedded store


class ForwardAuthConfig(Chapter):
    login_url: str = ""  # browsers without a session go there; "" = 401
    login_parameter: str = "rd"  # query parameter that carries the original address
    login_hosts: tuple[str, ...] = ()  # hosts whose address may be carried (no open redirect)


class IdentityConfig(Chapter):
    headers: dict[str, str] = {}  # header -> claim, besides X-Auth-Subject, -Issuer, -Scopes
    decision_id: bool = True  # X-Auth-Decision-Id on every verdict


class RouteConfig(Chapter):
    path: str  # {name} one segment, {*name} the rest
    host: str = ""  # "" any | "app.example.com" | "*.example.com"
    methods: tuple[str, ...] = ()  # () any
    upstream: str = ""  # "" = forward-auth only
    auth: Literal["token", "session", "none"] = "token"
    scopes: tuple[str, ...] = ()  # all of them, else 403 insufficient_scope
    action: str = ""  # Cedar request; needs [policy]
    resource: str = ""
    context: dict[str, str] = {}
    strip_prefix: str = ""  # removed from the path before it goes upstream
    preserve_host: bool = True  # send the client's Host upstream
    connect_timeout_s: float = 2.0
    response_timeout_s: float = 30.0  # until the response's head, and between two pieces of its body
    keepalive_s: float = 55.0  # idle upstream connections are closed after this
    connections_max: int = 256  # a worker and upstream
    body_bytes_max: int = 0  # 0 = no bound of ours


class IntrospectionClientConfig(Chapter):
    id: str
    secret: str  # `env:NAME` or `file:PATH`


class IntrospectionConfig(Chapter):
    clients: tuple[IntrospectionClientConfig, ...] = ()  # who may ask; none = the endpoint is off


class LogConfig(Chapter):
    level: Literal["debug", "info", "warning", "error"] = "info"
    access: str = "off"  # off | "-" (standard output) | PATH: one JSON line a request
    audit: str = "-"  # off | "-" (standard error) | PATH: one JSON line a denial or change


class Config(Chapter):
    server: ServerConfig = ServerConfig()
    issuers: tuple[IssuerConfig, ...] = ()
    cache: CacheConfig = CacheConfig()
    store: StoreConfig = StoreConfig()
    forward_auth: ForwardAuthConfig = ForwardAuthConfig()
    identity: IdentityConfig = IdentityConfig()
    introspection: IntrospectionConfig = IntrospectionConfig()
    routes: tuple[RouteConfig, ...] = ()
    log: LogConfig = LogConfig()
