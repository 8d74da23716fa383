"""Database credentials whose lease lives as long as the `with` block that asked for them.

A `DatabaseLease` hands out a user and password that are good for some time to come, renews their
lease when it is looked at, and replaces them when Vault will not renew any more. It has no
thread: what nobody asks for is not renewed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .auth import Token, TokenManager
from .clock import Clock
from .errors import (
    AccessDeniedError,
    ClosedError,
    ConfigurationError,
    InvalidResponseError,
    RequestRefusedError,
    SecretNotFoundError,
    StrongroomError,
    VaultUnavailableError,
    needs,
    without_frames,
)
from .lease import Lifetime, seconds_of
from .masked import Credentials
from .settings import Settings

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy

log: logging.Logger = logging.getLogger("strongroom_dagster")


class VaultCall(Protocol):
    """Sends one request: `client.VaultSecrets.call`."""

    def __call__(
        self, method: str, path: str, *, until: float, json: Any = None, idempotent: bool = False
    ) -> dict[str, Any]: ...


class _Lease(Lifetime):
    """One set of credentials and the times of its lease.

    Attributes:
        tokens: those that it may hang on: one, or two where the token was replaced while it was
            made. It dies with the token that it was made under.
        revoked: whether it was taken away from the block.
    """

    __slots__ = ("credentials", "revoked", "tokens")

    def __init__(self, credentials: Credentials, *tokens: Token) -> None:
        super().__init__()
        self.credentials = credentials
        self.tokens = tokens
        self.revoked = False

    def ends_at(self) -> float:
        """When it may be gone, by its own time or by its token's."""
        return min(self.expires_at, *(token.ends_at for token in self.tokens))

    def gone_at(self) -> float:
        """When it is gone, whichever of the tokens it hangs on."""
        return min(self.expires_at, max(token.ends_at for token in self.tokens))


#: Credentials, and the halves of them that were taken by name.
_Taken = tuple[_Lease, frozenset[str]]


def _taker() -> object:
    """Who takes the halves of a pair after one another: an asyncio task, or else a thread."""
    asyncio = sys.modules.get("asyncio")  # who has tasks has imported it
    try:
        task = asyncio.current_task() if asyncio is not None else None
    except RuntimeError:  # no loop in this thread
        task = None
    return task or threading.current_thread()


class DatabaseLease:
    """Credentials of one database role: a context manager, safe for threads.

    Blocks of one process that ask for the same role at the same time share one lease; it is
    revoked when the last of them ends. A process that was forked while a block was open gets
    credentials of its own when it asks, and leaves its parent's alone.

    Args:
        path: `mount/creds/role`.
        min_ttl: seconds for which credentials from `current` are at least good; set it to the
            longest transaction. Bounded by what the role's lease allows.
    """

    def __init__(
        self,
        path: str,
        call: VaultCall,
        tokens: TokenManager,
        settings: Settings,
        clock: Clock,
        *,
        min_ttl: float = 0.0,
    ) -> None:
        if isinstance(min_ttl, bool) or not isinstance(min_ttl, (int, float)):
            raise ConfigurationError(f"min_ttl: a {type(min_ttl).__name__} must be a number")
        if not math.isfinite(min_ttl) or min_ttl < 0:
            raise ConfigurationError(f"min_ttl: {min_ttl} must be 0 or more and finite")
        self.path = path
        self.min_ttl = min_ttl
        self._call = call
        self._tokens = tokens
        self._settings = settings
        self._clock = clock
        self._lock = threading.RLock()
        self._lease: _Lease | None = None
        self._retired: list[_Lease] = []
        self._users = 0
        self._closed = False
        self._pairs: weakref.WeakKeyDictionary[object, _Taken] = weakref.WeakKeyDictionary()

    def __enter__(self) -> DatabaseLease:
        with self._lock:
            self._users += 1
        try:
            self.current()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            # Who enters from here on gets a lease of its own.
            leases = self._detach() if self._users <= 0 else []
        self._revoke(leases)

    @property
    def username(self) -> str:
        """User of the credentials that are good now. See `password`."""
        return self._half("username")

    @property
    def password(self) -> str:
        """Password of the credentials that are good now.

        Of user and password that a thread, or an asyncio task, reads after one another, in either
        order, the second
        belongs to the first, also when the credentials were replaced in between.
        """
        return self._half("password")

    def _half(self, name: str) -> str:
        taker = _taker()
        lease, taken = self._pairs.get(taker) or (None, frozenset())
        if lease is None or lease.revoked or name in taken or self._clock.now() >= lease.ends_at():
            lease, taken = self._good(), frozenset()
        self._pairs[taker] = (lease, taken | {name})
        return str(getattr(lease.credentials, name))

    def current(self) -> Credentials:
        """Credentials that are good now and for `min_ttl` seconds, where the role allows it.

        Raises:
            ClosedError: no block is open, or the client is closed.
            VaultUnavailableError: there are none, and Vault did not answer in time.
        """
        return self._good().credentials

    def _good(self) -> _Lease:
        lease, now = self._lease, self._clock.now()
        if lease is not None and now < self._due(lease):
            return lease
        if lease is None or now >= lease.ends_at():
            self._lock.acquire()
        elif not self._lock.acquire(blocking=False):
            return lease  # another thread is renewing them
        try:
            if self._closed or self._users <= 0:
                raise ClosedError(
                    f'the lease of "{self.path}" is closed',
                    hint="use it inside of its with block, and before the client is closed",
                )
            return self._refresh()
        finally:
            self._lock.release()

    def _due(self, lease: _Lease) -> float:
        return min(lease.renew_at, lease.ends_at() - min(self.min_ttl, lease.ttl / 2))

    @without_frames()
    def _refresh(self) -> _Lease:
        lease, now = self._lease, self._clock.now()
        if lease is not None and now < self._due(lease):
            return lease
        if lease is None or now >= lease.ends_at():
            return self._replace(now + self._settings.deadline)
        try:
            until = now + self._settings.revalidate_deadline
            if lease.renewable and self._renew(lease, until):
                return lease
            return self._replace(until)
        except VaultUnavailableError as error:
            left = lease.postpone(self._clock.now(), lease.ends_at())
            if left > 0:
                log.warning(
                    "cannot renew the credentials of %s (%s); they are good for %.0f s",
                    self.path, error.message, left,
                )  # fmt: skip
                return lease
        return self._replace(now + self._settings.deadline)

    def _renew(self, lease: _Lease, until: float) -> bool:
        """Renews it; False if that does not get it past the point where it is due."""
        token = self._tokens.token(until)
        if any(other is not token for other in lease.tokens):
            return False  # its token is not renewed any more, so neither are its leases
        asked_at = self._clock.now()
        try:
            answer = self._call(
                "put", "sys/leases/renew", until=until, idempotent=True,
                json={"lease_id": lease.credentials.lease_id, "increment": int(lease.ttl)},
            )  # fmt: skip
            seconds = seconds_of(answer, "lease_duration", "sys/leases/renew")
        except (
            AccessDeniedError, RequestRefusedError, SecretNotFoundError, InvalidResponseError
        ) as error:  # fmt: skip
            log.info("vault did not renew %s (%s); asking for new ones", self.path, error.message)
            return False
        lease.grant(seconds, asked_at, renewable=bool(answer.get("renewable")))
        return self._clock.now() < self._due(lease)

    def _replace(self, until: float) -> _Lease:
        """New credentials; the old ones stay until their time is up or the block ends."""
        before = self._tokens.keep(until)
        asked_at = self._clock.now()
        answer = self._call("get", self.path, until=until)
        after = self._tokens.held or before
        data = answer.get("data")
        found = [answer.get("lease_id")]
        if isinstance(data, dict):
            found = [data.get("username"), data.get("password"), *found]
        seconds = seconds_of(answer, "lease_duration", self.path)
        if len(found) != 3 or not all(isinstance(x, str) and x for x in found) or seconds == 0:
            raise InvalidResponseError(
                f'"{self.path}" gave no leased username and password',
                hint="it must be a dynamic role of the database engine",
            )
        tokens = (before,) if after is before else (before, after)
        lease = _Lease(Credentials(*map(str, found)), *tokens)
        lease.grant(seconds, asked_at, renewable=bool(answer.get("renewable")))
        if self._lease is not None:
            self._retired.append(self._lease)
        self._lease = lease
        return lease

    def _detach(self) -> list[_Lease]:
        """Takes away all that was handed out; the caller holds the lock."""
        leases = [*self._retired, *([self._lease] if self._lease is not None else [])]
        self._lease, self._retired = None, []
        for lease in leases:
            lease.revoked = True
        return leases

    def close(self) -> None:
        """Revokes what was handed out. Never raises: a run must not fail for it."""
        with self._lock:
            leases = self._detach()
        self._revoke(leases)

    def shut(self) -> None:
        """As `close`, for good: the client is closed. Asking for credentials is an error."""
        with self._lock:
            self._closed = True
            leases = self._detach()
        self._revoke(leases)

    def _revoke(self, leases: list[_Lease]) -> None:
        for lease in leases:
            if self._clock.now() < lease.gone_at():
                self._revoke_one(lease.credentials.lease_id)

    def _revoke_one(self, lease_id: str) -> None:
        until = self._clock.now() + self._settings.revalidate_deadline
        try:
            self._call(
                "put", "sys/leases/revoke", until=until, idempotent=True,
                json={"lease_id": lease_id, "sync": True},
            )  # fmt: skip
        except AccessDeniedError:
            log.warning(
                "the policy does not allow to revoke lease %s: it ends with the token or by "
                "itself; allow update on sys/leases/revoke", lease_id
            )  # fmt: skip
        except StrongroomError as error:
            log.warning(
                "could not revoke lease %s (%s); it ends by itself", lease_id, error.message
            )

    def reset_after_fork(self) -> None:
        """In the child: what the parent was given is the parent's to use and to revoke."""
        self._lock = threading.RLock()
        self._lease, self._retired = None, []
        self._pairs = weakref.WeakKeyDictionary()

    def connect(self, conninfo: str = "", **keywords: Any) -> psycopg.Connection[Any]:
        """A psycopg connection with the current credentials.

        Args:
            conninfo: host, port, dbname and so on, or a URL, without user and password.
            keywords: passed on to `psycopg.connect`.

        Raises:
            ConfigurationError: it is none, or holds a user or a password.
        """
        try:
            import psycopg.conninfo
        except ModuleNotFoundError as error:
            raise needs("connect", "psycopg", "postgresql", error.name) from error

        given: dict[str, Any] | None = None
        with contextlib.suppress(psycopg.ProgrammingError, AttributeError):  # they may quote it
            given = psycopg.conninfo.conninfo_to_dict(conninfo)
        if given is None:
            raise ConfigurationError(
                "the connection string is none, or has an unknown parameter",
                hint="write host=… port=… dbname=…",
            )
        if {"user", "password"} & {*given, *keywords}:
            raise ConfigurationError(
                "the connection must not be given a user or password",
                hint="the lease provides them",
            )
        now = self.current()
        try:
            return psycopg.connect(conninfo, user=now.username, password=now.password, **keywords)
        except psycopg.Error as error:
            failed = error.with_traceback(None)  # its frames hold the password
        raise failed

    def engine(self, url: str | sqlalchemy.URL, **keywords: Any) -> sqlalchemy.Engine:
        """A SQLAlchemy engine whose pool follows the credentials. See `sql.leased_engine`."""
        try:
            from .sql import leased_engine
        except ModuleNotFoundError as error:
            raise needs("engine", "SQLAlchemy", "sql", error.name) from error
        return leased_engine(self, url, **keywords)

    def __repr__(self) -> str:
        return f"DatabaseLease({self.path!r})"
