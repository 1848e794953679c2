"""HAProxy, by a small Lua action over its own HTTP client (measured with 2.6)."""

from __future__ import annotations

from gateway.cli.render.placement import Pattern, any_spelling
from gateway.cli.render.site import AUTH_TIMEOUT_S, UNTRUSTED_HEADERS, App, Host, Site, Upstream

LUA_NAME = "portcullis.lua"

_LUA = """\
-- Asks Portcullis about each request: `http-request lua.portcullis`. Allows by setting txn.portcullis_allowed, which
-- the frontend demands; an error in here therefore allows nothing.
local address = "@ADDRESS@"
local timeout_ms = @TIMEOUT_MS@
local identity = { @IDENTITY@ }

-- Of the connection or the body, not of the question; and what only this file may say.
local left_out = {
    ["connection"] = true, ["keep-alive"] = true, ["te"] = true, ["trailer"] = true, ["upgrade"] = true,
    ["transfer-encoding"] = true, ["content-length"] = true, ["expect"] = true, ["proxy-connection"] = true,
    ["host"] = true, ["forwarded"] = true, ["x-forwarded-for"] = true, ["x-forwarded-method"] = true,
    ["x-forwarded-proto"] = true, ["x-forwarded-host"] = true, ["x-forwarded-uri"] = true,
}

local function values_of(list)
    local values = {}
    local index = 0
    if list[index] == nil then index = 1 end
    while list[index] ~= nil do
        values[#values + 1] = list[index]
        index = index + 1
    end
    return values
end

local function refuse(txn, status, headers, body)
    local reply = txn:reply({ status = status })
    for name, list in pairs(headers) do
        if not left_out[name] then
            for _, value in ipairs(values_of(list)) do reply:add_header(name, value) end
        end
    end
    if body ~= nil and #body > 0 then reply:set_body(body) end
    txn:done(reply)
end

core.register_action("portcullis", { "http-req" }, function(txn)
    local headers = {}
    for name, list in pairs(txn.http:req_get_headers()) do
        if not left_out[name] then headers[name] = values_of(list) end
    end
    headers["x-forwarded-method"] = { txn.sf:method() }
    headers["x-forwarded-proto"] = { txn.sf:ssl_fc() == "1" and "https" or "http" }
    headers["x-forwarded-host"] = { txn.sf:req_fhdr("host") }
    headers["x-forwarded-uri"] = { txn.sf:pathq() }
    headers["x-forwarded-for"] = { txn.sf:src() }
    local answer = core.httpclient():get({
        url = "http://" .. address .. "/auth/forward", headers = headers, timeout = timeout_ms,
    })
    local status = answer and answer.status
    if status == 200 then
        for _, name in ipairs(identity) do
            local list = answer.headers[name] and values_of(answer.headers[name]) or {}
            if #list > 0 and list[1] ~= "" then txn.http:req_set_header(name, list[1]) end
        end
        txn:set_var("txn.portcullis_allowed", true)
    elseif status ~= nil and status >= 300 and status <= 599 then
        refuse(txn, status, answer.headers, answer.body)
    else
        refuse(txn, 503, { ["retry-after"] = { "1" } }, nil)
    end
end)
"""


def render_haproxy(site: Site, *, full: bool) -> dict[str, str]:
    """Return the files: frontend, backends and the Lua action; with `full` the global and default sections too."""
    files = {"haproxy.cfg" if full else "portcullis.haproxy.cfg": _config(site, full=full), LUA_NAME: _lua(site)}
    return files


def _lua(site: Site) -> str:
    return (
        _LUA.replace("@ADDRESS@", site.gateway.authority.replace("localhost", "127.0.0.1"))
        .replace("@TIMEOUT_MS@", str(AUTH_TIMEOUT_S * 1000))
        .replace("@IDENTITY@", ", ".join(f'"{name.lower()}"' for name in site.identity))
    )


def _config(site: Site, *, full: bool) -> str:
    text = "global\n"
    if full:
        text += "    default-path config\n"
    else:
        text = f"# `{LUA_NAME}` lies where HAProxy is started, or beside this file with `default-path config`.\n{text}"
    text += f"    lua-load-per-thread {LUA_NAME}\n"
    if full:
        text += """
defaults
    mode http
    option http-keep-alive
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout tunnel 1h
"""
    listen = site.listen.authority if site.listen.host != "0.0.0.0" else f":{site.listen.port}"
    text += f"""
frontend portcullis_front
    mode http
    bind {listen}
    # Some apps read `X_Auth_Subject` and `X.Auth.Subject` as `X-Auth-Subject`: such names pass by what comes next.
    http-request deny deny_status 400 if {{ req.hdr_names -m reg [^A-Za-z0-9,-] }}
    # What the client says of itself goes first, then the gateway is asked.
"""
    text += "".join(f"    http-request del-header {name}\n" for name in (*site.identity, *UNTRUSTED_HEADERS))
    text += """\
    http-request lua.portcullis
    http-request deny deny_status 503 unless { var(txn.portcullis_allowed) -m bool }
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Host %[req.fhdr(host)]
    http-request set-header X-Forwarded-Proto http unless { ssl_fc }
    http-request set-header X-Forwarded-Proto https if { ssl_fc }
"""
    names = site.upstreams()
    text += "".join(_rule(host, app, names[app.upstream]) for host in site.hosts for app in host.apps)
    strips = {(app.upstream, app.strip_prefix) for host in site.hosts for app in host.apps}
    for upstream, name in names.items():
        for strip in sorted(strip for one, strip in strips if one == upstream):
            text += _backend(_named(name, strip), upstream, strip)
    return text


def _rule(host: Host, app: App, name: str) -> str:
    conditions = []
    name_of_host = host.name.removeprefix("*")
    if host.name:
        way = "-i -m end" if host.name.startswith("*.") else "-i"
        conditions.append(f"{{ req.fhdr(host),host_only {way} {name_of_host} {name_of_host}. }}")
    if not app.pattern.takes_all:
        conditions.append(f"{{ path,url_dec {_matcher(app.pattern)} }}")
    backend = _named(name, app.strip_prefix)
    if not conditions:
        return f"    default_backend {backend}\n"
    return f"    use_backend {backend} if {' '.join(conditions)}\n"


def _matcher(pattern: Pattern) -> str:
    if pattern.exact:
        return f"-m str {_quoted(pattern.exact)}"
    if pattern.prefix:
        return f"-m beg {_quoted(pattern.prefix)}"
    return f"-m reg {_quoted(f'^{pattern.regex()}$')}"


def _named(name: str, strip: str) -> str:
    return name + "".join(c if c.isalnum() else "_" for c in strip)


def _backend(name: str, upstream: Upstream, strip: str) -> str:
    address = f"unix@{upstream.socket}" if upstream.socket else upstream.authority
    tls = " ssl verify required ca-file @system-ca sni str(" + upstream.host + ")" if upstream.tls else ""
    text = f"\nbackend {name}\n    mode http\n"
    if strip:
        text += f"    http-request replace-path {_quoted('^' + any_spelling(strip) + '/?(.*)')} /\\1\n"
    return text + f"    server app {address}{tls}\n"


def _quoted(text: str) -> str:
    """Quote strongly: within single quotes nothing means anything, so a quote itself stands outside."""
    return "'" + text.replace("'", "'\\''") + "'"
