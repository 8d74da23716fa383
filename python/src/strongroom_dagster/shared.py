"""One client for all of a process that ask for the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager

from .client import VaultSecrets


class SharedClients:
    """Clients by what they are configured with, closed when the last who asked is done.

    Attributes:
        lock: of who makes or takes away one, held while a client is made.
    """

    def __init__(self) -> None:
        self.lock: AbstractContextManager[object] = threading.RLock()
        self._held: dict[Hashable, tuple[VaultSecrets, int]] = {}

    def acquire(self, key: Hashable, make: Callable[[], VaultSecrets]) -> VaultSecrets:
        """The client of this key, made if nobody holds it. Pair it with `release`."""
        with self.lock:
            client, users = self._held.get(key) or (make(), 0)
            self._held[key] = (client, users + 1)
            return client

    def release(self, key: Hashable) -> None:
        """Closes the client if this was the last who held it."""
        with self.lock:
            client, users = self._held.pop(key)
            if users > 1:
                self._held[key] = (client, users - 1)
                return
        client.close()

    def reset_after_fork(self) -> None:
        """In the child: the lock may be held by a thread that is not there any more."""
        self.lock = threading.RLock()
