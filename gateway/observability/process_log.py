"""The process's own log, for operators: standard logging, as JSON lines, or as plain text on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from typing import Literal, TextIO

import orjson

from gateway.observability.redaction import redact, redact_field

Level = Literal["debug", "info", "warning", "error"]

# What logging puts on every record; everything else came in by `extra` and belongs into the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _message(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    """Give the message, also where its arguments do not fit; with the exception after it."""
    try:
        text = record.getMessage()
    except Exception:
        text = str(record.msg)
    if record.exc_info:
        text = f"{text}\n{formatter.formatException(record.exc_info)}"
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object a record: ts, level, logger, message, what came in by `extra`, and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "ts": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": redact(_message(record, self)),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in fields:
                fields[name] = redact_field(name, value)
        return orjson.dumps(fields).decode()


class PlainFormatter(logging.Formatter):
    """A line for people: time, level, logger, message; the exception after it."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return redact(f"{clock} {record.levelname.lower():7} {record.name}: {_message(record, self)}")


def configure_process_log(level: Level, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (standard error): plain where it is a terminal, JSON elsewhere. Idempotent."""
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.setFormatter(PlainFormatter() if target.isatty() else JsonFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for noisy in ("httpcore2", "httpx2", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
