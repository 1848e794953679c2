"""A real PostgreSQL server on a free port, which can be killed, frozen and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.real.process import ServerProcess, find_binary, free_port

PLACES = sorted(str(path) for path in Path("/usr/lib/postgresql").glob("*/bin"))  # of Debian; not on the PATH
HOST = "127.0.0.1"


class RealPostgres:
    """One server with a folder of its own, and its output in `folder`. It refuses root: then it is another user."""

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        """`options`: further settings, `name=value`, of the server; a later one counts more."""
        self.options = list(options)
        pytest.importorskip("psycopg", reason="psycopg is not installed")
        self.binary = find_binary("postgres", *reversed(PLACES))
        # Not in `folder`: pytest closes its folders to all users but one, anew at each start of another run.
        self.folder = Path(tempfile.mkdtemp(prefix="portcullis-postgres-"))
        self.user = _user()
        self.port = free_port()
        self.process: ServerProcess | None = None
        self.log = folder / f"postgres-{self.port}.log"
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.make()
        self.start()

    def make(self) -> None:
        """Fill the folder."""
        command = [
            str(Path(self.binary).with_name("initdb")),
            "-D",
            str(self.folder),
            "-U",
            "portcullis",
            "-A",
            "trust",
        ]
        subprocess.run(
            [*self._as_user(), *command, "--no-sync", "-E", "UTF8", "--locale=C"],
            check=True, stdout=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"postgresql://portcullis:none@{HOST}:{self.port}/postgres"

    def start(self) -> None:
        """Start it on its port, with whatever data it left."""
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        # Without fsync: what a killed server wrote, the kernel still has.
        self.process = ServerProcess(
            [
                *(*self._as_user(), self.binary, "-D", str(self.folder), "-p", str(self.port), "-h", HOST, "-k", ""),
                *("-c", "shared_buffers=16MB", "-c", "max_connections=40", "-c", "fsync=off"),
                *(word for option in self.options for word in ("-c", option)),
            ],
            self.log,
            cwd=Path("/"),
        )
        self.process.wait_for(self.answers, "postgres")

    def answers(self) -> bool:
        """Say whether it answers a query."""
        import psycopg

        try:
            return self.query("SELECT 1") == [(1,)]
        except psycopg.Error:
            return False

    def query(self, text: str) -> list[tuple[object, ...]]:
        """Run one statement on a connection of its own; give its rows."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True, connect_timeout=2) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """End all of it as a crash would."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.stop()

    def freeze(self) -> None:
        """Stop all of it without closing anything: its peers see nothing but silence."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def forget(self) -> None:
        """Lose all data, as a restore from nothing does."""
        names = self.query(r"SELECT tablename FROM pg_tables WHERE tablename LIKE 'portcullis\_%'")
        if names:
            self.query(f"DROP TABLE {', '.join(str(name) for (name,) in names)} CASCADE")

    def empty(self) -> None:
        """Remove all rows and keep the tables, and which revision they are of."""
        names = self.query(
            r"SELECT tablename FROM pg_tables WHERE tablename LIKE 'portcullis\_%' AND tablename <> 'portcullis_schema'"
        )
        if names:
            self.query(f"TRUNCATE {', '.join(str(name) for (name,) in names)}")

    def stop(self) -> None:
        """End it and remove its folder."""
        if self.process is not None:
            self.thaw()
            self.process.signal(signal.SIGQUIT)  # at once; the folder goes anyway
            self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server and its children, which have sessions of their own."""
        assert self.process is not None
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.process.pid)], capture_output=True, text=True, check=False
        )
        for pid in (self.process.process.pid, *(int(line) for line in listed.stdout.split())):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _as_user(self) -> list[str]:
        """Give the words before a command that run it as the server's user, in the same process."""
        if self.user is None:
            return []
        return [find_binary("setpriv"), "--reuid", self.user, "--regid", _group(self.user), "--clear-groups", "--"]


def _user() -> str | None:
    """Give the user that the server runs as; None for this one."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    pytest.skip("PostgreSQL refuses to run as root, and there is neither `postgres` nor `nobody`")


def _group(user: str) -> str:
    return str(pwd.getpwnam(user).pw_gid)
