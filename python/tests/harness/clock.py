"""A clock that stands still until it is told to go on; a pause moves it."""

from __future__ import annotations

from strongroom_dagster.clock import Clock, system_clock


class FakeClock:
    """Give `clock` to the client.

    Attributes:
        pauses: how long the client paused, in seconds.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start
        self.pauses: list[float] = []
        self.clock = Clock(
            now=lambda: self.time, sleep=self._sleep, uniform=lambda a, b: (a + b) / 2
        )

    def advance(self, seconds: float) -> None:
        self.time += seconds

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds


class ShiftedClock:
    """The real clock, which a test can push forward: for leases that a real Vault counts too.

    Attributes:
        shift: seconds by which it is ahead.
        hurried: whether a pause pushes it forward in place of waiting.
    """

    def __init__(self) -> None:
        self.shift = 0.0
        self.hurried = False
        self._real = system_clock()
        self.clock = Clock(
            now=lambda: self._real.now() + self.shift, sleep=self._sleep, uniform=self._real.uniform
        )

    def _sleep(self, seconds: float) -> None:
        if self.hurried:
            self.shift += seconds
        else:
            self._real.sleep(seconds)
