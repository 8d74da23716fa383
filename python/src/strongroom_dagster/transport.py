"""Connections to one Vault: TLS, a unix socket or plain HTTP, each good after a fork.

What it is not: it repeats nothing and judges no answer (see `session`).
"""

from __future__ import annotations

import collections
import email.errors
import http.client
import os
import queue
import re
import socket
import ssl
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests.adapters
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
import urllib3.poolmanager

from .errors import ConfigurationError
from .settings import Settings

#: The base of URLs for a Vault behind a unix socket; the host is never resolved.
UNIX_BASE = "http://vault.unix"
#: A Content-Length; more digits than any body has.
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_LONGEST_LINE = 64 * 1024
#: Answers before the answer.
_MOST_INTERIM = 20
#: For which connections are kept: Vault, and what a redirection or a test puts in its place.
_SERVERS = 4


def base_of(settings: Settings) -> str:
    """What every path is joined to."""
    return UNIX_BASE if settings.address.startswith("unix://") else settings.address


class _HeaderLines:
    """A file whose end within the headers is noticed; http.client takes it for their end."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def readline(self, limit: int) -> bytes:
        line: bytes = self.file.readline(limit)
        self.last = line
        self.ended = not line.endswith(b"\n")  # a line of the limit is refused before that is asked
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class _Answer(http.client.HTTPResponse):
    """An answer that was cut within its headers is an error, and not one without a body; so is one
    whose headers or chunks do not tell where its body ends. http.client takes what it can read.

    What comes before it (1xx; RFC 9110, 15.2) is passed over. http.client knows 100 only, takes
    another one for the answer, and would give the real one to the request after it.
    """

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                break
            http.client.parse_headers(self.fp)
        if status < 200:  # http.client takes no less than 100
            raise http.client.BadStatusLine(f"{status} and no answer after it")
        return version, status, reason

    def begin(self) -> None:
        lines = _HeaderLines(self.fp)
        self.fp: Any = lines
        odd: http.client.HTTPException | None = None
        try:
            super().begin()
        except http.client.BadStatusLine as error:
            odd = error
        if self.fp is lines:
            self.fp = lines.file
        if lines.ended:
            if not b"HTTP/".startswith(lines.last[:5]):
                raise http.client.BadStatusLine("no HTTP")
            raise http.client.IncompleteRead(b"")
        if odd is not None:
            raise odd
        if not self._is_framed():
            raise http.client.HTTPException("headers that do not tell where the body ends")

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise http.client.IncompleteRead(b"")
        size = line.split(b";")[0].strip()
        if not _CHUNK_SIZE.fullmatch(size):
            raise http.client.HTTPException("a chunk of no size")
        return int(size, 16)

    def _is_framed(self) -> bool:
        """Whether the headers are lines of names and values, and tell the body's end (RFC 9112,
        5.1 and 6.3)."""
        if any(isinstance(defect, _NO_HEADERS) for defect in self.msg.defects):
            return False
        if self._method == "HEAD" or self.status in (204, 304):  # type: ignore[attr-defined]
            # No body, whatever they say; http.client would wait for its chunks.
            del self.msg["Transfer-Encoding"]
            self.chunked = False
            return True
        codings = _listed(self.msg.get_all("Transfer-Encoding", []))
        if codings - {"identity"}:
            return codings == {"chunked"} and self.chunked
        lengths = _listed(self.msg.get_all("Content-Length", []))
        if not all(_LENGTH.fullmatch(length) for length in lengths):
            return False  # of several that differ urllib3 complains
        if lengths:  # of the same twice in one line http.client knows none
            self.length = int(lengths.pop())
        return True


_NO_HEADERS = (
    email.errors.MissingHeaderBodySeparatorDefect,
    email.errors.FirstHeaderLineIsContinuationDefect,
)


def _listed(fields: list[str]) -> set[str]:
    """The members of a list in one header or several."""
    return {member.strip().lower() for field in fields for member in field.split(",")}


class _HTTPConnection(urllib3.connection.HTTPConnection):
    response_class = _Answer


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    response_class = _Answer


class _UnixConnection(_HTTPConnection):
    def __init__(self, *args: Any, socket_path: str, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._socket_path = socket_path

    def _new_conn(self) -> socket.socket:
        conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            timeout = self.timeout
            conn.settimeout(timeout if isinstance(timeout, (int, float)) else None)
            conn.connect(self._socket_path)
        except OSError as error:
            conn.close()
            raise urllib3.exceptions.NewConnectionError(
                self, f"cannot connect to {self._socket_path}: {error.strerror or error}"
            ) from None
        return conn


class _Idle:
    """The idle connections of a pool, without a lock.

    A lock may be held by a thread that a fork leaves behind, and the child would then hang when
    it throws the pool away. What a deque does here is atomic.
    """

    def __init__(self, maxsize: int) -> None:
        self._items: collections.deque[Any] = collections.deque()
        self._maxsize = maxsize

    # Neither waits, whatever is asked.
    def put(self, item: Any, *_: Any, **__: Any) -> None:
        if self._maxsize <= len(self._items):
            raise queue.Full
        self._items.append(item)

    def get(self, *_: Any, **__: Any) -> Any:
        try:
            return self._items.pop()
        except IndexError:
            pass
        raise queue.Empty

    def qsize(self) -> int:
        return len(self._items)


class _HTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection
    QueueCls = _Idle  # type: ignore[assignment]


class _HTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
    QueueCls = _Idle  # type: ignore[assignment]


class _UnixPool(_HTTPPool):
    ConnectionCls = _UnixConnection  # type: ignore[assignment]


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


def _ours(pool: Any) -> Any:
    """The same for the pools of SOCKS, which urllib3 has only where PySocks is installed."""
    if pool.QueueCls is _Idle:
        return pool
    connection = type("_SOCKSConnection", (pool.ConnectionCls,), {"response_class": _Answer})
    return type("_SOCKSPool", (pool,), {"ConnectionCls": connection, "QueueCls": _Idle})


class Connections(requests.adapters.HTTPAdapter):
    """The pooled connections to one Vault, for any number of sessions.

    TLS is as the settings say, whatever a session's `verify` and `cert` are: 1.2 at least, with
    the bundle of the settings and nobody else's, also through a proxy; to a proxy with that and
    the public authorities.

    Raises:
        ConfigurationError: a certificate file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._pool_keywords: dict[str, Any] = {}
        self._socket_path = ""
        if settings.address.startswith("unix://"):
            self._socket_path = settings.address.removeprefix("unix://")
        elif settings.address.lower().startswith("https://"):
            self._pool_keywords["ssl_context"] = _context(settings)
            if settings.tls_server_name:
                self._pool_keywords["server_hostname"] = settings.tls_server_name
        self._proxy_keywords: dict[str, Any] = {}
        if settings.proxy and settings.proxy.lower().startswith("https://"):
            # Ours too, for urllib3's obeys SSLKEYLOGFILE. A proxy may be the public's, or of those
            # authorities that Vault is of; it is not shown our certificate.
            context = _context(replace(settings, client_certificate=None, client_key=None))
            context.load_default_certs()
            self._proxy_keywords["proxy_ssl_context"] = context
        self._size = settings.pool_size
        super().__init__(pool_connections=_SERVERS, pool_maxsize=self._size, max_retries=0)
        _living.add(self)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **keywords: Any
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, **keywords, **self._pool_keywords)
        self.poolmanager.pool_classes_by_scheme = _POOLS
        if self._socket_path:
            self._unix_pool = _UnixPool(
                "vault.unix", maxsize=maxsize, socket_path=self._socket_path
            )

    def proxy_manager_for(self, proxy: str, **keywords: Any) -> Any:
        manager = super().proxy_manager_for(
            proxy, **keywords, **self._pool_keywords, **self._proxy_keywords
        )
        manager.pool_classes_by_scheme = (
            _POOLS
            if isinstance(manager, urllib3.poolmanager.ProxyManager)
            else {scheme: _ours(pool) for scheme, pool in manager.pool_classes_by_scheme.items()}
        )
        return manager

    def build_connection_pool_key_attributes(self, request: Any, *_: Any, **__: Any) -> Any:
        return super().build_connection_pool_key_attributes(request, True)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: the context verifies, and has all that it needs."""

    def get_connection_with_tls_context(self, *args: Any, **keywords: Any) -> Any:
        if self._socket_path:
            return self._unix_pool
        return super().get_connection_with_tls_context(*args, **keywords)

    def request_url(self, request: Any, proxies: Any) -> str:
        if self._socket_path:
            return str(request.path_url)
        return super().request_url(request, proxies)

    def close(self) -> None:
        if self._socket_path:
            # A closed pool serves nobody any more; a session's `close` only hangs up.
            self.init_poolmanager(_SERVERS, self._size)
        super().close()

    def reset_after_fork(self) -> None:
        """In the child: the parent's connections are the parent's."""
        self.proxy_manager: dict[str, Any] = {}
        self.init_poolmanager(_SERVERS, self._size)


def _context(settings: Settings) -> ssl.SSLContext:
    """A context made here and not by `create_default_context`, which obeys SSLKEYLOGFILE."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    fault = ""
    try:
        bundle = settings.ca_bundle
        if bundle is None:
            context.load_default_certs()
        elif Path(bundle).is_dir():
            context.load_verify_locations(capath=bundle)
        else:
            context.load_verify_locations(cafile=bundle)
    except OSError as error:
        fault = f"ca_bundle: {_why(error, 'holds no certificates in PEM form')}"
    certificate, key = settings.client_certificate, settings.client_key
    if not fault and certificate is not None:
        try:
            # The password keeps OpenSSL from asking for one at the terminal.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            why = _why(error, "are no certificate and its key, unencrypted, in PEM form")
            fault = f"client_certificate, client_key: {why}"
    if fault:
        raise ConfigurationError(fault)
    return context


def _why(error: OSError, otherwise: str) -> str:
    if isinstance(error, ssl.SSLError):
        return otherwise
    return f"cannot be read: {(error.strerror or 'unknown fault').lower()}"


#: All that is in use, for a fork.
_living: weakref.WeakSet[Connections] = weakref.WeakSet()


def _reset_after_fork() -> None:
    for connections in list(_living):
        connections.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
