"""What a config means, beyond its types: addresses, files, secrets, and combinations that cannot work.

Each check gives complaints; nothing here stops at the first one. What would weaken security is a fault, what is merely
odd is a warning.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from urllib.parse import urlsplit

from gateway.config.admin_checks import admin_complaints
from gateway.config.audit_checks import audit_complaints
from gateway.config.check_parts import (
    SHARED_STORES,
    is_loopback,
    logged_store,
    parent_exists,
    repeated,
    secret_complaints,
    split_url,
    store_address,
)
from gateway.config.complaints import Complaint
from gateway.config.directory_checks import directory_complaints
from gateway.config.knobs import Config, IssuerConfig, RouteConfig, ServerConfig
from gateway.config.login_checks import deferred_complaints, login_complaints
from gateway.config.oauth_checks import oauth_complaints
from gateway.config.passkeys_checks import passkeys_complaints
from gateway.config.resilience_checks import resilience_complaints
from gateway.config.scim_checks import scim_complaints
from gateway.config.sessions_checks import sessions_complaints
from gateway.config.sso_checks import sso_complaints
from gateway.config.toml_lines import Path

SCOPES_MAX = 64  # distinct scopes over all routes: a verdict compares them as one word of bits
HMAC_SECRET_BYTES_MIN = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 §3.2: as long as the hash, or longer
CONFLICTS_SHOWN_MAX = 20
CLAIM_NAME_CHARACTERS_MAX = 256  # as in templates: gateway/policy/templates.py

_TOKEN = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2 without `_`, which some servers read as `-`
_QUOTED_TEXT = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")  # RFC 9110 §5.6.4 without `"` and `\`
_NAME = re.compile(r"[A-Za-z0-9_.~-]+")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)

# Headers that frame the message, belong to one hop, or say who asked for what (RFC 9110 §7.6.1, RFC 9112 §6).
_RESERVED_HEADERS = frozenset(
    {
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "via", "host", "expect", "date"),
        *("proxy-connection", "proxy-authenticate", "proxy-authorization", "forwarded", "authorization", "cookie"),
        *("content-length", "content-type", "content-encoding", "content-range", "set-cookie", "www-authenticate"),
        *("location", "range", "accept", "origin"),
    }
)
_RESERVED_PREFIXES = ("x-forwarded-", "x-original-", "sec-", "access-control-")
_OWN_HEADERS = frozenset(
    {
        *("x-auth-subject", "x-auth-issuer", "x-auth-scopes", "x-auth-decision-id", "x-auth-status", "x-auth-login"),
        *("x-real-ip", "x-request-id"),
    }
)
_DOOR_PATHS = ("/auth/forward", "/auth/request", "/auth/envoy/", "/oauth2/introspect")
_DECISION_PATHS = ("/access/v1/", "/.well-known/authzen-configuration")
_CEDAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)*")


def find_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> list[Complaint]:
    """Give everything that is wrong or odd with a config whose types are right."""
    found = [*_server(config.server, base_dir)]
    for index, issuer in enumerate(config.issuers):
        found += _issuer(issuer, ("issuers", index), base_dir, env)
    found += repeated(
        ((issuer.issuer, ("issuers", index, "issuer")) for index, issuer in enumerate(config.issuers)), "issuer"
    )
    found += _cache(config)
    found += _store(config, base_dir, env)
    found += _forward_auth(config)
    found += _identity(config.identity.headers)
    found += _clients(config, base_dir, env)
    found += _policy(config, base_dir)
    found += _relations(config, base_dir, env)
    found += _sources(config, base_dir, env)
    found += _authzen(config, base_dir, env)
    for index, route in enumerate(config.routes):
        found += _route(route, ("routes", index))
    found += _route_table(config.routes)
    found += sessions_complaints(config, base_dir, env)
    found += directory_complaints(config, base_dir, env)
    found += login_complaints(config, base_dir, env)
    found += deferred_complaints(config, base_dir, env)
    found += oauth_complaints(config, base_dir, env)
    found += admin_complaints(config, base_dir, env)
    found += scim_complaints(config, base_dir, env)
    found += audit_complaints(config, base_dir, env)
    found += passkeys_complaints(config)
    found += sso_complaints(config, base_dir, env)
    found += resilience_complaints(config.resilience)
    found += _logs(config, base_dir)
    return found


# -------------------------------------------------------------------------------------------------------------- server


def split_listen(address: str) -> tuple[str, int] | None:
    """Split `host:port` (IPv6 in brackets) into host and port, or None where it is not one."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 65_535:
        return None
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            return None
    return (host, int(port)) if _HOST_NAME.fullmatch(host) else None


def _server(server: ServerConfig, base_dir: FilePath) -> Iterator[Complaint]:
    listen = split_listen(server.listen)
    if listen is None:
        yield Complaint(
            ("server", "listen"), f"`{server.listen}` is no address", "write `host:port`, as in `127.0.0.1:8080`"
        )
    if server.admin_listen:
        yield from _admin_listen(server, listen)
    if not _QUOTED_TEXT.fullmatch(server.realm):
        yield Complaint(("server", "realm"), "not fit for a quoted string", 'ASCII text without `"` and `\\`')
    for index, network in enumerate(server.trusted_proxies):
        yield from _trusted_proxy(network, ("server", "trusted_proxies", index))
    if server.run_dir and not parent_exists(base_dir, server.run_dir):
        yield Complaint(("server", "run_dir"), "its parent folder does not exist")


def _admin_listen(server: ServerConfig, listen: tuple[str, int] | None) -> Iterator[Complaint]:
    admin = split_listen(server.admin_listen)
    path = ("server", "admin_listen")
    if admin is None:
        yield Complaint(path, f"`{server.admin_listen}` is no address", 'write `host:port`, or "" to turn it off')
    elif not is_loopback(admin[0]) and not server.public_admin:
        yield Complaint(
            path,
            f"`{server.admin_listen}` can be reached from other machines",
            "metrics and probes say much about you: listen on 127.0.0.1, or say `public_admin = true`",
        )
    elif admin == listen and admin[1] != 0:
        yield Complaint(path, "the same address as listen", "choose another port")


def _trusted_proxy(network: str, path: Path) -> Iterator[Complaint]:
    try:
        parsed = ipaddress.ip_network(network, strict=False)
    except ValueError:
        yield Complaint(path, f"`{network}` is no network", "write an address or a network, as in `10.0.0.0/8`")
        return
    if parsed.prefixlen == 0:
        yield Complaint(path, f"`{network}` trusts the forwarding headers of everyone", is_warning=True)
    elif "/" in network and str(parsed.network_address) != str(ipaddress.ip_address(network.partition("/")[0])):
        yield Complaint(path, f"`{network}` has bits behind its mask", f"it is read as `{parsed}`", is_warning=True)


# ------------------------------------------------------------------------------------------------------------- issuers


def _issuer(issuer: IssuerConfig, path: Path, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    yield from _issuer_keys(issuer, path, base_dir)
    if not issuer.audiences and not issuer.any_audience:
        yield Complaint(
            (*path, "audiences"),
            "tokens meant for other services would be accepted",
            'list who this gateway is, as in `audiences = ["orders-api"]`, or say `any_audience = true`',
        )
    if issuer.audiences and issuer.any_audience:
        yield Complaint((*path, "any_audience"), "contradicts audiences", "keep one of them")
    for name in ("audiences", "required_claims"):
        for index, value in enumerate(getattr(issuer, name)):
            if not value:
                yield Complaint((*path, name, index), "empty")
    yield from _issuer_secret(issuer, path, base_dir, env)
    yield from _issuer_introspection(issuer, path, base_dir, env)
    if issuer.stale_s < issuer.jwks_refresh_s:
        yield Complaint(
            (*path, "stale_s"), "less than jwks_refresh_s", "keys would be dropped before they are fetched again"
        )
    if not issuer.types:
        yield Complaint((*path, "types"), "no token has a type of none", 'write `["at+jwt", "JWT", ""]`')


def _issuer_keys(issuer: IssuerConfig, path: Path, base_dir: FilePath) -> Iterator[Complaint]:
    """Exactly one source of keys; an address is https, or this machine."""
    named = [name for name in ("jwks_uri", "jwks_file", "secret") if getattr(issuer, name)]
    if not issuer.issuer:
        yield Complaint((*path, "issuer"), "empty")
    for name in named[1:]:
        yield Complaint((*path, name), f"contradicts {named[0]}", "an issuer's keys come from one place")
    if issuer.jwks_uri:
        yield from _safe_url(issuer.jwks_uri, (*path, "jwks_uri"))
    if issuer.jwks_file and not (base_dir / FilePath(issuer.jwks_file).expanduser()).is_file():
        yield Complaint(
            (*path, "jwks_file"),
            f"`{issuer.jwks_file}` is no file",
            "`portcullis keys new` makes one; a relative path starts here",
        )
    if not named and issuer.issuer:
        yield from _discovered(issuer.issuer, (*path, "issuer"))


def _discovered(issuer: str, path: Path) -> Iterator[Complaint]:
    """OIDC Discovery 1.0 §3: an https URL without query and fragment; plain http only on this machine."""
    problem = _url_problem(issuer)
    if problem:
        yield Complaint(path, f"{problem}, so its keys cannot be discovered", "set jwks_uri, jwks_file or secret")
    elif urlsplit(issuer).query or urlsplit(issuer).fragment:
        yield Complaint(
            path, "has a query or a fragment, so its keys cannot be discovered", "set jwks_uri or jwks_file"
        )


def _url_problem(url: str) -> str:
    """Say why an address may not be fetched from, or give an empty string."""
    parts = split_url(url)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"`{url}` is no http address"
    if parts.username is not None or parts.password is not None:
        return "there are credentials in the address"
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        return f"`{url}` is not https"
    return ""


def _safe_url(url: str, path: Path) -> Iterator[Complaint]:
    problem = _url_problem(url)
    if problem.endswith("is not https"):
        yield Complaint(
            path, problem, "whoever sits between could put in keys of their own; use https (http on loopback only)"
        )
    elif problem:
        yield Complaint(path, problem, "write `https://host/path`")


def _issuer_secret(issuer: IssuerConfig, path: Path, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """HS* with a secret, and nothing else with one: a public key must never serve as an HMAC key (RFC 8725 §3.1)."""
    if not issuer.algorithms:
        yield Complaint((*path, "algorithms"), "no algorithm is accepted", 'name them, as in `["RS256"]`')
    symmetric = [name for name in issuer.algorithms if name in HMAC_SECRET_BYTES_MIN]
    if symmetric and not issuer.secret:
        yield Complaint((*path, "algorithms"), f"`{symmetric[0]}` needs secret", "or accept public-key algorithms only")
    if issuer.secret and len(symmetric) != len(issuer.algorithms):
        odd = next(name for name in issuer.algorithms if name not in HMAC_SECRET_BYTES_MIN)
        yield Complaint(
            (*path, "algorithms"), f"`{odd}` cannot be used with secret", "a secret allows HS256, HS384 and HS512 only"
        )
    length_min = max((HMAC_SECRET_BYTES_MIN[name] for name in symmetric), default=0)
    if issuer.secret:
        yield from secret_complaints(issuer.secret, (*path, "secret"), base_dir, env, length_min=length_min)


def _issuer_introspection(
    issuer: IssuerConfig, path: Path, base_dir: FilePath, env: Mapping[str, str]
) -> Iterator[Complaint]:
    if issuer.introspection_endpoint:
        yield from _safe_url(issuer.introspection_endpoint, (*path, "introspection_endpoint"))
    for name in ("introspection_client_id", "introspection_client_secret"):
        if issuer.introspection_endpoint and not getattr(issuer, name):
            yield Complaint((*path, name), "missing", "the issuer answers clients that it knows only (RFC 7662 §2.1)")
        if getattr(issuer, name) and not issuer.introspection_endpoint:
            yield Complaint((*path, name), "introspection_endpoint is missing")
    if issuer.introspection_client_secret:
        yield from secret_complaints(
            issuer.introspection_client_secret, (*path, "introspection_client_secret"), base_dir, env
        )


# ---------------------------------------------------------------------------------------------- cache, store, identity


def _cache(config: Config) -> Iterator[Complaint]:
    if config.cache.token_bytes_max > config.server.header_bytes_max:
        yield Complaint(("cache", "token_bytes_max"), "more than server.header_bytes_max lets through", is_warning=True)


def _store(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    url, path = config.store.url, ("store", "url")
    address = yield from store_address(url, path, base_dir, env)
    if address == "memory:":
        if config.server.workers != 1:
            yield Complaint(
                path, "each worker would keep revocations of its own", "leave it empty, or use sqlite or redis"
            )
    elif address and not address.startswith(SHARED_STORES):
        yield Complaint(path, "no store of ours", 'write "", `memory:`, `sqlite:PATH`, `redis://…` or `rediss://…`')


def _relations(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    url, path = config.policy.relations.url, ("policy", "relations", "url")
    if url and not config.policy.path:
        yield Complaint(path, "there are no policies that relations could serve", "say where they are: `policy.path`")
    yield from logged_store(url, path, base_dir, env, workers=config.server.workers, what="relations")


def _sources(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    names: dict[str, Path] = {}
    kept: dict[str, Path] = {}
    for index, source in enumerate(config.policy.sources):
        path: Path = ("policy", "sources", index)
        if not config.policy.path:
            yield Complaint(path, "there are no policies that it could serve", "say where they are: `policy.path`")
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", source.name):
            hint = "up to 32 lower case letters, digits, `_` and `-`"
            yield Complaint((*path, "name"), f"`{source.name}` is no name of a source", hint)
        elif source.name in names:
            yield Complaint(
                (*path, "name"), "another source has this name at", "name them apart", other=names[source.name]
            )
        names.setdefault(source.name, (*path, "name"))
        if not source.types:
            yield Complaint((*path, "types"), "no types", "name the Cedar types of its entities")
        for name in source.types:
            if not _CEDAR_NAME.fullmatch(name):
                yield Complaint((*path, "types"), f"`{name}` is no Cedar type", "as in `User` or `Shop::User`")
            elif name.rpartition("::")[2] == "Action":
                yield Complaint((*path, "types"), "actions are declared by the schema", "leave them out")
            elif name in kept:
                yield Complaint(
                    (*path, "types"), f"`{name}` is kept in the source at", "leave one of them out", other=kept[name]
                )
            kept.setdefault(name, (*path, "types"))
        yield from _source_address(config, index, base_dir, env)
    yield from _shared_decisions(config, base_dir, env)


def _source_address(config: Config, index: int, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    source, path = config.policy.sources[index], ("policy", "sources", index)
    parts = split_url(source.url)
    if parts is None or parts.scheme not in {"http", "https"}:
        if source.secret:
            yield Complaint((*path, "secret"), "only an https source takes a bearer token", "leave it out")
        if not source.url:
            yield Complaint((*path, "url"), "no address", "write `embedded`, `sqlite:PATH`, `redis://…` or `https://…`")
        workers = config.server.workers
        yield from logged_store(source.url, (*path, "url"), base_dir, env, workers=workers, what="entities")
        return
    if not parts.hostname:
        yield Complaint((*path, "url"), "no address", "write `https://host/path`")
    elif parts.scheme == "http" and not is_loopback(parts.hostname):
        yield Complaint((*path, "url"), "an unencrypted connection to another machine", "use `https://`")
    if parts.username is not None or parts.password is not None:
        yield Complaint((*path, "url"), "a password stands in the config", "write a bearer token's place: `secret`")
    if source.secret:
        yield from secret_complaints(source.secret, (*path, "secret"), base_dir, env)


def _shared_decisions(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    url, path = config.policy.cache.shared_url, ("policy", "cache", "shared_url")
    if not url:
        return
    address = yield from store_address(url, path, base_dir, env)
    if address is not None and not address.startswith(("redis://", "rediss://", "unix://")):
        yield Complaint(path, "no Redis server", "write `redis://…`, `rediss://…` or `unix://…`")


def _forward_auth(config: Config) -> Iterator[Complaint]:
    settings = config.forward_auth
    if settings.login_url:
        parts = split_url(settings.login_url)
        if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
            yield Complaint(("forward_auth", "login_url"), "no http address", "write `https://host/path`")
        elif parts.fragment:
            yield Complaint(("forward_auth", "login_url"), "has a fragment, behind which nothing can be carried")
        elif parts.scheme == "http" and not is_loopback(parts.hostname):
            yield Complaint(("forward_auth", "login_url"), "people would log in without https", is_warning=True)
    if not _NAME.fullmatch(settings.login_parameter):
        yield Complaint(
            ("forward_auth", "login_parameter"), "not fit for a query", "letters, digits, `-`, `_`, `.`, `~`"
        )
    for index, host in enumerate(settings.login_hosts):
        if not _HOST_NAME.fullmatch(host):
            yield Complaint(
                ("forward_auth", "login_hosts", index), f"`{host}` is no host", "write it without scheme and port"
            )


def _identity(headers: Mapping[str, str]) -> Iterator[Complaint]:
    seen: dict[str, str] = {}
    for name, claim in headers.items():
        path, lower = ("identity", "headers", name), name.lower()
        if not _TOKEN.fullmatch(name):
            hint = "some apps read `_` as `-`; write `-`" if "_" in name else "letters, digits and `-`"
            yield Complaint(path, "no name for a header", hint)
        elif lower in _OWN_HEADERS:
            yield Complaint(path, "the gateway sets this header itself", "choose another name")
        elif lower in _RESERVED_HEADERS or lower.startswith(_RESERVED_PREFIXES):
            yield Complaint(path, "means something else in HTTP", "choose a name such as `X-Auth-Email`")
        if seen.setdefault(lower, name) != name:
            yield Complaint(path, f"the same header as `{seen[lower]}`", "case makes no difference")
        if not claim:
            yield Complaint(path, "no claim is named")


def _clients(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    places = []
    for index, client in enumerate(config.introspection.clients):
        path: Path = ("introspection", "clients", index)
        places.append((client.id, (*path, "id")))
        if not client.id:
            yield Complaint((*path, "id"), "empty")
        yield from secret_complaints(client.secret, (*path, "secret"), base_dir, env)
    yield from repeated(places, "client")


def _policy(config: Config, base_dir: FilePath) -> Iterator[Complaint]:
    policy = config.policy
    for name in ("path", "schema", "entities"):
        given = getattr(policy, name)
        if given and not (base_dir / FilePath(given).expanduser()).exists():
            yield Complaint(("policy", name), f"`{given}` does not exist")
        if given and name != "path" and not policy.path:
            yield Complaint(("policy", name), "no policies: path is missing")
    if not _CEDAR_NAME.fullmatch(policy.principal):
        yield Complaint(
            ("policy", "principal"), f"`{policy.principal}` is no Cedar type", "as in `User` or `Shop::User`"
        )
    yield from _claims_of_all_issuers(config)
    for attribute, claim in policy.principal_claims.items():
        yield from _policy_claim(claim, ("policy", "principal_claims", attribute))
    for claim, kind in policy.principal_parents.items():
        path: Path = ("policy", "principal_parents", claim)
        yield from _policy_claim(claim, path)
        if not _CEDAR_NAME.fullmatch(kind):
            yield Complaint(path, f"`{kind}` is no Cedar type", "as in `Role` or `Shop::Role`")
    for index, route in enumerate(config.routes):
        yield from _route_policy(config, route, ("routes", index))


def _claims_of_all_issuers(config: Config) -> Iterator[Complaint]:
    """An issuer that is trusted to say who somebody is need not be trusted to say that they are an administrator."""
    policy = config.policy
    mapped = next((name for name in ("principal_parents", "principal_claims") if getattr(policy, name)), "")
    if mapped and len(config.issuers) > 1 and "iss" not in policy.principal_claims.values():
        yield Complaint(
            ("policy", mapped),
            f"claims of all {len(config.issuers)} issuers define principals alike",
            'map `iss` as well, as in principal_claims = { issuer = "iss" }, and let policies ask for it',
            is_warning=True,
        )


def _policy_claim(claim: str, path: Path) -> Iterator[Complaint]:
    if not claim or claim.isspace() or not claim.isprintable() or len(claim) > CLAIM_NAME_CHARACTERS_MAX:
        yield Complaint(path, "no claim is named", "as in `email`, `org.unit` or `https://id.example.com/roles`")


def _route_policy(config: Config, route: RouteConfig, path: Path) -> Iterator[Complaint]:
    """What a route asks of the policies must be whole: half a question must not load."""
    asked = [name for name in ("action", "resource", "context") if getattr(route, name)]
    if not asked:
        return
    key = (*path, asked[0])
    if not config.policy.path:
        yield Complaint(key, "there are no policies to ask", "say where they are: `policy.path`")
    elif not (route.action and route.resource):
        missing = "resource" if route.action else "action"
        yield Complaint(key, f"`{missing}` is missing", "a Cedar request needs action and resource")
    if route.auth != "token":
        yield Complaint(key, f'nobody is known with auth = "{route.auth}"', 'use auth = "token"')


def _authzen(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    authzen = config.authzen
    places = []
    for index, client in enumerate(authzen.clients):
        path: Path = ("authzen", "clients", index)
        places.append((client.id, (*path, "id")))
        if not client.id:
            yield Complaint((*path, "id"), "empty")
        yield from secret_complaints(client.secret, (*path, "secret"), base_dir, env)
    yield from repeated(places, "client")
    if (authzen.clients or authzen.open_on_loopback) and not config.policy.path:
        key = "clients" if authzen.clients else "open_on_loopback"
        yield Complaint(("authzen", key), "the decision API has no policies", "say where they are: `policy.path`")
    listen = split_listen(config.server.listen)
    if authzen.open_on_loopback and listen is not None and not is_loopback(listen[0]):
        yield Complaint(
            ("authzen", "open_on_loopback"),
            f"`{config.server.listen}` can be reached from other machines",
            "name the callers: `[[authzen.clients]]`",
        )
    if authzen.base_url:
        yield from _authzen_base(authzen.base_url)
    for name, kind in (*authzen.types.items(), ("", authzen.action_type)):
        if not _CEDAR_NAME.fullmatch(kind):
            key_path: Path = ("authzen", "types", name) if name else ("authzen", "action_type")
            yield Complaint(key_path, f"`{kind}` is no Cedar type", "as in `User` or `Shop::User`")
    if authzen.clients or authzen.open_on_loopback:
        for index, route in enumerate(config.routes):
            if route.path.startswith(_DECISION_PATHS):
                yield Complaint(
                    ("routes", index, "path"),
                    "the gateway answers there itself, so the route is not reached",
                    is_warning=True,
                )
    if authzen.page_limit > authzen.page_limit_max:
        yield Complaint(("authzen", "page_limit"), "above page_limit_max")


def _authzen_base(url: str) -> Iterator[Complaint]:
    """The specification asks for https, and neither query nor fragment (§9.1); http serves on this machine only."""
    parts = split_url(url)
    hint = "as in `https://pdp.example.com`, without a slash at the end"
    if parts is None or parts.query or parts.fragment or parts.path or "?" in url or "#" in url:
        yield Complaint(("authzen", "base_url"), f"`{url}` is no base of addresses", hint)
    elif parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        yield Complaint(("authzen", "base_url"), "must be https", hint)


# -------------------------------------------------------------------------------------------------------------- routes


def _route(route: RouteConfig, path: Path) -> Iterator[Complaint]:
    if route.auth == "none" and route.scopes:
        yield Complaint((*path, "scopes"), 'nothing checks them with auth = "none"', 'use auth = "token"')
    if route.upstream:
        yield from _upstream(route.upstream, (*path, "upstream"))
    yield from _strip_prefix(route, path)
    if route.path.startswith(_DOOR_PATHS):
        yield Complaint(
            (*path, "path"), "the gateway answers there itself, so the route is not reached", is_warning=True
        )


def _upstream(upstream: str, path: Path) -> Iterator[Complaint]:
    hint = "write `http://host:port`, `https://host` or `unix:/path/of.sock`"
    if upstream.startswith("unix:"):
        if not upstream.removeprefix("unix:"):
            yield Complaint(path, "no path of a socket", hint)
        return
    parts = split_url(upstream)
    if parts is None or parts.scheme not in {"http", "https"} or not _is_host(parts.hostname or ""):
        yield Complaint(path, "no address of an upstream", hint)
    elif parts.username is not None or parts.password is not None:
        yield Complaint(path, "credentials in the address are not sent", hint)
    elif parts.path not in {"", "/"} or parts.query or parts.fragment:
        yield Complaint(
            path, "an upstream has no path, query or fragment", "the request's own path is sent; see strip_prefix"
        )


def _is_host(text: str) -> bool:
    try:
        return bool(_HOST_NAME.fullmatch(text) or ipaddress.ip_address(text))
    except ValueError:
        return False


def _strip_prefix(route: RouteConfig, path: Path) -> Iterator[Complaint]:
    prefix = route.strip_prefix.removesuffix("/")
    if not route.strip_prefix:
        return
    if not route.upstream:
        yield Complaint((*path, "strip_prefix"), "the route has no upstream", is_warning=True)
    if not route.strip_prefix.startswith("/") or "{" in prefix:
        yield Complaint((*path, "strip_prefix"), "no plain path", 'write it as in "/api"')
    elif route.path != prefix and not route.path.startswith(prefix + "/"):
        yield Complaint((*path, "strip_prefix"), f"the route's path `{route.path}` does not begin with it")


def _route_table(routes: tuple[RouteConfig, ...]) -> Iterator[Complaint]:
    """Compile the routes with the code that serves; find scopes and routes that the whole table cannot hold."""
    # The one look upwards: compiled modules import nothing of ours, and only they know what conflicts.
    from gateway._native.routes import Route, RouteConflict, RouteInvalid, RouteSnapshot

    compiled = []
    for index, route in enumerate(routes):
        try:
            compiled.append(
                Route(
                    route.path,
                    index=index,
                    host=route.host,
                    methods=route.methods,
                    auth=route.auth,
                    scopes=route.scopes,
                )
            )
        except (RouteInvalid, UnicodeEncodeError) as error:
            yield Complaint(("routes", index, "path"), str(error))
    scopes = {scope for route in routes for scope in route.scopes}
    if len(scopes) > SCOPES_MAX:
        yield Complaint(("routes",), f"{len(scopes)} different scopes; at most {SCOPES_MAX} can be told apart")
    for _ in range(CONFLICTS_SHOWN_MAX):
        try:
            RouteSnapshot(compiled)
        except RouteConflict as conflict:
            yield Complaint(
                ("routes", conflict.second.index, "path"),
                _conflict_text(conflict.method),
                "give them different methods, hosts or paths",
                other=("routes", conflict.first.index, "path"),
            )
            compiled.remove(conflict.second)
        except RouteInvalid as error:
            yield Complaint(("routes",), str(error))
            return
        else:
            return


def _conflict_text(method: str) -> str:
    if method:
        return f"requests with method `{method}` are taken already by the route at"
    return "the same requests are taken already by the route at"


def _logs(config: Config, base_dir: FilePath) -> Iterator[Complaint]:
    if config.log.decisions != "off" and not config.policy.path:
        problem = "there are no policies whose decisions could be written"
        yield Complaint(("log", "decisions"), problem, "say where they are: `policy.path`")
    if config.log.decisions_to == "off":
        yield Complaint(("log", "decisions_to"), "no place", 'to write none, say `decisions = "off"`')
    for name in ("access", "audit", "decisions_to"):
        target = getattr(config.log, name)
        if not target:
            yield Complaint(
                ("log", name), "empty", 'write "-" or a path' if "_" in name else 'write "off", "-" or a path'
            )
        elif target not in {"off", "-"} and not parent_exists(base_dir, target):
            yield Complaint(("log", name), f"the folder of `{target}` does not exist")
