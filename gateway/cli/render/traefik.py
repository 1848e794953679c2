"""Traefik, by the middleware `ForwardAuth` (measured with 3.7)."""

from __future__ import annotations

import re

from gateway.cli.render.placement import Pattern, any_spelling
from gateway.cli.render.site import UNTRUSTED_HEADERS, CannotRender, Host, Site

# Traefik drops or sets the others itself, at the entry point.
_UNMANAGED_HEADERS = tuple(
    name for name in UNTRUSTED_HEADERS if not name.startswith("X-Forwarded-") and name != "X-Real-Ip"
)


def render_traefik(site: Site, *, full: bool) -> dict[str, str]:
    """Return the files: the dynamic configuration; with `full` the static one that reads it too."""
    files = {"portcullis.traefik.yml": _dynamic(site)}
    if full:
        files = {"traefik.yml": _static(site), **files}
    return files


def _static(site: Site) -> str:
    return f"""\
entryPoints:
  web:
    address: "{site.listen.authority}"
    http:
      # Some apps read `X.Auth.Subject` and `X_Auth_Subject` as `X-Auth-Subject`.
      aliasHeadersStrategy: reject
providers:
  file:
    filename: portcullis.traefik.yml
log:
  level: WARN
"""


def _dynamic(site: Site) -> str:
    upstreams = site.upstreams()
    text = """\
# In the static configuration, for each entry point (else clients can spoof headers as `X.Auth.Subject`):
#   entryPoints: { web: { http: { aliasHeadersStrategy: reject } } }
http:
  routers:
"""
    number = 0
    count = sum(len(host.apps) for host in site.hosts)
    strips: dict[str, str] = {}
    for host in site.hosts:
        for app in host.apps:
            strip = strips.setdefault(app.strip_prefix, f"portcullis-prefix-{len(strips)}") if app.strip_prefix else ""
            middlewares = ["portcullis-strip", "portcullis", *([strip] if strip else [])]
            text += f"    portcullis-{number}:\n"
            text += f"      rule: {_quoted(_rule(host, app.pattern))}\n"
            text += f"      entryPoints: [web]\n      middlewares: [{', '.join(middlewares)}]\n"
            text += f"      service: {_name(upstreams[app.upstream])}\n"
            text += f"      priority: {count - number}\n"
            number += 1
    text += "  middlewares:\n"
    text += "    # What the client says of itself is removed, whatever the gateway answers.\n"
    text += "    portcullis-strip:\n      headers:\n        customRequestHeaders:\n"
    text += "".join(f'          {name}: ""\n' for name in (*site.identity, *_UNMANAGED_HEADERS))
    text += f"""\
    portcullis:
      forwardAuth:
        address: "{site.gateway.url}/auth/forward"
        trustForwardHeader: false
        maxResponseBodySize: 65536
        authResponseHeaders:
"""
    text += "".join(f"          - {name}\n" for name in site.identity)
    for prefix, name in strips.items():
        text += f"    {name}:\n      stripPrefix:\n        prefixes: [{_quoted(prefix)}]\n"
    text += "  services:\n"
    for upstream, name in upstreams.items():
        if upstream.socket:
            raise CannotRender(f"Traefik cannot connect to the socket `{upstream.socket}`")
        text += f"    {_name(name)}:\n      loadBalancer:\n        servers:\n          - url: {_quoted(upstream.url)}\n"
    return text


def _name(pool: str) -> str:
    return pool.replace("_", "-")


def _rule(host: Host, pattern: Pattern) -> str:
    path = _path_rule(pattern)
    if not host.name:
        return path
    if host.name.startswith("*."):
        return rf"HostRegexp(`^(?:[a-z0-9_-]+\.)+{re.escape(host.name[2:])}\.?$`) && {path}"
    return f"Host(`{host.name}`) && {path}"


def _path_rule(pattern: Pattern) -> str:
    """Write what a router takes; Traefik decodes unreserved characters before it compares, and no others."""
    plain = pattern.exact or pattern.prefix
    if plain and re.fullmatch(r"[A-Za-z0-9/._~-]*", plain):
        return f"Path(`{plain}`)" if pattern.exact else f"PathPrefix(`{plain}`)"
    return f"PathRegexp(`^{pattern.regex(any_spelling)}$`)".replace("`|", "")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
