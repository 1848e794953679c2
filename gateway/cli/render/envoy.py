"""Envoy, by its HTTP filter `ext_authz` with an HTTP service (measured with 1.39)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import quote

from gateway.cli.render.placement import Kind, Pattern, escaped
from gateway.cli.render.site import AUTH_TIMEOUT_S, RETRY_AFTER_S, UNTRUSTED_HEADERS, App, Site, Upstream

# Besides host, method, path, content length and Authorization, which are always sent.
_ASKED_HEADERS = (
    "accept",
    "cookie",
    "dpop",
    "sec-fetch-mode",
    "sec-fetch-site",
    "x-forwarded-proto",
    "x-forwarded-for",
    "x-request-id",
)
# RFC 3986 §2.3: unreserved characters, which nobody should encode; and with them all that may stand in a segment.
_NEEDLESS_ESCAPE = "%(?:2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])"
_NEEDLESS_ESCAPE_OF_PCHAR = "%(?:2[146-9A-Ea-e]|3[0-9AaDd]|4[0-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])"
_TYPE = '"@type": type.googleapis.com/envoy.'


def render_envoy(site: Site, *, full: bool) -> dict[str, str]:
    """Return the files: the listener's filters and the clusters; with `full` the whole bootstrap file."""
    manager, clusters = _manager(site), _clusters(site)
    if not full:
        note = "# One network filter for your listener's filter chain, and the clusters it names.\n"
        return {"portcullis.envoy.yaml": f"{note}filters:\n{manager}clusters:\n{clusters}"}
    listener = f"""\
static_resources:
  listeners:
  - name: web
    address:
      socket_address: {{ address: "{site.listen.host}", port_value: {site.listen.port} }}
    filter_chains:
    - filters:
"""
    return {"envoy.yaml": listener + _deeper(manager, 3) + "  clusters:\n" + _deeper(clusters, 1)}


def _manager(site: Site) -> str:
    text = f"""\
- name: envoy.filters.network.http_connection_manager
  typed_config:
    {_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
    stat_prefix: web
    use_remote_address: true
    # Paths go to the gateway as they came, and it refuses those that can be read in two ways.
    normalize_path: false
    merge_slashes: false
    common_http_protocol_options:
      headers_with_underscores_action: REJECT_REQUEST
    # What the client says of itself goes first, then the gateway is asked.
    early_header_mutation_extensions:
    - name: envoy.http.early_header_mutation.header_mutation
      typed_config:
        {_TYPE}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
        mutations:
"""
    removed = (*site.identity, *UNTRUSTED_HEADERS, "X-Forwarded-For", "X-Forwarded-Host")
    text += "".join(f"        - remove: {name.lower()}\n" for name in removed)
    text += """\
        # Some apps read `x.auth.subject` as `x-auth-subject`; names with `_` are rejected above.
        - remove_on_match: { key_matcher: { safe_regex: { regex: '[a-z0-9-]*[^a-z0-9:-].*' } } }
    upgrade_configs:
    - upgrade_type: websocket
    route_config:
      name: portcullis
      ignore_port_in_host_matching: true
      virtual_hosts:
"""
    upstreams = site.upstreams()
    for number, host in enumerate(site.hosts):
        text += f"      - name: portcullis_{number}\n        domains: [{_domains(host.name)}]\n        routes:\n"
        text += _guard(host.apps)
        text += "".join(_route(app, upstreams[app.upstream]) for app in host.apps)
    # ext_authz takes any 5xx for a fault of its own, and forgets the headers.
    text += f"""\
    local_reply_config:
      mappers:
      - filter:
          and_filter:
            filters:
            - response_flag_filter: {{ flags: [UAEX] }}
            - status_code_filter: {{ comparison: {{ value: {{ default_value: 503, runtime_key: portcullis }} }} }}
        headers_to_add:
        - header: {{ key: retry-after, value: "{RETRY_AFTER_S}" }}
          append_action: OVERWRITE_IF_EXISTS_OR_ADD
"""
    text += "    http_filters:\n"
    text += f"""\
    - name: envoy.filters.http.ext_authz
      typed_config:
        {_TYPE}extensions.filters.http.ext_authz.v3.ExtAuthz
        transport_api_version: V3
        failure_mode_allow: false
        status_on_error: {{ code: ServiceUnavailable }}
        allowed_headers:
          patterns:
"""
    text += "".join(f"          - exact: {name}\n" for name in _ASKED_HEADERS)
    text += f"""\
        http_service:
          server_uri:
            uri: {site.gateway.url}
            cluster: portcullis
            timeout: {AUTH_TIMEOUT_S}s
          path_prefix: /auth/envoy
          authorization_response:
            allowed_upstream_headers:
              patterns:
"""
    text += "".join(f"              - exact: {name.lower()}\n" for name in site.identity)
    return (
        text
        + f"""\
    - name: envoy.filters.http.router
      typed_config:
        {_TYPE}extensions.filters.http.router.v3.Router
"""
    )


def _domains(name: str) -> str:
    """A name with its final dot is the same host (RFC 1034 §3.1), also to the gateway."""
    return f"'{name}', '{name}.'" if name else "'*'"


def _guard(apps: Sequence[App]) -> str:
    """Refuse what Envoy would send to another app than the gateway judges: it compares raw paths, `/%61pi/` as sent.

    A regex that takes all spellings would pass its limit for regexes (re2.max_program_size, 100) at 20 characters.
    """
    depth = max(
        (at for app in apps for at, (kind, _) in enumerate(app.pattern.segments) if kind == Kind.LITERAL), default=-1
    )
    if depth < 0:
        return ""
    literals = "".join(text for app in apps for _, text in app.pattern.segments)
    needless = _NEEDLESS_ESCAPE if re.fullmatch(r"[A-Za-z0-9._~-]*", literals) else _NEEDLESS_ESCAPE_OF_PCHAR
    deeper = f"(?:[^/]*/){{0,{depth}}}" if depth else ""
    regex = _quoted(f"/{deeper}[^/]*{needless}.*")
    return f"        - match: {{ safe_regex: {{ regex: {regex} }} }}\n          direct_response: {{ status: 400 }}\n"


def _match(pattern: Pattern) -> str:
    raw = quote(pattern.prefix or pattern.exact or "%", safe="/!$&'()*+,:=@~")
    if "%" in raw:
        return f"safe_regex: {{ regex: {_quoted(pattern.regex(_spelled))} }}"
    return f"{'prefix' if pattern.prefix else 'path'}: {_quoted(raw)}"


def _spelled(literal: str) -> str:
    """Write a regex for a literal as it stands in a raw path."""
    return "".join(escaped(c) if quote(c, safe="!$&'()*+,:=@~") != c else re.escape(c) for c in literal)


def _route(app: App, cluster: str) -> str:
    text = f"        - match: {{ {_match(app.pattern)} }}\n"
    if not app.strip_prefix:
        return f"{text}          route: {{ cluster: {cluster}, timeout: 0s }}\n"
    # `/api/x` becomes `/x`; a plain prefix_rewrite would leave `//x` or take `/apix` too.
    pattern = _quoted("^" + "/".join(_spelled(text) for text in app.strip_prefix.split("/")) + "/?")
    return (
        f"{text}          route:\n            cluster: {cluster}\n            timeout: 0s\n"
        f"            regex_rewrite: {{ pattern: {{ regex: {pattern} }}, substitution: / }}\n"
    )


def _clusters(site: Site) -> str:
    text = _cluster("portcullis", site.gateway)
    for upstream, name in site.upstreams().items():
        text += _cluster(name, upstream)
    return text


def _cluster(name: str, upstream: Upstream) -> str:
    if upstream.socket:
        address = f"pipe: {{ path: {_quoted(upstream.socket)} }}"
    else:
        address = f"socket_address: {{ address: {_quoted(upstream.host)}, port_value: {upstream.port} }}"
    kind = "STATIC" if upstream.socket or _is_ip(upstream.host) else "STRICT_DNS"
    text = f"""\
- name: {name}
  type: {kind}
  connect_timeout: 2s
  load_assignment:
    cluster_name: {name}
    endpoints:
    - lb_endpoints:
      - endpoint: {{ address: {{ {address} }} }}
"""
    if upstream.tls:
        text += f"""\
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      {_TYPE}extensions.transport_sockets.tls.v3.UpstreamTlsContext
      sni: {_quoted(upstream.host)}
      auto_sni_san_validation: true
      common_tls_context:
        validation_context: {{ trusted_ca: {{ filename: /etc/ssl/certs/ca-certificates.crt }} }}
"""
    return text


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _deeper(text: str, steps: int) -> str:
    return "".join(f"{'  ' * steps}{line}\n" for line in text.splitlines())
