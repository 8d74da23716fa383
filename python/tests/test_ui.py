"""A Dagster project written from docs/dagster.md, as a browser sees it: no page shows a secret.

Needs Chromium (Debian's package), which scripts/python-test installs for STRONGROOM_SOAK=1.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from .harness import wait
from .harness.postgres import Postgres
from .harness.vault import VaultServer
from .test_docs import BASE, blocks

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and os.environ.get("STRONGROOM_SOAK")),
        reason="a browser looks at Dagster in soak (STRONGROOM_SOAK=1, Debian's chromium)",
    ),
    pytest.mark.timeout(900),
]

#: What somebody writes who has read the page in a hurry, below what the page says.
SLIPS = """

import os

proxied = VaultSecretsResource(
    address=dg.EnvVar("VAULT_ADDR"),
    ca_bundle=dg.EnvVar("VAULT_CACERT"),
    role_id=dg.EnvVar("VAULT_ROLE_ID"),
    secret_id=dg.EnvVar("VAULT_SECRET_ID"),
    proxy=dg.EnvVar("VAULT_HTTP_PROXY"),
)
hurried = VaultSecretsResource(
    address=dg.EnvVar("VAULT_ADDR"),
    ca_bundle=dg.EnvVar("VAULT_CACERT"),
    role_id=dg.EnvVar("VAULT_ROLE_ID"),
    secret_id_file=os.environ["VAULT_SECRET_ID"],
    kv_ttl=dg.EnvVar("VAULT_KV_TTL"),
)


@dg.asset
def fails(hurried: VaultSecretsResource, proxied: VaultSecretsResource) -> None:
    with proxied.client:
        hurried.get("database-url")


@dg.asset
def refused(vault: VaultSecretsResource) -> None:
    vault.get("/not/allowed")


defs = dg.Definitions.merge(
    defs,
    dg.Definitions(
        assets=[fails, refused],
        resources={"proxied": proxied, "hurried": hurried},
        jobs=[dg.define_asset_job("everything"), dg.define_asset_job("good", selection="stations")],
    ),
)
"""


@dataclass(frozen=True)
class Site:
    """Dagster's web server with the project, and what no page may show."""

    url: str
    home: Path
    canaries: dict[str, str]

    def ask(self, query: str, **variables: Any) -> Any:
        answer = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def run(self, job: str) -> tuple[str, str]:
        """Launches a job; its run's id and how it ended."""
        selector = {
            "repositoryLocationName": "definitions.py",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        launched = self.ask(
            "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename"
            " ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            p={"selector": selector, "mode": "default"},
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id = str(launched["run"]["runId"])

        def status() -> str:
            query = "query($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }"
            return str(self.ask(query, r=run_id)["runOrError"]["status"])

        wait.until(lambda: status() in ("SUCCESS", "FAILURE", "CANCELED"), "the run ends", 240)
        return run_id, status()

    def page(self, path: str, *words: str) -> str:
        """What a browser has on the page when it shows the words."""
        assert CHROMIUM
        shown = ""
        for budget in (15_000, 60_000):  # milliseconds of the page's time
            command = [
                CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                f"--user-data-dir={self.home}/browser", f"--virtual-time-budget={budget}",
                "--window-size=1600,4000", "--dump-dom", f"{self.url}{path}",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, timeout=240, check=False)
            shown = html.unescape(done.stdout.decode(errors="replace"))
            if all(word in shown for word in words):
                return shown
        missing = [word for word in words if word not in shown]
        text = " ".join(
            re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", shown, flags=re.DOTALL).split()
        )
        raise AssertionError(f"{path} does not show {missing}, but: {text[-3000:]}")


@pytest.fixture(scope="module")
def site(
    apikeys: VaultServer, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("ui")
    (policy,) = blocks("hcl")
    role_id, secret_id = apikeys.approle("ui", policy)
    (home / "secret-id").write_text(secret_id)
    canaries = {
        "secret id": secret_id, "KV": "c4n4ry-kv", "AWS": "c4n4ry-aws", "proxy": "c4n4ry-proxy",
        "slip": "c4n4ryslip",
    }  # fmt: skip
    apikeys.put(f"{BASE}/database-url", value=canaries["KV"])
    apikeys.put(f"{BASE}/aws-credentials", access_key="AK", secret_key=canaries["AWS"])
    apikeys.admin().adapter.post("/v1/apikeys/providers/bike-data-flow", json={"type": "generated"})
    apikeys.define_key(f"{BASE}/provider-a", provider="bike-data-flow")
    read = apikeys.admin().read(f"apikeys/creds/{BASE}/provider-a")
    canaries["API key"] = read["data"]["key"]
    (code,) = (block for block in blocks("python") if "def stations(vault" in block)
    code = code.replace("/run/credentials/dagster/secret-id", str(home / "secret-id"))
    (home / "definitions.py").write_text(code + SLIPS)
    environ = {
        **os.environ, "DAGSTER_HOME": str(home / "dagster"), "DAGSTER_DISABLE_TELEMETRY": "yes",
        "VAULT_ADDR": apikeys.https, "VAULT_CACERT": apikeys.ca, "VAULT_ROLE_ID": role_id,
        "VAULT_SECRET_ID": canaries["slip"], "VAULT_KV_TTL": "30",
        "VAULT_HTTP_PROXY": f"http://user:{canaries['proxy']}@127.0.0.1:1",
    }  # fmt: skip
    (home / "dagster").mkdir()
    port = wait.free_port()
    with (home / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "dagster", "dev", "-f", "definitions.py",
                "-h", "127.0.0.1", "-p", str(port),
            ],
            cwd=home, env=environ, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def listening() -> bool:
        assert process.poll() is None, (home / "dev.log").read_text()[-3000:]
        try:
            return requests.get(f"http://127.0.0.1:{port}/server_info", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    try:
        wait.until(listening, "dagster dev listens", 240)
        yield Site(f"http://127.0.0.1:{port}", home, canaries)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def assert_no_canary(where: str, text: str, canaries: dict[str, str]) -> None:
    for name, canary in canaries.items():
        assert canary not in text, f"the canary {name!r} is on {where}"
    assert "hvs." not in text, f"a token is on {where}"


LOCATION = "/locations/definitions.py"


@pytest.mark.parametrize("resource", ["vault", "proxied", "hurried"])
def test_a_resources_page_shows_no_secret(site: Site, resource: str) -> None:
    path = f"{LOCATION}/resources/{resource}"
    shown = site.page(path, "Secrets from Vault", "VAULT_ADDR")
    if resource == "hurried":
        assert "••••••" in shown or "****" in shown, "the field with the slip is not masked"
    assert_no_canary(path, shown, site.canaries)


@pytest.mark.parametrize("job", ["good", "everything"])
def test_the_launchpad_shows_no_secret(site: Site, job: str) -> None:
    path = f"{LOCATION}/jobs/{job}/playground"
    assert_no_canary(path, site.page(path, "Launch Run", "Resources"), site.canaries)


def test_the_pages_of_a_good_and_of_a_failed_run_show_no_secret(site: Site) -> None:
    good, ended = site.run("good")
    assert ended == "SUCCESS", (site.home / "dev.log").read_text()[-3000:]
    assert_no_canary("a good run", site.page(f"/runs/{good}", "STEP_SUCCESS"), site.canaries)
    failed, ended = site.run("everything")
    assert ended == "FAILURE"
    shown = site.page(f"/runs/{failed}", "STEP_FAILURE", "AccessDeniedError", "cannot be read")
    assert_no_canary("a failed run", shown, site.canaries)


def test_what_dagster_keeps_holds_no_secret(site: Site) -> None:
    """Its database of runs and events, compute logs, and what it prints: after the runs above."""
    own = {site.home / "secret-id", site.home / "definitions.py"}
    files = [path for path in site.home.rglob("*") if path.is_file() and path not in own]
    assert files
    for path in files:
        content = path.read_bytes()
        for name, canary in site.canaries.items():
            assert canary.encode() not in content, f"the canary {name!r} is in {path}"
