"""Caddy, by `forward_auth` (measured with 2.11)."""

from __future__ import annotations

import re

from gateway.cli.render.site import UNTRUSTED_HEADERS, App, Host, Site, Upstream


def render_caddy(site: Site, *, full: bool) -> dict[str, str]:
    """Return the Caddyfile: one site for all hosts, with `full` the global options too.

    Caddy's own matchers take other hosts and paths than the gateway's routes: one label for a `*`, and paths in any
    case. So regexes choose the app.
    """
    text = "{\n\tadmin off\n\tauto_https off\n}\n\n" if full else ""
    return {"Caddyfile" if full else "portcullis.Caddyfile": text + _site(site)}


def _site(site: Site) -> str:
    lines = [
        "# In this order: what the client says of itself goes first, then the gateway is asked.",
        *(f"request_header -{name}" for name in (*site.identity, *UNTRUSTED_HEADERS)),
        "# What `Connection` names would be taken off again on the way to the app: it may name what it is for.",
        "@upgrade header_regexp Connection `(?i)(?:^|[ ,])upgrade(?:[ ,]|$)`",
        "@stays not header_regexp Connection `(?i)(?:^|[ ,])upgrade(?:[ ,]|$)`",
        "request_header @stays -Connection",
        "request_header @upgrade Connection Upgrade",
        f"forward_auth {site.gateway.authority} {{",
        "\turi /auth/forward",
        "\theader_up -Connection",
        "\theader_up -Upgrade",
        f"\tcopy_headers {' '.join(site.identity)}",
        "}",
    ]
    number = 0
    for host in site.hosts:
        for app in host.apps:
            lines += _app(host, app, f"@app_{number}")
            number += 1
    if all(host.name for host in site.hosts):
        lines += ["handle {", "\trespond 404", "}"]
    body = "".join(f"\t\t{line}\n" for line in lines)
    bind = f"\tbind {site.listen.host}\n" if site.listen.host != "0.0.0.0" else ""
    return f"http://:{site.listen.port} {{\n{bind}\troute {{\n{body}\t}}\n}}\n"


def _app(host: Host, app: App, matcher: str) -> list[str]:
    lines = []
    if host.name:
        lines.append(f"\theader_regexp Host `(?i)^{_host_regex(host.name)}\\.?(?::[0-9]+)?$`")
    if not app.pattern.takes_all:
        regex = app.pattern.regex().replace("`", r"\x60")
        lines.append(f"\tpath_regexp `^{regex}$`")
    lines = [f"{matcher} {{", *lines, "}", f"handle {matcher} {{"] if lines else ["handle {"]
    if app.strip_prefix:
        lines.append(f"\turi strip_prefix `{app.strip_prefix}`")
    lines.append(f"\treverse_proxy {_dial(app.upstream)}")
    return [*lines, "}"]


def _host_regex(name: str) -> str:
    return f".+{re.escape(name[1:])}" if name.startswith("*.") else re.escape(name)


def _dial(upstream: Upstream) -> str:
    return f"unix/{upstream.socket}" if upstream.socket else upstream.url
