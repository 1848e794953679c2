"""Several databases of one worker get their tables at the same time: each in a thread of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.stores.migrations import BASE, HEAD, current, upgrade

DATABASES = 6
ROUNDS = 3


def test_databases_that_are_made_at_once_are_all_made(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        urls = [f"sqlite:{tmp_path / f'{number}-{each}.sqlite3'}" for each in range(DATABASES)]
        with ThreadPoolExecutor(DATABASES) as threads:
            assert list(threads.map(upgrade, urls)) == [BASE] * DATABASES
        assert [current(url) for url in urls] == [HEAD] * DATABASES
