"""The recipes of docs/dagster.md for resources that need a secret when they are made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from strongroom_dagster import FakeVaultSecretsResource, VaultSecretsResource

from .harness.postgres import Postgres
from .harness.vault import VaultServer
from .test_docs import blocks, run_block

SECRET = "c4n4ry-p4ssw0rd"
VAULT = FakeVaultSecretsResource(
    secrets={"snowflake": {"password": SECRET}, "warehouse": {"password": SECRET}}
)


Recipe = Callable[[str], dict[str, Any]]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """What the page's block with a text defines."""

    def find(marker: str) -> dict[str, Any]:
        (code,) = (block for block in blocks("python") if marker in block)
        return run_block(code, monkeypatch)

    return find


def test_snowflake_gets_its_password_in_the_step_and_dagster_does_not_store_it(
    tmp_path: Path, recipe: Recipe
) -> None:
    pytest.importorskip("dagster_snowflake")
    names = recipe("VaultSnowflake")
    resource = names["VaultSnowflake"](vault=VAULT, account="a", user="u")

    @dg.asset
    def orders(snowflake: dg.ResourceParam[Any]) -> None:
        assert isinstance(snowflake, names["SnowflakeResource"])
        assert snowflake.password == SECRET

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert dg.materialize(
            [orders], resources={"snowflake": resource}, instance=instance
        ).success
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    dg.Definitions(
        assets=[names["orders"]], resources={"snowflake": resource}
    ).resolve_all_job_defs()


def test_sling_gets_its_password_in_the_step(recipe: Recipe) -> None:
    pytest.importorskip("dagster_sling")
    names = recipe("VaultSling")

    @dg.asset
    def copied(sling: dg.ResourceParam[Any]) -> None:
        assert SECRET in sling.prepare_environment()["WAREHOUSE"]

    assert dg.materialize([copied], resources={"sling": names["VaultSling"](vault=VAULT)}).success


def test_dbt_finds_its_password_in_the_environment(tmp_path: Path, recipe: Recipe) -> None:
    dbt = pytest.importorskip("dagster_dbt")
    names = recipe("DbtCliResource")
    for file in ("dbt_project.yml", "profiles.yml"):
        (tmp_path / file).write_text("name: p\nprofile: p\nconfig-version: 2\nversion: '1'\n")
    program = tmp_path / "dbt"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f'if "--version" in sys.argv: print("Core:\\n  - installed: 1.10.0")\n'
        f'elif os.environ.get("DBT_ENV_SECRET_PASSWORD") != "{SECRET}": sys.exit(1)\n'
    )
    program.chmod(0o755)
    resource = dbt.DbtCliResource(project_dir=str(tmp_path), dbt_executable=str(program))
    with VAULT.process_config_and_initialize_cm() as vault:
        list(names["build"](resource, vault))
    with pytest.raises(Exception, match="dbt"):
        list(resource.cli(["build"]).stream_raw_events())


def test_an_io_manager_has_a_user_while_it_writes(
    vault: VaultServer, postgres: Postgres, tmp_path: Path, recipe: Recipe
) -> None:
    policy = 'path "database/creds/reader" { capabilities = ["read"] }\n'
    policy += 'path "sys/leases/revoke" { capabilities = ["update"] }'
    role_id, secret_id = vault.approle("io-manager", policy)
    (tmp_path / "secret-id").write_text(secret_id)
    with postgres.admin() as conn:
        conn.execute("CREATE TABLE station_names (name text)")
        conn.execute("GRANT SELECT, INSERT ON station_names TO reader")
    before = postgres.roles()
    manager = recipe("StationTable")["StationTable"](
        vault=VaultSecretsResource(
            address=vault.http, role_id=role_id, secret_id_file=str(tmp_path / "secret-id")
        ),
        database=postgres.conninfo,
    )

    @dg.asset(io_manager_key="table")
    def stations() -> list[str]:
        return ["Main Street", "Harbour"]

    @dg.asset(ins={"stations": dg.AssetIn(input_manager_key="table")})
    def report(stations: list[str]) -> None:
        assert stations == ["Main Street", "Harbour"]

    assert dg.materialize([stations, report], resources={"table": manager}).success
    assert postgres.roles() == before
