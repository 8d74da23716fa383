"""Errors of the client. None of them carries a secret, a token or a request.

Each has a message (what was wrong) and, apart from it, a hint (what to do).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class StrongroomError(Exception):
    """Base of every error that this package raises.

    Args:
        message: what was wrong, lowercase, with the bad value quoted.
        hint: what to do about it; empty when there is nothing to say.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigurationError(StrongroomError, ValueError):
    """A setting or an argument is missing or malformed; nothing was sent."""


class AuthenticationError(StrongroomError):
    """Vault refused the login, or the token is dead and cannot be replaced."""


class AccessDeniedError(StrongroomError):
    """The token is alive but its policies do not allow this path (403)."""


class SecretNotFoundError(StrongroomError, LookupError):
    """There is nothing at the path, or the version was deleted (404)."""


class FieldNotFoundError(StrongroomError, LookupError):
    """The secret exists but has no such field, or several and none was named."""


class RequestRefusedError(StrongroomError):
    """Vault refused the request with a 4xx that a retry will not change."""


class InvalidResponseError(StrongroomError):
    """An answer that is not what Vault's API documents."""


class VaultUnavailableError(StrongroomError):
    """Vault could not be reached, was sealed or kept failing until the deadline.

    Only this error allows an expired cache entry to be used (see `Settings.stale_if_error`).
    Over `VaultSecrets.hvac` it is a `requests.ConnectionError` too.
    """


class TLSVerificationError(VaultUnavailableError):
    """The server's certificate is expired, for another name or from an unknown CA, or there is
    no TLS that both sides speak.

    Not retried: it does not heal within a deadline, and may be an attack.
    """


class ClosedError(ConfigurationError):
    """The client was closed, by `close` or at the end of its `with` block or Dagster step."""


def needs(what: str, package: str, extra: str, name: str | None) -> ImportError:
    """The error of what needs a package that is an extra here, and not installed."""
    return ImportError(
        f"{what} needs {package} (pip install 'strongroom-dagster[{extra}]')", name=name
    )


def closed() -> ClosedError:
    """The error of whoever comes too late."""
    return ClosedError(
        "the vault client is closed",
        hint="read what you need inside of its with block, or of the Dagster step",
    )


class SecretPicklingError(StrongroomError, TypeError):
    """Somebody tried to pickle a secret, which would write it to disk or send it on."""


def without_frames(
    *kinds: type[Exception],
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """An error leaves the decorated call without the frames below it, which handle credentials and
    values: who keeps the local variables of a traceback (an error tracker, a test runner) would
    keep those.

    Args:
        kinds: of errors besides our own.
    """

    of: tuple[type[Exception], ...] = (StrongroomError, *kinds)

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(call)
        def outermost(*args: P.args, **keywords: P.kwargs) -> T:
            try:
                return call(*args, **keywords)
            except of as error:
                found = error.with_traceback(None)
            del args, keywords
            try:
                raise found
            finally:
                del found  # its traceback holds this frame

        return outermost

    return decorate
