"""Tell systemd how far the service is (sd_notify(3)); says nothing where nobody listens."""

from __future__ import annotations

import os
import socket
import time


def notify(*lines: str) -> None:
    """Send `READY=1` and the like to `$NOTIFY_SOCKET`. A listener that is gone or full is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), target)
    except OSError:
        return


def notify_reloading() -> None:
    """Announce a reload, with the time that `Type=notify-reload` asks for; `READY=1` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
