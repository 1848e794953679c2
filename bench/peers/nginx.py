"""nginx: the floor that a small C server gives, and the upstream behind the proxy door."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import ClassVar

from bench.machine import first_match
from bench.peers.base import Door, Peer, Setup

_TEMPLATE = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {upstream}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        default_type application/json;
        location / {{ {location} }}
    }}
}}
"""

BODY = '{\\"id\\":4711,\\"state\\":\\"shipped\\"}'


class Nginx(Peer):
    name = "nginx, a fixed answer"
    doors: ClassVar[tuple[Door, ...]] = ("forward", "proxy")
    authenticates = False
    checks = "nothing"
    _binary = shutil.which("nginx") or "/usr/sbin/nginx"

    def version(self) -> str:
        return first_match([self._binary, "-v"], r"nginx/(\S+)")

    def missing(self) -> str | None:
        return None if shutil.which(self._binary) else "nginx is not installed"

    def command(self, setup: Setup) -> Sequence[str]:
        if setup.door == "forward":
            upstream, location = "", "return 200;"
        else:
            upstream = f"upstream app {{ server 127.0.0.1:{setup.upstream_port}; keepalive 128; }}"
            location = 'proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";'
        return self._serve(setup, upstream, location)

    def _serve(self, setup: Setup, upstream: str, location: str) -> Sequence[str]:
        config = setup.folder / "nginx.conf"
        config.write_text(_TEMPLATE.format(folder=setup.folder, port=setup.port, upstream=upstream, location=location))
        return [self._binary, "-p", str(setup.folder), "-c", str(config)]


class UpstreamApp(Nginx):
    """What stands behind every proxy door: a small JSON answer, as fast as can be."""

    name = "the upstream app"

    def command(self, setup: Setup) -> Sequence[str]:
        return self._serve(setup, "", f'return 200 "{BODY}";')
