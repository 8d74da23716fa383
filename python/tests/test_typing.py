"""What type checkers see: typos and wrong types are found, what is right is not complained of."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PROGRAM = """\
import dagster as dg
from strongroom_dagster import FakeVaultSecretsResource, JwtAuth, Settings, Source
from strongroom_dagster import VaultSecretsResource, ApiKey

vault = VaultSecretsResource(
    address=dg.EnvVar("VAULT_ADDR"),
    role_id="r",
    secret_id=dg.EnvVar("VAULT_SECRET_ID"),
    app="a",
    environment="production",
    kv_ttl=dg.EnvVar("VAULT_KV_TTL"),
    deadline=dg.EnvVar.int("VAULT_DEADLINE"),
    read_timeout=30,
    connect_timeout=2.5,
    max_entries=10,
)


class Warehouse(dg.ConfigurableResource[str]):
    vault: VaultSecretsResource

    def create_resource(self, context: dg.InitResourceContext) -> str:
        with self.vault.environment({"A": "name"}):
            return self.vault.get("warehouse#password")


class Ours(VaultSecretsResource):
    region: str


Warehouse(vault=vault)
Ours(region="eu", token_file="/t")
FakeVaultSecretsResource(secrets={"a": {"value": "b"}}, app="a")
Settings(address="https://x", kv_ttl=5)
key: ApiKey | None = vault.wait_for_rotation("a", 1)
vault.invalidate()

VaultSecretsResource(adress="https://x")  # wrong
VaultSecretsResource(kv_ttl="60")  # wrong
VaultSecretsResource(secret_id="literal")  # wrong
VaultSecretsResource(max_entries=1.5)  # wrong
VaultSecretsResource(address=5)  # wrong
VaultSecretsResource("https://x")  # wrong
VaultSecretsResource(environment_name="production")  # wrong
FakeVaultSecretsResource(secret={})  # wrong
Ours(token_file="/t")  # wrong
Ours(region="eu", regoin="us")  # wrong
Warehouse(vault=5)  # wrong
Settings(adress="https://x")  # wrong
Settings(kv_ttl="60")  # wrong
JwtAuth("ci", "eyJ")  # wrong
vault.get(5)  # wrong
vault.environment(["A"])  # wrong
vault.envirnoment({})  # wrong
"""

WRONG = {n for n, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}
# Dagster gives a nested resource's argument the type Any, so that a partial one may be given; and
# pyright takes an unknown attribute of any Dagster resource for one of a base class.
ANY_TO_BOTH = {PROGRAM.splitlines().index("Warehouse(vault=5)  # wrong") + 1}
ANY_TO_PYRIGHT = {PROGRAM.splitlines().index("vault.envirnoment({})  # wrong") + 1}
BESIDE = Path(sys.executable).parent


def run(directory: Path, *command: str) -> str:
    """With this virtual environment's Python, from a folder that holds nothing else."""
    environ = {**os.environ, "PATH": f"{BESIDE}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=directory, env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout


def test_mypy_finds_every_mistake_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    said = run(tmp_path, sys.executable, "-m", "mypy", "--strict", "program.py")
    found = {int(n) for n in re.findall(r"program\.py:(\d+): error", said)}
    assert found == WRONG - ANY_TO_BOTH


def test_pyright_finds_every_mistake_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    said = json.loads(run(tmp_path, str(BESIDE / "pyright"), "--outputjson", "program.py"))
    errors = {
        d["range"]["start"]["line"] + 1: d["message"]
        for d in said["generalDiagnostics"]
        if d["severity"] == "error"
    }
    assert set(errors) == WRONG - ANY_TO_BOTH - ANY_TO_PYRIGHT, errors


def test_every_public_name_has_a_type(tmp_path: Path) -> None:
    """`pyright --verifytypes` at 100 %."""
    said = json.loads(
        run(
            tmp_path, str(BESIDE / "pyright"), "--verifytypes", "strongroom_dagster",
            "--ignoreexternal", "--outputjson",
        )
    )  # fmt: skip
    completeness = said["typeCompleteness"]
    unknown = [
        symbol["name"]
        for symbol in completeness["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
    ]
    assert not unknown
    assert completeness["completenessScore"] == 1
    assert len(completeness["symbols"]) > 500
