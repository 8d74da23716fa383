"""The cache between threads: what was forgotten stays forgotten, and nothing is read twice."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hvac
import pytest

from strongroom_dagster import (
    AccessDeniedError,
    InvalidResponseError,
    RequestRefusedError,
    SecretNotFoundError,
    Settings,
    VaultSecrets,
    VaultUnavailableError,
)
from strongroom_dagster.cache import Cache, Entry
from strongroom_dagster.errors import ClosedError
from strongroom_dagster.masked import SecretMapping
from strongroom_dagster.singleflight import SingleFlight, _Flight

from .harness import wait
from .harness.clock import FakeClock
from .harness.model import model_vault

Invalidate = Callable[[VaultSecrets], None]


@pytest.mark.parametrize(
    "forget",
    [lambda c: c.invalidate("apikey:k"), lambda c: c.invalidate()],
    ids=["its name", "everything"],
)
def test_after_an_invalidation_nobody_follows_a_read_that_was_under_way(
    forget: Invalidate,
) -> None:
    """A 401, then `invalidate`, then `api_key`: the dead key must not come back."""
    with model_vault() as (vault, _clock, client_for), ThreadPoolExecutor(1) as pool:
        client = client_for()
        dead = vault.rotate("k")
        answered, go = threading.Event(), threading.Event()

        def hold() -> None:
            answered.set()
            go.wait(20)

        vault.after["creds/k"] = hold
        reading = pool.submit(client.api_key, "k")
        assert answered.wait(20)
        good = vault.rotate("k", compromised=True)
        forget(client)
        try:
            assert client.api_key("k").key == good
        finally:
            go.set()
        assert reading.result(20).key == dead  # it was right when it began
        assert client.api_key("k").key == good


def _by_environment(client: VaultSecrets, name: str) -> str:
    with client.environment({"READ_HERE": name}):
        return os.environ["READ_HERE"]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("forget", ["the name", "its field", "everything"])
@pytest.mark.parametrize(
    "read",
    [lambda c, n: c.get(n), lambda c, n: c.get_many([n, "y"])[n], _by_environment,
     lambda c, n: (c.api_key("k") if "k" in n else c.kv("x")).text(),
     lambda c, n: c.read_at(*(("apikey", "apikeys", "k") if "k" in n else ("kv", "secret", "x"))).text()],
    ids=["get", "get_many", "environment", "mapping", "read_at"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["x", "apikey:k"])
def test_what_begins_after_an_invalidation_is_read_after_it_whatever_is_under_way(
    name: str, read: Callable[[VaultSecrets, str], str], forget: str, cached: bool
) -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for()
        vault.write("y")
        vault.write("x")
        vault.rotate("k")
        new: list[str] = []
        if cached:
            read(client, name)
            clock.advance(61.0)

        def meanwhile() -> None:
            new.append(vault.rotate("k", compromised=True) if "k" in name else vault.write("x"))
            client.invalidate({"the name": name, "its field": f"{name}#f"}.get(forget))
            assert read(client, name) == new[0]

        asked = "creds/k" if "k" in name else "metadata/x" if cached else "data/x"
        vault.after[asked] = meanwhile
        read(client, name)
        assert new
        assert read(client, name) == new[0]


def test_an_invalidation_of_one_name_leaves_the_reads_of_others_alone() -> None:
    with model_vault() as (vault, _clock, client_for), ThreadPoolExecutor(1) as pool:
        client = client_for()
        vault.write("x")
        answered, go = threading.Event(), threading.Event()

        def hold() -> None:
            answered.set()
            go.wait(20)

        vault.after["data/x"] = hold
        reading = pool.submit(client.kv, "x")
        assert answered.wait(20)
        client.invalidate("y")
        go.set()
        secret = reading.result(20)
        assert client.kv("x") is secret
        assert vault.count("data/x") == 1


def test_a_refusal_that_is_under_way_does_not_forget_what_came_after_it() -> None:
    with model_vault() as (vault, _clock, client_for), ThreadPoolExecutor(1) as pool:
        client = client_for()
        answered, go = threading.Event(), threading.Event()

        def hold() -> None:
            answered.set()
            go.wait(20)

        vault.after["data/x"] = hold
        reading = pool.submit(client.get, "x")
        assert answered.wait(20)
        value = vault.write("x")
        client.invalidate("x")
        assert client.get("x") == value
        go.set()
        with pytest.raises(SecretNotFoundError):
            reading.result(20)
        asked = len(vault.requests)
        assert client.get("x") == value
        assert len(vault.requests) == asked


def follow(client: VaultSecrets, name: str, hold: threading.Event) -> Callable[[], Any]:
    """A read that joins the one that is under way; call the result for what it brings."""
    waits = threading.Event()
    flights = client._cache._flights
    real = flights.do

    def do(*args: Any) -> Any:
        waits.set()
        return real(*args)

    flights.do = do  # type: ignore[assignment,method-assign]
    pool = ThreadPoolExecutor(1)
    following = pool.submit(client.get, name)
    assert waits.wait(20)
    flights.do = real  # type: ignore[method-assign]

    def result() -> Any:
        hold.set()
        try:
            return following.result(20)
        finally:
            pool.shutdown()

    return result


@pytest.mark.parametrize("begins_with", ["a value", "nothing"])
def test_who_may_keep_nothing_does_not_follow_a_read_that_began_before(begins_with: str) -> None:
    """With `kv_ttl=0`, and for refusals, only what was good during the call will do."""
    with model_vault() as (vault, _clock, client_for), ThreadPoolExecutor(1) as pool:
        client = client_for(kv_ttl=0.0)
        if begins_with == "a value":
            vault.write("x")
        answered, go = threading.Event(), threading.Event()

        def hold() -> None:
            answered.set()
            go.wait(20)

        vault.after["data/x"] = hold
        leading = pool.submit(client.get, "x")
        assert answered.wait(20)
        value = vault.write("x")
        result = follow(client, "x", go)
        assert result() == value
        if begins_with == "a value":
            assert leading.result(20) != value
        else:
            with pytest.raises(SecretNotFoundError):
                leading.result(20)


def test_who_waits_for_a_leader_that_never_took_off_gives_up_and_the_next_one_leads() -> None:
    clock = FakeClock()
    flights: SingleFlight[str] = SingleFlight(clock.clock)
    # As if an interrupt had come between the entry in the list and the call of another thread.
    real = flights._lead

    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    flights._lead = interrupted  # type: ignore[assignment,method-assign]
    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        pool.submit(flights.do, "k", lambda: "never", clock.time).result(20)
    flights._lead = real  # type: ignore[method-assign]
    assert flights.busy("k")
    with pytest.raises(VaultUnavailableError, match="another thread"):
        flights.do("k", lambda: "not yet", clock.time)
    assert flights.do("k", lambda: "now", clock.time) == "now"
    assert not flights.busy("k")


def test_who_gives_up_early_leaves_a_leader_alone_that_still_has_time() -> None:
    clock = FakeClock()
    flights: SingleFlight[str] = SingleFlight(clock.clock)
    inside, go = threading.Event(), threading.Event()

    def call() -> str:
        inside.set()
        go.wait(20)
        return "led"

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(flights.do, "k", call, clock.time + 60.0)
        assert inside.wait(20)
        with pytest.raises(VaultUnavailableError):
            flights.do("k", lambda: "followed", clock.time)
        assert flights.busy("k")
        go.set()
        assert leading.result(20) == "led"


def test_two_fields_of_one_secret_are_of_one_version_in_get_many() -> None:
    """Not kept at all, or thrown out of a cache that is too small: still read once."""
    for settings in ({"kv_ttl": 0.0}, {"max_entries": 1}):
        with model_vault() as (vault, _clock, client_for):
            client = client_for(**settings)
            vault.write("x")
            vault.write("y")
            vault.after["data/x"] = lambda vault=vault: vault.write("x") and None  # type: ignore[misc]
            found = client.get_many(["x", "y", "x#value", "kv:x"])
            assert len({found["x"], found["x#value"], found["kv:x"]}) == 1
            assert vault.count("data/x") == 1


def test_get_many_reads_what_is_cached_at_the_moment_of_the_call_once() -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for()
        names = [f"s{n}" for n in range(30)]
        values = {name: vault.write(name) for name in names}
        assert client.get_many(names) == values
        asked = len(vault.requests)
        assert client.get_many(name for name in names) == values
        assert len(vault.requests) == asked
        assert vault.logins == 1
        clock.advance(61.0)
        assert client.get_many([*names, *names]) == values
        assert len(vault.requests) == asked + len(names)


@pytest.mark.parametrize("names_dead", [True, False])
@pytest.mark.parametrize("uses", [1, 2, 3, 5])
def test_a_token_with_few_uses_reads_many_as_it_reads_one_by_one(
    uses: int, names_dead: bool
) -> None:
    with model_vault(token_uses=uses, names_dead=names_dead) as (vault, _clock, client_for):
        names = [f"s{n}" for n in range(17)]
        values = {name: vault.write(name) for name in names}
        assert client_for().get_many(names) == values
        alone = client_for()
        assert {name: alone.get(name) for name in names} == values


@pytest.mark.parametrize("names_dead", [True, False])
@pytest.mark.parametrize("uses", [1, 2, 3, 5])
def test_what_a_token_with_few_uses_may_not_read_is_denied(uses: int, names_dead: bool) -> None:
    """The path is at fault, and no login helps; what it may read is read in between."""
    path = "secret/data/denied"
    with model_vault(token_uses=uses, names_dead=names_dead, denied=frozenset({path})) as (
        vault,
        _clock,
        client_for,
    ):
        values, client = {f"s{n}": vault.write(f"s{n}") for n in range(9)}, client_for()
        for name, value in values.items():
            before, asked = vault.logins, vault.count(path)
            with pytest.raises(AccessDeniedError):
                client.get("denied")
            assert vault.count(path) - asked <= 2  # once more with another token, and no more
            # A token of one use is another one for each request; the third asks after the mount.
            assert vault.logins - before <= (3 if uses == 1 else 2)
            assert client.get(name) == value


@pytest.mark.parametrize("names_dead", [True, False])
def test_a_denied_path_costs_hvac_one_login_more_at_the_most(names_dead: bool) -> None:
    denied = frozenset({"secret/data/denied"})
    with model_vault(token_uses=1, names_dead=names_dead, denied=denied) as (vault, _, client_for):
        client = client_for()
        for number in range(1, 4):
            with pytest.raises(hvac.exceptions.Forbidden):
                client.hvac.adapter.get("/v1/secret/data/denied")
            assert vault.logins <= 2 * number


@pytest.mark.parametrize("names_dead", [True, False])
@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_token_is_given_out_as_often_as_it_is_good_for(uses: int, names_dead: bool) -> None:
    """So that nothing is refused, and each request sent once; what the token itself asks counts."""
    with model_vault(
        token_uses=uses, token_ttl=100.0, token_max_ttl=1000.0, names_dead=names_dead
    ) as (vault, clock, client_for):
        client = client_for()
        for number in range(12):
            clock.advance(30.0)
            name = f"s{number}"
            assert client.get(name.replace(name, vault.write(name) and name))
            assert vault.count(f"data/{name}") == 1
        assert vault.count("lookup-self") == 0


@pytest.mark.parametrize("names_dead", [True, False])
@pytest.mark.parametrize("uses", [2, 3, 5])
def test_a_lease_outlives_the_uses_of_its_token(uses: int, names_dead: bool) -> None:
    """With its last use a token ends, and with it what hangs on it; a lease that would be its last
    use Vault does not give at all."""
    with model_vault(token_uses=uses, names_dead=names_dead) as (vault, clock, client_for):
        client, names = client_for(), [f"s{number}" for number in range(2 * uses)]
        for name in names:
            vault.write(name)
        for before in range(uses):
            client.get_many(names[:before])
            client.invalidate()
            with client.database("reader") as db:
                username = db.username
                for name in names:
                    client.get(name)
                assert vault.user_exists(username)
                assert (db.current().username, db.password) == (
                    username, username.replace("user", "password")
                )  # fmt: skip
                clock.advance(3000.0)  # its token is gone by now, so there are others
                assert vault.user_exists(db.current().username)
            assert not any(map(vault.user_exists, vault.leases))
        held = len(vault.tokens)
        client.close()
        assert not any(map(vault.alive, vault.tokens))
        assert len(vault.tokens) == held


def test_a_lease_that_lost_its_token_to_its_last_use_is_replaced() -> None:
    """Another thread may have used it up between the question for a token and that for a lease."""
    with model_vault(token_uses=3) as (vault, _clock, client_for):
        vault.write("x")
        client = client_for()

        def use_up() -> None:
            client.get("x")
            client.invalidate()
            client.get("x")

        with client.database("reader") as db:
            assert vault.user_exists(db.username)
            vault.before["creds/other"] = use_up
            with client.database("other") as other:
                client.invalidate()
                client.get("x")
                client.invalidate()
                client.get("x")
                assert vault.user_exists(other.current().username)


def test_a_token_of_one_use_gives_no_lease_and_vault_says_why() -> None:
    with (
        model_vault(token_uses=1) as (_vault, _clock, client_for),
        pytest.raises(RequestRefusedError, match="token had one use left"),
    ):
        client_for().database("reader").__enter__()


def test_a_child_does_not_use_up_its_parents_token_of_few_uses() -> None:
    """Neither would know how many of its uses the other has taken."""
    with model_vault(token_uses=4, names_dead=False) as (vault, _clock, client_for):
        names = [f"s{number}" for number in range(6)]
        values = {name: vault.write(name) for name in names}
        client = client_for()
        assert client.get("s0") == values["s0"]
        held = client._tokens.held
        client._after_fork()
        assert client._tokens.held is None
        assert held is not None
        assert {name: client.get(name) for name in names} == values
        assert vault.tokens[held.value.reveal()].uses == 3


def test_a_token_with_few_uses_is_spent_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    with model_vault(token_uses=2) as (vault, _clock, client_for):
        values = {name: vault.write(name) for name in ("a", "b", "c")}
        client = client_for()
        monkeypatch.delattr("strongroom_dagster.client.ThreadPoolExecutor")  # there is no other
        assert client.get_many(values) == values


@pytest.mark.parametrize(("uses", "answered"), [(2, True), (0, False)])
def test_a_token_that_others_use_up_again_and_again_is_replaced_as_often(
    uses: int, answered: bool
) -> None:
    """One without a limit that dies at once twice is no matter of threads: that is said."""
    with model_vault(token_uses=uses) as (vault, _clock, client_for):
        value, left = vault.write("x"), [0] * 5

        def use_up() -> None:
            vault.revoke_tokens()
            left.pop()
            if left:
                vault.before["data/x"] = use_up

        vault.before["data/x"] = use_up
        if answered:
            assert client_for().get("x") == value
            assert vault.logins == 6
        else:
            with pytest.raises(AccessDeniedError):
                client_for().get("x")
            assert vault.count("data/x") == 2


@pytest.mark.parametrize("names_dead", [True, False])
@pytest.mark.parametrize("uses", [1, 2, 3])
def test_threads_that_share_a_token_with_few_uses_all_read(uses: int, names_dead: bool) -> None:
    with model_vault(token_uses=uses, names_dead=names_dead) as (vault, _clock, client_for):
        client, together = client_for(deadline=60.0), threading.Barrier(8)
        values = {f"s{n}": vault.write(f"s{n}") for n in range(8)}

        def read(name: str) -> str:
            together.wait(20)
            return client.get(name)

        with ThreadPoolExecutor(8) as pool:
            assert dict(zip(values, pool.map(read, values), strict=True)) == values


def test_max_entries_is_ten_thousand() -> None:
    assert Settings().max_entries == 10_000


def test_two_thousand_names_are_read_once() -> None:
    clock = FakeClock()
    settings = Settings()
    cache = Cache(
        clock.clock, max_entries=settings.max_entries, deadline=1.0, revalidate_deadline=1.0
    )
    asked = []

    def load(number: int) -> None:
        def fetch(_old: Entry | None, _until: float) -> Entry:
            asked.append(number)
            return Entry(number, clock.time + 60.0, clock.time + 60.0)

        cache.load(number, fetch, "x")

    for _ in range(3):
        for number in range(10_000):
            load(number)
    assert len(asked) == 10_000


def test_one_warning_when_something_fresh_is_thrown_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    with model_vault() as (vault, clock, client_for):
        client = client_for(max_entries=3)
        for number in range(9):
            vault.write(f"s{number}")
        for number in range(3):
            client.get(f"s{number}")
        clock.advance(61.0)
        client.get("s3")  # what goes for it is not fresh any more
        assert "max_entries" not in caplog.text
        for _ in range(2):
            for number in range(9):
                client.get(f"s{number}")
        said = [r.getMessage() for r in caplog.records if "max_entries" in r.getMessage()]
        assert len(said) == 1
        assert "max_entries is 3" in said[0]
        assert client.stats.cached == 3


def test_what_was_read_lately_stays_and_what_has_ended_goes() -> None:
    clock = FakeClock()
    cache = Cache(clock.clock, max_entries=2, deadline=1.0, revalidate_deadline=1.0)

    def load(key: str, ttl: float) -> None:
        cache.load(key, lambda _o, _u: Entry(key, clock.time + ttl, clock.time + ttl), key)

    load("long", 100.0)
    load("short", 10.0)
    cache.entries["long"].used = cache.entries["short"].used = True
    clock.advance(10.0)  # to the very end of "short"
    load("new", 100.0)
    assert set(cache.entries) == {"long", "new"}
    assert not cache.entries["long"].used  # its second chance is spent
    load("newer", 100.0)
    assert set(cache.entries) == {"long", "newer"} or set(cache.entries) == {"new", "newer"}
    assert "newer" in cache.entries


def test_a_handler_of_the_log_may_read_secrets_while_the_cache_warns() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for(max_entries=1)
        for name in ("a", "b", "c"):
            vault.write(name)

        class Reads(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "max_entries" in record.getMessage():
                    values.append(client.get("c"))

        values: list[str] = []
        handler = Reads()
        log = logging.getLogger("strongroom_dagster")
        log.addHandler(handler)
        try:
            client.get("a")
            client.get("b")
        finally:
            log.removeHandler(handler)
        assert len(values) == 1


def test_who_follows_a_read_that_brings_something_fresh_asks_nothing() -> None:
    with model_vault() as (vault, _clock, client_for), ThreadPoolExecutor(1) as pool:
        client = client_for()
        value = vault.write("x")
        answered, go = threading.Event(), threading.Event()

        def hold() -> None:
            answered.set()
            go.wait(20)

        vault.after["data/x"] = hold
        leading = pool.submit(client.get, "x")
        assert answered.wait(20)
        flight = client._cache._flights._flights[client._parse("x").key]
        following = ThreadPoolExecutor(1).submit(client.get, "x")
        wait.until(lambda: bool(flight.landed._cond._waiters), "it waits")  # type: ignore[attr-defined]
        go.set()
        assert leading.result(20) == following.result(20) == value
        assert vault.count("data/x") == 1


def test_of_two_that_are_as_old_the_one_that_was_read_stays() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for(max_entries=2)
        for name in ("a", "b", "c"):
            vault.write(name)
        client.get("a")
        client.get("b")
        client.get("a")
        client.get("c")
        asked = len(vault.requests)
        client.get("a")
        assert len(vault.requests) == asked


def test_while_vault_is_away_it_is_asked_again_after_five_seconds_and_no_sooner() -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for(stale_if_error=600.0, revalidate_deadline=1.0)
        value = vault.write("x")
        client.get("x")
        clock.advance(61.0)
        vault.sealed = True
        assert client.get("x") == value
        asked = len(vault.requests)
        clock.advance(4.9)
        assert client.get("x") == value
        assert len(vault.requests) == asked
        clock.advance(0.1)
        assert client.get("x") == value
        assert len(vault.requests) > asked


def test_a_stale_value_is_served_to_the_end_of_its_bound_and_not_a_moment_longer() -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for(stale_if_error=100.0, deadline=5.0, revalidate_deadline=1.0)
        value = vault.write("x")
        client.get("x")
        vault.sealed = True
        clock.advance(150.0)
        assert client.get("x") == value
        while clock.time < 1159.0:
            clock.advance(0.5)
            assert client.get("x") == value
        clock.advance(1160.0 - clock.time)
        with pytest.raises(VaultUnavailableError):
            client.get("x")


def test_a_fresh_value_is_asked_for_again_at_the_very_end_of_its_time() -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for()
        vault.write("x")
        client.get("x")
        asked = len(vault.requests)
        clock.advance(59.999)
        client.get("x")
        assert len(vault.requests) == asked
        clock.advance(0.001)
        client.get("x")
        assert len(vault.requests) == asked + 1


def test_after_a_fork_the_values_stay_and_nothing_of_the_parents_threads() -> None:
    clock = FakeClock()
    cache = Cache(clock.clock, max_entries=2, deadline=1.0, revalidate_deadline=1.0)

    def fetch(_old: Entry | None, _until: float) -> Entry:
        return Entry("value", clock.time + 60.0, clock.time + 60.0)

    cache.load("kept", fetch, "kept")
    question = cache.ask("asked by a thread of the parent")
    cache._flights._flights["flown by a thread of the parent"] = _Flight(clock.time + 60.0)
    with cache._lock:
        cache.reset_after_fork()
        cache.learn(question, fetch(None, 0.0))
        assert set(cache.entries) == {"kept"}
        flown = "flown by a thread of the parent"
        assert cache.load(flown, fetch, "new").value == "value"


class Fetches:
    """A cache of one entry: fresh for 10 s, usable for 20, and how it was asked for."""

    def __init__(self, *, revalidate_deadline: float = 3.0) -> None:
        self.clock = FakeClock()
        self.cache = Cache(
            self.clock.clock, max_entries=2, deadline=5.0, revalidate_deadline=revalidate_deadline
        )
        self.asked: list[tuple[Entry | None, float]] = []
        self.fails: list[tuple[Exception, float]] = []

    def load(self) -> Entry:
        return self.cache.load("k", self._fetch, "k")

    def _fetch(self, old: Entry | None, until: float) -> Entry:
        self.asked.append((old, until - self.clock.time))
        if self.fails:
            error, seconds = self.fails.pop(0)
            self.clock.advance(seconds)
            raise error
        return Entry(object(), self.clock.time + 10.0, self.clock.time + 20.0)


@pytest.mark.parametrize(
    ("age", "revalidate", "seconds"),
    [(9.9, 3.0, None), (10.0, 3.0, 3.0), (10.0, 60.0, 5.0), (19.9, 3.0, 3.0), (20.0, 3.0, 5.0)],
)
def test_how_long_a_question_may_take_is_told_by_what_is_at_hand(
    age: float, revalidate: float, seconds: float | None
) -> None:
    one = Fetches(revalidate_deadline=revalidate)
    first = one.load()
    assert one.asked == [(None, 5.0)]
    one.clock.advance(age)
    second = one.load()
    if seconds is None:
        assert second is first
        assert len(one.asked) == 1
    else:
        assert second is not first
        old, given = one.asked[1]
        assert old is first
        assert given == pytest.approx(seconds)


@pytest.mark.parametrize(("took", "served"), [(0.5, True), (0.999, True), (1.0, False)])
def test_a_question_that_fails_at_the_very_end_of_the_bound(took: float, served: bool) -> None:
    one = Fetches()
    first = one.load()
    one.clock.advance(19.0)
    one.fails = [(VaultUnavailableError("away"), took)]
    second = one.load()
    assert (second.value is first.value) is served
    assert len(one.asked) == (2 if served else 3)  # asked once more, for as long as is left
    if not served:
        assert one.asked[2][1] == pytest.approx(5.0 - took)


def test_where_no_time_is_left_the_error_is_the_answer() -> None:
    one = Fetches(revalidate_deadline=5.0)
    one.load()
    one.clock.advance(19.0)
    one.fails = [(VaultUnavailableError("away"), 5.0)]
    with pytest.raises(VaultUnavailableError):
        one.load()
    assert len(one.asked) == 2


def test_what_is_refused_is_forgotten_and_what_fails_otherwise_stays() -> None:
    for error, stays in (
        (SecretNotFoundError("gone"), False),
        (AccessDeniedError("denied"), False),
        (InvalidResponseError("odd"), True),
    ):
        one = Fetches()
        one.load()
        one.clock.advance(10.0)
        one.fails = [(error, 0.0)]
        with pytest.raises(type(error)):
            one.load()
        assert ("k" in one.cache.entries) is stays
        assert not one.cache._questions


def version(number: int) -> Entry:
    value = SecretMapping({}, path="p", version=number, created_time=f"time {number}")
    return Entry(value, 2000.0, 2000.0)


@pytest.mark.parametrize(
    ("old", "meanwhile", "learnt", "kept"),
    [
        (None, None, 2, "learnt"),
        (1, 1, 2, "learnt"),  # looked at again meanwhile, and still the old one
        (1, None, 2, "learnt"),
        (None, 1, 2, "nothing"),  # nobody knows which is newer
        (1, 3, 2, "nothing"),
        (1, 2, 2, "meanwhile"),
        (None, 2, 2, "meanwhile"),
        (1, 1, None, "meanwhile"),
    ],
)
def test_what_was_learnt_another_way(
    old: int | None, meanwhile: int | None, learnt: int | None, kept: str
) -> None:
    cache = Cache(FakeClock().clock, max_entries=9, deadline=1.0, revalidate_deadline=1.0)
    cache.entries["other"] = other = version(7)
    cache._flights._flights.update(dict.fromkeys(("k", "other")))  # type: ignore[arg-type]
    if old is not None:
        cache.entries["k"] = version(old)
    question = cache.ask("k")
    cache.entries.pop("k", None)
    if meanwhile is not None:
        cache.entries["k"] = version(meanwhile)
    before = cache.entries.get("k")
    answer = version(learnt) if learnt is not None else None
    cache.learn(question, answer)
    assert cache.entries.get("k") is {"learnt": answer, "nothing": None, "meanwhile": before}[kept]
    assert cache.entries["other"] is other
    assert cache._flights.busy("k") is (kept == "meanwhile")  # what is fetched may be older
    assert cache._flights.busy("other")
    assert not cache._questions
    cache.learn(question, version(9))  # once only
    assert cache.entries.get("k") is {"learnt": answer, "nothing": None, "meanwhile": before}[kept]


def test_what_is_learnt_after_the_cache_was_told_to_forget_is_not_kept() -> None:
    for forget in (Cache.clear, Cache.close):
        cache = Cache(FakeClock().clock, max_entries=9, deadline=1.0, revalidate_deadline=1.0)
        question = cache.ask("k")
        forget(cache)
        cache.learn(question, version(1))
        assert not cache.entries


def test_a_closed_cache_asks_nothing() -> None:
    one = Fetches()
    one.cache.close()
    with pytest.raises(ClosedError):
        one.load()
    assert not one.asked


def test_what_is_learnt_may_be_too_much_too(caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(FakeClock().clock, max_entries=1, deadline=1.0, revalidate_deadline=1.0)
    for key in ("a", "b"):
        assert "max_entries" not in caplog.text
        cache.learn(cache.ask(key), version(1))
    assert "max_entries is 1" in caplog.text
    assert set(cache.entries) == {"b"}


def test_a_question_without_an_answer_says_nothing_of_a_full_cache(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Fetches()
    one.fails = [(SecretNotFoundError("gone"), 0.0)]
    with pytest.raises(SecretNotFoundError):
        one.load()
    one.cache.learn(one.cache.ask("k"), None)
    assert "max_entries" not in caplog.text
