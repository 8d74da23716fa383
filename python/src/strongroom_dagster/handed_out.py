"""The hvac client that is handed out: plain hvac for whoever uses it, our session underneath.

What is set on it, a token for example, is its own affair: the client's reads have another adapter
and another session. What fails is one of our errors, and for code that was written for plain
hvac a `requests.ConnectionError` besides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import hvac
import requests.exceptions

from .adapter import TokenAdapter, TokenSource
from .errors import ConfigurationError, TLSVerificationError, VaultUnavailableError
from .masked import Sensitive
from .session import RetryingSession, own_certificate
from .settings import Settings
from .transport import base_of

T = TypeVar("T")


class HvacUnavailableError(VaultUnavailableError, requests.exceptions.ConnectionError):
    """`VaultUnavailableError` over `VaultSecrets.hvac`."""


class HvacTLSError(TLSVerificationError, HvacUnavailableError, requests.exceptions.SSLError):
    """`TLSVerificationError` over `VaultSecrets.hvac`."""


def hvac_for(settings: Settings, session: HvacSession, tokens: TokenSource) -> hvac.Client:
    """An hvac client to hand out."""
    return hvac.Client(
        url=base_of(settings),
        # All that hvac would take from the environment or the home is given, if only as nothing.
        token="",
        cert=own_certificate(settings) or (),
        verify=settings.ca_bundle or True,
        session=session,
        namespace=settings.namespace,
        adapter=functools.partial(TokenAdapter, tokens=_Tokens(tokens)),
    )


class HvacSession(RetryingSession):
    """The session under it."""

    def request(self, method: str, url: str, **keywords: Any) -> requests.Response:  # type: ignore[override]
        """See `RetryingSession.request`.

        Raises:
            ConfigurationError: the URL is not of the client's Vault; whoever sets another one, on
                the client of hvac for example, would send our token there.
        """
        if _origin(url) != _origin(base_of(self._settings)):
            raise ConfigurationError(
                f"this client speaks to {self._settings.address} and to nobody else",
                hint="make a client of its own for another address",
            )
        return _for_requests(super().request, method, url, **keywords)


def _origin(url: str) -> tuple[str, str]:
    """Scheme, and host with port, as they are written; empty if it is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc.lower()


class _Tokens:
    """A `TokenSource`, whose logins may fail as well."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    @property
    def few_uses(self) -> bool:
        return self._tokens.few_uses

    def current(self, until: float | None = None) -> Sensitive:
        return _for_requests(self._tokens.current, until)

    def replace_if_dead(
        self, token: Sensitive, until: float | None = None, *, named: bool = False
    ) -> bool:
        return _for_requests(self._tokens.replace_if_dead, token, until, named=named)


def _for_requests(call: Callable[..., T], *args: Any, **keywords: Any) -> T:
    try:
        return call(*args, **keywords)
    except VaultUnavailableError as error:
        kind = HvacTLSError if isinstance(error, TLSVerificationError) else HvacUnavailableError
        found = kind(error.message, hint=error.hint)
    raise found
