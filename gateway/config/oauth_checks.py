"""What `[oauth]` means, beyond its types: what would give tokens to the wrong one, or could never give any."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from urllib.parse import urlsplit

from gateway.config.check_parts import (
    is_loopback,
    logged_store,
    parent_exists,
    repeated,
    secret_complaints,
    split_url,
)
from gateway.config.complaints import Complaint
from gateway.config.knobs import Config, OAuthClientConfig, OAuthConfig, OAuthResourceConfig, OAuthStrangersConfig
from gateway.config.toml_lines import Path

ENCRYPTION_KEY_BYTES_MIN = 32
CLIENT_SECRET_BYTES_MIN = 32  # kept as a plain hash: it is random, or it is found
OWN_PATHS = (
    *("/oauth2/", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"),
    *("/.well-known/jwks.json", "/.well-known/oauth-protected-resource"),
)

# The `sub` of a client that acts for itself is its id: nobody may be taken for a user (RFC 9068 §5).
_TAKEN_IDS = ("usr_", "dyn_", "https://", "http://")
_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3
_CLIENT_ID = re.compile(r"[!-~]{1,128}")
_HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?|localhost")


def oauth_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give everything in `[oauth]` that is wrong or odd."""
    oauth = config.oauth
    if not oauth.issuer:
        if oauth.clients or oauth.resources:
            key = "clients" if oauth.clients else "resources"
            yield Complaint(("oauth", key), "there is no token service: issuer is missing", "name it: `oauth.issuer`")
        return
    yield from _issuer(config)
    yield from _keys(oauth, base_dir, env)
    yield from logged_store(
        oauth.store_url,
        ("oauth", "store_url"),
        base_dir,
        env,
        workers=config.server.workers,
        what="grants",
        several=True,
    )
    for index, client in enumerate(oauth.clients):
        yield from _client(client, oauth, ("oauth", "clients", index), base_dir, env)
    if not config.sessions.url and any("authorization_code" in client.grant_types for client in oauth.clients):
        yield Complaint(
            ("oauth", "clients"),
            "nobody can log in here, so no code is ever given",
            "set `sessions.url`",
            is_warning=True,
        )
    ids = ((client.id, ("oauth", "clients", index, "id")) for index, client in enumerate(oauth.clients))
    yield from repeated(ids, "client")
    for index, resource in enumerate(oauth.resources):
        yield from _resource(resource, ("oauth", "resources", index))
    names = ((each.id, ("oauth", "resources", index, "id")) for index, each in enumerate(oauth.resources))
    yield from repeated(names, "resource")
    yield from _strangers(oauth.strangers, base_dir, env)
    for index, route in enumerate(config.routes):
        if route.path.startswith(OWN_PATHS):
            yield Complaint(
                ("routes", index, "path"),
                "the gateway answers there itself, so the route is not reached",
                is_warning=True,
            )


def _issuer(config: Config) -> Iterator[Complaint]:
    """RFC 8414 §2, and no path: every endpoint lies where the design says."""
    issuer, path = config.oauth.issuer, ("oauth", "issuer")
    hint = "as in `https://auth.example.com`, without a slash at the end"
    parts = split_url(issuer)
    if parts is None or not parts.hostname or parts.path or parts.query or "?" in issuer or "#" in issuer:
        yield Complaint(path, f"`{issuer}` is no issuer", hint)
    elif parts.username is not None or parts.password is not None:
        yield Complaint(path, "there are credentials in the address", hint)
    elif parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        yield Complaint(path, "must be https", hint)
    for index, other in enumerate(config.issuers):
        if other.issuer == issuer:
            yield Complaint(
                ("issuers", index, "issuer"), "our own tokens are trusted already", "leave it out", other=path
            )


def _keys(oauth: OAuthConfig, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    path: Path = ("oauth", "encryption_key")
    if not oauth.encryption_key:
        hint = "`openssl rand -hex 32` makes one; put it into a variable and write `env:NAME`"
        yield Complaint(path, "signing keys would lie on disk for everybody to read", hint)
    else:
        yield from secret_complaints(oauth.encryption_key, path, base_dir, env, length_min=ENCRYPTION_KEY_BYTES_MIN)
    if oauth.keys_path and not parent_exists(base_dir, oauth.keys_path):
        yield Complaint(("oauth", "keys_path"), "its parent folder does not exist")
    if oauth.key_announce_s >= oauth.key_rotation_s:
        yield Complaint(
            ("oauth", "key_announce_s"), "as long as key_rotation_s: the next key would be made before this one signs"
        )
    if oauth.refresh_idle_s > oauth.refresh_max_s:
        yield Complaint(("oauth", "refresh_idle_s"), "above refresh_max_s")


def _client(
    client: OAuthClientConfig, oauth: OAuthConfig, path: Path, base_dir: FilePath, env: Mapping[str, str]
) -> Iterator[Complaint]:
    if not _CLIENT_ID.fullmatch(client.id) or client.id.startswith(_TAKEN_IDS):
        hint = (
            "up to 128 plain characters; `usr_` is for users, `dyn_` and addresses for clients that register themselves"
        )
        yield Complaint((*path, "id"), f"`{client.id}` is no id of a client", hint)
    yield from _client_proof(client, path, base_dir, env)
    for index, scope in enumerate(client.scopes):
        if not _SCOPE.fullmatch(scope):
            yield Complaint((*path, "scopes", index), f"`{scope}` is no scope")
    known = {resource.id for resource in oauth.resources}
    for index, resource in enumerate(client.resources):
        if resource not in known:
            yield Complaint((*path, "resources", index), f"`{resource}` is not among oauth.resources")
    if "authorization_code" in client.grant_types and not client.redirect_uris:
        yield Complaint(
            (*path, "redirect_uris"), "nobody could come back", "name them, or leave out authorization_code"
        )
    if "refresh_token" in client.grant_types and "authorization_code" not in client.grant_types:
        yield Complaint((*path, "grant_types"), "refresh tokens come with codes only", "leave out refresh_token")
    for index, uri in enumerate(client.redirect_uris):
        yield from _redirect(uri, (*path, "redirect_uris", index))
    for index, uri in enumerate(client.post_logout_redirect_uris):
        yield from _redirect(uri, (*path, "post_logout_redirect_uris", index))
    yield from _logout_uri(client.backchannel_logout_uri, (*path, "backchannel_logout_uri"))
    idle_s, max_s = client.refresh_idle_s or oauth.refresh_idle_s, client.refresh_max_s or oauth.refresh_max_s
    if idle_s > max_s:
        yield Complaint((*path, "refresh_idle_s" if client.refresh_idle_s else "refresh_max_s"), "idle above max")


def _logout_uri(uri: str, path: Path) -> Iterator[Complaint]:
    if not uri:
        return
    parts = split_url(uri)
    if parts is None or parts.fragment or not parts.hostname:
        yield Complaint(path, f"`{uri}` is no address", "as in `https://app.example.com/logout`")
    elif parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        yield Complaint(path, "must be https", "who ends a session is told to this client alone")


def _client_proof(
    client: OAuthClientConfig, path: Path, base_dir: FilePath, env: Mapping[str, str]
) -> Iterator[Complaint]:
    needed = {"secret": "secret", "private_key_jwt": "jwks_file", "none": ""}[client.auth]
    for name in ("secret", "jwks_file"):
        if getattr(client, name) and name != needed:
            yield Complaint((*path, name), f'has no meaning with auth = "{client.auth}"')
    if needed and not getattr(client, needed):
        yield Complaint((*path, needed), f'missing with auth = "{client.auth}"', 'a public client says auth = "none"')
    if client.secret:
        yield from secret_complaints(
            client.secret, (*path, "secret"), base_dir, env, length_min=CLIENT_SECRET_BYTES_MIN
        )
    if client.jwks_file and not (base_dir / FilePath(client.jwks_file).expanduser()).is_file():
        yield Complaint((*path, "jwks_file"), f"`{client.jwks_file}` is no file")
    if client.auth == "none" and "client_credentials" in client.grant_types:
        yield Complaint((*path, "grant_types"), "a client that cannot prove itself has no credentials", "RFC 6749 §4.4")


def _redirect(uri: str, path: Path) -> Iterator[Complaint]:
    parts = split_url(uri)
    hint = "an absolute address, https but on the user's own machine, or an app's own scheme"
    if parts is None or not parts.scheme or "#" in uri or "*" in uri or parts.username is not None:
        yield Complaint(path, f"`{uri}` is no redirect URI", hint)
    elif parts.scheme in ("https", "http") and not parts.hostname:
        yield Complaint(path, f"`{uri}` names no host", hint)
    elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield Complaint(path, "codes would travel in plain text", hint)
    elif parts.scheme in ("javascript", "data", "vbscript", "file", "blob", "about"):
        yield Complaint(path, f"`{parts.scheme}` runs or opens what it is given", hint)


def _resource(resource: OAuthResourceConfig, path: Path) -> Iterator[Complaint]:
    try:
        parts = urlsplit(resource.id)
    except ValueError:
        parts = urlsplit("")
    if not parts.scheme or not (parts.netloc or parts.path) or "#" in resource.id or not _SCOPE.fullmatch(resource.id):
        # RFC 8707 §2: "MUST be an absolute URI" and "MUST NOT include a fragment component".
        yield Complaint((*path, "id"), f"`{resource.id}` is no absolute URI", "as in `https://mcp.example.com/mcp`")
    elif parts.scheme in ("http", "https") and parts.path == "/" and not parts.query:
        yield Complaint((*path, "id"), "a slash that says nothing", "leave it out: texts are compared")
    for index, scope in enumerate(resource.scopes):
        if not _SCOPE.fullmatch(scope):
            yield Complaint((*path, "scopes", index), f"`{scope}` is no scope")


def _strangers(strangers: OAuthStrangersConfig, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    path: Path = ("oauth", "strangers")
    if strangers.registration == "token" and not strangers.initial_token:
        yield Complaint((*path, "initial_token"), 'missing with registration = "token"')
    if strangers.initial_token:
        yield from secret_complaints(
            strangers.initial_token, (*path, "initial_token"), base_dir, env, length_min=CLIENT_SECRET_BYTES_MIN
        )
        if strangers.registration != "token":
            yield Complaint((*path, "initial_token"), f'has no meaning with registration = "{strangers.registration}"')
    for index, host in enumerate(strangers.document_hosts):
        if not _HOST.fullmatch(host):
            hint = "as in `app.example.com` or `*.example.com`"
            yield Complaint((*path, "document_hosts", index), f"`{host}` is no host", hint)
    for index, scope in enumerate(strangers.scopes):
        if not _SCOPE.fullmatch(scope):
            yield Complaint((*path, "scopes", index), f"`{scope}` is no scope")
