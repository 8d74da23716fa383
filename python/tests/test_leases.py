"""Leases between threads: one pair, decided and detached under one lock, nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import psycopg
import pytest
import sqlalchemy

from strongroom_dagster import ConfigurationError, InvalidResponseError, VaultUnavailableError
from strongroom_dagster.database import DatabaseLease
from strongroom_dagster.fake import FakeVaultSecrets

from .harness.clock import FakeClock
from .harness.model import Model, model_vault
from .harness.shown import everything, kept
from .harness.wait import free_port


def pair_of(vault: Model, username: str) -> str:
    """The password that belongs to a user."""
    assert username in vault.leases
    return username.replace("user", "password")


def let_it_be_replaced(db: DatabaseLease, clock: FakeClock) -> None:
    """Of a lease of one hour that cannot be renewed beyond it: the next look replaces it."""
    clock.advance(2500.0)
    db.current()  # renewed for the last time
    clock.advance(800.0)


@pytest.mark.parametrize("order", [("username", "password"), ("password", "username")])
def test_user_and_password_are_one_pair_around_a_replacement(order: tuple[str, str]) -> None:
    with model_vault(lease_max_ttl=3600.0) as (vault, clock, client_for):
        with client_for().database("reader") as db:
            seen = set()
            for _ in range(40):
                half = {order[0]: getattr(db, order[0])}
                clock.advance(350.0)
                half[order[1]] = getattr(db, order[1])
                assert half["password"] == pair_of(vault, half["username"])
                assert vault.user_exists(half["username"])
                seen.add(half["username"])
            assert len(seen) > 3
        assert not [user for user in seen if vault.user_exists(user)]


@pytest.mark.parametrize("order", [("username", "password"), ("password", "username")])
def test_user_and_password_are_one_pair_in_each_task(order: tuple[str, str]) -> None:
    """Tasks of one thread, one of which comes in between the two halves of another."""

    async def take(db: DatabaseLease, between: Callable[[], None]) -> dict[str, str]:
        half = {order[0]: getattr(db, order[0])}
        between()
        await asyncio.sleep(0)
        return {**half, order[1]: getattr(db, order[1])}

    async def both(db: DatabaseLease, clock: FakeClock) -> Sequence[dict[str, str]]:
        return await asyncio.gather(
            take(db, lambda: let_it_be_replaced(db, clock)), take(db, lambda: None)
        )

    with (
        model_vault(lease_max_ttl=3600.0) as (vault, clock, client_for),
        client_for().database("reader") as db,
    ):
        pairs = asyncio.run(both(db, clock))
        assert [p["password"] for p in pairs] == [pair_of(vault, p["username"]) for p in pairs]
        assert pairs[0] != pairs[1]


def test_the_same_half_again_is_of_the_credentials_that_are_good_now() -> None:
    with (
        model_vault(lease_max_ttl=3600.0) as (vault, clock, client_for),
        client_for().database("reader") as db,
    ):
        first = db.username
        let_it_be_replaced(db, clock)
        second = db.username
        assert second != first
        assert db.password == pair_of(vault, second)


def test_a_pair_does_not_outlive_its_lease_or_its_block() -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for()
        with client.database("reader") as db:
            first = db.username
            clock.advance(3600.0)
            assert db.password != pair_of(vault, first)  # it is gone
            db.username  # noqa: B018
        with pytest.raises(ConfigurationError, match="closed"):
            _ = db.password
        with client.database("reader") as db:
            password = db.password
            assert vault.user_exists(password.replace("password", "user"))


def test_each_thread_has_its_own_half() -> None:
    with (
        model_vault(lease_max_ttl=3600.0) as (vault, clock, client_for),
        client_for().database("reader") as db,
        ThreadPoolExecutor(1) as other,
    ):
        mine = db.username
        let_it_be_replaced(db, clock)
        theirs = other.submit(lambda: db.username).result(10)
        assert theirs != mine
        assert db.password == pair_of(vault, mine)
        assert other.submit(lambda: db.password).result(10) == pair_of(vault, theirs)


def at_revocation(db: DatabaseLease, act: Any) -> None:
    """Runs `act` in another thread when the block has decided to revoke and before it does."""
    real = db._revoke_one
    acted: list[bool] = []

    def revoke(lease_id: str) -> None:
        if not acted:
            acted.append(True)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(act).result(20)
        real(lease_id)

    db._revoke_one = revoke  # type: ignore[method-assign]


def test_a_block_that_begins_while_the_last_one_ends_has_a_user() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        begun = client.database("reader")
        users: list[str] = []

        def begin() -> None:
            begun.__enter__()
            users.append(begun.username)

        with client.database("reader") as db:
            first = db.username
            at_revocation(db, begin)
        assert users != [first]
        assert vault.user_exists(users[0])
        assert begun.current().username == users[0]
        begun.__exit__(None, None, None)
        assert not vault.user_exists(users[0])


def test_blocks_that_begin_and_end_in_many_threads_always_have_a_user() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        together = threading.Barrier(8)

        def work() -> None:
            together.wait(20)
            for _ in range(30):
                with client.database("reader") as db:
                    now = db.current()
                    assert vault.user_exists(now.username)
                    assert now.password == pair_of(vault, now.username)

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work) for _ in range(8)]:
                done.result(60)
        assert not [user for user in vault.leases if vault.user_exists(user)]


def test_replaced_users_are_revoked_at_the_end_of_the_block_too() -> None:
    with model_vault(lease_max_ttl=3600.0, token_max_ttl=10**6) as (vault, clock, client_for):
        with client_for().database("reader") as db:
            first = db.username
            let_it_be_replaced(db, clock)
            second = db.username
            assert (vault.user_exists(first), vault.user_exists(second)) == (True, True)
        assert first != second
        assert not vault.user_exists(first)
        assert not vault.user_exists(second)
        assert vault.count("sys/leases/revoke") == 2


def test_a_user_whose_time_is_up_is_not_revoked_again() -> None:
    with model_vault(lease_max_ttl=3600.0, token_max_ttl=10**6) as (vault, clock, client_for):
        with client_for().database("reader") as db:
            db.current()
            let_it_be_replaced(db, clock)
            db.current()
            clock.advance(300.0)
        assert vault.count("sys/leases/revoke") == 1


def test_credentials_that_are_asked_for_while_the_client_closes_are_revoked() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        lease = client.database("reader")
        with ThreadPoolExecutor(1) as pool:
            closing = []
            vault.after["creds/reader"] = lambda: closing.append(pool.submit(client.close))
            with lease as db:  # the answer comes when close is under way
                closing[0].result(20)
                with pytest.raises(ConfigurationError, match="closed"):
                    db.current()
        assert len(vault.leases) == 1
        assert not [user for user in vault.leases if vault.user_exists(user)]


def test_a_lease_hangs_on_the_token_that_it_was_made_under() -> None:
    """The token dies while the credentials are made, and another takes its place."""
    with model_vault(token_ttl=1000.0, token_max_ttl=1000.0) as (vault, clock, client_for):
        client = client_for()
        vault.write("x")
        client.get("x")
        clock.advance(500.0)  # good until 1000
        vault.before["creds/reader"] = vault.revoke_tokens
        vault.token_ttl = vault.token_max_ttl = 10_000.0
        with client.database("reader") as db:
            first = db.username
            assert vault.user_exists(first)
            for _ in range(100):
                clock.advance(100.0)
                now = db.current()
                assert vault.user_exists(now.username)


@pytest.mark.parametrize("min_ttl", ["5", None, True, [], float("nan"), float("inf"), -1])
def test_a_min_ttl_that_is_no_time_is_refused(min_ttl: Any) -> None:
    with (
        model_vault() as (_vault, _clock, client_for),
        pytest.raises(ConfigurationError, match="min_ttl"),
    ):
        client_for().database("reader", min_ttl=min_ttl)


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"data": []}, {"lease_duration": "soon"}, {"lease_duration": -5},
        {"lease_duration": 0}, {"lease_duration": None}, {"lease_duration": 10**400},
        {"lease_duration": True}, {"lease_id": ""}, {"lease_id": 7}, {"data": {"username": "u"}},
        {"data": {"username": 1, "password": "p"}}, {"data": {"username": "u", "password": None}},
    ],
)  # fmt: skip
def test_an_answer_that_is_no_lease_is_one_of_our_errors(answer: dict[str, Any]) -> None:
    whole = {
        "lease_id": "l", "lease_duration": 5, "data": {"username": "u", "password": "p-4711"},
    }  # fmt: skip
    with model_vault() as (_vault, _clock, client_for):
        client = client_for()
        given = {**whole, **answer} if answer else {}
        client.call = lambda *_, **__: given  # type: ignore[method-assign]
        with pytest.raises(InvalidResponseError) as caught:
            client.database("reader").__enter__()
        assert "p-4711" not in str(caught.value)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("seconds", ["x", 0])
def test_an_odd_answer_to_a_renewal_leads_to_new_credentials(seconds: Any) -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for()
        with client.database("reader") as db:
            first, real = db.current(), client.call

            def odd(method: str, path: str, **keywords: Any) -> dict[str, Any]:
                answer = real(method, path, **keywords)
                return {"lease_duration": seconds} if path == "sys/leases/renew" else answer

            db._call = odd
            clock.advance(2500.0)
            assert db.current() is not first
            assert vault.user_exists(db.current().username)


def test_min_ttl_holds_at_the_very_edge() -> None:
    with (
        model_vault() as (vault, clock, client_for),
        client_for().database("reader", min_ttl=1700.0) as db,
    ):
        db.current()
        clock.advance(1899.0)
        db.current()
        assert vault.count("sys/leases/renew") == 0
        clock.advance(1.0)
        db.current()
        assert vault.count("sys/leases/renew") == 1


def test_vault_away_until_the_lease_is_gone() -> None:
    with (
        model_vault() as (vault, clock, client_for),
        client_for(revalidate_deadline=1.0).database("reader") as db,
    ):
        first = db.current()
        clock.advance(2400.0)
        vault.sealed = True
        assert db.current() is first
        asked = len(vault.requests)
        assert db.current() is first  # and it does not ask each time
        assert len(vault.requests) == asked
        clock.advance(5.0)
        assert db.current() is first
        assert len(vault.requests) > asked
        clock.advance(1200.0)
        with pytest.raises(VaultUnavailableError):
            db.current()
        vault.sealed = False
        assert vault.user_exists(db.current().username)


def test_a_block_that_could_not_begin_is_not_open() -> None:
    with model_vault() as (vault, _clock, client_for):
        lease = client_for().database("reader")
        vault.sealed = True
        with pytest.raises(VaultUnavailableError):
            lease.__enter__()
        vault.sealed = False
        with pytest.raises(ConfigurationError, match="closed"):
            lease.current()


def test_close_of_a_lease_and_of_the_client_revoke_what_is_open() -> None:
    for how in ("lease", "client"):
        with model_vault(token_max_ttl=10**6) as (vault, _clock, client_for):
            client = client_for()
            lease = client.database("reader").__enter__()
            user = lease.username
            lease.close() if how == "lease" else client.close()
            assert vault.leases[user].revoked
            assert vault.count("sys/leases/revoke") == 1


def test_a_renewal_keeps_the_credentials_and_a_new_token_does_not() -> None:
    with model_vault(token_max_ttl=10**6) as (vault, clock, client_for):
        client = client_for()
        with client.database("reader") as db:
            first = db.current()
            clock.advance(2500.0)
            assert db.current() is first
            assert (vault.count("leases/renew"), vault.count("creds/reader")) == (1, 1)
            vault.revoke_tokens()
            client.hvac.auth.token.lookup_self()  # logs in anew
            clock.advance(2500.0)
            assert db.current() is not first
            assert vault.user_exists(db.username)
            assert (vault.count("leases/renew"), vault.count("creds/reader")) == (1, 2)


def test_blocks_share_a_lease_until_the_last_of_them_ends() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        with client.database("reader") as outer:
            user = outer.username
            with client.database("reader") as inner:
                assert inner.username == user
            assert vault.user_exists(user)
            assert outer.current().username == user
        assert not vault.user_exists(user)
        assert vault.count("creds/reader") == 1


def test_who_looks_while_another_thread_renews_does_not_wait() -> None:
    with (
        model_vault(token_max_ttl=10**6) as (vault, clock, client_for),
        client_for().database("reader") as db,
        ThreadPoolExecutor(1) as other,
    ):
        first = db.current()
        clock.advance(2500.0)
        seen = []
        vault.before["leases/renew"] = lambda: seen.append(other.submit(db.current).result(20))
        assert db.current() is first
        assert seen == [first]
        assert vault.count("leases/renew") == 1


def test_at_its_very_end_a_lease_is_replaced_and_not_renewed() -> None:
    with model_vault(token_ttl=10**6, token_max_ttl=10**6) as (vault, clock, client_for):
        with client_for().database("reader") as db:
            first = db.current()
            clock.advance(3600.0)
            assert db.current() is not first
        assert vault.count("leases/renew") == 0


@pytest.mark.parametrize(("left", "kept"), [(0.5, True), (0.0, False)])
def test_a_renewal_that_ends_with_the_lease_is_followed_by_new_credentials(
    left: float, kept: bool
) -> None:
    with (
        model_vault(token_ttl=10**6, token_max_ttl=10**6) as (vault, clock, client_for),
        client_for().database("reader") as db,
    ):
        first, real, end = db.current(), db._call, clock.time + 3600.0

        def away(method: str, path: str, **keywords: Any) -> dict[str, Any]:
            if path == "sys/leases/renew":
                clock.time = end - left
                raise VaultUnavailableError("away")
            return real(method, path, **keywords)

        db._call = away
        clock.advance(3598.0)
        assert (db.current() is first) is kept
        assert vault.user_exists(db.username)


def test_renewals_and_revocations_may_be_sent_again_within_their_deadline() -> None:
    with model_vault(token_max_ttl=10**6) as (_vault, clock, client_for):
        client = client_for(revalidate_deadline=2.0, deadline=7.0)
        sent: dict[str, dict[str, Any]] = {}
        with client.database("reader") as db:
            real = db._call

            def call(method: str, path: str, **keywords: Any) -> dict[str, Any]:
                sent[path] = {**keywords, "until": keywords["until"] - clock.time}
                return real(method, path, **keywords)

            db._call = call
            lease_id = db.current().lease_id
            clock.advance(2500.0)
            db.current()
        assert sent["sys/leases/renew"] == {
            "until": 2.0, "idempotent": True, "json": {"lease_id": lease_id, "increment": 3600},
        }  # fmt: skip
        assert sent["sys/leases/revoke"] == {
            "until": 2.0, "idempotent": True, "json": {"lease_id": lease_id, "sync": True},
        }  # fmt: skip


def test_a_lease_ends_with_the_token_that_took_the_place_of_the_first() -> None:
    """The token dies before the credentials are made, and the next one has less time."""
    with model_vault(token_ttl=10_000.0, token_max_ttl=10_000.0) as (vault, clock, client_for):
        client = client_for()
        client.hvac.auth.token.lookup_self()
        vault.before["creds/reader"] = vault.revoke_tokens
        vault.token_ttl = vault.token_max_ttl = 1000.0
        with client.database("reader") as db:
            for _ in range(30):
                assert vault.user_exists(db.current().username)
                clock.advance(100.0)


@pytest.mark.parametrize("how", ["block", "fork"])
def test_a_half_is_not_completed_from_what_was_taken_away(how: str) -> None:
    with model_vault() as (vault, _clock, client_for):
        db = client_for().database("reader")
        with db:
            first = db.username
            if how == "fork":
                db.reset_after_fork()
                assert db.password != pair_of(vault, first)
        if how == "block":
            with db:
                assert db.password != pair_of(vault, first)


def test_a_lease_that_may_hang_on_a_dead_token_is_not_renewed() -> None:
    with model_vault(token_ttl=10**6, token_max_ttl=10**6) as (vault, clock, client_for):
        client = client_for()
        client.hvac.auth.token.lookup_self()
        vault.before["creds/reader"] = vault.revoke_tokens
        with client.database("reader") as db:
            first = db._lease  # under the token that is dead, or under the one after it
            assert first is not None
            assert db.current() is not first.credentials
            clock.advance(2500.0)
            assert vault.user_exists(db.current().username)
            assert vault.count("leases/renew") == 1  # of the one that is sure
            assert vault.user_exists(first.credentials.username)
        assert not any(map(vault.user_exists, vault.leases))


def test_a_min_ttl_beyond_the_lease_is_half_of_it() -> None:
    with (
        model_vault(token_ttl=10**6, token_max_ttl=10**6) as (vault, clock, client_for),
        client_for().database("reader", min_ttl=10_000.0) as db,
    ):
        first = db.current()
        clock.advance(1799.0)
        assert db.current() is first
        assert vault.count("leases/renew") == 0
        clock.advance(1.0)
        assert db.current() is first
        assert vault.count("leases/renew") == 1


def test_who_looks_while_another_thread_replaces_what_is_gone_waits() -> None:
    with (
        model_vault(token_ttl=10**6, token_max_ttl=10**6) as (vault, clock, client_for),
        client_for().database("reader") as db,
        ThreadPoolExecutor(1) as other,
    ):
        first = db.current()
        clock.advance(3600.0)
        waiting: list[Future[Any]] = []

        def look() -> None:
            waiting.append(other.submit(db.current))
            wait(waiting, timeout=0.2)

        vault.before["creds/reader"] = look
        assert db.current() is not first
        assert waiting[0].result(20) is db.current()


def test_after_a_fork_no_thread_of_the_parent_is_waited_for() -> None:
    with model_vault() as (vault, _clock, client_for), client_for().database("reader") as db:
        first = db.current()
        with ThreadPoolExecutor(1) as other:
            other.submit(db._lock.acquire).result(10)  # and that thread is not in the child
            db.reset_after_fork()
            assert db._lock.acquire(blocking=False)
            db._lock.release()
        assert db.current() is not first
        assert vault.user_exists(first.username)


def test_an_engine_is_made_without_a_question() -> None:
    with model_vault() as (vault, _clock, client_for):
        engine = client_for().database("reader").engine("postgresql+psycopg://db/bikes", echo=False)
        assert engine.url.host == "db"
        assert vault.requests == []
        engine.dispose()


def test_a_connection_is_made_with_the_credentials_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def connect(*arguments: Any, **keywords: Any) -> Any:
        made.append((arguments, keywords))
        return made

    monkeypatch.setattr("psycopg.connect", connect)
    with model_vault() as (vault, _clock, client_for), client_for().database("reader") as db:
        connection: Any = db.connect("host=db", autocommit=True)
        assert connection is made
        user = db.username
        password = pair_of(vault, user)
        assert made == [(("host=db",), {"user": user, "password": password, "autocommit": True})]


def test_a_connection_that_fails_keeps_no_password() -> None:
    """Its error is psycopg's, without the frames that were given the password."""
    with FakeVaultSecrets(databases={"r": ("u", "c4n4ry")}) as client, client.database("r") as db:
        with pytest.raises(psycopg.OperationalError) as caught:
            db.connect(f"host=127.0.0.1 port={free_port()} dbname=x")
        assert "c4n4ry" not in kept(caught.value)


def test_an_engine_that_cannot_connect_keeps_no_password() -> None:
    with FakeVaultSecrets(databases={"r": ("u", "c4n4ry")}) as client, client.database("r") as db:
        engine = db.engine(f"postgresql+psycopg://127.0.0.1:{free_port()}/x")
        with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
            engine.connect()
        assert "c4n4ry" not in kept(caught.value)


@pytest.mark.parametrize("keywords", [
    {"connect_args": {"user": "c4n4ry"}}, {"connect_args": {"password": "c4n4ry"}},
    {"creator": lambda: "c4n4ry"}, {"pool": sqlalchemy.QueuePool(lambda: "c4n4ry")},  # type: ignore[arg-type]
])  # fmt: skip
def test_an_engine_has_no_other_user_than_the_leases(keywords: dict[str, Any]) -> None:
    with FakeVaultSecrets(databases={"r": ("u", "p")}) as client, client.database("r") as db:
        with pytest.raises(ConfigurationError, match="must not be given") as caught:
            db.engine("postgresql+psycopg://h/d", **keywords)
        assert "c4n4ry" not in everything(caught.value)
