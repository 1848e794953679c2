"""Many operations in one request (RFC 7644 §3.7).

They run one after the other. One that names a resource by a `bulkId` waits until that one is made; where operations
wait for each other in a circle, groups are made without the members that do not exist yet, and get them afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scim2_models import (
    BulkRequest,
    BulkResponse,
    ConflictException,
    Error,
    InvalidPathException,
    InvalidSyntaxException,
    InvalidValueException,
    PayloadTooLargeException,
    SCIMException,
)

from gateway.errors import GatewayError
from gateway.flows.scim.filters import Kind
from gateway.flows.scim.limits import ScimLimits
from gateway.flows.scim.service import ScimService
from gateway.flows.scim.values import Asked, Reply, ScimCaller
from gateway.types import Clock

_KINDS: Final[dict[str, Kind]] = {"users": "User", "groups": "Group"}
_REFERENCE: Final = re.compile(r"bulkId:([^/\s\"]+)", re.IGNORECASE)
_METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")

Refusal = Callable[[GatewayError], Error]
"""Says to a client what a fault of the gateway's own is."""
Turn = Callable[[], Awaitable[None]]
"""Waits until the next operation may begin."""


@dataclass(slots=True)
class _Job:
    """One operation, and how it ended."""

    method: str
    path: str
    bulk_id: str
    version: str
    data: Any
    reply: dict[str, Any] | None = None
    late_members: list[Any] = field(default_factory=list)  # that a group gets when they exist


class BulkService:
    """Runs bulk requests over a ScimService."""

    def __init__(
        self, service: ScimService, *, limits: ScimLimits, clock: Clock, refusal: Refusal, turn: Turn | None = None
    ) -> None:
        """`turn`: waited for before each operation but the first, whose turn was that of the request."""
        self._service = service
        self._limits = limits
        self._clock = clock
        self._refusal = refusal
        self._turn = turn

    async def run(self, payload: Any, caller: ScimCaller) -> Reply:
        """Run a bulk request. Raises SCIMException for one that is none."""
        jobs, errors_max = self._read(payload)
        ids: dict[str, str] = {}
        ends_s = self._clock.monotonic_s() + self._limits.bulk_s
        done: list[_Job] = []
        waiting = list(jobs)
        while waiting:
            job = _next(waiting, ids)
            waiting.remove(job)
            if errors_max and sum(1 for each in done if _failed(each)) >= errors_max:
                break  # RFC 7644 §3.7.3: what was not begun is not answered
            if done and self._turn is not None:
                await self._turn()
            if self._clock.monotonic_s() >= ends_s:
                job.reply = _answer(job, 503, Error(status=503, detail="there is no time left for this operation"))
            else:
                await self._one(job, ids, caller)
            done.append(job)
        for job in done:
            await self._complete(job, ids, caller)
        body = {"schemas": [str(BulkResponse.__schema__)], "Operations": [each.reply for each in jobs if each.reply]}
        return Reply(200, body)

    def _read(self, payload: Any) -> tuple[list[_Job], int]:
        if not isinstance(payload, dict):
            raise InvalidSyntaxException(detail="a bulk request is a JSON object")
        found = {name.lower(): value for name, value in payload.items()}
        operations = found.get("operations")
        if str(BulkRequest.__schema__) not in (found.get("schemas") or ()) or not isinstance(operations, list):
            raise InvalidSyntaxException(detail="a bulk request has its schema and operations")
        if len(operations) > self._limits.bulk_operations:
            raise PayloadTooLargeException(
                detail=f"a bulk request has at most {self._limits.bulk_operations} operations"
            )
        errors_max = found.get("failonerrors", 0)
        if not isinstance(errors_max, int) or isinstance(errors_max, bool) or errors_max < 0:
            raise InvalidValueException(detail="failOnErrors is a number")
        jobs = [_job(each) for each in operations]
        names = [job.bulk_id for job in jobs if job.bulk_id]
        if len(set(names)) != len(names):
            raise InvalidValueException(detail="two operations have one bulkId")
        return jobs, errors_max

    async def _one(self, job: _Job, ids: dict[str, str], caller: ScimCaller) -> None:
        try:
            reply = await self._done(job, ids, caller)
        except SCIMException as error:
            job.reply = _answer(job, error.status, error.to_error())
            return
        except GatewayError as error:
            said = self._refusal(error)
            job.reply = _answer(job, said.status or 500, said)
            return
        location = reply.headers.get("location", "")
        if job.method == "POST" and job.bulk_id and location:
            ids[job.bulk_id] = location.rpartition("/")[2]
        job.reply = _answer(job, reply.status, None, location, reply.headers.get("etag", ""))

    async def _done(self, job: _Job, ids: Mapping[str, str], caller: ScimCaller) -> Reply:
        path = _resolved(job.path, ids)
        kind, resource_id = _target(path)
        data = _resolved(self._without_late(job, ids) if job.method == "POST" else job.data, ids)
        left = _REFERENCE.search(f"{path} {data}")
        if left is not None:
            raise ConflictException(detail=f"`{left[0][:100]}` names no resource that was made")
        if (job.method == "POST") != (not resource_id):
            raise InvalidPathException(detail="POST goes to a kind of resources, everything else to one of them")
        asked = Asked(if_match=job.version)
        calls: dict[str, Callable[[], Awaitable[Reply]]] = {
            "POST": lambda: self._service.create(kind, data, caller),
            "PUT": lambda: self._service.replace(kind, resource_id, data, caller, asked),
            "PATCH": lambda: self._service.patch(kind, resource_id, data, caller, asked),
            "DELETE": lambda: self._service.delete(kind, resource_id, caller, asked),
        }
        reply = await calls[job.method]()
        if job.method != "POST" and "location" not in reply.headers:
            return Reply(reply.status, None, {**reply.headers, "location": self._service.location(kind, resource_id)})
        return reply

    @staticmethod
    def _without_late(job: _Job, ids: Mapping[str, str]) -> Any:
        """Give the data of a new group without members that do not exist yet, which it gets afterwards."""
        members = job.data.get("members") if isinstance(job.data, dict) else None
        if job.path.strip("/").lower() != "groups" or not isinstance(members, list):
            return job.data
        job.late_members = [each for each in members if _unmade(each, ids)]
        return {**job.data, "members": [each for each in members if not _unmade(each, ids)]}

    async def _complete(self, job: _Job, ids: Mapping[str, str], caller: ScimCaller) -> None:
        """Give a group the members that were made after it."""
        if not job.late_members or _failed(job):
            return
        adding = {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
            "Operations": [{"op": "add", "path": "members", "value": job.late_members}],
        }
        assert job.reply is not None
        path = f"/Groups/{job.reply['location'].rpartition('/')[2]}"
        late = _Job("PATCH", path, "", "", adding)
        await self._one(late, dict(ids), caller)
        if _failed(late):
            assert late.reply is not None
            job.reply |= {"status": late.reply["status"], "response": late.reply["response"]}
        else:
            assert late.reply is not None
            job.reply["version"] = late.reply["version"]


def _job(operation: Any) -> _Job:
    if not isinstance(operation, dict):
        raise InvalidSyntaxException(detail="an operation is a JSON object")
    found = {name.lower(): value for name, value in operation.items()}
    method = str(found.get("method", "")).upper()
    path, bulk_id, version = found.get("path"), found.get("bulkid", ""), found.get("version", "")
    if method not in _METHODS or not isinstance(path, str):
        raise InvalidSyntaxException(detail="an operation has a method, POST, PUT, PATCH or DELETE, and a path")
    if not isinstance(bulk_id, str) or not isinstance(version, str):
        raise InvalidSyntaxException(detail="bulkId and version of an operation are texts")
    if method == "POST" and not bulk_id:
        raise InvalidValueException(detail="what is made in a bulk request has a bulkId")
    return _Job(method, path, bulk_id, version, found.get("data"))


def _next(waiting: list[_Job], ids: Mapping[str, str]) -> _Job:
    """Give the first operation that waits for none of the others; in a circle, a new group, else the first."""
    made_here = {job.bulk_id for job in waiting if job.method == "POST"} - set(ids)
    for job in waiting:
        if not _references(job) & (made_here - {job.bulk_id}):
            return job
    groups = (job for job in waiting if job.method == "POST" and job.path.strip("/").lower() == "groups")
    return next(groups, waiting[0])


def _references(job: _Job) -> set[str]:
    return set(_REFERENCE.findall(f"{job.path} {job.data}".replace("'", '"')))


def _unmade(value: Any, ids: Mapping[str, str]) -> bool:
    return any(name not in ids for name in _REFERENCE.findall(f"{value}".replace("'", '"')))


def _resolved(value: Any, ids: Mapping[str, str]) -> Any:
    """Put ids in the place of what operations call resources that they made."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: ids.get(match[1], match[0]), value)
    if isinstance(value, list):
        return [_resolved(each, ids) for each in value]
    if isinstance(value, dict):
        return {name: _resolved(each, ids) for name, each in value.items()}
    return value


def _target(path: str) -> tuple[Kind, str]:
    place, _, resource_id = path.strip("/").partition("/")
    kind = _KINDS.get(place.lower())
    if kind is None or "/" in resource_id:
        raise InvalidPathException(detail=f"`{path[:100]}` is no path of a user or group")
    return kind, resource_id


def _answer(job: _Job, status: int, error: Error | None, location: str = "", version: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"method": job.method, "status": str(status)}
    if job.bulk_id:
        made["bulkId"] = job.bulk_id
    if location:
        made["location"] = location
    if version:
        made["version"] = version
    if error is not None:
        made["response"] = error.model_dump()
    return made


def _failed(job: _Job) -> bool:
    return job.reply is not None and int(job.reply["status"]) >= 400
