"""The access, audit and decision logs of one worker: where their lines go, and who writes them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.config import LogConfig
from gateway.errors import ConfigError, ConfigFault
from gateway.observability.decisions import DecisionLog
from gateway.observability.line_writer import LineWriter
from gateway.observability.logs import AccessLog, AuditLog, RequestLines, Subjects, load_pseudonym_key
from gateway.observability.metrics import Metrics

PSEUDONYMS_FILE = "pseudonyms.key"  # in run_dir, shared by the workers


@dataclass(frozen=True, slots=True)
class RequestLogs:
    """What the front door calls; None where a log is off."""

    access: AccessLog | None
    audit: AuditLog | None
    decisions: DecisionLog | None


class Logs:
    """Keeps the writers over reloads that do not move them."""

    def __init__(self, config: LogConfig, run_dir: Path, metrics: Metrics) -> None:
        self._metrics = metrics
        self._subjects = Subjects("hash", load_pseudonym_key(run_dir / PSEUDONYMS_FILE))
        self._writers: dict[tuple[str, str], LineWriter] = {}
        self.of_issuers((), config)

    def of_issuers(self, issuers: Sequence[str], config: LogConfig) -> RequestLogs:
        """Give the logs of a config; lines name its issuers. Raises ConfigError for a file that cannot be written."""
        lines = RequestLines(self._subjects, issuers)
        access = self._writer("access", config.access, sys.stdout.fileno())
        audit = self._writer("audit", config.audit, sys.stderr.fileno())
        wanted = "off" if config.decisions == "off" else config.decisions_to
        decisions = self._writer("decisions", wanted, sys.stdout.fileno(), key="decisions_to")
        return RequestLogs(
            None if access is None else AccessLog(access, lines),
            None if audit is None else AuditLog(audit, lines),
            None if decisions is None else DecisionLog(decisions, config.decisions_redact),
        )

    def _writer(self, name: str, target: str, standard: int, *, key: str = "") -> LineWriter | None:
        """Give the writer of a log; `key` is the knob that names its target, where that is not the log's name."""
        if target == "off":
            return None
        writer = self._writers.get((name, target))
        if writer is None:
            written = self._metrics.counter("log_lines_total", log=name)
            dropped = self._metrics.counter("log_lines_dropped_total", log=name)
            try:
                writer = LineWriter(
                    standard if target == "-" else target, name=name, on_written=written.add, on_dropped=dropped.add
                )
            except OSError as error:
                problem = f"`{target}` cannot be written: {(error.strerror or 'refused').lower()}"
                raise ConfigError([ConfigFault("config", None, f"log.{key or name}", problem)]) from error
            self._writers[name, target] = writer
        else:
            writer.reopen()  # A reload follows a log that was rotated.
        return writer

    def close(self) -> None:
        """Write out what is buffered."""
        for writer in self._writers.values():
            writer.close()
