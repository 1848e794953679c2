"""What a file of tables waits for the disk with, and what it does not."""

from __future__ import annotations

from pathlib import Path

from gateway.stores.sql import Program, ask
from gateway.stores.sql_sqlite import SQLiteDatabase

FULL, NORMAL = 2, 1  # sqlite.org/pragma.html#pragma_synchronous


def synchronous() -> Program[int]:
    return int((yield ask("PRAGMA synchronous")).rows[0][0])


async def test_only_what_may_be_lost_with_a_power_cut_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "tables.sqlite3")
    try:
        assert await database.write(synchronous) == FULL
        for durable, level in ((False, NORMAL), (False, NORMAL), (True, FULL), (True, FULL), (False, NORMAL)):
            assert await database.write(synchronous, durable=durable) == level
        (tmp_path / "tables.sqlite3").unlink()  # another file, another connection
        assert await database.write(synchronous) == FULL
        assert await database.write(synchronous, durable=False) == NORMAL
    finally:
        await database.close()
