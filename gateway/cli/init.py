"""`portcullis init`: write a config with comments, and the proxy's side of it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import click

from gateway.cli.output import DEFAULT_FILE, as_json_option, fail, fail_config, mark, say
from gateway.cli.render import PROXIES, render_proxy, write_files
from gateway.errors import ConfigError

SHAPES = ("sidecar", "forward-auth", "introspection", "full")
_CLIENT_SECRET = "orders-api.secret"  # noqa: S105  # a file's name

_HEAD = """\
# Portcullis. Every key, its default and its reason: docs/configuration.md.
# `portcullis check` judges this file, `portcullis serve` runs it; SIGHUP reads it again.

[server]
listen = "127.0.0.1:8080"          # the doors
admin_listen = "127.0.0.1:8081"    # probes and metrics; never open by accident
# workers = 0                      # processes; 0 = one a core
"""

_ISSUER = """
[[issuers]]                        # any number; the token's `iss` picks one
issuer = {issuer}
audiences = [{audience}]           # one of them must be in the token's `aud`
algorithms = ["RS256", "ES256"]    # never inferred from the token
# The keys are discovered from the issuer. Or say where they are:
# jwks_uri = "https://idp.example.com/keys"
# jwks_file = "keys/jwks.json"     # `portcullis keys new` makes one
"""

_TRUST = """trusted_proxies = ["127.0.0.0/8", "::1/128"]  # who may ask at /auth/…: the proxy in front
"""

_SIDECAR_ROUTES = """
[[routes]]                         # what no route takes is refused
path = "/health"
methods = ["GET"]
auth = "none"                      # open to all
upstream = {app}

[[routes]]
path = "/{{*path}}"                  # {{name}} one segment, {{*name}} the rest
upstream = {app}
# scopes = ["orders:read"]         # all of them, else 403
"""

_FORWARD_ROUTES = """
[[routes]]                         # what no route takes is refused
path = "/public/{{*path}}"           # {{name}} one segment, {{*name}} the rest
auth = "none"                      # open to all

[[routes]]
path = "/{{*path}}"
# host = "app.example.com"         # any by default
# scopes = ["orders:read"]         # all of them, else 403
"""

_FORWARD_AUTH = """
[forward_auth]
login_url = ""                     # browsers without a token go there; "" = 401
login_hosts = []                   # hosts whose address is handed to the login page
"""

_IDENTITY = """
[identity.headers]                 # besides X-Auth-Subject, -Issuer and -Scopes
X-Auth-Email = "email"             # header = claim
"""

_INTROSPECTION = """
[[introspection.clients]]          # who may ask at /oauth2/introspect (RFC 7662)
id = "orders-api"
secret = "file:{secret}"
"""

_REST = """
[store]
url = ""                           # revocations: embedded; or "redis://127.0.0.1:6379/0", or `env:NAME`

[log]
level = "info"
access = "off"                     # "-" or a path: one JSON line a request
audit = "-"                        # one JSON line a denial
"""


def config_text(shape: str, *, issuer: str, audience: str, app: str) -> str:
    """Return the config of one of SHAPES."""
    # JSON's strings are TOML's basic strings, but for DEL and lone surrogates, which `check` would name.
    named = {"issuer": json.dumps(issuer), "audience": json.dumps(audience)}
    text = _HEAD
    if shape in {"forward-auth", "full"}:
        text += _TRUST
    text += _ISSUER.format(**named)
    if shape in {"sidecar", "full"}:
        text += _SIDECAR_ROUTES.format(app=json.dumps(app))
    if shape == "forward-auth":
        text += _FORWARD_ROUTES.format()
    if shape in {"forward-auth", "full"}:
        text += _FORWARD_AUTH
    if shape in {"forward-auth", "sidecar", "full"}:
        text += _IDENTITY
    if shape in {"introspection", "full"}:
        text += _INTROSPECTION.format(secret=_CLIENT_SECRET)
    return text + (_REST if shape == "full" else "")


@click.command()
@click.argument("shape", type=click.Choice(SHAPES), default="sidecar")
@click.option("--for", "proxy", type=click.Choice(PROXIES), help="Write the snippet for this proxy too.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=DEFAULT_FILE, show_default=True)
@click.option("--issuer", default="https://idp.example.com", show_default=True, help="Whose tokens are accepted.")
@click.option("--audience", default="orders-api", show_default=True, help="Who the tokens are for.")
@click.option("--app", default="http://127.0.0.1:9000", show_default=True, help="The app behind the gateway.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@as_json_option
def init(
    *, shape: str, proxy: str | None, out: Path, issuer: str, audience: str, app: str, force: bool, as_json: bool
) -> None:
    """Write a commented portcullis.toml.

    \b
    sidecar        in front of one app (default)
    forward-auth   beside a proxy that asks about each request
    introspection  answers resource servers (RFC 7662)
    full           all of it
    """
    files = {out.name: config_text(shape, issuer=issuer, audience=audience, app=app)}
    secret = out.parent / _CLIENT_SECRET
    written = write_files(files, out.parent, force=force, as_json=as_json)
    if shape in {"introspection", "full"} and not secret.exists():
        _write_secret(secret, as_json)
        written.append(str(secret))
    if proxy is not None:
        try:
            snippet = render_proxy(proxy, out, app=app)
        except ConfigError as error:
            fail_config(error.faults, as_json)
        written += write_files(snippet, out.parent, force=force, as_json=as_json)

    def speak() -> None:
        for path in written:
            click.echo(f"{mark(True)} {path}")
        click.echo(f"\nNow: portcullis check -c {out} && portcullis serve -c {out}")

    say({"ok": True, "files": written}, as_json, speak)


def _write_secret(path: Path, as_json: bool) -> None:
    from gateway.tokens.key_folder import write_private

    try:
        write_private(path, secrets.token_urlsafe(32).encode() + b"\n")
    except OSError as error:
        fail(f"`{error.filename}`: {(error.strerror or 'cannot be written').lower()}", as_json)
