"""A TCP proxy that counts, records, cuts and holds connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """Forwards to an `http://host:port` address.

    Attributes:
        cut_after: bytes of the answer after which the connection is closed; consumed one by one
            from the front of this list, one for each connection; empty: nothing is cut.
        received: what clients sent.
        connections: how many there were.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut_after: list[int] = []
        self.received = bytearray()
        self.connections = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the accept that waits in the thread
        self._listener.close()
        self._thread.join(5)
        self.drop()

    def drop(self) -> None:
        """Closes every connection that is open now."""
        for conn in self._open:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)
            conn.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            limit = self.cut_after.pop(0) if self.cut_after else None
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            for source, sink, most in ((client, server, None), (server, client, limit)):
                threading.Thread(
                    target=self._pump, args=(source, sink, most, source is client), daemon=True
                ).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, limit: int | None, record: bool
    ) -> None:
        left = limit
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if record:
                    self.received += data
                if left is not None:
                    data = data[:left]
                    left -= len(data)
                sink.sendall(data)
                if left == 0:
                    break
        for conn in (source, sink):
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)
