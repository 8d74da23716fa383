"""Waiting for a condition of another process, with an end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Returns when `condition` holds; fails after `seconds`."""
    end = time.monotonic() + seconds
    never = threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        never.wait(0.02)


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
