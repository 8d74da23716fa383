"""One call at a time per key: threads that want the same thing share one thread's answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from .clock import Clock
from .errors import StrongroomError, VaultUnavailableError

T = TypeVar("T")


class _Flight(Generic[T]):
    __slots__ = ("done", "error", "landed", "result")

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.done = False
        self.result: T | None = None
        self.error: StrongroomError | None = None


class SingleFlight(Generic[T]):
    """Shares the running call of a key; keeps nothing after it has ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight[T]] = {}

    def reset(self) -> None:
        """For the child of a fork, in which the threads that led the calls do not exist."""
        self._lock = threading.Lock()
        self._flights = {}

    def busy(self, key: Hashable) -> bool:
        """Whether a call of this key is running now."""
        return key in self._flights

    def do(self, key: Hashable, call: Callable[[], T], until: float) -> T:
        """The result of `call`, made by this thread or by the one that is already at it.

        A leader that is interrupted (KeyboardInterrupt, a bug) is not followed: one of those who
        waited takes its place.

        Raises:
            StrongroomError: what the leader's call raised, as a fresh exception for each thread.
            VaultUnavailableError: the leader was not done by `until`.
        """
        while True:
            with self._lock:
                flight = self._flights.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight()
            if leads:
                return self._lead(key, flight, call)
            if not flight.landed.wait(max(0.0, until - self._clock.now())):
                raise VaultUnavailableError("another thread's request was not answered in time")
            if flight.error is not None:
                raise type(flight.error)(flight.error.message, hint=flight.error.hint)
            if flight.done:
                return flight.result  # type: ignore[return-value]

    def _lead(self, key: Hashable, flight: _Flight[T], call: Callable[[], T]) -> T:
        try:
            flight.result = call()
            flight.done = True
            return flight.result
        except StrongroomError as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.landed.set()
