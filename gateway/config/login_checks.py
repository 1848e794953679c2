"""What `[login]` means, beyond its types: what it needs of other chapters, and pages that a route would hide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path as FilePath

from gateway.config.check_parts import SHARED_STORES, is_loopback, logged_store, split_url, store_address
from gateway.config.complaints import Complaint
from gateway.config.knobs import Config, LoginConfig
from gateway.config.secrets import resolve_store_url

OWN_PATHS = ("/login", "/logout", "/mfa", "/account")


def login_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give everything in `[login]` that is wrong or odd."""
    login = config.login
    if not login.enabled:
        if login != LoginConfig():
            yield Complaint(("login", "enabled"), "the pages are off", "write `enabled = true`", is_warning=True)
        return
    if not config.sessions.url:
        hint = 'say where sessions are kept: `[sessions]`, `url = "embedded"`'
        yield Complaint(("login", "enabled"), "nobody can log in without sessions", hint)
    if not config.directory.url:
        hint = 'say where users are kept: `[directory]`, `url = "embedded"`'
        yield Complaint(("login", "enabled"), "nobody can log in without a directory", hint)
    yield from _url(login.url)
    if not login.home.startswith("/") or login.home.startswith("//"):
        yield Complaint(("login", "home"), f"`{login.home}` is no path of this host", "begin it with one `/`")
    yield from logged_store(
        login.store_url, ("login", "store_url"), base_dir, env, workers=config.server.workers, what="log-ins"
    )
    if login.risk_refused <= login.risk_code:
        yield Complaint(
            ("login", "risk_refused"), "not above risk_code", "first a code is asked for, then nobody gets in"
        )
    for key, hint in (
        ("leaked_passwords", "`portcullis user leaked` makes it"),
        ("addresses", "MaxMind gives it away: GeoLite2-City.mmdb"),
    ):
        file = getattr(login, key)
        if file and not (base_dir / FilePath(file).expanduser()).is_file():
            yield Complaint(("login", key), f"there is no file `{file}`", hint)
    if login.texts and not (base_dir / FilePath(login.texts).expanduser()).is_dir():
        yield Complaint(("login", "texts"), f"there is no folder `{login.texts}`", "make it, with a `de.toml` in it")
    if not login.leaked_passwords:
        hint = "make a list with `portcullis user leaked` and name it"
        yield Complaint(
            ("login", "leaked_passwords"), "new passwords are not held against leaked ones", hint, is_warning=True
        )
    yield from _provisional(config, base_dir, env)
    for index, route in enumerate(config.routes):
        if any(route.path == path or route.path.startswith(f"{path}/") for path in OWN_PATHS):
            yield Complaint(
                ("routes", index, "path"), "the pages of `[login]` come first there", "move it", is_warning=True
            )


def _provisional(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give what keeps devices from going on while the database is down."""
    login, path = config.login, ("login", "provisional_device_s")
    if not login.provisional_device_s:
        return
    if not login.remember_s:
        yield Complaint(path, "no device is remembered", "let remember_s be more than 0")
    if not config.resilience.health.provisional:
        hint = "write `[resilience.health]`, `provisional = true`"
        yield Complaint(path, "provisional sessions are off", hint, is_warning=True)
    for name, url in (("sessions.url", config.sessions.url), ("login.store_url", login.store_url)):
        with suppress(ValueError):  # told of where the address is checked
            address = resolve_store_url(url, base_dir, env).reveal()
            if not address.startswith((b"redis", b"unix", b"memory")):
                problem = f"{name} is a database: while one is down no session begins by a device"
                yield Complaint(path, problem, "keep them in Redis", is_warning=True)


def deferred_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give everything in `[deferred]` that is wrong."""
    path = ("deferred", "url")
    address = yield from store_address(config.deferred.url, path, base_dir, env)
    if address and address != "embedded" and not address.startswith(SHARED_STORES):
        yield Complaint(path, "no store of deferred work", "write `embedded`, `sqlite:PATH` or `redis://…`")


def _url(url: str) -> Iterator[Complaint]:
    if not url:
        return
    parts = split_url(url)
    if parts is None or parts.scheme not in ("https", "http") or not parts.hostname or parts.path not in ("", "/"):
        yield Complaint(("login", "url"), f"`{url}` is no address of a gateway", "write `https://auth.example.com`")
    elif parts.scheme == "http" and not is_loopback(parts.hostname):
        yield Complaint(("login", "url"), "passwords would travel in plain text", "use `https://`")
