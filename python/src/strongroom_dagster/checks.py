"""An asset check and a sensor that report API keys which are overdue for rotation."""

# Without `from __future__ import annotations`: Dagster looks at the type of `context`.

import json
from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from .errors import ConfigurationError
from .rotation import RotationState, rotation_states


def _names(keys: Sequence[str]) -> list[str]:
    if isinstance(keys, (str, bytes)):
        raise ConfigurationError(
            "keys: takes a list of names, and got a single text", hint='write keys=["…"]'
        )
    names = list(dict.fromkeys(keys))
    if not names:
        raise ConfigurationError("keys: name at least one API key")
    return names


def _describe(states: Sequence[RotationState]) -> str:
    late = [s for s in states if s.overdue]
    if not late:
        return f"none of {len(states)} API keys is overdue for rotation"
    words = ", ".join(f"{s.name} ({s.overdue.total_seconds() / 3600:.0f} h)" for s in late)
    return f"overdue for rotation: {words}"


def _metadata(states: Sequence[RotationState]) -> dict[str, dg.MetadataValue]:
    rows = [
        dg.TableRecord(
            {
                "key": s.name,
                "version": s.version,
                "next_rotation": s.next_rotation.isoformat() if s.next_rotation else "",
                "overdue_hours": round(s.overdue.total_seconds() / 3600, 1),
                "warnings": "; ".join(s.warnings),
            }
        )
        for s in states
    ]
    return {
        "keys": dg.MetadataValue.table(rows),
        "overdue": dg.MetadataValue.int(sum(bool(s.overdue) for s in states)),
    }


def build_rotation_check(
    *,
    asset: str | Sequence[str] | dg.AssetKey | dg.AssetsDefinition,
    keys: Sequence[str],
    tolerance: timedelta = timedelta(hours=1),
    resource_key: str = "vault",
    name: str = "api_keys_rotated",
    blocking: bool = False,
) -> dg.AssetChecksDefinition:
    """A check that fails (as a warning) while a key that the asset uses is overdue.

    Args:
        asset: the asset that it belongs to.
        keys: names of API keys as `api_key` takes them.
        tolerance: how late is late.
        resource_key: of the `VaultSecretsResource`.
        name: of the check.
        blocking: whether assets downstream wait for it to pass; the failure is then an error.
    """
    names = _names(keys)

    @dg.asset_check(
        asset=asset, name=name, blocking=blocking, required_resource_keys={resource_key},
        description="API keys that should have been rotated by now",
    )  # fmt: skip
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        vault = getattr(context.resources, resource_key)
        states = rotation_states(vault, names, tolerance=tolerance)
        severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(
            passed=not any(s.overdue for s in states),
            severity=severity,
            description=_describe(states),
            metadata=_metadata(states),
        )

    return check


def build_rotation_sensor(
    *,
    keys: Sequence[str],
    tolerance: timedelta = timedelta(hours=1),
    resource_key: str = "vault",
    name: str = "api_key_rotation",
    minimum_interval_seconds: int = 3600,
) -> dg.SensorDefinition:
    """A sensor that records an observation whenever the set of overdue keys has changed.

    The observations are of the asset key `["vault", "apikeys"]`; between changes it skips and
    says how things stand.

    Args:
        keys, tolerance, resource_key: as for `build_rotation_check`.
        name: of the sensor.
        minimum_interval_seconds: between two looks.
    """
    names = _names(keys)

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        required_resource_keys={resource_key},
        description="API keys that should have been rotated by now",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        vault = getattr(context.resources, resource_key)
        states = rotation_states(vault, names, tolerance=tolerance)
        late = sorted(s.name for s in states if s.overdue)
        if late == json.loads(context.cursor or "[]"):
            return dg.SensorResult(skip_reason=_describe(states), cursor=context.cursor)
        if late:
            context.log.warning(_describe(states))
        observation = dg.AssetObservation(
            asset_key=["vault", "apikeys"],
            description=_describe(states),
            metadata=_metadata(states),
        )
        return dg.SensorResult(asset_events=[observation], cursor=json.dumps(late))

    return look
