"""A bounded cache in memory whose hits take no lock.

It knows when a value is fresh and until when it may be used if Vault cannot be reached. It does
not know how to fetch one, and there are no negative entries.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from typing import Any

from .clock import Clock
from .errors import AccessDeniedError, SecretNotFoundError, VaultUnavailableError
from .singleflight import SingleFlight

log = logging.getLogger("strongroom_dagster")

#: After a failed revalidation a usable value is served for this many seconds before the next try.
STALE_RETRY = 5.0


class Entry:
    """A cached value.

    Attributes:
        value: the secret.
        fresh_until: time on the clock until which it is served without a question.
        usable_until: hard bound: never served after it, whatever happens.
        used: read since the last eviction round.
    """

    __slots__ = ("fresh_until", "usable_until", "used", "value")

    def __init__(self, value: Any, fresh_until: float, usable_until: float) -> None:
        self.value = value
        self.fresh_until = min(fresh_until, usable_until)
        self.usable_until = usable_until
        self.used = False

    def __repr__(self) -> str:
        return f"Entry(fresh_until={self.fresh_until:.1f}, usable_until={self.usable_until:.1f})"


Fetch = Callable[["Entry | None", float], Entry]


class Cache:
    """Entries by key, at most `max_entries`; the least recently used go first (second chance)."""

    def __init__(
        self, clock: Clock, *, max_entries: int, deadline: float, revalidate_deadline: float
    ) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._deadline = deadline
        self._revalidate_deadline = min(revalidate_deadline, deadline)
        self._lock = threading.Lock()
        self._generation = 0
        self._flights: SingleFlight[Entry] = SingleFlight(clock)
        #: Read without the lock by the client's hot path; written only here, under the lock.
        self.entries: dict[Hashable, Entry] = {}

    def reset_after_fork(self) -> None:
        """New locks for the child; the values stay."""
        self._lock = threading.Lock()
        self._flights.reset()

    def load(self, key: Hashable, fetch: Fetch, label: str) -> Entry:
        """A fresh entry, or the old one within its hard bound if Vault cannot be reached.

        Args:
            key: of the entry.
            fetch: called with the old entry, if any, and the time by which it must end; by one
                thread at a time per key.
            label: for the log: the secret's name.
        """
        until = self._clock.now() + self._deadline
        return self._flights.do(key, lambda: self._load(key, fetch, label, until), until)

    def _load(self, key: Hashable, fetch: Fetch, label: str, until: float) -> Entry:
        with self._lock:
            generation = self._generation
            old = self.entries.get(key)
        now = self._clock.now()
        if old is not None and now < old.fresh_until:
            return old  # another thread was here between our look and the flight
        try:
            if old is None or now >= old.usable_until:
                entry = fetch(old, until)  # never served again, but what it is can be compared
            else:
                entry = self._revalidate(old, fetch, label, until)
        except (AccessDeniedError, SecretNotFoundError):
            self.discard(key)
            raise
        with self._lock:
            # An invalidation that came while we were fetching wins over what we fetched.
            if generation == self._generation:
                self._store(key, entry)
        return entry

    def _revalidate(self, old: Entry, fetch: Fetch, label: str, until: float) -> Entry:
        try:
            return fetch(old, min(until, self._clock.now() + self._revalidate_deadline))
        except VaultUnavailableError as error:
            now = self._clock.now()
            if now < old.usable_until:
                log.warning(
                    "vault is unavailable (%s); serving the cached %s, usable for %.0f s more",
                    error.message, label, old.usable_until - now,
                )  # fmt: skip
                return Entry(old.value, now + STALE_RETRY, old.usable_until)
            if now >= until:
                raise
        return fetch(old, until)

    def _store(self, key: Hashable, entry: Entry) -> None:
        entries = self.entries
        if key not in entries:
            while len(entries) >= self._max_entries:
                oldest = next(iter(entries))
                victim = entries.pop(oldest)
                if victim.used and victim.usable_until > self._clock.now():
                    victim.used = False
                    entries[oldest] = victim
        entries[key] = entry

    def put(self, key: Hashable, entry: Entry) -> None:
        """Takes in a value that came another way than by `load`."""
        with self._lock:
            self._generation += 1  # what is being fetched now may be older
            self._store(key, entry)

    def discard(self, key: Hashable) -> None:
        """Forgets one entry."""
        with self._lock:
            self.entries.pop(key, None)

    def clear(self) -> None:
        """Forgets everything, also what is being fetched right now."""
        with self._lock:
            self._generation += 1
            self.entries.clear()

    def invalidate(self, matches: Callable[[Any], bool]) -> None:
        """Forgets the entries whose key matches, also those being fetched right now."""
        with self._lock:
            self._generation += 1
            for key in [key for key in self.entries if matches(key)]:
                del self.entries[key]
