"""A real PostgreSQL primary with replicas that stream from it, which can be killed, frozen and promoted."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.real.link import Link
from tests.real.postgres import HOST, RealPostgres
from tests.real.process import find_binary, wait_until

OPTIONS = ("max_connections=200", "hot_standby=on", "wal_receiver_status_interval=1")


class RealReplica(RealPostgres):
    """A server that begins as a copy of another one and follows it."""

    def __init__(
        self, folder: Path, primary: RealPostgres, *, options: Sequence[str] = OPTIONS, port: int | None = None
    ) -> None:
        """`port`: of a link to the primary, where it is reached through one."""
        self.origin = primary
        self.origin_port = port or primary.port
        super().__init__(folder, options=options)

    @property
    def name(self) -> str:
        """What the primary calls it, for `synchronous_standby_names`."""
        return f"replica_{self.port}"

    def make(self) -> None:
        binary = find_binary("pg_basebackup", str(Path(self.binary).parent))
        source = f"host={HOST} port={self.origin_port} user=portcullis application_name={self.name}"
        command = [binary, "-d", source, "-D", str(self.folder), "-R", "-X", "stream", "-c", "fast", "--no-sync"]
        subprocess.run([*self._as_user(), *command], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def promote(self) -> None:
        """Make it a primary."""
        assert self.query("SELECT pg_promote(true, 10)") == [(True,)]

    def pause(self) -> None:
        """Let it receive and not replay: what a replica far behind looks like."""
        self.query("SELECT pg_wal_replay_pause()")
        wait_until(
            lambda: self.query("SELECT pg_get_wal_replay_pause_state()") == [("paused",)], "a replica that stands still"
        )

    def resume(self) -> None:
        self.query("SELECT pg_wal_replay_resume()")

    def catch_up(self) -> None:
        """Wait until it has replayed all that its primary has written."""
        ((position,),) = self.origin.query("SELECT pg_current_wal_lsn()::text")
        query = f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"
        wait_until(lambda: self.query(query) == [(True,)], "a replica that has caught up")


class RealPostgresPair:
    """A primary and one replica."""

    def __init__(self, folder: Path, *, synchronous: bool = False) -> None:
        self.primary = RealPostgres(folder, options=OPTIONS)
        self.link = Link(self.primary.port)  # by which both the replica and the gateways reach it
        try:
            self.replica = RealReplica(folder, self.primary, port=self.link.port)
        except BaseException:
            self.link.close()
            self.primary.stop()
            raise
        if synchronous:
            self.primary.query(f"ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 ({self.replica.name})'")
            self.primary.query("SELECT pg_reload_conf()")
            wait_until(
                lambda: self.primary.query("SELECT sync_state FROM pg_stat_replication") == [("sync",)],
                "a synchronous replica",
            )

    @property
    def url(self) -> str:
        return f"postgresql://portcullis:none@{HOST}:{self.replica.port},{HOST}:{self.link.port}/postgres"

    def empty(self) -> None:
        """Remove all rows, on both."""
        self.primary.empty()
        self.replica.catch_up()

    def stop(self) -> None:
        self.replica.stop()
        self.link.close()
        self.primary.stop()
