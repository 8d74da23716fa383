"""One call at a time per key: threads that want the same thing share one thread's answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from .clock import Clock
from .errors import StrongroomError, VaultUnavailableError

T = TypeVar("T")


class _Flight(Generic[T]):
    __slots__ = ("done", "error", "landed", "leader", "result", "until")

    def __init__(self, until: float) -> None:
        self.leader = threading.get_ident()
        self.landed = threading.Event()
        self.until = until
        self.done = False
        self.result: T | None = None
        self.error: StrongroomError | None = None


class SingleFlight(Generic[T]):
    """Shares the running call of a key; keeps nothing after it has ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._flights: dict[Hashable, _Flight[T]] = {}

    def reset(self) -> None:
        """For the child of a fork, in which the threads that led the calls do not exist."""
        self._lock = threading.RLock()
        self._flights = {}

    def busy(self, key: Hashable) -> bool:
        """Whether a call of this key is running now."""
        return key in self._flights

    def drop(self, matches: Callable[[Any], bool]) -> None:
        """Lets nobody follow the running calls of these keys any more: who comes next leads.

        Those who follow already get what the call brings.
        """
        with self._lock:
            for key in [key for key in self._flights if matches(key)]:
                del self._flights[key]

    def do(
        self,
        key: Hashable,
        call: Callable[[], T],
        until: float,
        fits: Callable[[T], bool] | None = None,
    ) -> T:
        """The result of `call`, made by this thread or by the one that is already at it.

        A leader that is interrupted (KeyboardInterrupt, a bug) is not followed: one of those who
        waited takes its place. A thread that is at it already, and is interrupted by what asks
        again (the handler of a signal, a finalizer), does not wait for itself: it calls.

        Args:
            fits: whether what was asked for before this call began is good enough for it; None:
                it always is. What does not fit, or failed for another reason than that Vault was
                away, is asked for once more.

        Raises:
            StrongroomError: what the leader's call raised, as a fresh exception for each thread.
            VaultUnavailableError: the leader was not done by `until`.
        """
        older = fits is not None
        while True:
            with self._lock:
                flight = self._flights.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight(until)
            if leads:
                return self._lead(key, flight, call)
            if flight.leader == threading.get_ident():
                return call()
            if not flight.landed.wait(max(0.0, until - self._clock.now())):
                if self._clock.now() >= flight.until:
                    self._remove(key, flight)  # its leader was interrupted before it took off
                raise VaultUnavailableError("another thread's request was not answered in time")
            error, outdated = flight.error, older
            older = False  # whatever is found from here on began after this call
            if error is not None and (not outdated or isinstance(error, VaultUnavailableError)):
                raise type(error)(error.message, hint=error.hint)
            if flight.done:
                result: T = flight.result  # type: ignore[assignment]
                if not outdated or fits is None or fits(result):
                    return result

    def _lead(self, key: Hashable, flight: _Flight[T], call: Callable[[], T]) -> T:
        try:
            flight.result = call()
            flight.done = True
            return flight.result
        except StrongroomError as error:
            flight.error = error
            raise
        finally:
            self._remove(key, flight)
            flight.landed.set()

    def _remove(self, key: Hashable, flight: _Flight[T]) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
