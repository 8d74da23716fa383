"""What `dagster dev` loads."""

from __future__ import annotations

import dagster as dg

from strongroom_dagster import (
    VaultSecretsResource,
    build_rotation_check,
    build_rotation_sensor,
)

from .assets import station_history, station_status

vault = VaultSecretsResource(
    address=dg.EnvVar("VAULT_ADDR"),
    ca_bundle=dg.EnvVar("VAULT_CACERT"),
    role_id=dg.EnvVar("VAULT_ROLE_ID"),
    secret_id_file=dg.EnvVar("VAULT_SECRET_ID_FILE"),
    app="bike-data-flow",
    environment="production",
)

daily = dg.define_asset_job("daily", selection="*", executor_def=dg.multiprocess_executor)

defs = dg.Definitions(
    assets=[station_status, station_history],
    asset_checks=[build_rotation_check(asset=station_status, keys=["provider-a"])],
    jobs=[daily],
    schedules=[dg.ScheduleDefinition(job=daily, cron_schedule="0 5 * * *")],
    sensors=[build_rotation_sensor(keys=["provider-a"])],
    resources={"vault": vault},
)


def daily_job() -> dg.JobDefinition:
    """The job, for `dg.reconstructable`, which the multiprocess executor needs outside of the CLI."""
    return defs.resolve_job_def("daily")
