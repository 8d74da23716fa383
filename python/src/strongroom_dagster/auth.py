"""Keeps one good token, without a thread of its own.

Whoever needs the token checks its age. The first to find it due renews it or logs in, while the
others go on with the old one for as long as it is valid. So there is nothing that can die
silently, and an idle process costs Vault nothing.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .answers import errors_of, is_transient, words_of
from .clock import Clock
from .errors import (
    AuthenticationError,
    InvalidResponseError,
    StrongroomError,
    VaultUnavailableError,
    closed,
)
from .lease import Lifetime, seconds_of
from .masked import MASK, Masked, Sensitive
from .methods import AuthMethod
from .settings import Settings, host_of
from .singleflight import SingleFlight

log: logging.Logger = logging.getLogger("strongroom_dagster")

_USUAL_MOUNTS = frozenset({"approle", "jwt", "kubernetes"})
#: A 403 that may or may not mean a dead token replaces it at most once in this many seconds.
REPLACE_AT_MOST_EVERY = 10.0


class Token(Masked, Lifetime):
    """A token and its times on the clock.

    Attributes:
        value: the token.
        born: when it was asked for.
        uses: requests that it is good for; 0: any number.
        pid: the process that logged in; a forked child must not revoke it.
    """

    __slots__ = ("born", "pid", "uses", "value")

    def __init__(self, auth: Mapping[str, Any], asked_at: float, jitter: float) -> None:
        super().__init__()
        self.value: Sensitive = Sensitive(str(auth["client_token"]))
        self.pid: int = os.getpid()
        self.born: float = asked_at
        uses = auth.get("num_uses")
        self.uses: int = uses if isinstance(uses, int) else 0
        self.grant(
            # 0: a root token, or one without a lifetime.
            seconds_of(auth, "lease_duration", "the login") or math.inf,
            asked_at,
            renewable=bool(auth.get("renewable")),
            jitter=jitter,
        )

    def __repr__(self) -> str:
        return f"Token(ttl={self.ttl:.0f}, renewable={self.renewable})"


class TokenManager:
    """Logs in with one method and keeps its token alive.

    Args:
        method: how to log in.
        send: sends a request through the adapter: `send(method, path, **keywords)`.
    """

    def __init__(
        self,
        method: AuthMethod,
        settings: Settings,
        clock: Clock,
        send: Callable[..., Any],
    ) -> None:
        self.method = method
        self._settings = settings
        self._clock = clock
        self._send = send
        self._flights: SingleFlight[Token] = SingleFlight(clock)
        self._token: Token | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._replaced_at = -math.inf
        self.logins: int = 0
        self.renewals: int = 0

    def reset_after_fork(self) -> None:
        """The child goes on with the token; only what belonged to threads is made new."""
        self._lock = threading.Lock()
        self._flights.reset()

    @property
    def held(self) -> Token | None:
        """The token at hand, good or not; None before the first login."""
        return self._token

    @property
    def few_uses(self) -> bool:
        """Whether the token at hand is good for a number of requests only."""
        held = self._token
        return held is not None and held.uses > 0

    def current(self, until: float | None = None) -> Sensitive:
        """A token that is good now. See `token`."""
        return self.token(until).value

    def token(self, until: float | None = None) -> Token:
        """The token, renewed or replaced if that is due.

        Raises:
            AuthenticationError: the login was refused.
            ClosedError: the client was closed.
            VaultUnavailableError: no token, and Vault did not answer in time.
        """
        token = self._token
        now = self._clock.now()
        if token is not None and now < token.renew_at:
            return token
        if token is not None and now < token.expires_at and self._flights.busy("token"):
            return token
        end = now + self._settings.deadline if until is None else until
        return self._flights.do("token", lambda: self._refresh(end), end)

    def _refresh(self, until: float) -> Token:
        token, now = self._token, self._clock.now()
        if token is not None and now < token.renew_at:
            return token
        alive = token is not None and now < token.expires_at
        if token is not None and alive:
            # Vault may be away for longer than this caller has time, but the token is still good.
            until = min(until, now + self._settings.revalidate_deadline)
            try:
                if token.renewable and self._renew(token, until):
                    return token
                return self._login(until)
            except (VaultUnavailableError, InvalidResponseError) as error:
                left = token.postpone(self._clock.now(), token.expires_at)
                if left <= 0:
                    raise
                log.warning(
                    "cannot renew the vault token (%s); it is good for %.0f s", error.message, left
                )
                return token
        return self._login(until)

    def _renew(self, token: Token, until: float) -> bool:
        """Renews it; False if Vault will not, so that a login is needed."""
        asked_at = self._clock.now()
        try:
            answer = self.call(
                "post", "auth/token/renew-self", token=token.value.reveal(), until=until
            )
        except AuthenticationError as error:
            log.info("vault did not renew the token (%s); logging in again", error.message)
            return False
        auth = answer.get("auth") or {}
        token.grant(
            seconds_of(auth, "lease_duration", "auth/token/renew-self"),
            asked_at,
            renewable=bool(auth.get("renewable")),
            jitter=self._jitter(),
        )
        self.renewals += 1
        return token.expires_at > self._clock.now()

    def _login(self, until: float) -> Token:
        if self._closed:
            raise closed()
        asked_at = self._clock.now()
        auth = self.method.login(_Bound(self, until))
        token = Token(auth, asked_at, self._jitter())
        self.logins += 1
        log.info("logged in to vault by %s; token lives %s s", self.method.describe(), token.ttl)
        with self._lock:
            late = self._closed
            if not late:
                self._token = token
        if late:  # closed while Vault was answering: nobody else would ever revoke this token
            self._revoke(token, until)
            raise closed()
        return token

    def _jitter(self) -> float:
        return self._clock.uniform(-0.1, 0.1)

    def replace_if_dead(self, token: Sensitive, until: float | None = None) -> bool:
        """After a 403: whether the token is dead and another one is now current.

        Raises:
            AuthenticationError: it is dead, and the login was refused.
        """
        held = self._token
        if held is None or held.value is not token:
            return True  # somebody else has replaced it already
        now = self._clock.now()
        end = now + self._settings.deadline if until is None else until
        verdict = self._look_up(token, end)
        if verdict == "alive":
            return False
        if verdict == "unclear":
            # A token without the default policy may not look itself up.
            if now - max(held.born, self._replaced_at) < REPLACE_AT_MOST_EVERY:
                return False
            self._replaced_at = now

        led = False

        def login() -> Token:
            nonlocal led
            led = True
            held = self._token
            return held if held is not None and held.value is not token else self._login(end)

        # A renewal of the dead token may be under way: what that flight brings is waited for,
        # and looked at.
        while not led and (held := self._token) is not None and held.value is token:
            self._flights.do("token", login, end)
        now_held = self._token
        # A token file that still holds the dead token is no replacement.
        return now_held is None or now_held.value.reveal() != token.reveal()

    def _look_up(self, token: Sensitive, until: float) -> str:
        answer = self._send(
            "get",
            "/v1/auth/token/lookup-self",
            vault_token=token.reveal(),
            until=until,
            raise_exception=False,
        )
        if getattr(answer, "status_code", 200) != 403:
            return "alive"  # or no verdict on the token
        # OpenBao and Vault before 1.13 say "permission denied" for a dead token too.
        return "dead" if "invalid token" in words_of(answer) else "unclear"

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        until: float | None = None,
        json: Mapping[str, Any] | None = None,
        idempotent: bool = True,
    ) -> dict[str, Any]:
        """One request of a login.

        Raises:
            AuthenticationError: Vault refused it.
            InvalidResponseError: what answered is no Vault, or has no such login.
            VaultUnavailableError: no answer in time, or a 5xx until then.
        """
        keywords: dict[str, Any] = {"json": json} if json is not None else {}
        answer = self._send(
            method,
            f"/v1/{path}",
            vault_token=token,
            until=until,
            idempotent=idempotent,
            raise_exception=False,
            **keywords,
        )
        if isinstance(answer, dict):
            return answer
        status = getattr(answer, "status_code", 200)
        if status not in (200, 204) and is_transient(status):
            raise VaultUnavailableError(f"vault failed at the login: {words_of(answer)}")
        if status not in (400, 401, 403) or not errors_of(answer):
            # Vault refuses a login in its own words. All else is another server, another path.
            raise InvalidResponseError(
                f"{self._settings.address} answered the login by {self.method.describe()} with "
                f"status {status} where vault's JSON was expected{_sent_on(answer)}",
                hint="is the address right, and the mount of the login?",
            )
        words = _without(words_of(answer), path, token, json)
        raise AuthenticationError(
            f"vault refused the login by {self.method.describe()}: {words}",
            hint="the credential is wrong, expired or used up; give a new one",
        )

    def close(self, until: float) -> None:
        """Revokes the token if it is ours, and with it all its leases; nothing logs in any more.

        Never raises.
        """
        with self._lock:
            self._closed = True
            token, self._token = self._token, None
        if token is not None:
            self._revoke(token, until)

    def _revoke(self, token: Token, until: float) -> None:
        if not self.method.owns_token or token.pid != os.getpid():
            return
        if self._clock.now() >= token.expires_at:
            return
        try:
            answer = self._send(
                "post",
                "/v1/auth/token/revoke-self",
                vault_token=token.value.reveal(),
                until=until,
                idempotent=True,
                although_closed=True,
                raise_exception=False,
            )
        except StrongroomError as error:
            self._stays(token, type(error).__name__)
            return
        status = getattr(answer, "status_code", 200)
        if status == 403 and "invalid token" not in words_of(answer):
            self._stays(token, "the policy does not allow update on auth/token/revoke-self")
        elif status >= 400 and status != 403:
            self._stays(token, f"status {status}")

    def _stays(self, token: Token, why: str) -> None:
        left = token.expires_at - self._clock.now()
        log.warning("could not revoke the vault token (%s); it ends by itself in %.0f s", why, left)


def _sent_on(answer: Any) -> str:
    """Where a redirection leads, for a message: only the server."""
    target = answer.headers.get("Location", "") if hasattr(answer, "headers") else ""
    return f" (it sends on to {host_of(target)})" if "://" in target else ""


def _without(words: str, path: str, token: str | None, payload: Mapping[str, Any] | None) -> str:
    """Vault's words without what was sent, which some of its messages repeat."""
    mount = re.fullmatch(r"auth/(.+)/login", path)
    inputs = [token, mount and mount[1], *(payload or {}).values()]
    # The usual mounts are no secret, and what is shorter is a part of many words.
    found = {x for x in inputs if isinstance(x, str) and len(x) >= 4 and x not in _USUAL_MOUNTS}
    found |= {json.dumps(text)[1:-1] for text in found}
    for text in sorted(found, key=len, reverse=True):
        words = words.replace(text, MASK)
    return words


class _Bound:
    """A `methods.Caller` with the deadline filled in."""

    def __init__(self, manager: TokenManager, until: float) -> None:
        self._manager = manager
        self._until = until

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        json: Mapping[str, Any] | None = None,
        idempotent: bool = True,
    ) -> dict[str, Any]:
        return self._manager.call(
            method, path, token=token, until=self._until, json=json, idempotent=idempotent
        )
