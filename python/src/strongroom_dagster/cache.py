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
from .errors import (
    AccessDeniedError,
    ClosedError,
    SecretNotFoundError,
    VaultUnavailableError,
)
from .masked import same_version
from .singleflight import SingleFlight

log: logging.Logger = logging.getLogger("strongroom_dagster")

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
        self.value: Any = value
        self.fresh_until: float = min(fresh_until, usable_until)
        self.usable_until: float = usable_until
        self.used: bool = False

    def __repr__(self) -> str:
        return f"Entry(fresh_until={self.fresh_until:.1f}, usable_until={self.usable_until:.1f})"


Fetch = Callable[["Entry | None", float], Entry]


class Question:
    """A question to Vault that is under way; its answer is kept unless the cache was told to
    forget in the meantime.

    Attributes:
        key: of the entry.
        old: the entry when it was asked, if there was one.
    """

    __slots__ = ("key", "old")

    def __init__(self, key: Hashable, old: Entry | None) -> None:
        self.key: Hashable = key
        self.old: Entry | None = old


class Cache:
    """Entries by key, at most `max_entries`; the least recently used go first (second chance)."""

    def __init__(
        self, clock: Clock, *, max_entries: int, deadline: float, revalidate_deadline: float
    ) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._deadline = deadline
        self._revalidate_deadline = revalidate_deadline
        self._lock = threading.RLock()
        self._questions: set[Question] = set()
        self._flights: SingleFlight[Entry] = SingleFlight(clock)
        self._closed = False
        self._warned = False
        #: Read without the lock by the client's hot path; written only here, under the lock.
        self.entries: dict[Hashable, Entry] = {}

    def reset_after_fork(self) -> None:
        """New locks for the child; the values stay."""
        self._lock = threading.RLock()
        self._questions = set()
        self._flights.reset()

    def load(self, key: Hashable, fetch: Fetch, label: str) -> Entry:
        """A fresh entry, or the old one within its hard bound if Vault cannot be reached.

        Args:
            key: of the entry.
            fetch: called with the old entry, if any, and the time by which it must end; by one
                thread at a time per key, but for those that were told to forget it meanwhile.
            label: for the log: the secret's name.

        Raises:
            ClosedError: the client is closed.
        """
        until = self._clock.now() + self._deadline
        return self._flights.do(
            key, lambda: self._load(key, fetch, label, until), until, self._is_fresh
        )

    def _is_fresh(self, entry: Entry) -> bool:
        return self._clock.now() < entry.fresh_until

    def _load(self, key: Hashable, fetch: Fetch, label: str, until: float) -> Entry:
        question = self.ask(key)
        old = question.old
        entry: Entry | None = None
        gone = False
        try:
            now = self._clock.now()
            if old is not None and now < old.fresh_until:
                return old  # another thread was here between our look and the flight
            if old is None or now >= old.usable_until:
                entry = fetch(old, until)  # never served again, but what it is can be compared
            else:
                entry = self._revalidate(old, fetch, label, until)
        except (AccessDeniedError, SecretNotFoundError):
            gone = True
            raise
        finally:
            self._answered(question, entry, gone)
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

    def ask(self, key: Hashable) -> Question:
        """Notes that a question begins: to be followed by `learn` or by the end of `load`.

        Raises:
            ClosedError: the client is closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("the client is closed", hint="make a new one, or close it later")
            question = Question(key, self.entries.get(key))
            self._questions.add(question)
            return question

    def _answered(self, question: Question, entry: Entry | None, gone: bool) -> None:
        warn = False
        with self._lock:
            # Forgotten or closed while we were asking: that wins over what we got.
            if question not in self._questions:
                return
            self._questions.discard(question)
            if entry is not None:
                warn = self._store(question.key, entry)
            elif gone:
                self.entries.pop(question.key, None)
        self._warn_if(warn)

    def learn(self, question: Question, entry: Entry | None) -> None:
        """Takes in an answer that came another way than by `load`; None: there was none.

        It may have been overtaken by one that came by `load`: then neither is kept, and the next
        read asks.
        """
        key, warn = question.key, False
        with self._lock:
            if question not in self._questions:
                return
            self._questions.discard(question)
            if entry is None:
                return
            now = self.entries.get(key)
            if now is None or (
                question.old is not None and same_version(now.value, question.old.value)
            ):
                self._forget(lambda other: other == key)  # what is being fetched may be older
                warn = self._store(key, entry)
            elif not same_version(now.value, entry.value):
                self._forget(lambda other: other == key)
        self._warn_if(warn)

    def _store(self, key: Hashable, entry: Entry) -> bool:
        """Whether to warn that something fresh had to go for it; the caller holds the lock."""
        entries, warn = self.entries, False
        if key not in entries:
            now = self._clock.now()
            while len(entries) >= self._max_entries:
                oldest = next(iter(entries))
                victim = entries.pop(oldest)
                if victim.used and victim.usable_until > now:
                    victim.used = False
                    entries[oldest] = victim
                elif victim.fresh_until > now and not self._warned:
                    self._warned = warn = True
        entries[key] = entry
        return warn

    def _warn_if(self, warn: bool) -> None:
        """Without the lock, for a handler of the log may read secrets, too."""
        if warn:
            log.warning(
                "the cache is full: max_entries is %d, and what is still fresh is thrown away and "
                "asked for again; raise max_entries", self._max_entries,
            )  # fmt: skip

    def _forget(self, matches: Callable[[Any], bool]) -> None:
        """Entries, and what is being asked right now; the caller holds the lock."""
        self._flights.drop(matches)
        self._questions = {q for q in self._questions if not matches(q.key)}
        for key in [key for key in self.entries if matches(key)]:
            del self.entries[key]

    def invalidate(self, matches: Callable[[Any], bool]) -> None:
        """Forgets the entries whose key matches, also those being fetched right now.

        A `load` that begins afterwards asks Vault afterwards.
        """
        with self._lock:
            self._forget(matches)

    def clear(self) -> None:
        """Forgets everything, also what is being fetched right now."""
        self.invalidate(lambda _: True)

    def close(self) -> None:
        """Forgets everything and takes in nothing any more: a `load` is an error."""
        with self._lock:
            self._closed = True
            self._forget(lambda _: True)
