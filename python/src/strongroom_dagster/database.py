"""Database credentials whose lease lives as long as the `with` block that asked for them.

A `DatabaseLease` hands out a user and password that are good for some time to come, renews their
lease when it is looked at, and replaces them when Vault will not renew any more. It has no
thread: what nobody asks for is not renewed.
"""

from __future__ import annotations

import logging
import math
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .auth import Token, TokenManager
from .clock import Clock
from .errors import (
    AccessDeniedError,
    ConfigurationError,
    InvalidResponseError,
    RequestRefusedError,
    SecretNotFoundError,
    StrongroomError,
    VaultUnavailableError,
)
from .lease import Lifetime, seconds_of
from .masked import Credentials
from .settings import Settings

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy

log = logging.getLogger("strongroom_dagster")


class VaultCall(Protocol):
    """Sends one request: `client.VaultSecrets.call`."""

    def __call__(
        self, method: str, path: str, *, until: float, json: Any = None, idempotent: bool = False
    ) -> dict[str, Any]: ...


class DatabaseSource(Protocol):
    """What `sql` needs: fresh credentials, whatever they come from."""

    def current(self) -> Credentials: ...


class _Lease(Lifetime):
    """One set of credentials and the times of its lease."""

    __slots__ = ("credentials", "token")

    def __init__(self, credentials: Credentials, token: Token | None) -> None:
        super().__init__()
        self.credentials = credentials
        self.token = token

    def ends_at(self) -> float:
        """A lease dies with the token that it was made under."""
        token_ends = self.token.expires_at if self.token is not None else math.inf
        return min(self.expires_at, token_ends)


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
            last = self._users <= 0
        if last:
            self.close()

    @property
    def username(self) -> str:
        """User of the credentials that are good now."""
        return self.current().username

    @property
    def password(self) -> str:
        """Password of the credentials that are good now."""
        return self.current().password

    def current(self) -> Credentials:
        """Credentials that are good now and for `min_ttl` seconds, where the role allows it.

        Raises:
            VaultUnavailableError: there are none, and Vault did not answer in time.
        """
        lease, now = self._lease, self._clock.now()
        if lease is not None and now < self._due(lease):
            return lease.credentials
        good = lease is not None and now < lease.ends_at()
        if not self._lock.acquire(blocking=not good):
            assert lease is not None
            return lease.credentials  # another thread is renewing them
        try:
            if self._users <= 0:
                raise ConfigurationError(
                    f'the lease of "{self.path}" is closed',
                    hint="use it inside of its with block",
                )
            return self._refresh()
        finally:
            self._lock.release()

    def _due(self, lease: _Lease) -> float:
        return min(lease.renew_at, lease.ends_at() - min(self.min_ttl, lease.ttl / 2))

    def _refresh(self) -> Credentials:
        lease, now = self._lease, self._clock.now()
        if lease is not None and now < self._due(lease):
            return lease.credentials
        if lease is None or now >= lease.ends_at():
            self._replace(now + self._settings.deadline)
        else:
            try:
                until = now + self._settings.revalidate_deadline
                if not (lease.renewable and self._renew(lease, until)):
                    self._replace(until)
            except VaultUnavailableError as error:
                left = lease.postpone(self._clock.now(), lease.ends_at())
                if left <= 0:
                    self._replace(now + self._settings.deadline)
                else:
                    log.warning(
                        "cannot renew the credentials of %s (%s); they are good for %.0f s",
                        self.path, error.message, left,
                    )  # fmt: skip
        assert self._lease is not None
        return self._lease.credentials

    def _renew(self, lease: _Lease, until: float) -> bool:
        """Renews it; False if that does not get it past the point where it is due."""
        if lease.token is not None and lease.token is not self._tokens.token(until):
            return False  # its token is not renewed any more, so neither are its leases
        asked_at = self._clock.now()
        try:
            answer = self._call(
                "put", "sys/leases/renew", until=until, idempotent=True,
                json={"lease_id": lease.credentials.lease_id, "increment": int(lease.ttl)},
            )  # fmt: skip
        except (AccessDeniedError, RequestRefusedError, SecretNotFoundError) as error:
            log.info("vault did not renew %s (%s); asking for new ones", self.path, error.message)
            return False
        lease.grant(
            seconds_of(answer, "lease_duration", "sys/leases/renew"),
            asked_at, renewable=bool(answer.get("renewable")),
        )  # fmt: skip
        return self._clock.now() < self._due(lease)

    def _replace(self, until: float) -> None:
        """New credentials; the old ones stay until their time is up or the block ends."""
        asked_at = self._clock.now()
        answer = self._call("get", self.path, until=until)
        data = answer.get("data") or {}
        token = self._tokens.held
        try:
            credentials = Credentials(
                str(data["username"]), str(data["password"]), str(answer["lease_id"])
            )
            seconds = seconds_of(answer, "lease_duration", self.path)
        except (KeyError, TypeError, ValueError):
            credentials = None
        if credentials is None or not credentials.lease_id:
            raise InvalidResponseError(
                f'"{self.path}" gave no leased username and password',
                hint="it must be a dynamic role of the database engine",
            )
        lease = _Lease(credentials, token)
        lease.grant(seconds, asked_at, renewable=bool(answer.get("renewable")))
        if self._lease is not None:
            self._retired.append(self._lease)
        self._lease = lease

    def close(self) -> None:
        """Revokes what was handed out. Never raises: a run must not fail for it."""
        with self._lock:
            leases = [*self._retired, *([self._lease] if self._lease is not None else [])]
            self._lease, self._retired = None, []
        for lease in leases:
            if self._clock.now() < lease.ends_at():
                self._revoke(lease.credentials.lease_id)

    def _revoke(self, lease_id: str) -> None:
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

    def connect(self, conninfo: str = "", **keywords: Any) -> psycopg.Connection[Any]:
        """A psycopg connection with the current credentials.

        Args:
            conninfo: host, port, dbname and so on, without user and password.
            keywords: passed on to `psycopg.connect`.
        """
        import psycopg

        now = self.current()
        return psycopg.connect(conninfo, user=now.username, password=now.password, **keywords)

    def engine(self, url: str | sqlalchemy.URL, **keywords: Any) -> sqlalchemy.Engine:
        """A SQLAlchemy engine whose pool follows the credentials. See `sql.leased_engine`."""
        from .sql import leased_engine

        return leased_engine(self, url, **keywords)

    def __repr__(self) -> str:
        return f"DatabaseLease({self.path!r})"
