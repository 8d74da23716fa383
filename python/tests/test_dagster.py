"""Real Dagster: the example project, the multiprocess executor, `dagster dev`, checks, a sensor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests

from strongroom_dagster import (
    ConfigurationError,
    FakeVaultSecretsResource,
    VaultSecretsResource,
    build_rotation_check,
    build_rotation_sensor,
)
from strongroom_dagster.fake import FakeVaultSecrets

from .harness import wait
from .harness.postgres import Postgres
from .harness.scripted import Answer, Request, Scripted
from .harness.vault import PACKAGE, VaultServer

EXAMPLE = PACKAGE / "examples" / "bike_data_flow"
sys.path.insert(0, str(EXAMPLE))

from bike_data_flow.definitions import daily_job  # noqa: E402
from bike_data_flow.definitions import vault as vault_resource  # noqa: E402
from bike_data_flow.prepare import APP, ROLE, prepare  # noqa: E402

KEY = f"{APP}/provider-a"


@dataclass(frozen=True)
class Project:
    """The example on a real Vault, a real PostgreSQL and a provider that checks keys with Vault."""

    vault: VaultServer
    postgres: Postgres
    environ: dict[str, str]
    provider: Scripted
    secret_id_file: Path


@pytest.fixture(scope="module")
def project(
    apikeys: VaultServer, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    vault = apikeys

    def feed(request: Request) -> Answer:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not vault.verify_key(KEY, key):
            return Answer(401)
        return Answer(200, {"stations": [{"name": "Main Street", "bikes": 4}]})

    with postgres.admin() as conn:
        conn.execute(
            "CREATE TABLE station_history (at timestamptz DEFAULT now(), name text, bikes int)"
        )
        conn.execute("CREATE ROLE bikes_rw NOLOGIN")
        conn.execute("GRANT SELECT, INSERT ON station_history TO bikes_rw")
    vault.admin().adapter.post(
        f"/v1/database/roles/{ROLE}-rw",
        json={
            "db_name": "bikes",
            "creation_statements": [
                "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' "
                "VALID UNTIL '{{expiration}}' IN ROLE bikes_rw"
            ],
            "default_ttl": "1h",
            "max_ttl": "4h",
        },
    )
    secret_id_file = tmp_path_factory.mktemp("project") / "secret-id"
    with Scripted(feed) as provider:
        role_id = prepare(
            vault.admin(), f"{provider.address}/stations", postgres.url, secret_id_file
        )
        environ = {
            "VAULT_ADDR": vault.https, "VAULT_CACERT": vault.ca, "VAULT_ROLE_ID": role_id,
            "VAULT_SECRET_ID_FILE": str(secret_id_file),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }  # fmt: skip
        yield Project(vault, postgres, environ, provider, secret_id_file)


def secrets_of(project: Project) -> list[str]:
    """Everything that must not be found anywhere."""
    creds = project.vault.admin().read(f"apikeys/creds/{KEY}")
    return [creds["data"]["key"], project.secret_id_file.read_text(), project.postgres.password]


def assert_nothing_leaked(directory: Path, project: Project) -> None:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        for secret in secrets_of(project):
            assert secret.encode() not in content, path
        assert b"hvs." not in content, path  # the prefix of Vault's service tokens


def tokens_alive(vault: VaultServer) -> int:
    """Tokens of the example's role that are not revoked."""
    admin = vault.admin()
    alive = 0
    for accessor in admin.list("auth/token/accessors")["data"]["keys"]:
        answer = admin.adapter.post(
            "/v1/auth/token/lookup-accessor", json={"accessor": accessor}, raise_exception=False
        )
        if isinstance(answer, dict) and ROLE in answer["data"]["policies"]:
            alive += 1
    return alive


def rows(postgres: Postgres) -> int:
    with postgres.admin() as conn:
        row = conn.execute("SELECT count(*) FROM station_history").fetchone()
    assert row is not None
    return int(row[0])


def test_a_job_in_the_multiprocess_executor(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**project.environ, "PYTHONPATH": str(EXAMPLE)}.items():
        monkeypatch.setenv(name, value)
    before = rows(project.postgres)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = dg.reconstructable(daily_job)
        with dg.execute_job(job, instance=instance) as result:
            assert result.success
            checks = result.get_asset_check_evaluations()
            assert [check.passed for check in checks] == [True]
            pids = {e.pid for e in result.all_events if e.is_step_success and e.pid is not None}
            assert len(pids) == 3  # a process for each step: two assets and a check
            assert os.getpid() not in pids
        # After a rotation the next run uses the new key, and the provider accepts it.
        project.vault.rotate_key(KEY)
        with dg.execute_job(job, instance=instance) as result:
            assert result.success
    assert rows(project.postgres) == before + 2
    assert_nothing_leaked(tmp_path, project)
    assert not {role for role in project.postgres.roles() if "bike" in role}
    assert tokens_alive(project.vault) == 0


@pytest.mark.timeout(900)  # two waits of up to 240 s each, and the end of dagster dev
def test_dagster_dev(project: Project, tmp_path: Path) -> None:
    """The real thing: web server, daemon, code server, a run launched from the UI's API."""
    port = wait.free_port()
    environ = {**os.environ, **project.environ, "DAGSTER_HOME": str(tmp_path)}
    before = rows(project.postgres)
    with (tmp_path / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)],
            cwd=EXAMPLE, env=environ, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/graphql"

    def ask(query: str, **variables: Any) -> Any:
        answer = requests.post(url, json={"query": query, "variables": variables}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def listening() -> bool:
        assert process.poll() is None, (tmp_path / "dev.log").read_text()[-3000:]
        try:
            return requests.get(f"http://127.0.0.1:{port}/server_info", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):  # not yet, or too busy to answer
            return False

    try:
        wait.until(listening, "dagster dev listens", 240)
        selector = {
            "repositoryLocationName": "bike_data_flow.definitions",
            "repositoryName": "__repository__",
        }
        shown = ask(
            "query($s: ResourceSelector!) { topLevelResourceDetailsOrError(resourceSelector: $s) {"
            " __typename ... on ResourceDetails { name description"
            " configFields { name } configuredValues { key value type } } } }",
            s={**selector, "resourceName": "vault"},
        )
        details = shown["data"]["topLevelResourceDetailsOrError"]
        assert details["__typename"] == "ResourceDetails", shown
        values = {v["key"]: (v["value"], v["type"]) for v in details["configuredValues"]}
        assert values["role_id"] == ("VAULT_ROLE_ID", "ENV_VAR")
        assert values["secret_id_file"] == ("VAULT_SECRET_ID_FILE", "ENV_VAR")
        for secret in secrets_of(project):
            assert secret not in json.dumps(shown)

        launched = ask(
            "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename"
            " ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            p={"selector": {**selector, "jobName": "daily"}, "mode": "default"},
        )["data"]["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id = launched["run"]["runId"]

        def status() -> str:
            got = ask(
                "query($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }", r=run_id
            )
            return str(got["data"]["runOrError"]["status"])

        wait.until(lambda: status() in ("SUCCESS", "FAILURE", "CANCELED"), "the run ends", 240)
        assert status() == "SUCCESS"
        assert rows(project.postgres) == before + 1
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert_nothing_leaked(tmp_path, project)


def test_outside_of_a_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook or a script: Dagster resolves the EnvVars and tears down."""
    for name, value in project.environ.items():
        monkeypatch.setenv(name, value)
    with vault_resource.process_config_and_initialize_cm() as vault:
        assert isinstance(vault, VaultSecretsResource)
        assert vault.get("database-url") == project.postgres.url
    assert tokens_alive(project.vault) == 0


# --- the fake ----------------------------------------------------------------------------------

FAKE = FakeVaultSecretsResource(
    app="bike-data-flow",
    environment="production",
    secrets={"station-feed-url": {"value": "http://feed"}},
    api_keys={"provider-a": {"key": "made-up"}},
    databases={"reader": ["user", "password"]},
)


def test_the_fake_stands_in_for_the_resource() -> None:
    @dg.asset
    def uses(vault: VaultSecretsResource) -> None:
        assert vault.get("station-feed-url") == "http://feed"
        assert vault.api_key("provider-a").key == "made-up"
        assert vault.get_many(["apikey:provider-a"]) == {"apikey:provider-a": "made-up"}
        assert vault.kv("station-feed-url")["value"] == "http://feed"
        with vault.database("reader") as db:
            assert (db.username, db.password) == ("user", "password")

    uses(vault=FAKE)
    assert dg.materialize([uses], resources={"vault": FAKE}).success


def fake_with_rotation(due: datetime | None) -> FakeVaultSecrets:
    fake = FakeVaultSecrets()
    time = due.strftime("%Y-%m-%dT%H:%M:%S.123456789Z") if due else ""
    fake.rotate("provider-a", "k", next_rotation_time=time)
    return fake


NOW = datetime.now(timezone.utc)


@pytest.mark.parametrize(
    ("due", "passes"),
    [
        (NOW + timedelta(days=30), True),
        (NOW - timedelta(minutes=30), True),  # within the tolerance
        (NOW - timedelta(days=2), False),
        (None, True),
    ],
    ids=["due later", "a little late", "overdue", "never due"],
)
@pytest.mark.parametrize("blocking", [False, True])
def test_the_asset_check(due: datetime | None, passes: bool, blocking: bool) -> None:
    @dg.asset
    def stations() -> None:
        pass

    check = build_rotation_check(asset=stations, keys=["provider-a"], blocking=blocking)
    fake = fake_with_rotation(due)
    result = dg.materialize(
        [stations, check],
        resources={"vault": dg.ResourceDefinition.hardcoded_resource(fake)},
        raise_on_error=False,
    )
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.passed is passes
    if not passes:
        assert evaluation.description is not None
        assert "provider-a (48 h)" in evaluation.description
        severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
        assert evaluation.severity == severity


def test_the_sensor_reports_changes_once() -> None:
    sensor = build_rotation_sensor(keys=["provider-a"])

    def tick(due: datetime, cursor: str | None) -> Any:
        fake = dg.ResourceDefinition.hardcoded_resource(fake_with_rotation(due))
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"vault": fake}, sensor_name="s"
            ) as context,
        ):
            return sensor.evaluate_tick(context)

    late, fine = NOW - timedelta(days=2), NOW + timedelta(days=2)
    first = tick(fine, None)
    assert not first.asset_events
    second = tick(late, first.cursor)
    (event,) = second.asset_events
    assert event.asset_key == dg.AssetKey(["vault", "apikeys"])
    assert "provider-a (48 h)" in str(event.description)
    assert event.metadata["overdue"].value == 1
    third = tick(late, second.cursor)
    assert not third.asset_events
    assert third.skip_message is not None
    fourth = tick(fine, third.cursor)
    assert len(fourth.asset_events) == 1
    with pytest.raises(ConfigurationError, match="at least one"):
        build_rotation_sensor(keys=[])
