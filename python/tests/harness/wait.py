"""Waiting for a condition of another process, with an end."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Returns when `condition` holds; fails after `seconds`."""
    end = time.monotonic() + seconds
    never = threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        never.wait(0.02)


def free_port() -> int:
    """A loopback port that is free now.

    It lies below those that Linux gives to whoever asks for any (from 32768 on), so that nobody
    gets it by chance before it is used.
    """
    for _ in range(1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", random.randrange(11000, 15000)))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("no free port")
