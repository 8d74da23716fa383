"""The times of what Vault lends: a token, or a lease. One arithmetic for both.

It only counts. Who renews, replaces and revokes is in `auth` and `database`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from .errors import InvalidResponseError

#: Renew when this share of the lifetime has passed.
RENEW_AT = 2 / 3
#: After a renewal that found Vault unavailable: seconds before the next, at most.
RETRY_RENEWAL = 5.0
#: Go counts durations in 64 bits of nanoseconds; Vault knows no longer ones.
MOST_SECONDS = 2.0**63 / 1e9


class Lifetime:
    """When something is to be renewed and when it is gone, on the client's clock.

    Attributes:
        ttl: the longest lifetime that it was granted, in seconds; infinity: it does not end.
        expires_at: when Vault forgets it, unless it is renewed.
        renew_at: when to renew or to replace it.
        renewable: whether a renewal is worth trying.
    """

    __slots__ = ("expires_at", "renew_at", "renewable", "ttl")

    def __init__(self) -> None:
        self.ttl: float = 0.0
        self.expires_at: float = 0.0
        self.renew_at: float = 0.0
        self.renewable: bool = False

    def grant(
        self, seconds: float, asked_at: float, *, renewable: bool, jitter: float = 0.0
    ) -> None:
        """Takes in what Vault granted, at first or by a renewal.

        Args:
            seconds: of lifetime, counted from `asked_at`.
            asked_at: time on the clock before the request was sent.
            renewable: what Vault says. A renewal that was cut to less than half (by the maximum
                lifetime) is taken for the last whatever it says.
            jitter: share of the lifetime by which the renewal is moved, so that processes that
                started together do not come together.
        """
        self.ttl = max(self.ttl, seconds)
        self.expires_at = asked_at + seconds
        self.renew_at = asked_at + seconds * (RENEW_AT + jitter)
        self.renewable = renewable and seconds >= self.ttl / 2

    def postpone(self, now: float, expires_at: float) -> float:
        """Puts off a renewal for which Vault was away; returns the seconds that are left."""
        left = expires_at - now
        self.renew_at = now + min(RETRY_RENEWAL, left / 4)
        return left


def is_seconds(value: object) -> TypeGuard[float]:
    """Whether a value of one of Vault's answers is a duration in seconds."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value <= MOST_SECONDS
    )


def seconds_of(block: Mapping[str, Any], name: str, where: str) -> float:
    """A duration of one of Vault's answers, in seconds, which must be a number of them.

    Args:
        block: the part of the answer that holds it.
        name: of the duration, `lease_duration`.
        where: the path that was asked, for the message.

    Raises:
        InvalidResponseError: it is missing, no number, negative or absurdly long.
    """
    value = block.get(name)
    if is_seconds(value):
        return float(value)
    raise InvalidResponseError(
        f'vault\'s answer to "{where}" holds no {name} that is a number of seconds',
        hint="is the address that of a Vault?",
    )
