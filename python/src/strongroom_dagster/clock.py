"""The clock, the pause and the randomness of the client, so that tests can replace them.

Lifetimes are measured on a clock that never jumps and, where the system has one (Linux), goes on
while the machine sleeps: a laptop that wakes after a night does not take an expired lease for
valid. The wall clock is never used to decide whether a secret is still good.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _best_now() -> Callable[[], float]:
    if hasattr(time, "CLOCK_BOOTTIME"):
        try:
            _boottime()
        except OSError:
            return time.monotonic
        return _boottime
    return time.monotonic


@dataclass(frozen=True)
class Clock:
    """Sources of time and chance.

    Attributes:
        now: seconds on a clock that only goes forward; its zero means nothing.
        sleep: pauses the calling thread for that many seconds.
        uniform: a random number between its two arguments.
    """

    now: Callable[[], float]
    sleep: Callable[[float], None]
    uniform: Callable[[float, float], float]


def system_clock() -> Clock:
    """The real clock of this machine."""
    return Clock(now=_best_now(), sleep=time.sleep, uniform=random.SystemRandom().uniform)
