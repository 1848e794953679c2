"""What `[[sso]]` means, beyond its types: providers that could not be used, and rules that would let others in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from gateway.config.check_parts import is_loopback, repeated, secret_complaints, split_url
from gateway.config.complaints import Complaint
from gateway.config.knobs import Config, SSOConfig
from gateway.config.toml_lines import Path

CALLBACK = "/login/sso/{id}/callback"

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def sso_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give everything in `[[sso]]` that is wrong or odd."""
    for index, provider in enumerate(config.sso):
        yield from _provider(config, provider, ("sso", index), base_dir, env)
    yield from repeated(((each.id, ("sso", index, "id")) for index, each in enumerate(config.sso)), "id")
    if config.sso:
        if not config.login.enabled:
            yield Complaint(("sso", 0, "id"), "identity providers need the pages of log-in", "`login.enabled = true`")
        for chapter in ("sessions", "directory"):
            if not getattr(config, chapter).url:
                hint = f'say where they are kept: `[{chapter}]`, `url = "embedded"`'
                yield Complaint(("sso", 0, "id"), f"identity providers need `{chapter}.url`", hint)


def _provider(
    config: Config, provider: SSOConfig, path: Path, base_dir: FilePath, env: Mapping[str, str]
) -> Iterator[Complaint]:
    if not _ID.fullmatch(provider.id):
        hint = "up to 32 lower case letters, digits and `-`"
        yield Complaint((*path, "id"), f"`{provider.id}` cannot stand in an address", hint)
    parts = split_url(provider.issuer)
    if parts is None or not parts.hostname or parts.query or "?" in provider.issuer or "#" in provider.issuer:
        yield Complaint((*path, "issuer"), f"`{provider.issuer}` is no issuer", "as in `https://idp.example.com`")
    elif parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        yield Complaint((*path, "issuer"), "must be https")
    if not provider.client_id:
        yield Complaint((*path, "client_id"), "missing")
    yield from _secret(provider, path, base_dir, env)
    yield from _redirect(config, provider, path)
    yield from _rules(provider, path)


def _secret(provider: SSOConfig, path: Path, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    if provider.client_auth == "none":
        if provider.client_secret:
            yield Complaint((*path, "client_secret"), 'has no meaning with client_auth = "none"')
    elif not provider.client_secret:
        yield Complaint((*path, "client_secret"), "missing", 'a public client says client_auth = "none"')
    else:
        yield from secret_complaints(provider.client_secret, (*path, "client_secret"), base_dir, env)


def _redirect(config: Config, provider: SSOConfig, path: Path) -> Iterator[Complaint]:
    callback = CALLBACK.format(id=provider.id)
    if not provider.redirect_uri:
        if not config.login.url and not config.oauth.issuer:
            hint = f"as it is registered there, as in `https://auth.example.com{callback}`"
            yield Complaint((*path, "redirect_uri"), "missing, and there is no login.url to make it of", hint)
        return
    parts = split_url(provider.redirect_uri)
    is_plain = parts is not None and parts.scheme == "http" and is_loopback(parts.hostname or "")
    if parts is None or not parts.hostname or parts.path != callback or parts.query or "#" in provider.redirect_uri:
        hint = f"its path has to be `{callback}`: answers are taken there alone"
        yield Complaint((*path, "redirect_uri"), f"`{provider.redirect_uri}` leads elsewhere", hint)
    elif parts.scheme != "https" and not is_plain:
        yield Complaint((*path, "redirect_uri"), "codes would travel in plain text", "use https")


def _rules(provider: SSOConfig, path: Path) -> Iterator[Complaint]:
    if provider.link_email and not provider.email_domains:
        hint = "a provider that may speak for every address can log in as everybody"
        yield Complaint((*path, "email_domains"), "missing with link_email", hint)
    for index, domain in enumerate(provider.email_domains):
        if not _DOMAIN.fullmatch(domain):
            hint = "as in `corp.example`; domains below it are others"
            yield Complaint((*path, "email_domains", index), f"`{domain}` is no domain", hint)
    if provider.email_domains and not provider.link_email and not provider.provision:
        yield Complaint((*path, "email_domains"), "has no meaning without link_email or provision", is_warning=True)
    if provider.logout_uri:
        parts = split_url(provider.logout_uri)
        if parts is None or parts.scheme not in ("https", "http") or not parts.hostname:
            yield Complaint((*path, "logout_uri"), f"`{provider.logout_uri}` is no address")
