"""Every knob: frozen structs, one a chapter; the unit in the name, a safe default, a reason.

The comment at the end of a field's line is its description: in `docs/configuration.md` and in the JSON
Schema for editors.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

KIB = 1024
MIB = 1024 * KIB

WAITING_PER_PERMIT_MAX = 4  # at 50 ms a call the last of them waits for 200 ms; more could only time out

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]

SigningAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
GrantType = Literal["authorization_code", "client_credentials", "refresh_token"]

Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrOff = Annotated[int, msgspec.Meta(ge=0)]  # 0 says what is meant by it in its description
LoginsKept = Annotated[int, msgspec.Meta(ge=0, le=20)]
DayOrOff = Annotated[int, msgspec.Meta(ge=0, le=86_400)]  # seconds; 0 says the same
Seconds = Annotated[float, msgspec.Meta(gt=0)]
SecondsOrNone = Annotated[float, msgspec.Meta(ge=0)]
LeaseSeconds = Annotated[float, msgspec.Meta(ge=0.5)]
KeepSeconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
WaitSeconds = Annotated[float, msgspec.Meta(gt=0, le=5)]  # the source's wait is the longest
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Chapter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: unknown keys are errors."""


class ServerConfig(Chapter, frozen=True):
    """Where the gateway listens, and what it takes from one request."""

    listen: str = "127.0.0.1:8080"  # host:port; the doors
    admin_listen: str = "127.0.0.1:8081"  # probes, metrics, admin; "" turns it off
    workers: CountOrOff = 1  # processes; 0 = one a core
    realm: str = "portcullis"  # of WWW-Authenticate
    inline: bool = True  # answer known tokens on the server's own thread (falls back by itself)
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")  # networks whose forwarding headers count
    drain_delay_s: SecondsOrNone = 0.5  # between "not ready" and the closed listener
    drain_timeout_s: SecondsOrNone = 30.0  # then what still runs is cut
    backlog: Count = 2048  # connections the kernel may hold for us
    backpressure: Count = 1024  # requests a worker takes at once; the rest waits in the server
    header_bytes_max: Count = 32 * KIB  # all header names and values of one request
    header_count_max: Count = 100  # headers of one request
    body_timeout_s: Seconds = 30.0  # between two pieces of a request body
    public_admin: bool = False  # allow admin_listen off loopback
    run_dir: str = ""  # sockets, snapshots of keys, embedded stores; "" = a private folder under the user's state


class IssuerConfig(Chapter, frozen=True):
    """Whose tokens are accepted. The `iss` of a token picks one; nothing else in it picks anything."""

    issuer: str  # the exact `iss`
    audiences: tuple[str, ...] = ()  # one of them must be in `aud`; none is refused unless any_audience
    any_audience: bool = False  # do not look at `aud`
    algorithms: tuple[Algorithm, ...] = ("RS256",)  # never inferred from the token
    jwks_uri: str = ""  # else discovered from the issuer
    jwks_file: str = ""  # a JWKS on disk, read again on reload
    secret: str = ""  # HMAC key, `env:NAME` or `file:PATH`; needed for, and allows only, HS*
    jwks_refresh_s: Seconds = 3600.0  # keys are fetched again after this
    stale_s: Seconds = 86_400.0  # keys older than this are not used any more: 503 keys_unavailable
    min_refresh_s: Seconds = 5.0  # at most one fetch in this time, whatever unknown `kid`s arrive
    fetch_timeout_s: Seconds = 5.0  # the whole fetch, not one read
    jwks_bytes_max: Count = 512 * KIB  # a longer key set is refused
    leeway_s: Annotated[int, msgspec.Meta(ge=0, le=600)] = 30  # for exp, nbf and iat
    types: tuple[str, ...] = ("at+jwt", "JWT", "")  # accepted `typ`, "" = absent (RFC 9068 §4: only "at+jwt")
    required_claims: tuple[str, ...] = ()  # besides exp and iss
    allow_sender_constrained: bool = False  # accept a token with `cnf` as a plain bearer token
    lifetime_max_s: CountOrOff = 0  # refuse tokens with exp - iat above this; 0 = no bound
    introspection_endpoint: str = ""  # for opaque tokens (RFC 7662)
    introspection_client_id: str = ""  # as whom we ask there
    introspection_client_secret: str = ""  # `env:NAME` or `file:PATH`
    introspection_ttl_s: Seconds = 10.0  # an active answer is kept this long at most


class CacheConfig(Chapter, frozen=True):
    """What a worker remembers of tokens."""

    tokens_entries: Count = 16_384  # verified tokens a worker keeps
    tokens_ttl_s: Seconds = 60.0  # then verified again, whatever `exp` says
    structures_entries: Count = 1_000  # parsed token headers (seed)
    token_bytes_max: Count = 8 * KIB  # a longer token is refused unread


class StoreConfig(Chapter, frozen=True):
    """Where revocations are kept, so that every worker and gateway sees them."""

    url: str = ""  # "" embedded | "memory:" | "sqlite:PATH" | "redis://…"; with a password: `env:NAME` or `file:PATH`
    poll_ms: Count = 200  # how soon another worker's revocation is seen in the embedded store


class ForwardAuthConfig(Chapter, frozen=True):
    """How browsers come from forward-auth to the login page."""

    login_url: str = ""  # browsers without a session go there; "" = 401
    login_parameter: str = "rd"  # query parameter that carries the original address
    login_hosts: tuple[str, ...] = ()  # hosts whose address may be carried (no open redirect)


class IdentityConfig(Chapter, frozen=True):
    """What the apps behind the gateway learn of the caller."""

    headers: dict[str, str] = {}  # header -> claim, besides X-Auth-Subject, -Issuer, -Scopes
    decision_id: bool = True  # X-Auth-Decision-Id on every verdict


class OAuthClientConfig(Chapter, frozen=True):
    """An application that gets tokens from this gateway."""

    id: str  # by which it asks for tokens
    name: str = ""  # on the page that asks for consent; "" = the id
    auth: Literal["secret", "private_key_jwt", "none"] = "secret"  # how it proves itself; "none": it cannot
    secret: str = ""  # `env:NAME` or `file:PATH`, 32 random characters or more; by HTTP Basic or in the form
    jwks_file: str = ""  # a JWKS of its public keys, for private_key_jwt
    grant_types: tuple[GrantType, ...] = ("authorization_code", "refresh_token")  # how it gets tokens
    redirect_uris: tuple[str, ...] = ()  # compared as texts; on 127.0.0.1 and [::1] any port will do
    post_logout_redirect_uris: tuple[str, ...] = ()  # where browsers may go after a log-out that it asked for
    scopes: tuple[str, ...] = ("openid", "profile", "email", "offline_access")  # that it may ask for
    resources: tuple[str, ...] = ()  # ids of those that it may have tokens for; none = all
    tenant: str = ""  # whose users it is for; "" = those of all tenants
    consent: Literal["ask", "implied"] = "ask"  # whether users are asked; "implied" for your own applications
    access_token_s: CountOrOff = 0  # as oauth.access_token_s; 0 = that
    refresh_idle_s: CountOrOff = 0  # as oauth.refresh_idle_s; 0 = that
    refresh_max_s: CountOrOff = 0  # as oauth.refresh_max_s; 0 = that
    dpop: bool = False  # it must prove possession of a key (RFC 9449)
    par: bool = False  # it must push its authorization requests (RFC 9126)
    backchannel_logout_uri: str = ""  # where it hears that a session is over (OIDC Back-Channel Logout); "" = nowhere


class OAuthResourceConfig(Chapter, frozen=True):
    """A service that takes tokens of this gateway: what `resource` (RFC 8707) may name, and `aud` then says."""

    id: str  # an absolute URI, as in `https://mcp.example.com/mcp`
    name: str = ""  # on the page that asks for consent; "" = the id
    scopes: tuple[str, ...] = ()  # that it understands


class OAuthStrangersConfig(Chapter, frozen=True):
    """Clients that nobody configured, as MCP needs them. Their users are always asked for consent."""

    registration: Literal["off", "token", "open"] = "off"  # RFC 7591: nobody, who has the token, or everybody
    initial_token: str = ""  # `env:NAME` or `file:PATH`, for registration = "token"
    per_minute: Count = 10  # registrations of one address in each worker; of all together ten times as many
    document_hosts: tuple[str, ...] = ()  # whose addresses may be client ids; `app.example.com`, `*.example.com`
    scopes: tuple[str, ...] = ("openid", "profile", "offline_access")  # that they may ask for, besides the resources'
    schemes: tuple[str, ...] = ()  # of redirect URIs of apps, besides domain names in reverse; as in `cursor`


class SessionsConfig(Chapter, frozen=True):
    """Who is logged in: sessions of browsers, known by a cookie. Routes with `auth = "session"` need them."""

    url: str = ""  # "" none | "embedded" | "memory:" | "sqlite:PATH" | "redis://A:1,B:2" (a cluster); `env:`, `file:`
    key: str = ""  # 32 bytes or more that cookies are made with, `env:NAME` or `file:PATH`; "" = one in run_dir
    cookie: str = "__Host-portcullis"  # its name; without `__Host-` another host of the site could set it
    issuer: str = ""  # whom identity headers name; "" = oauth.issuer, else `portcullis`
    region: str = "local"  # that owns the sessions begun here; up to 16 lower case letters, digits and `-`
    idle_s: Count = 1800  # a session that is not used for so long ends
    absolute_s: Annotated[int, msgspec.Meta(ge=1, le=34_560_000)] = 43_200  # and in any case after this
    keep_s: Annotated[int, msgspec.Meta(ge=1, le=300)] = 60  # how long the hot path knows one before its store is asked
    offline_s: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 300  # known ones go on for so long while the store is away


class DirectoryConfig(Chapter, frozen=True):
    """Who there is: users, their credentials, and groups. Log-in, SCIM and administration need it."""

    url: str = ""  # "" none | "embedded" | "sqlite:PATH" | "postgresql://…"; with a password: `env:NAME` or `file:PATH`
    encryption_key: str = ""  # 32 bytes or more that seal TOTP secrets, `env:NAME` or `file:PATH`; "" = one in run_dir


class AuditConfig(Chapter, frozen=True):
    """The audit log: one entry a security-relevant act, in chains of hashes. `portcullis audit verify` checks them."""

    url: str = "embedded"  # in run_dir | "folder:PATH" | "redis://…" | "kafka://…/TOPIC" | "off"; `env:`, `file:`
    key: str = ""  # 32 bytes or more: entries then hold an HMAC; `env:NAME` or `file:PATH`; "" = plain SHA-256
    name: str = ""  # of this machine's chains; "" = its host name
    queue_max: Count = 10_000  # events that wait in a worker while the log is away; more are lost, and counted
    flush_s: Seconds = 5.0  # a worker that stops waits so long for the log


class ScimClientConfig(Chapter, frozen=True):
    """A provisioning service that calls SCIM with a token of its own."""

    id: str  # the name it has in the audit log
    token: str  # what it sends as `Authorization: Bearer …`, 32 bytes or more: `env:NAME` or `file:PATH`
    tenant: str = ""  # whose users and groups it provisions; "" = scim.tenant
    read_only: bool = False  # it may only look


class ScimConfig(Chapter, frozen=True):
    """SCIM 2.0 at `/scim/v2` (RFC 7643, 7644): users and groups of the directory, kept up to date by somebody else."""

    base_url: str = ""  # as clients see this gateway, as in `https://auth.example.com`; "" = no SCIM
    tenant: str = ""  # whose users and groups these are; made where it does not exist
    clients: tuple[ScimClientConfig, ...] = ()  # see below
    issuers: tuple[str, ...] = ()  # whose access tokens may call, with the scope, for scim.tenant; none = oauth.issuer
    scope: str = "scim"  # that such a token needs
    read_scope: str = "scim:read"  # with which it may only look
    body_bytes_max: Count = 1 * MIB  # of one request, also of a bulk one
    bulk_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100  # operations of one bulk request
    page_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 200  # resources of one answer
    filter_bytes_max: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 2048  # of a filter or a path
    filter_terms_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50  # comparisons in one filter
    filter_depth_max: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10  # parentheses within each other
    per_second: Count = 50  # requests, and operations, of each worker; more wait a second at most, or get 503
    scan_max: Count = 5000  # resources looked through where an index cannot answer; more: `tooMany`


class AdminTokenConfig(Chapter, frozen=True):
    """A program that administers with a token of its own."""

    id: str  # the name it has in the audit log
    token: str  # what it sends as `Authorization: Bearer …`, 32 bytes or more: `env:NAME` or `file:PATH`
    roles: tuple[str, ...]  # what it may do: `reader`, `helpdesk`, `auditor`, `operator`, `owner`, or the policies' own


class AdminRoleConfig(Chapter, frozen=True):
    """Who of the people that log in has a role."""

    role: str  # `reader`, `helpdesk`, `auditor`, `operator`, `owner`, or one of the policies' own
    groups: tuple[str, ...] = ()  # ids of groups in the directory, whose direct members have it
    users: tuple[str, ...] = ()  # ids of users
    clients: tuple[str, ...] = ()  # OAuth clients that act for themselves


class AdminConfig(Chapter, frozen=True):
    """The admin API at `/admin/v1` on `server.admin_listen`: users, sessions, clients, grants, audit. Off without who
    may use it.
    """

    tokens: tuple[AdminTokenConfig, ...] = ()  # see below
    roles: tuple[AdminRoleConfig, ...] = ()  # see below
    tenant: str = ""  # whose users are administered
    issuers: tuple[str, ...] = ()  # whose access tokens count, with the scope; none = oauth.issuer
    scope: str = "admin"  # that such a token needs
    policies: str = ""  # a file of Cedar policies instead of the built-in ones
    step_up_s: Annotated[int, msgspec.Meta(ge=0)] = 900  # people change things so long after they proved who they are
    acr_values: tuple[str, ...] = ()  # of which a proof has one; none = any


class PasskeysConfig(Chapter, frozen=True):
    """Logging in with passkeys (WebAuthn). Needs `[sessions]` and `[directory]`."""

    rp_id: str = ""  # the domain that passkeys are bound to for good, as in `example.com`; "" = no passkeys
    name: str = ""  # by which browsers show it; "" = rp_id
    origins: tuple[str, ...] = ()  # of the pages that may ask for one; none = `https://` and rp_id
    user_verification: Literal["required", "preferred", "discouraged"] = "required"  # PIN or finger, at log-in
    challenge_s: Annotated[int, msgspec.Meta(ge=30, le=600)] = 300  # how long a browser may take to answer
    fresh_s: Annotated[int, msgspec.Meta(ge=30, le=86_400)] = 900  # a log-in is new enough to add or remove one
    count_max: Annotated[int, msgspec.Meta(ge=1, le=64)] = 20  # of one user


class SSOConfig(Chapter, frozen=True):
    """An identity provider whose users log in here, by OpenID Connect. Needs `[sessions]` and `[directory]`."""

    id: str  # its name in addresses: `/login/sso/{id}`, and `/login/sso/{id}/callback` to register there
    issuer: str  # the exact `iss`; everything else is discovered from it
    client_id: str  # as whom we ask there
    name: str = ""  # on the button; "" = the id
    client_secret: str = ""  # `env:NAME` or `file:PATH`
    client_auth: Literal["client_secret_basic", "client_secret_post", "none"] = "client_secret_basic"  # "none": PKCE
    redirect_uri: str = ""  # the exact one; "" = login.url, else oauth.issuer, and `/login/sso/{id}/callback`
    scopes: tuple[str, ...] = ("openid", "profile", "email")  # that are asked for
    algorithms: tuple[SigningAlgorithm, ...] = ("RS256", "ES256", "PS256", "EdDSA")  # of id tokens
    pushed_requests: Literal["auto", "always", "never"] = "auto"  # RFC 9126; "auto": where it is offered
    tenant: str = ""  # whose users log in there; "" = login.tenant
    link_email: bool = False  # its verified e-mail addresses make its users ours, at their first log-in
    email_domains: tuple[str, ...] = ()  # of the addresses for which it may speak; none = none
    provision: bool = False  # make a user of whoever it knows and we do not
    trust_mfa: bool = False  # its `amr` `mfa` counts as a second factor
    acr_values: tuple[str, ...] = ()  # that are asked for, and one of which its answer must have
    auth_age_max_s: CountOrOff = 0  # how long ago it saw the user's credential; 0 = it decides
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=30)] = 5.0  # for everything that one step asks of it
    leeway_s: Annotated[int, msgspec.Meta(ge=0, le=300)] = 30  # for its clock
    logout_uri: str = ""  # where it sends browsers after a log-out; registered there; "" = it shows its own page


class DeferredConfig(Chapter, frozen=True):
    """Where work lies that is done later, and done even if the worker dies: notices that sessions are over."""

    url: str = ""  # "" embedded | "sqlite:PATH" | "redis://…"; with a password: `env:NAME` or `file:PATH`


class LoginConfig(Chapter, frozen=True):
    """The pages `/login`, `/mfa`, `/account` and `/logout`. They need `[sessions]` and `[directory]`."""

    enabled: bool = False  # whether they are served
    url: str = ""  # as browsers see this gateway, as in `https://auth.example.com`; for links that a command prints
    tenant: str = ""  # whose users log in where nothing else is said
    texts: str = ""  # a folder of texts of your own, such as `de.toml`; "" = those that come with the gateway
    home: str = "/account"  # where a browser goes that has nowhere to go back to
    name: str = "Portcullis"  # by which authenticator apps show whose codes they make
    store_url: str = ""  # what is under way between two pages; as oauth.store_url, and mostly the same
    password_characters: Annotated[int, msgspec.Meta(ge=8, le=64)] = 12  # that a new password has at least
    leaked_passwords: str = ""  # a file made by `portcullis user leaked`: none of them is taken; "" = not looked at
    argon2_memory_kib: Annotated[int, msgspec.Meta(ge=8192, le=4_194_304)] = 19_456  # of one password hash (OWASP)
    argon2_passes: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2  # over that memory
    argon2_lanes: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1  # at once
    mfa: Literal["optional", "required"] = "optional"  # "required": who has no second factor sets one up at log-in
    remember_s: CountOrOff = 2_592_000  # how long a device need not show a second factor; 0 = never
    provisional_device_s: DayOrOff = 0  # after a log-in, in which a device's key gives provisional sessions; 0 = never
    throttle_account_from: Count = 5  # failures at an account in a window, from which on each costs a pause
    throttle_address_from: Count = 20  # the same of one address, over all accounts
    throttle_pause_s: Seconds = 1.0  # doubled with each further failure, up to the window
    throttle_window_s: Seconds = 900.0  # in which failures add up
    risk_code: CountOrOff = 30  # points from which on a code is asked for in any case; see docs/login.md
    risk_refused: CountOrOff = 90  # points from which on nobody gets in
    logins_kept: LoginsKept = 5  # of a user, the last ones, with place and network: see docs/login.md; 0 = none
    addresses: str = ""  # a map of addresses (`GeoLite2-City.mmdb`), for journeys that nobody makes; "" = not looked at


class OAuthConfig(Chapter, frozen=True):
    """The token service: OAuth 2 and OpenID Connect, by which applications get tokens of this gateway's own."""

    issuer: str = ""  # as clients see this gateway, as in `https://auth.example.com`; "" = no token service
    encryption_key: str = ""  # 32 bytes or more that seal the signing keys on disk, `env:NAME` or `file:PATH`
    keys_path: str = ""  # folder of the signing keys, shared by all gateways of the issuer; "" = in run_dir
    store_url: str = ""  # "" embedded | "memory:" | "sqlite:PATH" | "redis://…" | "postgresql://…"; `env:`, `file:`
    algorithm: SigningAlgorithm = "RS256"  # of new keys; OpenID and RFC 9068 ask for RS256, ES256 makes shorter tokens
    audience: str = ""  # `aud` of tokens that were asked for without `resource`; "" = the issuer
    key_rotation_s: Count = 2_592_000  # a new key is made after this
    key_announce_s: Count = 86_400  # it is published for so long before it signs
    access_token_s: Count = 300  # lifetime; they are revocable, within a second
    id_token_s: Count = 300  # lifetime
    code_s: Annotated[int, msgspec.Meta(ge=1, le=600)] = 60  # lifetime of authorization codes (RFC 6749 §4.1.2)
    request_s: Annotated[int, msgspec.Meta(ge=5, le=600)] = 600  # of pushed requests: people log in meanwhile
    refresh_idle_s: Count = 1_209_600  # refresh tokens that are not used end after this
    refresh_max_s: Count = 7_776_000  # and in any case after this
    refresh_grace_s: Annotated[int, msgspec.Meta(ge=0, le=60)] = 10  # a used one gives the same next one for so long
    dpop_nonce: bool = True  # proofs must hold a nonce of ours
    dpop_proof_s: Annotated[int, msgspec.Meta(ge=5, le=300)] = 60  # how old a proof may be
    clients: tuple[OAuthClientConfig, ...] = ()  # see below
    resources: tuple[OAuthResourceConfig, ...] = ()  # see below
    strangers: OAuthStrangersConfig = OAuthStrangersConfig()  # see below


class RouteConfig(Chapter, frozen=True):
    """One place of the protected site: which requests it takes and what they need. What no route takes is refused."""

    path: str  # {name} one segment, {*name} the rest
    host: str = ""  # "" any | "app.example.com" | "*.example.com"
    methods: tuple[str, ...] = ()  # none = any
    upstream: str = ""  # "" = forward-auth only
    auth: Literal["token", "session", "none"] = "token"  # what a request needs; "session": see `[sessions]`
    scopes: tuple[str, ...] = ()  # all of them, else 403 insufficient_scope
    action: str = ""  # Cedar entity that the policies are asked about: `Action::"read"`; holes as `{request.method}`
    resource: str = ""  # Cedar entity: `Order::"{id}"`; action and resource go together
    context: dict[str, str] = {}  # attribute -> text with holes: `{header.x-tenant}`, `{query.page}`, `{claim.tenant}`
    strip_prefix: str = ""  # removed from the path before it goes upstream
    preserve_host: bool = True  # send the client's Host upstream
    connect_timeout_s: Seconds = 2.0  # to the upstream
    response_timeout_s: Seconds = 30.0  # until the response's head, and between two pieces of its body
    keepalive_s: Seconds = 55.0  # idle upstream connections are closed after this
    connections_max: Count = 256  # a worker and upstream
    body_bytes_max: CountOrOff = 0  # 0 = no bound of ours


class IntrospectionClientConfig(Chapter, frozen=True):
    """A resource server that may ask `/oauth2/introspect`."""

    id: str  # the name it gives by HTTP Basic
    secret: str  # `env:NAME` or `file:PATH`


class IntrospectionConfig(Chapter, frozen=True):
    """The endpoint `/oauth2/introspect` (RFC 7662)."""

    clients: tuple[IntrospectionClientConfig, ...] = ()  # who may ask; none = the endpoint is off


class RelationsConfig(Chapter, frozen=True):
    """Where relations are kept: who stands in which relation to what, as the schema's `@relation` attributes say.

    Decisions that can read relations are refused as long as those in memory may be older than `lease_s`.
    """

    url: str = ""  # "" none | "embedded" | "memory:" | "sqlite:PATH" | "redis://…" | "postgresql://…"; `env:`, `file:`
    lease_s: LeaseSeconds = 1.0  # without news of the store for this long no decision rests on relations
    poll_ms: Count = 50  # how soon another process's change is seen in SQLite


class SourceConfig(Chapter, frozen=True):
    """Where the entities of some types are kept, when they are too many for a file, or somebody else's.

    They are fetched when a decision needs them. A source that cannot be asked denies what would rest on it.
    """

    name: str  # in messages and metrics
    types: tuple[str, ...]  # Cedar types; each is kept in one source
    url: str  # "embedded" | "memory:" | "sqlite:PATH" | "redis://…" | "postgresql://…" | "https://…"; `env:`, `file:`
    secret: str = ""  # bearer token for an https source, `env:NAME` or `file:PATH`
    timeout_s: Seconds = 0.2  # for one batch of an https source; the others have `fetch_s`
    lease_s: LeaseSeconds = 1.0  # without news of its changes for this long nothing rests on it
    ttl_s: Seconds = 60.0  # of what an https source answers, which tells no changes
    poll_ms: Count = 50  # how soon another process's change is seen in SQLite


class DecisionCacheConfig(Chapter, frozen=True):
    """Which decisions are kept. Most are made anew in less time than it takes to look one up."""

    decisions: Literal["auto", "always", "off"] = "auto"  # auto: dear ones, and those of sourced entities
    entries: Count = 10_000  # in each worker
    ttl_s: KeepSeconds = 60.0  # at most; less where the token ends, or a time in a policy comes
    denied_ttl_s: KeepSeconds = 10.0  # of denials, at most
    shared_url: str = ""  # Redis that all gateways share: "redis://…" | "rediss://…" | "unix://…"; "" = none
    shared_ttl_s: KeepSeconds = 300.0  # there


class PolicyConfig(Chapter, frozen=True):
    """Where Cedar policies come from. What cannot be read or does not fit the schema is not taken; the former stays."""

    path: str = ""  # folder of *.cedar files, or one file; "" = no policies
    schema: str = ""  # a *.cedarschema or *.cedarschema.json; "" = those beside the policies, none = not validated
    entities: str = ""  # Cedar's entity JSON; "" = no entities but what callers send
    validation: Literal["strict", "permissive"] = "strict"  # how policies are held against the schema
    principal: str = "User"  # Cedar type of who a token speaks for; the id is its `sub`
    principal_claims: dict[str, str] = {}  # attribute of the principal -> claim; it goes before a stored attribute
    principal_parents: dict[str, str] = {}  # claim that names what the principal is in -> Cedar type: `roles = "Role"`
    watch_s: SecondsOrNone = 0.0  # look for changed files this often, every second at most; 0 = on reload only
    policy_bytes_max: Count = 64 * MIB  # all policy and schema texts
    entity_bytes_max: Count = 1024 * MIB  # the entity file
    relations: RelationsConfig = RelationsConfig()  # see below
    sources: tuple[SourceConfig, ...] = ()  # see below
    fetch_s: Seconds = 0.25  # for all that one decision must fetch; then it is denied
    resident_max: Count = 100_000  # fetched entities kept in each worker; the coldest go first
    cache: DecisionCacheConfig = DecisionCacheConfig()  # see below


class AuthzenClientConfig(Chapter, frozen=True):
    """A policy enforcement point that may ask the decision API."""

    id: str  # the name it gives by HTTP Basic
    secret: str  # `env:NAME` or `file:PATH`
    trust_properties: Literal["none", "resource", "all"] = "resource"  # whose `properties` go before stored attributes


class AuthzenConfig(Chapter, frozen=True):
    """The decision API at `/access/v1/…` (OpenID AuthZEN 1.0). It needs `[policy]`, and clients."""

    clients: tuple[AuthzenClientConfig, ...] = ()  # who may ask; none = the API is off, unless open_on_loopback
    open_on_loopback: bool = False  # anybody on this machine may ask; only where server.listen is loopback
    open_trust_properties: Literal["none", "resource", "all"] = "resource"  # trust_properties of who is not a client
    base_url: str = ""  # as callers see this gateway, for the metadata; "" = no metadata
    types: dict[str, str] = {}  # type of a subject or resource -> Cedar type; others mean themselves
    action_type: str = "Action"  # Cedar type of actions, as in `Shop::Action`
    evaluations_max: Count = 256  # of one request
    body_bytes_max: Count = 1 * MIB  # of one request
    page_limit: Count = 100  # results of a page where the caller does not say
    page_limit_max: Count = 1000  # results of a page
    page_token_s: Seconds = 600.0  # then a search begins anew
    search_candidates_max: Count = 20_000  # looked at for one page; then it is short and the next goes on
    search_time_s: Seconds = 0.5  # for one page; as search_candidates_max


class PoolsConfig(Chapter, frozen=True):
    """Work that a worker has at once in each pool, running and waiting together. More is refused: 503 `pool_full`."""

    user_auth: Count = 100  # log-ins: password, passkey, MFA
    admin_auth: Count = 20  # administrators
    token_validation: Count = 200  # introspection, refresh, userinfo
    scim_provisioning: Count = 30  # SCIM
    external_idp: Count = 50  # log-ins and questions at identity providers


class RunningConfig(Chapter, frozen=True):
    """Work of a pool that runs at once; the rest of the pool waits its turn. 0 = all of it runs."""

    user_auth: CountOrOff = 0  # of pools.user_auth
    admin_auth: CountOrOff = 0  # of pools.admin_auth
    token_validation: CountOrOff = 0  # of pools.token_validation
    scim_provisioning: CountOrOff = 0  # of pools.scim_provisioning
    external_idp: CountOrOff = 0  # of pools.external_idp


class DbConnectionsConfig(Chapter, frozen=True):
    """Who may use the database at once: each pool has a share that no other can take. More wait, 4 a permit at most."""

    total: Count = 50  # the shares add up to this at most
    user_auth: CountOrOff = 20  # of the total
    admin_auth: CountOrOff = 5  # of the total
    token_validation: CountOrOff = 10  # of the total
    scim_provisioning: CountOrOff = 5  # of the total
    external_idp: CountOrOff = 5  # of the total
    background: Count = 5  # of the total: refreshes, audit, what was put off


class RedisConnectionsConfig(Chapter, frozen=True):
    """Who may use Redis at once, as db_connections."""

    total: Count = 100  # the shares add up to this at most
    user_auth: CountOrOff = 30  # of the total
    admin_auth: CountOrOff = 5  # of the total
    token_validation: CountOrOff = 40  # of the total
    scim_provisioning: CountOrOff = 5  # of the total
    external_idp: CountOrOff = 10  # of the total
    background: Count = 10  # of the total


class ExternalCallsConfig(Chapter, frozen=True):
    """Who may call others (identity providers, webhooks) at once, as db_connections."""

    total: Count = 30  # the shares add up to this at most
    user_auth: CountOrOff = 0  # of the total
    admin_auth: CountOrOff = 0  # of the total
    token_validation: CountOrOff = 10  # of the total: opaque tokens, asked about at their issuer
    scim_provisioning: CountOrOff = 0  # of the total
    external_idp: CountOrOff = 15  # of the total: log-ins, and key sets
    background: Count = 5  # of the total: back-channel logout, webhooks


class BreakerConfig(Chapter, frozen=True):
    """When database, cache and sources of entities are left alone for a while, each operation by itself."""

    failure_threshold: Count = 5  # calls that failed, at least
    failure_rate: Share = 0.5  # of the calls in the window, and as many slow ones
    calls_min: Count = 10  # fewer in the window say nothing
    window_s: Seconds = 10.0  # what is older is forgotten
    slow_call_s: Seconds = 1.0  # a call that takes this long is slow
    recovery_s: Seconds = 30.0  # then probes go, ± 20 %, later each time they fail; of sources 2 at most, 30 in the end
    recovery_s_max: Seconds = 300.0  # at most
    half_open_requests: Count = 3  # probes; all must succeed


class IdpBreakerConfig(Chapter, frozen=True):
    """When an identity provider is left alone, by tenant and operation; as breaker."""

    failure_threshold: Count = 3  # calls that failed, at least
    failure_rate: Share = 0.5  # of the calls in the window, and as many slow ones
    calls_min: Count = 10  # fewer in the window say nothing
    window_s: Seconds = 10.0  # what is older is forgotten
    slow_call_s: Seconds = 5.0  # a call that takes this long is slow
    recovery_s: Seconds = 60.0  # then probes go, ± 20 %; twice as long after each failure to recover
    recovery_s_max: Seconds = 300.0  # at most
    half_open_requests: Count = 3  # probes; all must succeed


class RetryConfig(Chapter, frozen=True):
    """How what may be repeated is repeated when a dependency fails it."""

    retries_max: CountOrOff = 2  # of one call; 0 = none
    pause_s: Seconds = 0.05  # before the first, half of it by chance; doubled each time
    pause_s_max: Seconds = 2.0  # at most
    budget_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1  # retries among all calls of a dependency
    budget_per_s: SecondsOrNone = 1.0  # a second, whatever the share says


class SheddingConfig(Chapter, frozen=True):
    """When new work is refused because what came before it waits: 503 `overloaded`. Never probes, never admin."""

    target_s: Seconds = 0.05  # a queue in which everybody waits longer stands
    interval_s: Seconds = 0.1  # that it is looked at


class HealthConfig(Chapter, frozen=True):
    """How the health of dependencies is found out, and how fast the degradation level falls."""

    interval_s: Seconds = 0.5  # between two looks at each
    probe_timeout_s: Seconds = 0.4  # for each
    good_samples: Count = 3  # in a row, after an outage; twice as many after each relapse in 5 minutes
    database_slow_s: Seconds = 0.25  # a latency above is slow
    cache_slow_s: Seconds = 0.1  # a latency above is slow
    idp_slow_s: Seconds = 5.0  # a latency above is slow
    policy_slow_s: Seconds = 0.05  # a latency above is slow
    fall_s: Seconds = 30.0  # of good health, for each step down
    provisional: bool = False  # while the database is down, an earlier proof that still holds gives a short session


class ResilienceConfig(Chapter, frozen=True):
    """How much work is taken at once, and what is done while a dependency is ill. Limits are those of one worker."""

    request_timeout_s: Seconds = 10.0  # a flow's whole request; what it awaits gets what is left
    wait_s: WaitSeconds = 0.25  # for a place in a pool or a permit, at most
    soft_limit: Share = 0.9  # of a pool; what is above is for refresh, introspection and break-glass
    retry_after_s: Seconds = 5.0  # told to who is refused, ± 20 %
    hash_threads: CountOrOff = 0  # that compute password hashes, until the next start; 0 = one a core
    breakers_max: Count = 1000  # breakers of a worker; the one unused longest goes
    pools: PoolsConfig = PoolsConfig()  # see below
    running: RunningConfig = RunningConfig()  # see below
    db_connections: DbConnectionsConfig = DbConnectionsConfig()  # see below
    redis_connections: RedisConnectionsConfig = RedisConnectionsConfig()  # see below
    external_calls: ExternalCallsConfig = ExternalCallsConfig()  # see below
    breaker: BreakerConfig = BreakerConfig()  # see below
    idp_breaker: IdpBreakerConfig = IdpBreakerConfig()  # see below
    retry: RetryConfig = RetryConfig()  # see below
    shedding: SheddingConfig = SheddingConfig()  # see below
    health: HealthConfig = HealthConfig()  # see below


class LogConfig(Chapter, frozen=True):
    """What is written down, and where."""

    level: Literal["debug", "info", "warning", "error"] = "info"  # of the operators' log on standard error
    access: str = "off"  # off | "-" (standard output) | PATH: one JSON line a request
    audit: str = "-"  # off | "-" (standard error) | PATH: one JSON line a denial or change
    decisions: Literal["off", "denied", "all"] = "off"  # which decisions of the policies are written down, and why
    decisions_to: str = "-"  # "-" (standard output) | PATH: one JSON line a decision
    decisions_share: Share = 1.0  # of the allows, with decisions = "all"; denials are written always
    decisions_redact: tuple[str, ...] = ()  # attributes of contexts and entities whose values are not written


class Config(Chapter, frozen=True):
    """All of it."""

    server: ServerConfig = ServerConfig()
    issuers: tuple[IssuerConfig, ...] = ()
    cache: CacheConfig = CacheConfig()
    store: StoreConfig = StoreConfig()
    forward_auth: ForwardAuthConfig = ForwardAuthConfig()
    identity: IdentityConfig = IdentityConfig()
    introspection: IntrospectionConfig = IntrospectionConfig()
    sessions: SessionsConfig = SessionsConfig()
    directory: DirectoryConfig = DirectoryConfig()
    passkeys: PasskeysConfig = PasskeysConfig()
    sso: tuple[SSOConfig, ...] = ()
    login: LoginConfig = LoginConfig()
    deferred: DeferredConfig = DeferredConfig()
    oauth: OAuthConfig = OAuthConfig()
    scim: ScimConfig = ScimConfig()
    admin: AdminConfig = AdminConfig()
    audit: AuditConfig = AuditConfig()
    policy: PolicyConfig = PolicyConfig()
    authzen: AuthzenConfig = AuthzenConfig()
    routes: tuple[RouteConfig, ...] = ()
    resilience: ResilienceConfig = ResilienceConfig()
    log: LogConfig = LogConfig()
