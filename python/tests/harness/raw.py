"""A server that answers with given bytes: for what is HTTP, and is not what a library sends."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from typing_extensions import Self


class Raw:
    """Answers each connection's first request, and closes the connection.

    Args:
        answer: from the head and body of a request to the bytes of the answer.
        context: for TLS.
        unix: the path of a socket, where it listens instead.

    Attributes:
        requests: what was sent, one for each connection.
    """

    def __init__(
        self,
        answer: Callable[[bytes], bytes] | bytes,
        context: ssl.SSLContext | None = None,
        unix: Path | None = None,
    ) -> None:
        self._answer = answer if callable(answer) else lambda _: answer
        self._context = context
        if unix is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
            self.port: int = self._listener.getsockname()[1]
            self.address = f"http{'s' if context else ''}://127.0.0.1:{self.port}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(unix))
            self._listener.listen(64)
            self.address = f"unix://{unix}"
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            conn.settimeout(10)
            with contextlib.suppress(OSError), conn:
                if self._context is not None:
                    self._secure(conn, self._context)
                else:
                    self._serve(conn)

    def _secure(self, conn: socket.socket, context: ssl.SSLContext) -> None:
        with context.wrap_socket(conn, server_side=True, do_handshake_on_connect=False) as secured:
            try:
                secured.do_handshake()
            except ssl.SSLError:
                # Read to the end, so that the alert is not lost to a reset.
                secured.shutdown(socket.SHUT_WR)
                while socket.socket.recv(secured, 65536):
                    pass
                return
            self._serve(secured)

    def _serve(self, conn: socket.socket) -> None:
        got = b""
        while b"\r\n\r\n" not in got:
            data = conn.recv(65536)
            if not data:
                return
            got += data
            if got[0] == 0x16:  # the hello of a TLS that is not spoken here
                conn.sendall(self._answer(got))
                return
        head, _, body = got.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += conn.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        conn.sendall(self._answer(self.requests[-1]))
