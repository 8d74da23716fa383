"""Which API keys are overdue for rotation, told from what a read of each says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol

from .errors import ConfigurationError
from .masked import ApiKey


class ApiKeys(Protocol):
    """`VaultSecrets`, the resource or a fake."""

    def api_key(self, name: str) -> ApiKey: ...


@dataclass(frozen=True)
class RotationState:
    """When a key is to be rotated; holds no secret.

    Attributes:
        name: as it was asked for.
        version: the current one.
        next_rotation: None where the key has none.
        overdue: how long it should have been rotated by now; zero if it is not overdue.
        warnings: what Vault says to those who read the key.
    """

    name: str
    version: int
    next_rotation: datetime | None
    overdue: timedelta
    warnings: tuple[str, ...]


def rotation_states(
    keys: ApiKeys,
    names: Iterable[str],
    *,
    tolerance: timedelta = timedelta(hours=1),
    now: datetime | None = None,
) -> list[RotationState]:
    """The state of each key, in the order of `names`.

    Args:
        keys: reads a key by name.
        names: of the API keys.
        tolerance: how late a rotation may be before it counts as overdue; it also covers the
            difference between this machine's clock and Vault's.
        now: the time to compare with; by default the present.

    Raises:
        ConfigurationError: `names` is a text.
    """
    if isinstance(names, (str, bytes)):
        raise ConfigurationError(
            "takes a list of names of API keys, and got a single text", hint='write ["…"]'
        )
    present = now or datetime.now(timezone.utc)
    states = []
    for name in names:
        key = keys.api_key(name)
        due = parse_time(key.next_rotation_time)
        late = present - due if due is not None else timedelta(0)
        overdue = late if late > tolerance else timedelta(0)
        states.append(RotationState(name, key.version, due, overdue, key.warnings))
    return states


def parse_time(text: str) -> datetime | None:
    """An RFC 3339 time with any number of digits after the second; None for an empty or zero one.

    Source: https://www.rfc-editor.org/rfc/rfc3339 (Python before 3.11 reads less than that).
    """
    if not text:
        return None
    head, dot, tail = text.replace("Z", "+00:00").replace("z", "+00:00").partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        head = f"{head}.{tail[: min(digits, 6)].ljust(6, '0')}{tail[digits:]}"
    try:
        parsed = datetime.fromisoformat(head)
    except ValueError:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=timezone.utc)
    return parsed if parsed.year > 1 else None  # Go's zero time
