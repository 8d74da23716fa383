"""The times of tokens and leases, and how a duration of an answer is read."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from strongroom_dagster import InvalidResponseError
from strongroom_dagster.lease import RENEW_AT, RETRY_RENEWAL, Lifetime, seconds_of


def granted(seconds: float, *, renewable: bool = True, jitter: float = 0.0) -> Lifetime:
    times = Lifetime()
    times.grant(seconds, 1000.0, renewable=renewable, jitter=jitter)
    return times


def test_what_was_never_granted_is_over() -> None:
    times = Lifetime()
    assert (times.ttl, times.expires_at, times.renew_at, times.renewable) == (0.0, 0.0, 0.0, False)


def test_a_lifetime_counts_from_before_the_request() -> None:
    times = granted(90.0)
    assert (times.ttl, times.expires_at, times.renewable) == (90.0, 1090.0, True)
    assert times.renew_at == 1000.0 + 90.0 * RENEW_AT
    assert granted(0.5).ttl == 0.5
    assert granted(90.0, jitter=0.1).renew_at == pytest.approx(1069.0)
    assert not granted(90.0, renewable=False).renewable
    assert granted(math.inf).renew_at == math.inf


@pytest.mark.parametrize(("seconds", "more"), [(90.0, True), (45.0, True), (44.9, False)])
def test_a_renewal_that_was_cut_short_is_the_last(seconds: float, more: bool) -> None:
    times = granted(90.0)
    times.grant(seconds, 1060.0, renewable=True)
    assert times.renewable is more
    assert (times.ttl, times.expires_at) == (90.0, 1060.0 + seconds)


def test_a_renewal_is_put_off_by_a_share_of_what_is_left() -> None:
    times = granted(90.0)
    assert times.postpone(1070.0, times.expires_at) == 20.0
    assert times.renew_at == 1070.0 + RETRY_RENEWAL
    assert times.postpone(1086.0, times.expires_at) == 4.0
    assert times.renew_at == 1087.0


@pytest.mark.parametrize("value", [0, 1, 3600, 2764800, 0.5, 9223372036])
def test_a_duration_is_a_number_of_seconds(value: float) -> None:
    assert seconds_of({"lease_duration": value}, "lease_duration", "auth/x/login") == value


@pytest.mark.parametrize(
    "text",
    ['"3600"', '"1h"', '""', "null", "true", "-1", "NaN", "Infinity", "1e400", "9223372037", "[]", "{}",
     "1" + "0" * 400],
)  # fmt: skip
def test_an_odd_duration_is_an_error_that_names_it(text: str) -> None:
    block: dict[str, Any] = {"lease_duration": json.loads(text)}
    for odd in (block, {}):
        with pytest.raises(InvalidResponseError, match=r"auth/x/login.*no lease_duration"):
            seconds_of(odd, "lease_duration", "auth/x/login")
