"""What `[scim]` means, beyond its types: who could provision that should not, or could never."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from gateway.config.check_parts import is_loopback, repeated, secret_complaints, split_url
from gateway.config.complaints import Complaint
from gateway.config.knobs import Config

TOKEN_BYTES_MIN = 32
PATHS = ("/scim/v2/",)


def scim_complaints(config: Config, base_dir: FilePath, env: Mapping[str, str]) -> Iterator[Complaint]:
    """Give everything in `[scim]` that is wrong or odd."""
    scim = config.scim
    if not scim.base_url:
        if scim.clients:
            yield Complaint(("scim", "clients"), "there is no SCIM: base_url is missing", "name it: `scim.base_url`")
        return
    url = split_url(scim.base_url)
    if url is None or url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        yield Complaint(("scim", "base_url"), "no address of this gateway", "as in `https://auth.example.com`")
    elif url.scheme == "http" and not is_loopback(url.hostname):
        yield Complaint(("scim", "base_url"), "tokens would be sent in the clear", "use https")
    if not config.directory.url:
        hint = 'say where they are: `[directory]`, `url = "embedded"`'
        yield Complaint(("scim", "base_url"), "there are no users to provision", hint)
    if not (scim.clients or scim.issuers or config.oauth.issuer):
        yield Complaint(("scim", "clients"), "nobody may provision", "name a client and its token")
    known = {issuer.issuer for issuer in config.issuers} | {config.oauth.issuer}
    for index, issuer in enumerate(scim.issuers):
        if issuer not in known:
            yield Complaint(("scim", "issuers", index), f"`{issuer}` is no issuer of `[[issuers]]`", "add it there")
    for index, client in enumerate(scim.clients):
        path = ("scim", "clients", index)
        yield from secret_complaints(client.token, (*path, "token"), base_dir, env, length_min=TOKEN_BYTES_MIN)
        if not client.id or len(client.id) > 128 or not client.id.isprintable():
            yield Complaint((*path, "id"), "no name of a client", "1 to 128 plain characters")
    yield from repeated(((one.id, ("scim", "clients", at, "id")) for at, one in enumerate(scim.clients)), "client")
    for name in ("scope", "read_scope"):
        scope = getattr(scim, name)
        if not scope or " " in scope:
            yield Complaint(("scim", name), f"`{scope}` is no scope", "one word")
    for index, route in enumerate(config.routes):
        if route.path.startswith(PATHS):
            hint = "take another path"
            yield Complaint(
                ("routes", index, "path"), "the gateway answers there itself, so the route is not reached", hint
            )
