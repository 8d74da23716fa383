"""Two assets: one needs an API key, the other a database user that exists while it runs."""

from __future__ import annotations

from typing import Any

import dagster as dg
import requests
import sqlalchemy as sa

from strongroom_dagster import VaultSecretsResource

#: The dynamic role of Vault's database engine that may write to `station_history`.
DATABASE_ROLE = "bike-data-flow-production-rw"


@dg.asset
def station_status(vault: VaultSecretsResource) -> list[dict[str, Any]]:
    """How many bikes stand at each station now, as the provider says.

    The key rotates every 90 days; whichever is current when the asset runs is used.
    """
    url = vault.get("station-feed-url")
    key = vault.api_key("provider-a")
    answer = requests.get(url, headers={"Authorization": f"Bearer {key.key}"}, timeout=30)
    answer.raise_for_status()
    stations: list[dict[str, Any]] = answer.json()["stations"]
    return stations


@dg.asset
def station_history(
    vault: VaultSecretsResource, station_status: list[dict[str, Any]]
) -> dg.MaterializeResult[None]:
    """Appends the status to a table. The user it logs in as is dropped when the block ends."""
    with vault.database(DATABASE_ROLE, min_ttl=600) as db:
        engine = db.engine(vault.get("database-url"))
        with engine.begin() as conn:
            conn.execute(
                sa.text("INSERT INTO station_history (name, bikes) VALUES (:name, :bikes)"),
                station_status,
            )
            rows = conn.execute(sa.text("SELECT count(*) FROM station_history")).scalar_one()
        engine.dispose()
    return dg.MaterializeResult(metadata={"rows": rows, "user": db.path})
