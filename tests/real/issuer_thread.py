"""The misbehaving issuer on a thread of its own, for tests that are no coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from tests.real.issuer import RealIssuer


class IssuerThread:
    """Run a RealIssuer on a port of our choice; `issuer` can be told to misbehave at any time."""

    def __init__(self, port: int, keys: list[dict[str, object]]) -> None:
        self.issuer = RealIssuer(keys)
        self.issuer.issuer = f"http://127.0.0.1:{port}"
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> IssuerThread:
        self._wait(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self.issuer.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def hold(self) -> None:
        """Take requests, and answer none of them until `release`."""
        self.issuer.gate = asyncio.Event()

    def release(self) -> None:
        gate, self.issuer.gate = self.issuer.gate, None
        if gate is not None:
            self._loop.call_soon_threadsafe(gate.set)

    async def _start(self) -> None:
        self.issuer._server = await asyncio.start_server(self.issuer._serve, "127.0.0.1", self._port)

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
