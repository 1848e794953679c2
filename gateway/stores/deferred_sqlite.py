"""Deferred work in one SQLite file, shared by the workers of a machine."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from gateway.stores.deferred import (
    ATTEMPTS_MAX,
    DONE_KEPT_S,
    ERROR_BYTES_MAX,
    LISTED_MAX,
    Backlog,
    DeadJob,
    Job,
    check_claim,
    check_job,
    spelled,
)
from gateway.stores.sqlite_file import SQLiteFile
from gateway.types import Clock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  key TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  body BLOB NOT NULL,
  state TEXT NOT NULL, -- waiting, dead or done
  put_s REAL NOT NULL,
  free_s REAL NOT NULL, -- not before this may it be claimed: it is not due, or somebody holds it
  attempt INTEGER NOT NULL,
  hold TEXT NOT NULL,
  error TEXT NOT NULL,
  done_s REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_free ON jobs (state, free_s);
"""
_PUT = "INSERT INTO jobs VALUES (?, ?, ?, 'waiting', ?, ?, 0, '', '', 0) ON CONFLICT DO NOTHING"
_CLAIM = """
UPDATE jobs SET hold = :hold, free_s = :until_s, attempt = attempt + 1 WHERE key IN (
  SELECT key FROM jobs WHERE state = 'waiting' AND free_s <= :now_s ORDER BY put_s, key LIMIT :most
) RETURNING key, kind, body, attempt, put_s
"""
_COMPLETE = """
UPDATE jobs SET state = 'done', body = x'', done_s = :now_s WHERE key = :key AND hold = :hold AND state = 'waiting'
"""
_RETRY = """
UPDATE jobs SET hold = '', free_s = :due_s, error = :error WHERE key = :key AND hold = :hold AND state = 'waiting'
"""
_GIVE_UP = """
UPDATE jobs SET hold = '', state = 'dead', error = :error WHERE key = :key AND hold = :hold AND state = 'waiting'
"""
_REVIVE = "UPDATE jobs SET state = 'waiting', attempt = 0, free_s = 0 WHERE key = ? AND state = 'dead'"
_DEAD = "SELECT key, kind, body, error, put_s FROM jobs WHERE state = 'dead' ORDER BY put_s, key LIMIT ?"
_COUNT = "SELECT count(*), min(put_s) FROM jobs WHERE state = ?"
_PURGE = "DELETE FROM jobs WHERE state = 'done' AND done_s < ?"


class SQLiteDeferredWork:
    """Jobs in a table; each call is one statement, and so one transaction."""

    shared = "machine"

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file = SQLiteFile(path, _SCHEMA, "")
        self._clock = clock

    async def put(self, kind: str, key: str, body: Mapping[str, Any], due_s: float = 0.0) -> bool:
        check_job(kind, key)
        row = (key, kind, spelled(body), self._clock.wall_s(), due_s)
        return await self._file.call(lambda db: db.execute(_PUT, row).rowcount) == 1

    async def claim(self, limit: int, hold_s: float) -> Sequence[Job]:
        check_claim(limit, hold_s)
        now_s, hold = self._clock.wall_s(), secrets.token_hex(8)
        values = {"hold": hold, "until_s": now_s + hold_s, "now_s": now_s, "most": limit}
        rows = await self._file.call(lambda db: db.execute(_CLAIM, values).fetchall())
        jobs = [Job(key, kind, orjson.loads(body), attempt, put_s, hold) for key, kind, body, attempt, put_s in rows]
        return sorted(jobs, key=lambda job: (job.put_s, job.key))

    async def complete(self, job: Job) -> bool:
        return await self._change(_COMPLETE, job, now_s=self._clock.wall_s())

    async def retry(self, job: Job, due_s: float, error: str) -> bool:
        if job.attempt >= ATTEMPTS_MAX:
            return await self.give_up(job, error)
        return await self._change(_RETRY, job, due_s=due_s, error=error[:ERROR_BYTES_MAX])

    async def give_up(self, job: Job, error: str) -> bool:
        return await self._change(_GIVE_UP, job, error=error[:ERROR_BYTES_MAX])

    async def dead(self) -> Sequence[DeadJob]:
        rows = await self._file.call(lambda db: db.execute(_DEAD, (LISTED_MAX,)).fetchall())
        return [DeadJob(key, kind, orjson.loads(body), error, put_s) for key, kind, body, error, put_s in rows]

    async def revive(self, key: str) -> bool:
        return await self._file.call(lambda db: db.execute(_REVIVE, (key,)).rowcount) == 1

    async def backlog(self) -> Backlog:
        def count(db: sqlite3.Connection) -> Backlog:
            waiting, oldest_s = db.execute(_COUNT, ("waiting",)).fetchone()
            dead, _ = db.execute(_COUNT, ("dead",)).fetchone()
            return Backlog(waiting, dead, oldest_s)

        return await self._file.call(count)

    async def purge(self) -> int:
        before_s = self._clock.wall_s() - DONE_KEPT_S
        return await self._file.call(lambda db: db.execute(_PURGE, (before_s,)).rowcount)

    async def close(self) -> None:
        await self._file.close()

    async def _change(self, statement: str, job: Job, **values: float | str) -> bool:
        named = {"key": job.key, "hold": job.hold, **values}
        return await self._file.call(lambda db: db.execute(statement, named).rowcount) == 1
