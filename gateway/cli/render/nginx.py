"""nginx, by `auth_request` (ngx_http_auth_request_module; measured with 1.22)."""

from __future__ import annotations

import re

from gateway.cli.render.placement import Pattern
from gateway.cli.render.site import AUTH_TIMEOUT_S, UNTRUSTED_HEADERS, App, Host, Site, Upstream, indented

# What the gateway can mean beside 401 and 403, which are all that nginx hands on by itself. 404 and 405 stay 403, as
# they are behind other proxies: the gateway knows no way through, which says nothing of the app.
_RESTORED = (400, 429, 431, 500, 503)

# What the client says of its request has no place in the question.
_UNASKED_HEADERS = (
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    *(name for name in UNTRUSTED_HEADERS if not name.startswith("X-Original-")),
)

HEAD = """\
# Run it in the foreground, by any user, with all its files in its own folder: nginx -p "$PWD" -c nginx.conf -e stderr
daemon off;
pid nginx.pid;
error_log stderr;
worker_processes auto;
events {
    worker_connections 4096;
}
http {
    access_log off;
    client_body_temp_path temp_body;
    proxy_temp_path temp_proxy;
    fastcgi_temp_path temp_fastcgi;
    uwsgi_temp_path temp_uwsgi;
    scgi_temp_path temp_scgi;
"""


def render_nginx(site: Site, *, full: bool) -> dict[str, str]:
    """Return the files: one server a host, to be included in `http { }`; with `full` the whole nginx.conf."""
    snippet = _http(site)
    if not full:
        return {"portcullis.nginx.conf": snippet}
    body = "".join(f"    {line}\n" if line else "\n" for line in snippet.splitlines())
    return {"nginx.conf": f"{HEAD}{body}}}\n"}


def _http(site: Site) -> str:
    upstreams = site.upstreams()
    text = "# Goes inside `http { }`.\n"
    text += _pool("portcullis", site.gateway)
    for upstream, name in upstreams.items():
        text += _pool(name, upstream)
    text += """\
map $http_upgrade $portcullis_connection {
    default upgrade;
    ""      "";
}
# nginx repeats the challenge of a 401 by itself (and a 302 comes as one); of anything else it must be told.
map $portcullis_status $portcullis_own_challenge {
    302     "";
    401     "";
    default $portcullis_challenge;
}
"""
    for host in site.hosts:
        text += _server(site, host, upstreams)
    return text


def _pool(name: str, upstream: Upstream) -> str:
    address = f"unix:{upstream.socket}" if upstream.socket else upstream.authority
    return f"upstream {name} {{\n    server {address};\n    keepalive 32;\n}}\n"


def _server(site: Site, host: Host, upstreams: dict[Upstream, str]) -> str:
    default = " default_server" if not host.name else ""
    listen = (
        site.listen.authority if ":" in site.listen.host or site.listen.host != "0.0.0.0" else str(site.listen.port)
    )
    text = f"""
server {{
    listen {listen}{default};
    server_name {host.name or "_"};

    # For every location: who is not allowed gets no further. Never write `return` into a protected location: nginx
    # runs it before it asks. `auth_request off` opens one.
    auth_request /portcullis-auth;
    auth_request_set $portcullis_status $upstream_http_x_auth_status;
    auth_request_set $portcullis_login $upstream_http_x_auth_login;
    auth_request_set $portcullis_challenge $upstream_http_www_authenticate;
    auth_request_set $portcullis_retry_after $upstream_http_retry_after;
"""
    for name in site.identity:
        text += f"    auth_request_set ${_variable(name)} $upstream_http_{name.lower().replace('-', '_')};\n"
    text += "    error_page 401 403 = @portcullis_refused;\n"
    # nginx takes the longest prefix, but any regex before it, in their order: mixed, they would lose that order.
    plain = all(app.pattern.prefix or app.pattern.exact for app in host.apps)
    for app in host.apps:
        text += _location(site, app, upstreams[app.upstream], _matcher(app.pattern, plain=plain))
    text += """
    location = /portcullis-auth {
        internal;
        auth_request off;
"""
    text += indented(
        [
            "proxy_pass http://portcullis/auth/request;",
            "proxy_pass_request_body off;",
            "proxy_http_version 1.1;",
            f"proxy_read_timeout {AUTH_TIMEOUT_S}s;",
            'proxy_set_header Connection "";',
            'proxy_set_header Content-Length "";',
            'proxy_set_header Upgrade "";',
            "proxy_set_header Host $host;",
            "# The name that chose this server, not the client's Host header: the two may differ.",
            "proxy_set_header X-Original-URL $scheme://$host$request_uri;",
            "proxy_set_header X-Original-Method $request_method;",
            "proxy_set_header X-Forwarded-For $remote_addr;",
            *(f'proxy_set_header {name} "";' for name in (*_UNASKED_HEADERS, *site.identity)),
        ],
        2,
    )
    text += """    }

    # nginx can only be told 401 and 403; this gives the client what was meant.
    location @portcullis_refused {
        auth_request off;
        add_header WWW-Authenticate $portcullis_own_challenge always;
        add_header Retry-After $portcullis_retry_after always;
        add_header Cache-Control no-store always;
"""
    text += "        if ($portcullis_status = 302) {\n            return 302 $portcullis_login;\n        }\n"
    for status in (401, *_RESTORED):
        text += f"        if ($portcullis_status = {status}) {{\n            return {status};\n        }}\n"
    return text + "        return 403;\n    }\n}\n"


def _matcher(pattern: Pattern, *, plain: bool) -> str:
    """Write what a location takes; nginx compares paths without escapes."""
    if pattern.takes_all:
        return '"/"'
    if plain:
        return f"= {_quoted(pattern.exact)}" if pattern.exact else _quoted(pattern.prefix or "")
    return "~ " + _quoted(f"^{pattern.regex()}$")


def _location(site: Site, app: App, pool: str, matcher: str) -> str:
    upstream = app.upstream
    scheme = "https" if upstream.tls else "http"
    lines = []
    if app.strip_prefix:
        lines.append(f"rewrite {_quoted(f'^{re.escape(app.strip_prefix)}(?:/(.*))?$')} /$1 break;")
    lines += [
        f"proxy_pass {scheme}://{pool};",
        "proxy_http_version 1.1;",
        "proxy_intercept_errors off;",
        "proxy_set_header Host $host;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $portcullis_connection;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Forwarded-Host $host;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
        *(f'proxy_set_header {name} "";' for name in UNTRUSTED_HEADERS),
        "# Empty ones are not sent, and so replace what the client sent.",
        *(f"proxy_set_header {name} ${_variable(name)};" for name in site.identity),
    ]
    if upstream.tls:
        lines += [
            "proxy_ssl_server_name on;",
            f"proxy_ssl_name {upstream.host};",
            "proxy_ssl_verify on;",
            "proxy_ssl_verify_depth 3;",
            "proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;",
        ]
    return f"\n    location {matcher} {{\n{indented(lines, 2)}    }}\n"


def _variable(header: str) -> str:
    return "portcullis_" + "".join(c if c.isalnum() else "_" for c in header.lower().removeprefix("x-auth-"))


def _quoted(text: str) -> str:
    """Quote for nginx, which takes a backslash off before a quote only, and those of regexes stand before others."""
    return '"' + text.replace('"', '\\"') + '"'
