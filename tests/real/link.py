"""A TCP link that can be cut: both sides stay connected and hear nothing more of each other."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

CHUNK: Final = 65536


class Link:
    """Forwards connections from a port of its own to another one, until it is cut. One thread for each direction."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._whole = threading.Event()
        self._whole.set()
        self._closed = False
        self._start(self._accept)

    def cut(self) -> None:
        """Forward nothing more, in either direction; who connects anew is not answered."""
        self._whole.clear()

    def mend(self) -> None:
        """Go on; what was sent meanwhile arrives."""
        self._whole.set()

    def close(self) -> None:
        """Close all connections, and wait for the threads that served them."""
        self._closed = True
        self._whole.set()
        for end in (self._server, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closed:
                near, _ = self._server.accept()
                self._whole.wait()
                self._start(self._serve, near)

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as far:
            self._ends |= {near, far}
            back = self._start(self._forward, far, near)
            self._forward(near, far)
            back.join()
            self._ends -= {near, far}

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._whole.wait()
                target.sendall(data)
        self._whole.wait()  # the end of a connection is not heard through a cut either
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
