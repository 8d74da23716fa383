"""The hvac adapter: puts a live token on every request and replaces a dead one once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import hvac.adapters
import hvac.exceptions

from .masked import Sensitive

_UNSET: Any = object()


class TokenSource(Protocol):
    """What the adapter needs of `auth.TokenManager`."""

    def current(self, until: float | None = None) -> Sensitive:
        """A token that is good now; logs in or renews when it must."""
        ...

    def replace_if_dead(self, token: Sensitive, until: float | None = None) -> bool:
        """After a 403: whether the token was dead and another one is now current."""
        ...


class TokenAdapter(hvac.adapters.JSONAdapter):  # type: ignore[misc]
    """hvac's JSON adapter over a `RetryingSession`, with the token taken from a `TokenSource`.

    Besides hvac's own, `request` takes the keywords of `RetryingSession.request` and
    `vault_token`: the token for this request alone (`None`: send none).
    """

    def __init__(self, *args: Any, tokens: TokenSource | None = None, **kwargs: Any) -> None:
        self._local = threading.local()
        self._explicit: str | None = None
        self.tokens = tokens
        super().__init__(*args, **kwargs)

    @property
    def token(self) -> str | None:
        """The token that a request of this thread would carry now."""
        forced = getattr(self._local, "token", _UNSET)
        if forced is not _UNSET:
            return forced  # type: ignore[no-any-return]
        if self._explicit:
            return self._explicit
        return self.tokens.current().reveal() if self.tokens else None

    @token.setter
    def token(self, value: str | None) -> None:
        self._explicit = value or None

    @contextmanager
    def _forced(self, token: str | None) -> Iterator[None]:
        self._local.token = token
        try:
            yield
        finally:
            del self._local.token

    def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        raise_exception: bool = True,
        **kwargs: Any,
    ) -> Any:
        """See hvac; a 403 that came of a dead token is sent again with a new one."""
        forced = kwargs.pop("vault_token", _UNSET)
        if forced is _UNSET and (self._explicit or self.tokens is None):
            forced = self._explicit
        if forced is not _UNSET:
            with self._forced(forced):
                return super().request(method, url, headers, raise_exception, **kwargs)
        assert self.tokens is not None
        until = kwargs.get("until")
        for last in (False, True):
            token = self.tokens.current(until)
            denied = None
            with self._forced(token.reveal()):
                try:
                    answer = super().request(
                        method, url, dict(headers or {}), raise_exception, **kwargs
                    )
                except hvac.exceptions.Forbidden as error:
                    denied, answer = error, None
            if denied is None and getattr(answer, "status_code", 200) != 403:
                return answer
            if last or not self.tokens.replace_if_dead(token, until):
                if denied is not None:
                    raise denied
                return answer
        raise AssertionError("unreachable")
