"""Every Python block of docs/dagster.md and README.md runs, its TOML is read, its policy is enough."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from strongroom_dagster import AppRoleAuth, Settings, Source, VaultSecrets
from strongroom_dagster.env import EnvironmentMap

from .conftest import database_role
from .harness.postgres import Postgres
from .harness.vault import DOCS, PACKAGE, VAULT_BIN, VaultServer

PAGE = (DOCS / "dagster.md").read_text()
README = (PACKAGE / "README.md").read_text()
BASE = "bike-data-flow/production"


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


PYTHON = {
    f"{name} {number}": code
    for name, page in (("dagster.md", PAGE), ("README.md", README))
    for number, code in enumerate(blocks("python", page))
}


def run_block(code: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a block defines, run as the module that a reader would put it into."""
    module = types.ModuleType("docs_block")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "docs/dagster.md", "exec"), module.__dict__)
    return module.__dict__


@pytest.fixture
def documented(
    apikeys: VaultServer, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A Vault with what the page reads, an identity with the page's policy, its environment."""
    (policy,) = blocks("hcl")
    policy += 'path "database/creds/reader" { capabilities = ["read"] }'
    role_id, secret_id = apikeys.approle("documented", policy)
    (tmp_path / "secret-id").write_text(secret_id)
    database_role(apikeys, "bike-data-flow-production-rw", "1h", "24h")
    apikeys.put(f"{BASE}/database-url", value="postgres://x")
    apikeys.put(f"{BASE}/aws-credentials", access_key="AK", secret_key="SK")
    # The same key as the example project's.
    apikeys.admin().adapter.post("/v1/apikeys/providers/bike-data-flow", json={"type": "generated"})
    apikeys.define_key(f"{BASE}/provider-a", provider="bike-data-flow")
    for name, value in {
        "VAULT_ADDR": apikeys.https, "VAULT_CACERT": apikeys.ca, "VAULT_ROLE_ID": role_id,
        "VAULT_SECRET_ID_FILE": str(tmp_path / "secret-id"), "SSL_CERT_FILE": apikeys.ca,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", PYTHON)
@pytest.mark.filterwarnings("ignore::strongroom_dagster.env.EnvironmentFallbackWarning")
def test_every_python_block_runs(
    documented: Path, postgres: Postgres, block: str, apikeys: VaultServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import dagster as dg

    code = PYTHON[block]
    if block.startswith("README"):
        monkeypatch.setenv("STRONGROOM_APP", "bike-data-flow")
        monkeypatch.setenv("STRONGROOM_ENVIRONMENT", "production")
        code = code.replace("https://vault.example.org", apikeys.https)
    code = code.replace("/run/credentials/dagster/secret-id", str(documented / "secret-id"))
    code = code.replace("host=127.0.0.1 dbname=bikes", postgres.conninfo)
    for host in ("127.0.0.1", "localhost"):
        code = code.replace(f"postgresql+psycopg://{host}/bikes", postgres.url)
    for module in ("dagster_dbt", "dagster_sling", "dagster_snowflake"):
        if f"from {module} import" in code:
            pytest.importorskip(module)  # they do not come for every Python
    names = run_block(code, monkeypatch)
    if "defs" in names:
        assert dg.materialize([names["stations"]], resources=names["defs"].resources).success


def test_the_commands_make_what_the_page_reads(
    vault: VaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (commands,) = (block for block in blocks("sh") if "vault policy write" in block)
    (tmp_path / "policy.hcl").write_text(*blocks("hcl"))
    (tmp_path / "vault").symlink_to(VAULT_BIN)
    environ = {
        "VAULT_ADDR": vault.http, "VAULT_TOKEN": vault.root_token, "HOME": str(tmp_path),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }  # fmt: skip
    # The Vault of the tests has this login already.
    script = commands.replace("vault auth enable approle\n", "") + "echo role id: $VAULT_ROLE_ID"
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, role_id = tmp_path / "secret-id", done.stdout.split()[-1]
    assert file.stat().st_mode & 0o777 == 0o600
    settings = Settings(address=vault.http, app="bike-data-flow", environment="production")
    with VaultSecrets(settings, AppRoleAuth(role_id, Source(file=str(file)))) as client:
        assert client.get("database-url") == "sqlite://"
        assert dict(client.kv("aws-credentials")) == {"access_key": "AK", "secret_key": "SK"}


def test_the_mapping_is_read(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "map.toml").write_text(text)
    variables = EnvironmentMap.read(tmp_path / "map.toml").variables
    assert variables["AWS_SECRET_ACCESS_KEY"].field == "secret_key"
    assert variables["PROVIDER_A_TOKEN"].engine == "apikeys"


def test_every_error_is_in_the_table() -> None:
    import strongroom_dagster.errors as errors

    table = PAGE.split("## When something is wrong")[1]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.StrongroomError):
            assert f"`{name}`" in table, name


def test_ci_gives_a_token_that_the_client_reads() -> None:
    github, gitlab = (yaml.safe_load(text) for text in blocks("yaml"))
    assert github["permissions"]["id-token"] == "write"
    (variable,) = gitlab["report"]["id_tokens"]
    assert f'jwt=dg.EnvVar("{variable}")' in PAGE
