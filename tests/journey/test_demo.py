"""`portcullis demo`: what its guide says is what happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.real.http import Connection

pytestmark = pytest.mark.journey

SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, str]]:
    command = [sys.executable, "-m", "gateway", "demo", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        text = ""
        for line in process.stdout:
            text += line
            if line.startswith("}"):
                break
        yield json.loads(text)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS_MAX)
        process.stdout.close()


@pytest.fixture(scope="module")
def bearer(places: dict[str, str]) -> tuple[str, str]:
    with urllib.request.urlopen(f"{places['issuer']}/token?sub=alice&scope=orders:read", timeout=10) as answer:
        return "Authorization", f"Bearer {answer.read().decode().strip()}"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/orders/1", 200),
        ("/admin/users", 403),
        ("/public/hello", 200),
        ("/notes/1", 200),
        ("/notes/2", 200),
        ("/notes/3", 403),
    ],
)
def test_alice_gets_what_the_guide_says(
    places: dict[str, str], bearer: tuple[str, str], path: str, status: int
) -> None:
    assert asked(places, path, bearer) == status


def test_nobody_gets_anything_but_what_is_open(places: dict[str, str]) -> None:
    assert [asked(places, path) for path in ("/orders/1", "/notes/1", "/public/hello")] == [401, 401, 200]


def asked(places: dict[str, str], path: str, *headers: tuple[str, str]) -> Any:
    port = urlsplit(places["gateway"]).port
    assert port is not None
    with Connection(port) as connection:
        return connection.request("GET", path, headers).status
