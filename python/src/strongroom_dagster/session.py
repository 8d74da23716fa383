"""A pooled HTTP session that retries what may heal and nothing else.

It is the session under `hvac.Client`, so that everything done through hvac gets the same
behaviour. What it is not: it knows nothing of tokens and logins (see `auth`) nor of caching.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import requests
import requests.adapters
import requests.exceptions
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions

from .clock import Clock
from .errors import InvalidResponseError, TLSVerificationError, VaultUnavailableError
from .settings import Settings

log = logging.getLogger("strongroom_dagster")

#: The base of URLs for a Vault behind a unix socket; the host is never resolved.
UNIX_BASE = "http://vault.unix"

#: Refused before anything was done: safe to repeat whatever the method.
#: 412: not yet replicated; 429: quota; 503: sealed or standby.
REFUSED = frozenset({412, 429, 503})
_SAFE_METHODS = frozenset({"GET", "LIST", "HEAD", "OPTIONS"})
_CHUNK = 64 * 1024


class _UnixConnection(urllib3.connection.HTTPConnection):
    def __init__(self, socket_path: str, timeout: Any) -> None:
        super().__init__("vault.unix", timeout=timeout)
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


class _UnixPool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, socket_path: str, size: int) -> None:
        super().__init__("vault.unix", maxsize=size)
        self._socket_path = socket_path

    def _new_conn(self) -> Any:
        return _UnixConnection(self._socket_path, self.timeout.connect_timeout)


class _UnixAdapter(requests.adapters.HTTPAdapter):
    """Sends every request of its prefix over one unix socket."""

    def __init__(self, socket_path: str, pool_size: int) -> None:
        super().__init__(max_retries=0)
        self._pool = _UnixPool(socket_path, pool_size)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:  # noqa: ARG002
        return str(request.path_url)

    def close(self) -> None:
        self._pool.close()
        super().close()


class _TLSAdapter(requests.adapters.HTTPAdapter):
    """TLS 1.2 at least, and another server name than the URL's host where one is set."""

    def __init__(self, settings: Settings) -> None:
        self._server_name = settings.tls_server_name
        bundle = settings.ca_bundle
        directory = bundle is not None and Path(bundle).is_dir()
        # With a bundle of its own it trusts nobody else.
        self._context = ssl.create_default_context(
            cafile=None if directory else bundle, capath=bundle if directory else None
        )
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        super().__init__(pool_connections=4, pool_maxsize=settings.pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        kwargs["ssl_context"] = self._context
        if self._server_name:
            kwargs["server_hostname"] = self._server_name
        super().init_poolmanager(*args, **kwargs)


class RetryingSession(requests.Session):
    """`requests.Session` with retries, an overall deadline and a bounded body.

    `request` takes three keywords more than its base: `until` (the time on the clock at which
    the last attempt must have ended), `idempotent` (a POST or PUT that may be sent again) and
    `read_timeout` (seconds, instead of the one in the settings).
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        super().__init__()
        self._settings = settings
        self._clock = clock
        self.requests_sent = 0
        self.trust_env = False  # no .netrc, no proxy and no CA bundle by accident
        self.headers["Accept-Encoding"] = "identity"
        if settings.proxy:
            self.proxies = {"http": settings.proxy, "https": settings.proxy}
        self.verify = settings.ca_bundle or True
        if settings.client_certificate and settings.client_key:
            self.cert = (settings.client_certificate, settings.client_key)
        if settings.address.startswith("unix://"):
            path = settings.address.removeprefix("unix://")
            self.mount(UNIX_BASE, _UnixAdapter(path, settings.pool_size))
        else:
            self.mount("https://", _TLSAdapter(settings))
            self.mount(
                "http://",
                requests.adapters.HTTPAdapter(
                    pool_connections=4, pool_maxsize=settings.pool_size, max_retries=0
                ),
            )

    def request(  # type: ignore[override]
        self,
        method: str,
        url: str,
        *,
        until: float | None = None,
        idempotent: bool = False,
        read_timeout: float | None = None,
        **kwargs: Any,
    ) -> requests.Response:
        """One call with all its attempts.

        Returns:
            The answer: any status that a repeat will not change, or the last one before the
            deadline.

        Raises:
            VaultUnavailableError: no answer before the deadline.
            TLSVerificationError: the certificate did not verify.
            InvalidResponseError: longer than `Settings.max_response_bytes`.
        """
        settings, clock = self._settings, self._clock
        end = clock.now() + settings.deadline if until is None else until
        safe = idempotent or method.upper() in _SAFE_METHODS
        kwargs.pop("timeout", None)
        kwargs["allow_redirects"] = False
        attempt = 0
        while True:
            remaining = end - clock.now()
            response, fault, may_repeat = self._attempt(
                method, url, remaining, read_timeout or settings.read_timeout, kwargs
            )
            if response is not None:
                status = response.status_code
                if status not in REFUSED and not (status >= 500 and safe):
                    return response
                fault, may_repeat = f"status {status}", True
            pause = self._pause(attempt, response)
            if not (may_repeat or safe) or clock.now() + pause >= end:
                if response is not None:
                    return response
                raise VaultUnavailableError(
                    f"vault at {settings.address} gave no answer after {attempt + 1} attempts: {fault}",
                    hint="is it running, unsealed and reachable from here?",
                )
            attempt += 1
            log.info("vault: %s; attempt %d in %.2f s", fault, attempt + 1, pause)
            clock.sleep(pause)

    def _attempt(
        self,
        method: str,
        url: str,
        remaining: float,
        read_timeout: float,
        kwargs: dict[str, Any],
    ) -> tuple[requests.Response | None, str, bool]:
        """One attempt: the answer, or what went wrong and whether nothing had been sent."""
        settings = self._settings
        timeout = (
            max(0.001, min(settings.connect_timeout, remaining)),
            max(0.001, min(read_timeout, remaining)),
        )
        end = self._clock.now() + remaining
        self.requests_sent += 1
        untrusted = ""
        try:
            response = super().request(method, url, timeout=timeout, stream=True, **kwargs)
            _read_body(response, settings.max_response_bytes, end, self._clock)
            if _cut_short(response):
                return None, "an answer that was cut short", False
            return response, "", False
        except requests.exceptions.ConnectTimeout:
            return None, "connect timeout", True
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            untrusted = _certificate_fault(error)
            if not untrusted:
                # Only the class: the error itself holds the request with its token.
                return None, _describe(error), _never_sent(error)
        raise TLSVerificationError(
            f"certificate of vault at {settings.address} did not verify: {untrusted}",
            hint="renew the certificate, or set ca_bundle or tls_server_name",
        )

    def _pause(self, attempt: int, response: requests.Response | None) -> float:
        """Seconds before the next attempt: full jitter, and at least what Retry-After asks for."""
        ceiling = min(
            self._settings.backoff_cap, self._settings.backoff_base * 2 ** min(attempt, 30)
        )
        pause = self._clock.uniform(0.0, ceiling)
        if response is not None:
            with contextlib.suppress(ValueError):  # the form of a date; Vault sends seconds
                pause = max(pause, float(response.headers.get("Retry-After", "0")))
        return pause


def _read_body(response: requests.Response, limit: int, end: float, clock: Clock) -> None:
    """Reads the whole body, so that neither its length nor a slow sender goes unbounded."""
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            size += len(chunk)
            if size > limit:
                raise InvalidResponseError(
                    f"vault's answer is longer than {limit} bytes",
                    hint="raise max_response_bytes if the secret is really that long",
                )
            if clock.now() > end:
                raise requests.exceptions.ReadTimeout("body was not complete before the deadline")
            chunks.append(chunk)
    except BaseException:
        response.close()
        raise
    response.raw.release_conn()
    response._content = b"".join(chunks)
    response._content_consumed = True  # type: ignore[attr-defined]


def _cut_short(response: requests.Response) -> bool:
    """Whether the connection was closed before the answer was whole.

    A body that is shorter than announced raises by itself. What does not is an end within the
    headers, which http.client takes for the end of the headers, and a proxy that announces
    nothing: an answer that may have a body then has neither length nor chunks, or is broken JSON.
    """
    if response.status_code in (204, 304):
        return False
    headers = response.headers
    if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
        return True
    if response.status_code != 200:
        return False
    if not headers.get("Content-Type", "").startswith("application/json"):
        return False
    try:
        json.loads(response.content)
    except ValueError:
        return True
    return False


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        item = todo.pop()
        if not isinstance(item, BaseException) or item in found:
            continue
        found.append(item)
        todo += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
    return found


def _certificate_fault(error: BaseException) -> str:
    for item in _chain(error):
        if isinstance(item, ssl.SSLCertVerificationError):
            return item.verify_message or "verification failed"
    return ""


def _never_sent(error: BaseException) -> bool:
    return any(
        isinstance(
            item, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
        )
        for item in _chain(error)
    )


def _describe(error: BaseException) -> str:
    for item in _chain(error):
        if isinstance(item, OSError) and item.strerror:
            return item.strerror.lower()
    return type(error).__name__
