"""What the checks of all chapters share: addresses, secrets, stores, and names that must not come twice."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path as FilePath
from urllib.parse import SplitResult, parse_qs, urlsplit

from gateway.config.addresses import each_server
from gateway.config.complaints import Complaint
from gateway.config.secrets import SecretUnresolved, resolve_secret, resolve_store_url, secret_file_mode
from gateway.config.toml_lines import Path

SHARED_STORES = ("redis://", "rediss://", "unix://", "sqlite:")  # of revocations and of relations alike
_WHOLE_ADDRESS_HINT = "put the whole address into a variable: `env:NAME`"


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine for sure; of names, only `localhost` is (RFC 6761 §6.3)."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def split_url(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises where it is no port
    except ValueError:
        return None
    return None if re.search(r"[\x00-\x20\x7f-\uffff]", url) else parts


def parent_exists(base_dir: FilePath, text: str) -> bool:
    return (base_dir / FilePath(text).expanduser()).parent.is_dir()


def repeated(values: Iterable[tuple[str, Path]], noun: str) -> Iterator[Complaint]:
    seen: dict[str, Path] = {}
    for value, path in values:
        first = seen.setdefault(value, path)
        if first is not path:
            yield Complaint(path, f"the same {noun} stands at", "keep one of them", other=first)


def secret_complaints(
    reference: str, path: Path, base_dir: FilePath, env: Mapping[str, str], *, length_min: int = 0
) -> Iterator[Complaint]:
    try:
        secret = resolve_secret(reference, base_dir, env)
    except SecretUnresolved as error:
        yield Complaint(path, str(error), secret_remedy(reference))
        return
    if len(secret.reveal()) < length_min:
        yield Complaint(
            path,
            f"shorter than {length_min} bytes",
            "`portcullis keys new --alg HS256` makes a good one (RFC 7518 §3.2)",
        )
    mode = secret_file_mode(reference, base_dir)
    if mode is not None and mode & 0o077:
        yield Complaint(path, f"others on this machine can read it (mode {mode:04o})", "chmod 600", is_warning=True)


def secret_remedy(reference: str) -> str:
    return (
        "" if reference.startswith(("env:", "file:")) else "put it into a variable or a file of mode 0600 and name that"
    )


def logged_store(
    url: str,
    path: Path,
    base_dir: FilePath,
    env: Mapping[str, str],
    *,
    workers: int,
    what: str,
    several: bool = False,
) -> Iterator[Complaint]:
    """Complain of the address of a store whose changes all workers follow."""
    address = yield from store_address(url, path, base_dir, env, several=several)
    if address is None or address in {"", "embedded"}:
        return
    if address == "memory:":
        if workers != 1:
            yield Complaint(path, f"each worker would keep {what} of its own", "use `embedded` or a server")
    elif address.startswith(("postgresql://", "postgres://")):
        yield from postgres_address(address, url, path)
    elif not address.startswith(SHARED_STORES):
        hint = "write `embedded`, `memory:`, `sqlite:PATH`, `redis://…` or `postgresql://…`"
        yield Complaint(path, f"no store of {what}", hint)


def store_address(
    url: str, path: Path, base_dir: FilePath, env: Mapping[str, str], *, several: bool = False
) -> Generator[Complaint, None, str | None]:
    """Return the address that `url` stands for, None where it stands for none; complain of what all stores share.

    `several`: it may name the nodes of a Redis Cluster, or a PostgreSQL primary and its replicas.
    """
    try:
        address = resolve_store_url(url, base_dir, env).reveal().decode()
    except (SecretUnresolved, UnicodeDecodeError) as error:
        yield Complaint(path, str(error) if isinstance(error, SecretUnresolved) else "not UTF-8")
        return None
    servers = each_server(address) if "://" in address else [address]
    if len(servers) > 1 and not several:
        yield Complaint(path, "more than one server", "this store takes one server; write one `host:port`")
    elif address.startswith(("redis://", "rediss://")):
        for server in servers:
            complaints = list(_redis_address(server, path, is_plain=address == url))
            if complaints:
                yield from complaints
                break  # the same complaint for each of them says no more
    elif address.startswith(("kafka://", "kafkas://")):
        for server in servers:
            complaints = list(_kafka_address(server, path, is_plain=address == url))
            if complaints:
                yield from complaints
                break
    elif address.startswith("unix://"):
        if not address.removeprefix("unix://").startswith("/"):
            yield Complaint(path, "no path of a Redis server's socket", "write `unix:///run/redis/redis.sock`")
    elif address.startswith("sqlite:"):
        file = address.removeprefix("sqlite:")
        if not file or not parent_exists(base_dir, file):
            yield Complaint(path, "its folder does not exist", "write `sqlite:PATH`")
    return address


def _kafka_address(address: str, path: Path, *, is_plain: bool) -> Iterator[Complaint]:
    """Complain of the address of one Kafka broker; `is_plain`: it stands in the config as it is."""
    parts = split_url(address)
    if parts is None or not parts.hostname:
        yield Complaint(path, "no address of a Kafka broker", "write `kafka://host:9092/topic`")
    elif not re.fullmatch(r"/[A-Za-z0-9._-]{1,249}", parts.path):
        yield Complaint(path, "no topic is named", "write `kafka://host:9092/topic`")
    elif parts.password is not None and is_plain:
        yield Complaint(path, "a password stands in the config", _WHOLE_ADDRESS_HINT)
    elif parts.scheme == "kafka" and not is_loopback(parts.hostname):
        yield Complaint(path, "an unencrypted connection to another machine", "use `kafkas://`")


def _redis_address(address: str, path: Path, *, is_plain: bool) -> Iterator[Complaint]:
    """Complain of the address of one Redis server; `is_plain`: it stands in the config as it is."""
    parts = split_url(address)
    if parts is None or not parts.hostname:
        yield Complaint(path, "no address of a Redis server", "write `redis://host:6379/0`")
    elif parts.password is not None and is_plain:
        yield Complaint(path, "a password stands in the config", _WHOLE_ADDRESS_HINT)
    elif parts.scheme == "redis" and not is_loopback(parts.hostname):
        yield Complaint(path, "an unencrypted connection to another machine", "use `rediss://`")


def postgres_address(address: str, url: str, path: Path) -> Iterator[Complaint]:
    """Complain of the address of a PostgreSQL server, or of a primary and its replicas."""
    servers = each_server(address)
    is_plain = address == url
    for server in servers:
        complaints = list(_postgres_address(server, path, is_plain=is_plain))
        if complaints:
            yield from complaints
            break


def _postgres_address(address: str, path: Path, *, is_plain: bool) -> Iterator[Complaint]:
    """Without `sslmode` libpq would also go on in plain text, where the server asks for that."""
    parts = split_url(address)
    if parts is None:
        yield Complaint(path, "no address of a PostgreSQL server", "write `postgresql://user@host:5432/database`")
        return
    options = parse_qs(parts.query)
    if (parts.password is not None or "password" in options) and is_plain:
        yield Complaint(path, "a password stands in the config", _WHOLE_ADDRESS_HINT)
    host = options.get("host", [parts.hostname or ""])[-1]
    is_local = not host or host.startswith("/") or is_loopback(host)
    if not is_local and options.get("sslmode", [""])[-1] not in {"require", "verify-ca", "verify-full"}:
        yield Complaint(path, "an unencrypted connection to another machine", "add `?sslmode=verify-full`")
