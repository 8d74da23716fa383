"""Keeps one good token, without a thread of its own.

Whoever needs the token checks its age. The first to find it due renews it or logs in, while the
others go on with the old one for as long as it is valid. So there is nothing that can die
silently, and an idle process costs Vault nothing.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from .answers import errors_of, is_dead, is_transient, words_of
from .clock import Clock
from .errors import (
    AuthenticationError,
    InvalidResponseError,
    StrongroomError,
    VaultUnavailableError,
    closed,
    without_frames,
)
from .lease import Lifetime, seconds_of
from .masked import Masked, Sensitive
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
        sent: those that it was given out for, counted where `uses` is not 0.
        revocable: Vault revokes no batch token; it ends by itself.
        kept: whether one use more is held back, so that Vault does not end it.
        pid: the process that logged in; a forked child must not revoke it.
    """

    __slots__ = ("born", "kept", "pid", "revocable", "sent", "uses", "value")

    def __init__(self, auth: Mapping[str, Any], asked_at: float, jitter: float) -> None:
        super().__init__()
        self.value: Sensitive = Sensitive(str(auth["client_token"]))
        self.pid: int = os.getpid()
        self.born: float = asked_at
        uses = auth.get("num_uses")
        self.uses: int = uses if isinstance(uses, int) else 0
        self.sent: int = 0
        self.kept: bool = False
        self.revocable: bool = auth.get("token_type") != "batch"
        self.grant(
            # 0: a root token, or one without a lifetime.
            seconds_of(auth, "lease_duration", "the login") or math.inf,
            asked_at,
            renewable=bool(auth.get("renewable")),
            jitter=jitter,
        )

    @property
    def spent(self) -> bool:
        """Whether it was given out for all the requests that it is good for."""
        return 0 < self.uses <= self.sent

    @property
    def ends_at(self) -> float:
        """When Vault forgets it, with all that hangs on it: at its last use or in the end."""
        return -math.inf if self.spent and not self.kept else self.expires_at

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
        self._kept: list[Token] = []
        self._lock = threading.RLock()
        self._closed = False
        self._replaced_at = -math.inf
        self.logins: int = 0
        self.renewals: int = 0

    def reset_after_fork(self) -> None:
        """The child goes on with the token; only what belonged to threads is made new.

        One of few uses stays the parent's: neither would know how many of them the other has taken.
        """
        self._lock = threading.RLock()
        if self.few_uses:
            self._token = None
        self._kept = []
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
        """A token that is good now, for one request. See `token`."""
        token = self.token(until)
        while not self._use(token):  # other threads were faster
            token = self.token(until)
        return token.value

    def _use(self, token: Token) -> bool:
        """Takes one of its uses; False if none is left."""
        if token.uses:
            with self._lock:
                if token.spent:
                    return False
                token.sent += 1
        return True

    def keep(self, until: float) -> Token:
        """A token for a lease to hang on. Of one of few uses another use is held back until the
        client is closed: with its last one Vault ends the token, and the lease with it.
        """
        while True:
            token = self.token(until)
            with self._lock:
                if token.uses > 1 and not token.kept:
                    token.uses -= 1
                    token.kept = True
                    now = self._clock.now()
                    self._kept = [*(t for t in self._kept if now < t.expires_at), token]
                if not token.spent:
                    return token

    def token(self, until: float | None = None) -> Token:
        """The token, renewed or replaced if that is due.

        Raises:
            AuthenticationError: the login was refused.
            ClosedError: the client was closed.
            VaultUnavailableError: no token, and Vault did not answer in time.
        """
        token = self._token
        now = self._clock.now()
        if token is not None and not token.spent:
            if now < token.renew_at:
                return token
            if now < token.expires_at and self._flights.busy("token"):
                return token
        end = now + self._settings.deadline if until is None else until
        return self._flights.do("token", lambda: self._refresh(end), end)

    @without_frames()
    def _refresh(self, until: float) -> Token:
        token, now = self._token, self._clock.now()
        if token is not None and token.spent:
            token = None
        if token is not None and now < token.renew_at:
            return token
        if token is not None and now < token.expires_at:
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
        if not self._use(token):
            return False
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

    @without_frames()
    def _login(self, until: float) -> Token:
        if self._closed:
            raise closed()
        before, asked_at = self._token, self._clock.now()
        auth = self.method.login(_Bound(self, until))
        token = Token(auth, asked_at, self._jitter())
        self.logins += 1
        log.info("logged in to vault by %s; token lives %s s", self.method.describe(), token.ttl)
        with self._lock:
            held = self._token
            late, overtaken = self._closed, held is not before
            if not (late or overtaken):
                self._token = token
        if not (late or overtaken):
            return token
        # Closed while Vault was answering, or interrupted by who has logged in meanwhile: nobody
        # else would ever revoke this token.
        self._revoke(token, until)
        if held is None:
            raise closed()
        return held

    def _jitter(self) -> float:
        return self._clock.uniform(-0.1, 0.1)

    def replace_if_dead(
        self, token: Sensitive, until: float | None = None, *, named: bool = False
    ) -> bool:
        """After a 403: whether the token is dead and another one is now current.

        Args:
            named: whether the 403 itself says that it is dead.

        Raises:
            AuthenticationError: it is dead, and the login was refused.
        """
        held = self._token
        if held is None or held.value is not token:
            return True  # somebody else has replaced it already
        now = self._clock.now()
        end = now + self._settings.deadline if until is None else until
        verdict = "dead" if named and held.uses else self._look_up(held, end)
        if verdict == "alive":
            return False
        if verdict == "dead":
            held.expires_at = -math.inf  # so that what hangs on it is known to be gone, too
        # One of few uses is replaced so often that once more is no storm; whether it was used up is
        # not known for sure, since an attempt that was repeated used it twice.
        if verdict == "unclear" and not held.uses:
            # A token without the default policy may not look itself up.
            if now - max(held.born, self._replaced_at) < REPLACE_AT_MOST_EVERY:
                return False
            self._replaced_at = now

        def login() -> Token:
            held = self._token
            return held if held is not None and held.value is not token else self._login(end)

        # A renewal of the dead token may be under way: what that flight brings is waited for,
        # and looked at.
        while (held := self._token) is not None and held.value is token:
            self._flights.do("token", login, end)
        now_held = self._token
        # A token file that still holds the dead token is no replacement.
        return now_held is None or now_held.value.reveal() != token.reveal()

    def _look_up(self, token: Token, until: float) -> str:
        if not self._use(token):
            return "unclear"
        answer = self._send(
            "get",
            "/v1/auth/token/lookup-self",
            vault_token=token.value.reveal(),
            until=until,
            raise_exception=False,
        )
        if getattr(answer, "status_code", 200) != 403:
            return "alive"  # or no verdict on the token
        # OpenBao and Vault before 1.13 say "permission denied" for a dead token too.
        return "dead" if is_dead(errors_of(answer)) else "unclear"

    @without_frames()
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
        if is_transient(status):
            words = words_of(answer, hide=_sent(path, token, json))
            raise VaultUnavailableError(f"vault failed at the login: {words}")
        if status not in (400, 401, 403) or not errors_of(answer):
            # Vault refuses a login in its own words. All else is another server, another path.
            raise InvalidResponseError(
                f"{self._settings.address} answered the login by {self.method.describe()} with "
                f"status {status} where vault's JSON was expected{_sent_on(answer)}",
                hint="is the address right, and the mount of the login?",
            )
        words = words_of(answer, hide=_sent(path, token, json))
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
            tokens = [t for t in (*self._kept, token) if t is not None]
            self._kept = []
        for token in dict.fromkeys(tokens):
            self._revoke(token, until)

    def _revoke(self, token: Token, until: float) -> None:
        if not self.method.owns_token or not token.revocable or token.pid != os.getpid():
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
        if status == 403 and not is_dead(errors_of(answer)) and not token.spent:
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


def _sent(path: str, token: str | None, payload: Mapping[str, Any] | None) -> set[str]:
    """What was sent with a login, which some of Vault's messages repeat."""
    mount = re.fullmatch(r"auth/(.+)/login", path)
    mounts = [mount[1], unquote(mount[1])] if mount else []
    inputs = [token, *mounts, *(payload or {}).values()]
    return {x for x in inputs if isinstance(x, str) and x not in _USUAL_MOUNTS}  # no secrets


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
