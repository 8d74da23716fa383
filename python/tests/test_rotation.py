"""When an API key is overdue, and how Vault's times are read."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from strongroom_dagster import (
    ConfigurationError,
    build_rotation_check,
    build_rotation_sensor,
)
from strongroom_dagster.fake import FakeVaultSecrets
from strongroom_dagster.masked import ApiKey, SecretMapping
from strongroom_dagster.rotation import RotationState, parse_time, rotation_states

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


class Keys:
    """Each key is due at the time that is its name."""

    def api_key(self, name: str) -> ApiKey:
        values = SecretMapping({"key": "k"}, path="apikeys/x", version=3)
        return ApiKey(
            name="x", values=values, version=3, next_rotation_time=name, warnings=("due",)
        )


def overdue(due: str, tolerance: timedelta = timedelta(hours=1)) -> timedelta:
    (state,) = rotation_states(Keys(), [due], tolerance=tolerance, now=NOON)
    return state.overdue


def test_a_key_is_overdue_when_it_is_later_than_is_tolerated() -> None:
    assert overdue("2026-03-01T10:59:59Z") == timedelta(hours=1, seconds=1)
    assert overdue("2026-03-01T11:00:00Z") == timedelta(0)
    assert overdue("2026-03-01T13:00:00Z") == timedelta(0)
    assert overdue("") == timedelta(0)
    assert overdue("2026-03-01T11:59:50Z", timedelta(seconds=9)) == timedelta(seconds=10)
    assert overdue("", timedelta(-1)) == timedelta(0)


@pytest.mark.parametrize("names", ["2026-03-01T10:59:59Z", b"x"])
def test_a_single_name_is_no_list_of_them(names: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes a list"):
        rotation_states(Keys(), names)
    with pytest.raises(ConfigurationError, match="takes a list"):
        build_rotation_check(asset="a", keys=names)
    with pytest.raises(ConfigurationError, match="takes a list"):
        build_rotation_sensor(keys=names)


def test_the_states_are_in_the_order_of_the_names_and_hold_what_the_key_says() -> None:
    due = ["2026-03-01T10:00:00Z", ""]
    assert rotation_states(Keys(), due, now=NOON) == [
        RotationState(due[0], 3, NOON - timedelta(hours=2), timedelta(hours=2), ("due",)),
        RotationState("", 3, None, timedelta(0), ("due",)),
    ]


def test_it_is_compared_with_the_present() -> None:
    ago = (datetime.now(timezone.utc) - timedelta(hours=3)).isoformat()
    (state,) = rotation_states(Keys(), [ago])
    assert timedelta(hours=3) <= state.overdue < timedelta(hours=4)
    with FakeVaultSecrets(api_keys={"x": "k"}) as client:
        assert [s.overdue for s in rotation_states(client, ["x"])] == [timedelta(0)]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-01T12:00:00Z", NOON),
        ("2026-03-01T12:00:00z", NOON),
        ("2026-03-01T13:30:00+01:30", NOON),
        ("2026-03-01T12:00:00", NOON),
        ("2026-03-01T12:00:00.5Z", NOON.replace(microsecond=500_000)),
        ("2026-03-01T12:00:00.123456Z", NOON.replace(microsecond=123_456)),
        ("2026-03-01T12:00:00.123456789Z", NOON.replace(microsecond=123_456)),
        ("2026-03-01T13:30:00.1234567+01:30", NOON.replace(microsecond=123_456)),
        ("0002-01-01T00:00:00Z", datetime(2, 1, 1, tzinfo=timezone.utc)),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("soon", None),
        ("2026-13-01T12:00:00Z", None),
    ],
)
def test_a_time_of_vault(text: str, time: datetime | None) -> None:
    assert parse_time(text) == time
    if time is not None:
        assert parse_time(text).utcoffset() is not None  # type: ignore[union-attr]
