"""From what an attempt raised to words, and whether another attempt may bring something else.

Nothing of the exception itself goes on: it holds the request, and so the token.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
from typing import Any

import requests.exceptions
import urllib3.exceptions

from .errors import (
    ConfigurationError,
    InvalidResponseError,
    StrongroomError,
    TLSVerificationError,
    VaultUnavailableError,
)
from .settings import Settings, host_of

#: OpenSSL's reasons that another attempt may not meet again. All others come of what the two
#: sides are, and stay.
_TLS_MAY_HEAL = re.compile(
    r"EOF|CLOSE_NOTIFY|BAD_RECORD_MAC|INTERNAL_ERROR|USER_CANCELLED|SHUTDOWN|RECORD_OVERFLOW"
)
_NEVER_SENT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ClosedPoolError,
    urllib3.exceptions.EmptyPoolError,
)
_MAY_HEAL = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


def fault_of(error: BaseException, settings: Settings) -> StrongroomError | tuple[str, bool]:
    """What went wrong in an attempt.

    Returns:
        An error for what will not heal; else words, and whether nothing had been sent.
    """
    chain = _chain(error)
    where = f"vault at {settings.address}"
    if lasting := _tls_fault(chain, settings) or _proxy_fault(chain, settings):
        return lasting
    for item in chain:
        if isinstance(item, urllib3.exceptions.DecodeError):
            return InvalidResponseError(f"the answer of {where} is not encoded as it says")
        if isinstance(item, urllib3.exceptions.InvalidHeader) or type(item) is (
            http.client.HTTPException  # of more headers than it reads, or of what transport refuses
        ):
            return InvalidResponseError(
                f"the answer of {where} has headers that contradict each other or are none, or too "
                "many, or chunks that are none",
                hint="is there a proxy in between?",
            )
        if isinstance(
            item, (http.client.BadStatusLine, http.client.LineTooLong, http.client.UnknownProtocol)
        ) and not isinstance(item, http.client.RemoteDisconnected):
            return InvalidResponseError(
                f"what answers at {settings.address} does not speak HTTP",
                hint="is the address right? does it have to be https://?",
            )
    refused = isinstance(error, requests.exceptions.RequestException)
    if isinstance(error, ValueError) or (refused and not isinstance(error, _MAY_HEAL)):
        return ConfigurationError(
            f"the request to {where} cannot be sent: {type(error).__name__}",
            hint="look at the address, the proxy, the namespace, the token and the headers",
        )
    by_proxy = any(isinstance(item, urllib3.exceptions.ProxyError) for item in chain)
    words = _describe(chain)
    if by_proxy and settings.proxy:
        words = f"proxy {host_of(settings.proxy)}: {words}"
    return words, any(isinstance(item, _NEVER_SENT) for item in chain)


def ignored_proxy(settings: Settings) -> str:
    """For the hint of an error: a variable that other programs obey, and this one does not."""
    if settings.proxy or settings.address.startswith("unix://"):
        return ""
    scheme = settings.address.split(":")[0].lower()
    return _ignored([f"{scheme}_proxy", "all_proxy"], "proxy or VAULT_HTTP_PROXY")


def _ignored(names: list[str], instead: str) -> str:
    for name in [*(name.upper() for name in names), *names]:
        if os.environ.get(name):
            return f"{name} is not read here: set {instead}"
    return ""


def _tls_fault(chain: list[BaseException], settings: Settings) -> StrongroomError | None:
    where = f"vault at {settings.address}"
    if settings.proxy and any(isinstance(item, urllib3.exceptions.ProxyError) for item in chain):
        where = f"the proxy {host_of(settings.proxy)}"
    for item in chain:
        if isinstance(item, ssl.SSLCertVerificationError):
            hint = "renew the certificate, or set ca_bundle or tls_server_name"
            if settings.ca_bundle is None:
                names = [
                    "requests_ca_bundle", "curl_ca_bundle", "vault_skip_verify", "vault_cacert_bytes"
                ]  # fmt: skip
                if ignored := _ignored(names, "ca_bundle or VAULT_CACERT"):
                    hint = f"{hint}; {ignored}"
            return TLSVerificationError(
                f"certificate of {where} did not verify: "
                f"{item.verify_message or 'verification failed'}",
                hint=hint,
            )
    for item in chain:
        if not isinstance(item, ssl.SSLError) or isinstance(
            item, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
        ):
            continue
        reason = item.reason or ""
        if reason and not _TLS_MAY_HEAL.search(reason):
            return TLSVerificationError(
                f"no TLS with {where}: {reason.replace('_', ' ').lower()}",
                hint="does it speak TLS 1.2 or newer there? does it want a client_certificate?",
            )
    return None


def _proxy_fault(chain: list[BaseException], settings: Settings) -> StrongroomError | None:
    for item in chain:
        # http.client says it in words only.
        found = (
            re.match(r"Tunnel connection failed: (\d{3})", str(item.args[0]))
            if (type(item) is OSError and item.args)
            else None
        )
        if found and found[1].startswith("4"):
            return VaultUnavailableError(
                f"the proxy {host_of(settings.proxy or '')} does not connect to "
                f"{settings.address}: status {found[1]}",
                hint="are user and password of the proxy right, and may it be used for vault?",
            )
    return None


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        item = todo.pop()
        if not isinstance(item, BaseException) or any(item is other for other in found):
            continue
        found.append(item)
        todo += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
    return found


def _describe(chain: list[BaseException]) -> str:
    for item in chain:
        if isinstance(item, OSError) and item.strerror:
            return item.strerror.lower()
    late = (TimeoutError, requests.exceptions.Timeout, urllib3.exceptions.TimeoutError)
    if any(isinstance(item, late) for item in chain):
        return "timeout"
    return type(chain[0]).__name__
