"""Database credentials: a real Vault, a real PostgreSQL, psycopg and SQLAlchemy."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import sqlalchemy

from strongroom_dagster import (
    ConfigurationError,
    InvalidResponseError,
    VaultSecrets,
    VaultUnavailableError,
)
from strongroom_dagster.database import DatabaseLease

from .conftest import POLICY, ClientFactory
from .harness import wait
from .harness.clock import ShiftedClock
from .harness.postgres import Postgres
from .harness.proxy import Proxy
from .harness.vault import VaultServer

COUNT = "SELECT count(*) FROM stations"


def test_the_lease_ends_with_the_block(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    client = client_for(vault)
    with client.database("reader") as db:
        user = db.username
        assert user in postgres.roles()
        with db.connect(postgres.conninfo) as conn:
            assert conn.execute("SELECT current_user, count(*) FROM stations").fetchone() == (
                user,
                2,
            )
        assert "****" in repr(db.current())
        assert db.password not in repr(db.current()) + repr(db)
    assert user not in postgres.roles()
    with pytest.raises(ConfigurationError, match="closed"):
        db.current()


def test_the_lease_ends_when_the_block_fails(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    users = []

    def fail() -> None:
        with client_for(vault).database("reader") as db:
            users.append(db.username)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (user,) = users
    assert user not in postgres.roles()


def test_blocks_that_overlap_share_one_lease(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    client = client_for(vault)
    before = vault.count("database/creds/reader")
    barrier = threading.Barrier(20)

    def work() -> str:
        with client.database("reader") as db:
            barrier.wait()
            user = db.username
            barrier.wait()
            return user

    with ThreadPoolExecutor(20) as pool:
        users = {f.result() for f in [pool.submit(work) for _ in range(20)]}
    assert len(users) == 1
    assert vault.count("database/creds/reader") - before == 1
    assert not users & postgres.roles()
    with client.database("reader") as db:
        assert db.username not in users


def test_close_revokes_a_lease_whose_block_was_left_open(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    client = client_for(vault)
    user = client.database("reader").__enter__().username
    assert user in postgres.roles()
    client.close()
    assert user not in postgres.roles()


def test_credentials_whose_answer_was_lost_end_with_the_token(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    """Nobody knows their lease; Vault does, and it hangs on the token of the login."""
    vault.put("bike-data-flow/production/warm", value="ok")
    with Proxy(vault.http) as proxy:
        client = client_for(vault, address=proxy.address)
        client.get("warm")
        before = postgres.roles()
        proxy.drop()
        proxy.cut_after = [0]
        with client.database("reader") as db:
            known, made = db.username, postgres.roles() - before
            assert known in made
            assert len(made) == 2
        assert postgres.roles() - before == made - {known}
        client.close()
        wait.until(lambda: postgres.roles() == before, "the user whose lease was lost")


def test_renewal_then_new_credentials_at_max_ttl(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    """The role `short`: 6 s a lease, 14 s at most; the block lasts longer than both."""
    client = client_for(vault)
    renewals = vault.count("sys/leases/renew")
    with client.database("short") as db:
        users = []
        end = time.monotonic() + 18.0
        pause = threading.Event()
        while time.monotonic() < end:
            with db.connect(postgres.conninfo) as conn:  # each time the credentials must be good
                row = conn.execute("SELECT current_user").fetchone()
                assert row is not None
                users.append(row[0])
            pause.wait(0.25)
    assert vault.count("sys/leases/renew") > renewals
    assert 2 <= len(set(users)) <= 4
    wait.until(lambda: not set(users) & postgres.roles(), "all users are gone")


def test_a_pool_is_replaced_before_the_lease_ends(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    client = client_for(vault)
    with client.database("short") as db:
        engine = db.engine(postgres.url, pool_size=4)
        users = set()
        end = time.monotonic() + 18.0
        pause = threading.Event()
        held = engine.connect()  # in use all the time; it must go on to work
        first = held.execute(sqlalchemy.text("SELECT current_user")).scalar_one()
        held.commit()
        while time.monotonic() < end:
            before = db.username
            with engine.connect() as conn:
                user, count = conn.execute(
                    sqlalchemy.text("SELECT current_user, count(*) FROM stations")
                ).one()
                assert count == 2
                users.add(user)
                assert user in {before, db.username}  # never a connection of an older user
            pause.wait(0.25)
        assert first in users
        assert len(users) >= 2
        held.close()
        engine.dispose()


def test_min_ttl_is_kept(vault: VaultServer, postgres: Postgres, client_for: ClientFactory) -> None:
    clock = ShiftedClock()
    client = client_for(vault, clock=clock.clock)
    with client.database("reader", min_ttl=1500.0) as db:
        db.current()
        renewals = vault.count("sys/leases/renew")
        clock.shift = 2000.0  # 1600 s are left
        db.current()
        assert vault.count("sys/leases/renew") == renewals
        clock.shift = 2150.0  # less than 1500
        db.current()
        assert vault.count("sys/leases/renew") == renewals + 1
    with pytest.raises(ConfigurationError, match="min_ttl"):
        client.database("reader", min_ttl=-1.0)


def test_credentials_are_replaced_when_their_token_is(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    """A lease dies with its token: after a new login the old lease must not be relied on."""
    clock = ShiftedClock()
    client = client_for(
        vault, clock=clock.clock, role_options={"token_ttl": "600s", "token_max_ttl": "600s"}
    )
    with client.database("reader") as db:
        first = db.username
        held = client._tokens.held
        assert held is not None
        held.renewable = False
        clock.shift = 500.0
        client.hvac.auth.token.lookup_self()
        assert client.stats.logins == 2
        clock.shift = 601.0  # the first token is dead by our clock, the lease would live an hour
        second = db.username
        assert second != first
        with db.connect(postgres.conninfo) as conn:
            assert conn.execute(COUNT).fetchone() == (2,)
    wait.until(lambda: second not in postgres.roles(), "the second user is gone")


def test_a_renewal_does_not_hold_up_the_others(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    clock = ShiftedClock()
    client = client_for(vault, clock=clock.clock)
    inside, go = threading.Event(), threading.Event()
    with client.database("reader") as db:
        first = db.current()
        renew = db._renew

        def slow(*args: Any) -> bool:
            inside.set()
            go.wait(60)
            return renew(*args)

        db._renew = slow  # type: ignore[assignment,method-assign]
        clock.shift = 2500.0  # due, with 1100 s left
        with ThreadPoolExecutor(1) as pool:
            renewing = pool.submit(db.current)
            assert inside.wait(60)
            assert db.current() is first  # while the other thread is at it
            go.set()
            assert renewing.result(10) is first


def test_a_revoked_lease_is_noticed_at_renewal(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    clock = ShiftedClock()
    client = client_for(vault, clock=clock.clock)
    with client.database("reader") as db:
        first = db.current()
        vault.admin().sys.revoke_lease(first.lease_id)
        wait.until(lambda: first.username not in postgres.roles(), "the user is gone")
        clock.shift = 2500.0
        assert db.username != first.username


def test_without_the_right_to_revoke_the_lease_ends_with_the_token(
    vault: VaultServer,
    postgres: Postgres,
    client_for: ClientFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = client_for(vault, policy=POLICY.replace("sys/leases/revoke", "unused"))
    with client.database("reader") as db:
        user, password = db.username, db.password
    assert "allow update on sys/leases/revoke" in caplog.text
    assert password not in caplog.text
    assert user in postgres.roles()
    client.close()
    wait.until(lambda: user not in postgres.roles(), "the user is gone with the token")


def _child(db: DatabaseLease, conninfo: str, users: multiprocessing.SimpleQueue[str]) -> None:
    users.put(db.username)
    with db.connect(conninfo) as conn:
        conn.execute(COUNT)
    db.close()


def test_a_forked_child_has_credentials_of_its_own(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    context = multiprocessing.get_context("fork")
    users: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    with client_for(vault).database("reader") as db:
        mine = db.username
        child = context.Process(target=_child, args=(db, postgres.conninfo, users))
        with db._lock:  # as a thread that renews in this very moment, and is not in the child
            child.start()
        child.join(30)
        assert child.exitcode == 0
        theirs = users.get()
        assert theirs != mine
        assert theirs not in postgres.roles()
        with db.connect(postgres.conninfo) as conn:
            assert conn.execute(COUNT).fetchone() == (2,)


@pytest.mark.parametrize("ends", ["engine.dispose()", "the engine goes"])
def test_a_forked_child_leaves_the_connections_of_an_engine_to_its_parent(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory, ends: str
) -> None:
    backend = sqlalchemy.text("select pg_backend_pid()")
    with client_for(vault).database("reader") as db:
        engine = db.engine(f"postgresql+psycopg://127.0.0.1:{postgres.port}/bikes")
        with engine.connect() as idle, engine.connect() as used:
            mine = [idle.scalar(backend), used.scalar(backend)]
            idle.close()

            def child() -> None:
                with engine.connect() as conn:
                    assert conn.scalar(backend) not in mine
                if ends == "engine.dispose()":
                    engine.dispose()
                gc.collect()
                db.close()

            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join(30)
            assert process.exitcode == 0
            assert used.scalar(backend) == mine[1]
            with engine.connect() as conn:
                assert conn.scalar(backend) == mine[0]
        engine.dispose()


def test_an_engine_gets_new_credentials_when_it_is_known_that_the_token_was_revoked(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    vault.put("bike-data-flow/production/revoked", value="v")
    client: VaultSecrets = client_for(vault)
    with client.database("reader") as db:
        engine = db.engine(f"postgresql+psycopg://127.0.0.1:{postgres.port}/bikes")
        first = db.current()
        held = client._tokens.held
        assert held is not None
        vault.admin().auth.token.revoke(held.value.reveal())
        assert client.get("revoked") == "v"
        with engine.connect() as conn:
            assert conn.scalar(sqlalchemy.text("select 1")) == 1
        assert db.current().username != first.username
        engine.dispose()


def test_vault_away_at_renewal_and_at_the_end(
    vault: VaultServer,
    postgres: Postgres,
    client_for: ClientFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ShiftedClock()
    client = client_for(
        vault, clock=clock.clock, revalidate_deadline=0.2, deadline=5.0,
        role_options={"token_ttl": "8h", "token_max_ttl": "8h"},
    )  # fmt: skip
    caplog.set_level(logging.WARNING)
    with client.database("reader") as db:
        first = db.current()
        address = client._adapter.base_uri
        client._adapter.base_uri = "http://127.0.0.1:1"
        clock.shift = 2500.0
        assert db.current() is first  # they have 1100 s left
        assert "they are good for" in caplog.text
        clock.shift = 3601.0
        with pytest.raises(VaultUnavailableError):
            db.current()
        clock.shift = 3000.0
        assert db.current() is first
    assert "could not revoke lease" in caplog.text  # and the block did not fail
    client._adapter.base_uri = address
    vault.admin().sys.revoke_lease(first.lease_id)


def test_what_is_no_dynamic_role(
    vault: VaultServer, postgres: Postgres, client_for: ClientFactory
) -> None:
    client = client_for(vault, app=None, environment=None, policy=(
        'path "database/creds/none" { capabilities = ["read"] }\n'
        'path "kv1/*" { capabilities = ["read"] }'
    ), deadline=5.0)  # fmt: skip
    vault.admin().sys.enable_secrets_engine("kv", path="kv1", options={"version": "1"})
    vault.admin().secrets.kv.v1.create_or_update_secret("creds/x", {"a": "b"}, mount_point="kv1")
    with pytest.raises(InvalidResponseError, match="no leased username"):
        client.database("x", mount="kv1").__enter__()
    with pytest.raises(Exception, match="unknown role"):
        client.database("none").__enter__()


def test_a_url_with_a_password_is_refused(vault: VaultServer, client_for: ClientFactory) -> None:
    client: VaultSecrets = client_for(vault)
    with pytest.raises(ConfigurationError, match="must not hold a user"):
        client.database("reader").engine("postgresql+psycopg://u:p@127.0.0.1/x")


def test_the_server_is_real(postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"{postgres.conninfo} user=nobody password=x")
