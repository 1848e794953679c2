"""The gateway itself as a real process, and an issuer's keys to mint tokens with."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conftest import ROOT
from tests.real.http import Answer, ask
from tests.real.process import ServerProcess, free_port

ISSUER = "https://idp.test"
AUDIENCE = "orders-api"


@functools.cache
def rsa_key(name: str = "one") -> rsa.RSAPrivateKey:
    """Give a 2048-bit key; one per name and test run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(name: str = "one") -> dict[str, Any]:
    """Give the public JWK of a key, with its name as `kid`."""
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key(name).public_key(), as_dict=True)
    return {**jwk, "kid": name, "alg": "RS256", "use": "sig"}


def claims_of(**changes: Any) -> dict[str, Any]:
    """Give the claims of a good token; a change to None leaves the claim out."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "iat": now - 5,
        "exp": now + 300,
        "scope": "orders:read",
    }
    claims.update(changes)
    return {name: value for name, value in claims.items() if value is not None}


def mint(key: str = "one", **changes: Any) -> str:
    """Make a token signed by a key; `changes` go into its claims."""
    return jwt.encode(claims_of(**changes), rsa_key(key), algorithm="RS256", headers={"kid": key})


def bearer(token: str | None = None) -> tuple[str, str]:
    """Give the Authorization header for a token, a good one by default."""
    return ("Authorization", f"Bearer {mint() if token is None else token}")


class Gateway:
    """A running gateway and where it listens."""

    def __init__(self, folder: Path, config: str, *, workers: int = 1, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.admin_port = free_port()
        self.path = folder / "portcullis.toml"
        self._env = env
        self._workers = workers
        self.write_config(config)
        self.server = self._start()

    def write_config(self, config: str) -> None:
        """Write the config; `[server]` is ours, the rest is the test's. `@PORT@` in it is where the gateway listens.

        It is put there whole: a gateway that was told of an earlier one may be reading it right now.
        """
        server = (
            f'[server]\nlisten = "127.0.0.1:{self.port}"\nadmin_listen = "127.0.0.1:{self.admin_port}"\n'
            f'workers = {self._workers}\nrun_dir = "{self.folder / "run"}"\ndrain_delay_s = 0.2\n'
        )
        config = config.replace("@PORT@", str(self.port))
        extra, mark, rest = config.partition("#server\n")
        draft = self.path.with_suffix(".draft")
        draft.write_text(server + (extra if mark else "") + (rest if mark else config))
        draft.replace(self.path)

    def _start(self) -> ServerProcess:
        command = [sys.executable, "-m", "gateway", "serve", "-c", str(self.path)]
        server = ServerProcess(command, self.folder / "gateway.log", cwd=ROOT, env=self._env)
        try:
            server.wait_for(self._is_live, "the gateway")
        except BaseException:
            server.stop()
            raise
        return server

    def _is_live(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return ask(self.port, "GET", "/livez").status == 200
        return False

    def restart(self) -> None:
        self.server.stop()
        self.server = self._start()

    def ask(
        self, method: str, target: str, *headers: tuple[str, str], body: bytes = b"", host: str = "app.test"
    ) -> Answer:
        return ask(self.port, method, target, headers, body, host)

    def admin(self, target: str) -> Answer:
        return ask(self.admin_port, "GET", target)


def jwks_file(folder: Path, *names: str) -> Path:
    """Write a key set with the named keys."""
    path = folder / "jwks.json"
    path.write_text(json.dumps({"keys": [public_jwk(name) for name in names or ("one",)]}))
    return path


def issuer_toml(folder: Path, *names: str) -> str:
    """Write the `[[issuers]]` section for the test issuer with its keys in a file."""
    return (
        f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["{AUDIENCE}"]\nalgorithms = ["RS256"]\n'
        f'jwks_file = "{jwks_file(folder, *names)}"\n'
    )


@contextlib.contextmanager
def gateway(folder: Path, config: str, *, workers: int = 1, env: dict[str, str] | None = None) -> Iterator[Gateway]:
    """Run a gateway with a config for the time of a test."""
    running = Gateway(folder, config, workers=workers, env=env)
    try:
        yield running
    finally:
        running.server.stop()
