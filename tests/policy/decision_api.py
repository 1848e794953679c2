"""The decision API in this process: policies of a folder behind its real endpoints, asked without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from gateway.front.authzen.endpoints import Caller, DecisionApi, Limits
from gateway.front.authzen.mapping import Names, Trust
from gateway.front.authzen.paging import PageTokens
from gateway.front.authzen.search import Searcher, SearchLimits
from gateway.front.decisions import DecisionRecorder
from gateway.policy.handle import PolicyHandle
from gateway.policy.repository import PolicyRepository, Sources
from gateway.types import Secret

JSON = ("content-type", "application/json")
HERE = Path(__file__).parent


class SetClock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Pdp:
    """A decision point."""

    def __init__(
        self,
        folder: Path,
        *,
        entities: Path | None = None,
        callers: dict[str, Caller] | None = None,
        open_trust: Trust | None = "all",
        types: dict[str, str] | None = None,
        search: SearchLimits | None = None,
        evaluations: int = 64,
        base_url: str = "https://pdp.example.com",
        recorder: Callable[[PolicyHandle], DecisionRecorder] | None = None,
    ) -> None:
        self.clock = SetClock()
        self.repository = PolicyRepository(Sources(folder, entities=entities))
        loaded = self.repository.load()
        self.handle = PolicyHandle(loaded.engine, loaded.digest, stamp=loaded.stamp)
        tokens = PageTokens(b"k" * 32, self.clock, lifetime_s=60.0)
        searcher = Searcher(Names(types or {}, "Action"), tokens, search or SearchLimits(100, 10_000, 5.0))
        self.api = DecisionApi(
            self.handle,
            searcher,
            callers or {},
            Limits(64 * 1024, 1.0, evaluations, 1000),
            clock=self.clock,
            open_trust=open_trust,
            base_url=base_url,
            recorder=None if recorder is None else recorder(self.handle),
        )
        self.app = Starlette(routes=self.api.routes())

    def send(self, method: str, path: str, body: bytes, *headers: tuple[str, str]) -> Reply:
        """Send one request."""
        return asyncio.run(self._send(method, path, body, headers))

    async def _send(self, method: str, path: str, body: bytes, headers: tuple[tuple[str, str], ...]) -> Reply:
        sent: list[Any] = []
        inbox = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return inbox.pop() if inbox else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }
        await self.app(scope, receive, send)
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:]))

    def post(self, path: str, data: Any, *headers: tuple[str, str]) -> Reply:
        """Send a JSON document to an endpoint below `/access/v1`."""
        return self.send("POST", f"/access/v1/{path}", json.dumps(data).encode(), JSON, *headers)


def todo(**changes: Any) -> Pdp:
    """Give the decision point of the Todo application: its callers say who owns a list."""
    changes.setdefault("open_trust", "resource")
    return Pdp(
        HERE / "todo", entities=HERE / "todo" / "entities.json", types={"user": "User", "todo": "Todo"}, **changes
    )


def certification(**changes: Any) -> Pdp:
    """Give the decision point that the certification scenario asks for."""
    folder = HERE / "certification"
    return Pdp(folder, entities=folder / "entities.json", types={"user": "User", "record": "Record"}, **changes)


def caller(secret: str, trust: Trust = "resource") -> Caller:
    return Caller(Secret(secret), trust)
