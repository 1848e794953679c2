"""A composition root that answers with what it is asked about, for tests of what surrounds the application.

Run as a module it serves a config file with this application.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

from gateway.cli.serve import serve_file
from gateway.config import Config
from gateway.errors import ConfigError, ConfigFault
from gateway.observability.catalogue import Layout, catalogue
from gateway.types import WorkerContext

REFUSED_REALM = "refused by the application"


def metrics_layout() -> Layout:
    return Layout(catalogue(("proxy",), ("ok",)))


class StubApp:
    """Answers `/realm`, `/pid`, `/index`, `/frozen` (objects that no collection looks at) and `/slow/SECONDS`.

    Its lifespan leaves traces in the run folder.
    """

    def __init__(self, config: Config, worker: WorkerContext) -> None:
        self._check(config)
        time.sleep(float(os.environ.get("STUB_BUILD_S", "0")))
        if os.environ.get("STUB_CRASH_AFTER") and (worker.run_dir / "started").exists():
            raise RuntimeError("the stub crashes as it was told to")
        self.config = config
        self.worker = worker
        self.draining = False

    def _check(self, config: Config) -> None:
        index_refused = os.environ.get("STUB_REFUSED_BY", "")
        if config.server.realm == REFUSED_REALM and index_refused != "0":
            raise ConfigError([ConfigFault("portcullis.toml", 1, "server.realm", "the stub does not like it")])

    async def reload(self, config: Config) -> None:
        if os.environ.get("STUB_REFUSED_BY", str(self.worker.index)) == str(self.worker.index):
            self._check(config)
        self.config = config

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await asyncio.sleep(float(os.environ.get("STUB_STARTUP_S", "0")))
            (self.worker.run_dir / "started").touch()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            (self.worker.run_dir / f"stopped-{self.worker.index}").touch()
            await send({"type": "lifespan.shutdown.complete"})
            return
        _, what, *rest = scope["path"].split("/")
        body = ""
        if what == "realm":
            body = self.config.server.realm
        elif what == "pid":
            body = str(os.getpid())
        elif what == "index":
            body = str(self.worker.index)
        elif what == "frozen":
            body = str(gc.get_freeze_count())
        elif what == "slow":
            await asyncio.sleep(float(rest[0]))
            body = "slow"
        elif what == "hang":
            await asyncio.Event().wait()
        elif what == "block":
            time.sleep(float(rest[0]))
        await self._answer(send, 200, body)

    async def admin_asgi(self, scope: Any, receive: Any, send: Any) -> None:
        await self._answer(send, 503 if self.draining else 200, "draining" if self.draining else "ok")

    async def _answer(self, send: Any, status: int, body: str) -> None:
        headers = [(b"content-length", str(len(body)).encode())]
        if self.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})


build_app = StubApp


if __name__ == "__main__":
    multiprocessing.set_start_method(os.environ.get("STUB_START_METHOD", "fork"))
    sys.exit(serve_file(Path(sys.argv[1]), {}, program="tests.journey.stub_app"))
