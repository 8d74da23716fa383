"""Threads that want the same thing share one call: its value, its error, and no more than that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from strongroom_dagster import SecretNotFoundError, StrongroomError, VaultUnavailableError
from strongroom_dagster.singleflight import SingleFlight

from .harness import wait
from .harness.clock import FakeClock


def test_who_is_interrupted_by_what_asks_again_does_not_wait_for_itself() -> None:
    """The handler of a signal runs in the thread that it interrupts."""
    clock = FakeClock()
    flights: SingleFlight[str] = SingleFlight(clock.clock)

    def interrupted() -> str:
        return "outer and " + flights.do("k", lambda: "inner", clock.time + 60.0)

    assert flights.do("k", interrupted, clock.time + 60.0) == "outer and inner"
    assert not flights.busy("k")


class Crowd:
    """One leader that is held up, and followers that wait for it."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.clock = FakeClock()
        self.flights: SingleFlight[Any] = SingleFlight(self.clock.clock)
        self.calls: list[str] = []
        self._pool = pool
        self._go = threading.Event()

    def lead(self, result: Any) -> Future[Any]:
        inside = threading.Event()

        def call() -> Any:
            inside.set()
            assert self._go.wait(30)
            return self._bring("leader", result)

        leading = self._pool.submit(self.flights.do, "k", call, self.clock.time + 60.0)
        assert inside.wait(30)
        return leading

    def follow(self, result: Any, fits: Callable[[Any], bool] | None = None) -> Future[Any]:
        flight = self.flights._flights["k"]
        before = len(flight.landed._cond._waiters)  # type: ignore[attr-defined]
        following = self._pool.submit(
            self.flights.do, "k", lambda: self._bring("follower", result),
            self.clock.time + 60.0, fits,
        )  # fmt: skip
        wait.until(
            lambda: len(flight.landed._cond._waiters) > before,  # type: ignore[attr-defined]
            "it waits",
        )
        return following

    def _bring(self, who: str, result: Any) -> Any:
        self.calls.append(who)
        if isinstance(result, BaseException):
            raise result
        return result

    def land(self) -> None:
        self._go.set()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with ThreadPoolExecutor(8) as pool:
        made = Crowd(pool)
        yield made
        made.land()


@pytest.mark.parametrize("fits", [None, lambda _: True], ids=["anything fits", "it fits"])
@pytest.mark.parametrize("value", ["value", None, 0])
def test_all_get_the_leaders_value(
    crowd: Crowd, value: Any, fits: Callable[[Any], bool] | None
) -> None:
    all_of_them = [crowd.lead(value), *(crowd.follow("another", fits) for _ in range(4))]
    crowd.land()
    assert [one.result(30) for one in all_of_them] == [value] * 5
    assert crowd.calls == ["leader"]
    assert not crowd.flights.busy("k")


def test_what_does_not_fit_is_asked_for_once_more_and_once_only(crowd: Crowd) -> None:
    leading = crowd.lead("old")
    following = [crowd.follow("new", lambda _: False) for _ in range(4)]
    crowd.land()
    assert leading.result(30) == "old"
    assert [one.result(30) for one in following] == ["new"] * 4
    assert 1 <= crowd.calls.count("follower") <= 4


def test_what_was_asked_for_after_all_of_them_had_come_fits_all_of_them(crowd: Crowd) -> None:
    """Those that could not take the first answer share the second, whatever it is."""
    leading = crowd.lead("old")
    calls, flights = crowd.calls, crowd.flights

    def call() -> str:
        calls.append("second")
        flight = flights._flights["k"]
        wait.until(lambda: len(flight.landed._cond._waiters) == 3, "all others wait")  # type: ignore[attr-defined]
        return "new"

    first = flights._flights["k"]
    following = [
        crowd._pool.submit(flights.do, "k", call, crowd.clock.time + 60.0, lambda _: False)
        for _ in range(4)
    ]
    wait.until(lambda: len(first.landed._cond._waiters) == 4, "all of them wait")  # type: ignore[attr-defined]
    crowd.land()
    assert leading.result(30) == "old"
    assert [one.result(30) for one in following] == ["new"] * 4
    assert calls == ["leader", "second"]


@pytest.mark.parametrize("fits", [None, lambda _: True], ids=["anything fits", "it fits"])
def test_that_vault_is_away_is_told_to_all_in_an_error_of_their_own(
    crowd: Crowd, fits: Callable[[Any], bool] | None
) -> None:
    error = VaultUnavailableError("away", hint="wait")
    all_of_them = [crowd.lead(error), *(crowd.follow("value", fits) for _ in range(3))]
    crowd.land()
    raised = [one.exception(30) for one in all_of_them]
    assert len({id(one) for one in raised}) == 4
    for one in raised:
        assert isinstance(one, VaultUnavailableError)
        assert (one.message, one.hint) == ("away", "wait")
    assert crowd.calls == ["leader"]


def test_another_error_is_followed_where_anything_fits(crowd: Crowd) -> None:
    leading, following = crowd.lead(SecretNotFoundError("gone")), crowd.follow("value")
    crowd.land()
    assert isinstance(leading.exception(30), SecretNotFoundError)
    assert isinstance(following.exception(30), SecretNotFoundError)


def test_another_error_is_not_followed_by_who_asks_what_fits(crowd: Crowd) -> None:
    leading = crowd.lead(SecretNotFoundError("gone"))
    following = crowd.follow("there by now", lambda _: True)
    crowd.land()
    assert isinstance(leading.exception(30), SecretNotFoundError)
    assert following.result(30) == "there by now"


def test_a_leader_that_is_interrupted_is_replaced(crowd: Crowd) -> None:
    leading, following = crowd.lead(ZeroDivisionError()), crowd.follow("value")
    crowd.land()
    assert isinstance(leading.exception(30), ZeroDivisionError)
    assert following.result(30) == "value"


def test_who_was_dropped_is_not_followed_and_does_not_take_its_successor_along(
    crowd: Crowd,
) -> None:
    leading, following = crowd.lead("old"), crowd.follow("never")
    crowd.flights.drop(lambda key: key == "other")
    assert crowd.flights.busy("k")
    crowd.flights.drop(lambda key: key == "k")
    inside, go = threading.Event(), threading.Event()

    def call() -> str:
        inside.set()
        assert go.wait(30)
        return "new"

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(crowd.flights.do, "k", call, crowd.clock.time + 60.0)
        assert inside.wait(30)
        crowd.land()
        assert (leading.result(30), following.result(30)) == ("old", "old")
        assert crowd.flights.busy("k")  # the second one is still in the air
        go.set()
        assert second.result(30) == "new"
    assert not crowd.flights.busy("k")


def test_after_a_fork_nothing_of_the_parents_threads_is_left() -> None:
    flights: SingleFlight[str] = SingleFlight(FakeClock().clock)
    flights._flights["k"] = None  # type: ignore[assignment]
    with flights._lock:  # as of a thread that is not in the child
        flights.reset()
        assert not flights.busy("k")
        assert flights.do("k", lambda: "value", 0.0) == "value"


def test_an_error_of_ours_is_raised_by_the_leader_as_it_is() -> None:
    flights: SingleFlight[str] = SingleFlight(FakeClock().clock)
    error = StrongroomError("x")

    def call() -> str:
        raise error

    with pytest.raises(StrongroomError) as caught:
        flights.do("k", call, 0.0)
    assert caught.value is error
    assert not flights.busy("k")
