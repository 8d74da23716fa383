"""An HTTP session that retries what may heal and nothing else.

It is the session under `hvac.Client`, so that everything done through hvac gets the same
behaviour. What it is not: it knows nothing of tokens and logins (see `auth`) nor of caching, and
the connections are in `transport`.
"""

from __future__ import annotations

import email.utils
import json
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import requests
import requests.adapters
import requests.exceptions
import urllib3.exceptions

from .answers import FINAL, REFUSED, errors_of
from .clock import Clock
from .errors import (
    ClosedError,
    ConfigurationError,
    InvalidResponseError,
    StrongroomError,
    VaultUnavailableError,
    closed,
)
from .faults import fault_of, ignored_proxy
from .masked import Masked
from .settings import Settings
from .transport import Connections

log: logging.Logger = logging.getLogger("strongroom_dagster")

_SAFE_METHODS = frozenset({"GET", "LIST", "HEAD", "OPTIONS"})
_CHUNK = 64 * 1024
_LONGEST_TIMEOUT = 1e6  # seconds; a socket takes no arbitrary number
#: What hvac passes on of its own defaults; all of it is in the settings here.
_SETTLED = ("timeout", "proxies", "allow_redirects")


class CertificateFileError(ConfigurationError, OSError):
    """The certificate of one request cannot be used: for code that was written for requests, an
    `OSError` too."""


class RetryingSession(Masked, requests.Session):
    """`requests.Session` with retries, an overall deadline and a bounded body.

    `request` takes five keywords more than its base: `until` (the time on the clock at which
    the last attempt must have ended), `idempotent` (a POST or PUT that may be sent again),
    `once` (one attempt, whatever comes), `read_timeout` (seconds, instead of the one in the
    settings) and `although_closed` (to take back what came after the closing). The body of an answer to `stream=True` is left to the caller, without a bound.
    """

    def __init__(self, settings: Settings, clock: Clock, connections: Connections) -> None:
        super().__init__()
        self._settings = settings
        self._clock = clock
        self._closed = False
        self._streams: weakref.WeakSet[requests.Response] = weakref.WeakSet()
        self._left_to_parent: list[Any] = []
        self.requests_sent: int = 0
        self.trust_env = False  # no .netrc, no proxy and no CA bundle by accident
        self.headers["Accept-Encoding"] = "identity"
        # Only for hvac, which asks; the connections have their own.
        self.verify: bool | str | None = settings.ca_bundle or True
        self.cert: str | tuple[str, str] | None = own_certificate(settings)
        self._local = threading.local()
        if settings.proxy:
            self.proxies: dict[str, str] = {"http": settings.proxy, "https": settings.proxy}
        self.mount("https://", connections)
        self.mount("http://", connections)
        _living.add(self)

    def request(  # type: ignore[override]
        self,
        method: str,
        url: str,
        *,
        until: float | None = None,
        idempotent: bool = False,
        once: bool = False,
        read_timeout: float | None = None,
        although_closed: bool = False,
        **kwargs: Any,
    ) -> requests.Response:
        """One call with all its attempts.

        Returns:
            The answer: any status that a repeat will not change, or the last one before the
            deadline.

        Raises:
            ClosedError: the client was closed.
            ConfigurationError: it could not be sent as it is.
            VaultUnavailableError: no answer before the deadline, or none that a repeat is
                allowed for.
            TLSVerificationError: the certificate did not verify, or there is no common TLS.
            InvalidResponseError: longer than `Settings.max_response_bytes`, or no HTTP.
        """
        for name in _SETTLED:
            kwargs.pop(name, None)
        with self._over(kwargs.pop("cert", None), kwargs.pop("verify", None)):
            return self._repeat(
                method, url, until, read_timeout or self._settings.read_timeout, kwargs,
                idempotent=idempotent, once=once, although_closed=although_closed,
            )  # fmt: skip

    def _repeat(
        self,
        method: str,
        url: str,
        until: float | None,
        read_timeout: float,
        kwargs: dict[str, Any],
        *,
        idempotent: bool,
        once: bool,
        although_closed: bool,
    ) -> requests.Response:
        settings, clock = self._settings, self._clock
        end = clock.now() + settings.deadline if until is None else until
        # A file that is read while it is sent is not there any more for a second attempt.
        whole = is_whole(kwargs)
        safe = whole and (idempotent or method.upper() in _SAFE_METHODS)
        attempt = 0
        before: requests.Response | None = None  # the answer to the attempt before
        while True:
            if self._closed and not although_closed:
                raise closed()
            left = end - clock.now()
            response, fault, unsent = self._attempt(method, url, left, read_timeout, kwargs)
            if response is None and (left < read_timeout or clock.now() >= end):
                response = before  # it was given what was left of the time, and no more
            may_repeat = (unsent or safe) and not once
            if response is not None:
                status = response.status_code
                undone = status in REFUSED and (
                    # A gateway says 503 of an answer that it lost, too.
                    status != 503 or bool(not kwargs.get("stream") and errors_of(response))
                )
                lost = status >= 500 and status not in FINAL
                may_repeat = not once and ((undone and whole) or (lost and safe))
                fault = f"status {status}"
            pause = self._pause(attempt, response)
            if not may_repeat or clock.now() + pause >= end:
                if response is not None:
                    return response
                raise self._given_up(attempt + 1, fault, sent=not (unsent or safe or once))
            before = None
            if response is not None:
                response.close()
                before = None if kwargs.get("stream") else response
            attempt += 1
            log.info("vault: %s; attempt %d in %.2f s", fault, attempt + 1, pause)
            clock.sleep(pause)

    def _given_up(self, attempts: int, fault: str, *, sent: bool) -> VaultUnavailableError:
        many = f"{attempts} attempt{'s' if attempts > 1 else ''}"
        message = f"vault at {self._settings.address} gave no answer after {many}: {fault}"
        if sent:
            message += "; it was not sent again, since it may have been done"
        hint = f"is it running, unsealed and reachable from here? {ignored_proxy(self._settings)}"
        return VaultUnavailableError(message, hint=hint.rstrip())

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
            max(0.001, min(settings.connect_timeout, remaining, _LONGEST_TIMEOUT)),
            max(0.001, min(read_timeout, remaining, _LONGEST_TIMEOUT)),
        )
        end = self._clock.now() + remaining
        stream = bool(kwargs.get("stream"))
        self.requests_sent += 1
        fault: StrongroomError | tuple[str, bool]
        try:
            response = super().request(
                method, url, timeout=timeout, allow_redirects=False, **{**kwargs, "stream": True}
            )
            _forget_what_was_sent(response)
            if stream:
                self._streams.add(response)
                return response, "", False
            _read_body(response, settings.max_response_bytes, end, self._clock)
            if _cut_short(response, method):
                return None, "an answer that was cut short", False
            _read_as_utf_8(response)
            return response, "", False
        except (
            requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError
        ) as error:  # fmt: skip
            # Only what it was: the error itself holds the request with its token.
            fault = fault_of(error, settings)
        if isinstance(fault, StrongroomError):
            raise fault
        return None, *fault

    @contextmanager
    def _over(self, cert: Any, verify: Any) -> Iterator[None]:
        """Connections with another certificate or other authorities, for one request: a login
        by certificate through hvac. `verify=False` is not heard."""
        settings, own = self._settings, own_certificate(self._settings)
        first, *rest = (cert,) if isinstance(cert, str) else cert or own or ("",)
        pair = (first, *(rest if any(rest) else [first])) if first else None
        bundle = verify if isinstance(verify, str) else settings.ca_bundle
        certificate, key = pair or (None, None)
        others: Connections | None = None
        fault = ""
        try:
            if pair != own or bundle != settings.ca_bundle:
                others = Connections(
                    replace(
                        settings, client_certificate=certificate, client_key=key, ca_bundle=bundle
                    )
                )
        except ConfigurationError as error:
            fault = error.message
        if fault:
            raise CertificateFileError(fault)
        # A request that is interrupted by another one of its thread goes on as it was.
        before = getattr(self._local, "connections", None)
        self._local.connections = others
        try:
            yield
        finally:
            self._local.connections = before
            if others is not None:
                others.close()

    def get_adapter(self, url: str) -> requests.adapters.BaseAdapter:
        """The connections of the request that this thread is at, or what is mounted."""
        found = getattr(self._local, "connections", None)
        return super().get_adapter(url) if found is None else found

    def get_redirect_target(self, resp: Any) -> None:  # noqa: ARG002
        """None: a redirection is an answer. A token does not go where an answer sends it."""
        return

    def _pause(self, attempt: int, response: requests.Response | None) -> float:
        """Seconds before the next attempt: full jitter, and at least what Retry-After asks for."""
        ceiling = min(
            self._settings.backoff_cap, self._settings.backoff_base * 2 ** min(attempt, 30)
        )
        pause = self._clock.uniform(0.0, ceiling)
        return pause if response is None else max(pause, _retry_after(response))

    def shut(self) -> None:
        """Closes the connections for good: whoever sends something afterwards gets an error."""
        self._closed = True
        self.close()

    def reset_after_fork(self) -> None:
        """In the child: counts anew, and leaves answers that were being read to the parent."""
        self.requests_sent = 0
        jar = requests.cookies.RequestsCookieJar()
        self.cookies: requests.cookies.RequestsCookieJar = jar  # the old one's lock may be held
        for response in list(self._streams):
            # Kept, since closing it could wait for a thread that is not here.
            self._left_to_parent.append(response.raw)
            response.raw = _LeftToParent()


def own_certificate(settings: Settings) -> tuple[str, str] | None:
    """As requests takes it: the certificate's file and the key's."""
    certificate, key = settings.client_certificate, settings.client_key
    return (certificate, key) if certificate and key else None


class _LeftToParent:
    """The body of an answer of which the parent of a fork reads the rest."""

    def close(self) -> None:
        """Nothing: the connection is the parent's."""

    release_conn = close

    def __getattr__(self, name: str) -> Any:
        raise ClosedError(
            "this answer belongs to the process that asked for it", hint="ask again after the fork"
        )


def is_whole(keywords: Mapping[str, Any]) -> bool:
    """Whether the body of a request is there as a whole, so that it can be sent again."""
    data = keywords.get("data")
    return not keywords.get("files") and (
        data is None or isinstance(data, (str, bytes, bytearray, Mapping, list, tuple))
    )


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


def _forget_what_was_sent(response: requests.Response) -> None:
    """Takes the token and the payload out of an answer, which somebody may keep, or pickle."""
    response.request.headers.pop("X-Vault-Token", None)
    response.request.body = None


def _cut_short(response: requests.Response, method: str) -> bool:
    """Whether the connection was closed before the answer was whole (RFC 9112, 6.3 and 8).

    A body that is shorter than announced raises by itself. One that announces nothing ends with
    the connection; if it is to be JSON, that tells whether it was all.
    """
    headers = response.headers
    if method.upper() == "HEAD" or response.status_code in (204, 304):
        return False
    if "Content-Length" in headers or "Transfer-Encoding" in headers:
        return False
    if not headers.get("Content-Type", "").startswith("application/json"):
        return False
    try:
        json.loads(response.content)
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    except ValueError:
        return True
    except RecursionError:
        pass
    return False


def _read_as_utf_8(response: requests.Response) -> None:
    """JSON is UTF-8 whatever charset its header names (RFC 8259, 8.1 and 11), and a value is never
    guessed: requests would put other characters into it, without a word.

    Raises:
        InvalidResponseError: it is JSON, and not UTF-8.
    """
    try:
        response.content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        response.encoding = "utf-8"
        return
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("application/json") or response.content.lstrip()[:1] == b"{":
        raise InvalidResponseError(
            "vault's answer is not UTF-8", hint="is there a proxy in between?"
        )


def _retry_after(response: requests.Response) -> float:
    """Seconds; a date is taken relative to the server's own, so that no clock has to agree."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(response.headers.get("Date", ""))
        return max(0.0, (when - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


#: All that is in use, for a fork.
_living: weakref.WeakSet[RetryingSession] = weakref.WeakSet()


def _reset_after_fork() -> None:
    for session in list(_living):
        session.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
