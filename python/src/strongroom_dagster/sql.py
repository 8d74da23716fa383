"""SQLAlchemy on leased credentials: no pooled connection outlives the user it logged in as."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any, Protocol

import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc

from .errors import ConfigurationError
from .masked import Credentials

_LEASE = "strongroom_lease"


class DatabaseSource(Protocol):
    """What an engine needs: fresh credentials, whatever they come from."""

    def current(self) -> Credentials: ...


def leased_engine(
    source: DatabaseSource, url: str | sqlalchemy.URL, **keywords: Any
) -> sqlalchemy.Engine:
    """An engine that takes its user and password from `source` for each new connection.

    When the credentials were replaced, the first checkout notices it and throws the whole pool of
    idle connections away; those in use finish and are closed when they come back. A credential is
    replaced well before its lease ends, so this happens while the old one still works.

    Args:
        source: a `DatabaseLease`, open for as long as the engine is used.
        url: without user and password: `postgresql+psycopg://host/database`.
        keywords: passed on to `sqlalchemy.create_engine`.

    Raises:
        ConfigurationError: it is no URL, or holds a user or a password, or the keywords do.
    """
    parsed: sqlalchemy.URL | None = None
    with contextlib.suppress(sqlalchemy.exc.ArgumentError, ValueError):  # they may quote it
        parsed = sqlalchemy.make_url(url)
    if parsed is None:
        raise ConfigurationError(
            "the database URL is none", hint="write postgresql+psycopg://host/database"
        )
    # What stands behind the "?" is shown by whoever shows the engine.
    credentials = {"user", "password", "sslpassword"}
    if parsed.username or parsed.password or credentials & set(parsed.query):
        raise ConfigurationError(
            "the database URL must not hold a user or password", hint="the lease provides them"
        )
    own = {"creator", "async_creator", "pool"} & {*keywords}  # their users are their own
    if own or {"user", "password"} & {*(keywords.get("connect_args") or ())}:
        raise ConfigurationError(
            "the engine must not be given a user or password, a creator or a pool",
            hint="the lease provides the credentials",
        )
    engine = sqlalchemy.create_engine(parsed, **keywords)

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def provide(dialect: Any, record: Any, args: Any, parameters: dict[str, Any]) -> Any:
        now = source.current()
        if record is not None:
            record.info[_LEASE] = now.lease_id
        try:
            return dialect.connect(
                *args, **{**parameters, "user": now.username, "password": now.password}
            )
        except dialect.loaded_dbapi.Error as error:
            failed = error.with_traceback(None)  # its frames hold the password
        raise failed

    @sqlalchemy.event.listens_for(engine, "checkout")
    def check(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info.get(_LEASE) != source.current().lease_id:
            raise sqlalchemy.exc.InvalidatePoolError("its database credentials were replaced")

    _living.add(engine)
    return engine


#: All that is in use, for a fork, and in a child what its parent goes on with.
_living: weakref.WeakSet[sqlalchemy.Engine] = weakref.WeakSet()
_left_to_parent: list[sqlalchemy.Pool] = []


def _reset_after_fork() -> None:
    """Closing a connection in the child would end it for the parent, at the server."""
    for engine in list(_living):
        _left_to_parent.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
