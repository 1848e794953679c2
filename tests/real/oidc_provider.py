"""An identity provider that others wrote, as a process (npm `oidc-provider`). Anybody logs in there by any name."""

from __future__ import annotations

from pathlib import Path

from tests.real.npm import npm_packages
from tests.real.process import ServerProcess, accepts, find_binary, free_port

PACKAGE = "oidc-provider@9.13.3"
SCRIPT = Path(__file__).parent.parent / "journey" / "identity_provider" / "provider.mjs"


class OtherProvider:
    """`oidc-provider` on a loopback port, with the gateway at `gateway` (an origin) as its only client."""

    def __init__(self, folder: Path, gateway: str, secret: str, *, port: int = 0) -> None:
        packages = npm_packages(PACKAGE)
        self.port = port or free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        script = packages / f"provider-{self.port}.mjs"  # beside its modules: Node looks for them there
        script.write_text(SCRIPT.read_text())
        env = {"ISSUER": self.issuer, "PORT": str(self.port), "GATEWAY": gateway, "CLIENT_SECRET": secret}
        self._script = script
        self.server = ServerProcess([find_binary("node"), str(script)], folder / "provider.log", cwd=packages, env=env)
        try:
            self.server.wait_for(lambda: accepts(self.port), "oidc-provider")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.server.stop()
        self._script.unlink(missing_ok=True)
