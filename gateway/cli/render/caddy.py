"""Caddy, by `forward_auth` (measured with 2.11)."""

from __future__ import annotations

from gateway.cli.render.site import UNTRUSTED_HEADERS, App, Host, Site, Upstream


def render_caddy(site: Site, *, full: bool) -> dict[str, str]:
    """Return the Caddyfile: its sites, with `full` its global options too."""
    text = "{\n\tadmin off\n\tauto_https off\n}\n\n" if full else ""
    if full and all(host.name for host in site.hosts):
        text += f"http://:{site.listen.port} {{\n{_bind(site)}\trespond 404\n}}\n\n"
    return {"Caddyfile" if full else "portcullis.Caddyfile": text + "\n".join(_site(site, host) for host in site.hosts)}


def _site(site: Site, host: Host) -> str:
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
    for app in host.apps:
        lines += _app(app)
    body = "".join(f"\t\t{line}\n" for line in lines)
    return f"http://{host.name}:{site.listen.port} {{\n{_bind(site)}\troute {{\n{body}\t}}\n}}\n"


def _bind(site: Site) -> str:
    return f"\tbind {site.listen.host}\n" if site.listen.host != "0.0.0.0" else ""


def _app(app: App) -> list[str]:
    matcher = "" if app.prefix == "/" else f" `{app.prefix}*`"
    lines = [f"handle{matcher} {{"]
    if app.strip_prefix:
        lines.append(f"\turi strip_prefix `{app.strip_prefix}`")
    lines.append(f"\treverse_proxy {_dial(app.upstream)}")
    return [*lines, "}"]


def _dial(upstream: Upstream) -> str:
    return f"unix/{upstream.socket}" if upstream.socket else upstream.url
