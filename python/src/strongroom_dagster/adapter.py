"""The hvac adapter: puts a live token on every request and replaces a dead one once."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import hvac.adapters
import hvac.exceptions

from .answers import errors_of, is_dead, is_words
from .errors import ConfigurationError, InvalidResponseError, without_frames
from .masked import AS_VAULT_HAS_THEM, Sensitive
from .session import RetryingSession, is_whole
from .settings import Settings
from .transport import base_of

_UNSET: Any = object()

#: How often a request is sent whose token was dead, or may have been.
_TRIES = 2
#: The same for a token of few uses of which Vault says that it was dead: others use it up, too.
_TRIES_OF_THE_DEAD = 50

#: How Vault is: the answer is the status, sealed or not, and one attempt tells.
_PROBES = re.compile(r"sys/(health|seal-status|init|leader)")
#: What Vault answers without a token. A login would be for nothing, or impossible now.
_OPEN = re.compile(
    r"""sys/(health | seal-status | init | leader | unseal | decode-token
            | generate-(root|recovery-token|dr-operation-token)(/(attempt|update))?
            | rekey(-recovery-key)?/(init|update|verify)
            | storage/raft/(bootstrap|join) | wrapping/(lookup|pubkey) | mfa/validate
            | replication/((dr|performance)/)?status)
      | auth/.+/oidc/(auth_url|callback|poll)
      | identity/oidc/(provider/[^/]+/)?\.well-known/.+""",
    re.VERBOSE,
)
#: A login by its path, under a mount of one part: a role or a user may be called "login", too. Those
#: that hvac has are known by their method.
_LOGIN = re.compile(r"auth/[^/]+/login(/.+)?")


class TokenSource(Protocol):
    """What the adapter needs of `auth.TokenManager`."""

    @property
    def few_uses(self) -> bool:
        """Whether the token at hand is good for a number of requests only."""
        ...

    def current(self, until: float | None = None) -> Sensitive:
        """A token that is good now; logs in or renews when it must."""
        ...

    def replace_if_dead(
        self, token: Sensitive, until: float | None = None, *, named: bool = False
    ) -> bool:
        """After a 403: whether the token was dead, which `named` says that the 403 says, and
        another one is now current."""
        ...


class TokenAdapter(hvac.adapters.JSONAdapter):  # type: ignore[misc]
    """hvac's JSON adapter over a `RetryingSession`, with the token taken from a `TokenSource`.

    Besides hvac's own, `request` takes the keywords of `RetryingSession.request` and
    `vault_token`: the token for this request alone (`None`: send none).
    """

    def __init__(self, *args: Any, tokens: TokenSource, **kwargs: Any) -> None:
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
        return self._explicit or self.tokens.current().reveal()

    @token.setter
    @without_frames()
    def token(self, value: str | None) -> None:
        if value and not _sendable(value):
            raise ConfigurationError(
                "the token holds a line break or another character that no header takes"
            )
        self._explicit = value or None

    @contextmanager
    def _forced(self, token: str | None) -> Iterator[None]:
        # A request that is interrupted by another one of its thread goes on as it was.
        before = getattr(self._local, "token", _UNSET)
        self._local.token = token
        try:
            yield
        finally:
            self._local.token = before

    @without_frames(hvac.exceptions.VaultError)
    def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        raise_exception: bool = True,
        **kwargs: Any,
    ) -> Any:
        """See hvac; a 403 that came of a dead token is sent again with a new one."""
        path = url.strip("/").removeprefix("v1/")
        # Whoever uses this adapter may have put another session into it.
        ours = isinstance(self.session, RetryingSession)
        if ours and _PROBES.fullmatch(path) and method.upper() in ("GET", "HEAD"):
            kwargs["once"] = True
        forced = kwargs.pop("vault_token", self._explicit or _UNSET)
        if forced is _UNSET and (_OPEN.fullmatch(path) or _is_login(method, path)):
            forced = None
        if forced is not _UNSET:
            return self._sent_with(forced, method, url, headers, raise_exception, **kwargs)
        until = kwargs.get("until")
        for attempt in itertools.count(1):
            token = self.tokens.current(until)
            denied = None
            try:
                answer = self._sent_with(
                    token.reveal(), method, url, dict(headers or {}), raise_exception, **kwargs
                )
            except hvac.exceptions.Forbidden as error:
                denied, answer = error, None
            if denied is None and getattr(answer, "status_code", 200) != 403:
                return answer
            words = errors_of(answer) if denied is None else denied.errors
            named = is_dead(words or ())
            tries = _TRIES_OF_THE_DEAD if named and self.tokens.few_uses else _TRIES
            # A body that was read while it was sent cannot be sent again.
            # What is not Vault's own refusal tells nothing of the token.
            last = attempt >= tries or not is_whole(kwargs) or not words or not is_words(words)
            if last or not self.tokens.replace_if_dead(token, until, named=named):
                if denied is not None:
                    raise denied
                return answer
        raise AssertionError("unreachable")

    def login(self, url: str, use_token: bool = True, **kwargs: Any) -> Any:
        """See hvac; a login needs no token. What hvac calls one to unwrap a token has it set."""
        if not self._explicit:
            kwargs.setdefault("vault_token", None)
        return super().login(url, use_token, **kwargs)

    def _sent_with(self, token: str | None, *args: Any, **kwargs: Any) -> Any:
        with self._forced(token):
            # As the JSONAdapter does, but for the numbers.
            answer = hvac.adapters.RawAdapter.request(self, *args, **kwargs)
            try:
                return answer.json(**AS_VAULT_HAS_THEM) if answer.status_code == 200 else answer
            except ValueError:
                return answer
            except RecursionError:
                pass
        raise InvalidResponseError(
            f"what answers at {self.base_uri} sends JSON that is nested too deeply",
            hint="is the address that of a Vault?",
        )


def _is_login(method: str, path: str) -> bool:
    return method.upper() in ("POST", "PUT") and _LOGIN.fullmatch(path) is not None


def _sendable(token: object) -> bool:
    """Whether a header takes it; if it is a token is for Vault to say."""
    return (
        isinstance(token, str)
        and token.isascii()
        and token == token.strip()
        and not {"\r", "\n"} & set(token)
    )


def adapter_for(settings: Settings, session: RetryingSession, tokens: TokenSource) -> TokenAdapter:
    """The adapter of a client for its own reads."""
    return TokenAdapter(
        base_uri=base_of(settings), token="", session=session, namespace=settings.namespace,
        tokens=tokens,
    )  # fmt: skip
