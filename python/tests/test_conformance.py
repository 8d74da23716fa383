"""One suite for the client on a real Vault and for the fake: same values, same errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from strongroom_dagster import (
    AccessDeniedError,
    ConfigurationError,
    FieldNotFoundError,
    RequestRefusedError,
    SecretNotFoundError,
    Settings,
    VaultSecrets,
)
from strongroom_dagster.fake import FakeVaultSecrets

from .conftest import POLICY, make_client
from .harness.clock import ShiftedClock
from .harness.postgres import Postgres
from .harness.vault import VaultServer

BASE = "bike-data-flow/production"


class World(Protocol):
    """A client and what happens in its Vault."""

    client: VaultSecrets
    clock: ShiftedClock

    def put(self, name: str, **fields: str) -> None: ...

    def define(self, name: str) -> None: ...

    def rotate(self, name: str) -> None: ...

    def lease_is_open(self, lease_id: str) -> bool: ...


class RealWorld:
    """On the shared Vault."""

    def __init__(self, vault: VaultServer) -> None:
        self.vault = vault
        self.clock = ShiftedClock()
        policy = POLICY.replace(
            'path "database/creds/reader"',
            'path "database/creds/none" { capabilities = ["read"] }\npath "database/creds/reader"',
        )
        self.client = make_client(
            vault, "conformance", policy, clock=self.clock.clock, deadline=20.0,
            role_options={"token_ttl": "24h", "token_max_ttl": "24h"},
        )  # fmt: skip

    def put(self, name: str, **fields: str) -> None:
        self.vault.put(f"{BASE}/{name}", **fields)

    def define(self, name: str) -> None:
        self.vault.define_key(f"{BASE}/{name}", grace_period="168h")

    def rotate(self, name: str) -> None:
        self.vault.rotate_key(f"{BASE}/{name}")

    def lease_is_open(self, lease_id: str) -> bool:
        answer = self.vault.admin().adapter.put(
            "/v1/sys/leases/lookup", json={"lease_id": lease_id}, raise_exception=False
        )
        return isinstance(answer, dict)


class FakeWorld:
    """In memory."""

    def __init__(self) -> None:
        self.clock = ShiftedClock()
        self.fake = FakeVaultSecrets(
            databases={"reader": ("user", "password")},
            settings=Settings(app="bike-data-flow", environment="production"),
            clock=self.clock.clock,
        )
        self.client: VaultSecrets = self.fake
        self._made = 0

    def put(self, name: str, **fields: str) -> None:
        self.fake.put(name, fields)

    def define(self, name: str) -> None:
        self.rotate(name)

    def rotate(self, name: str) -> None:
        self._made += 1
        self.fake.rotate(name, f"made-up-{self._made}")

    def lease_is_open(self, lease_id: str) -> bool:
        return lease_id in self.fake.leases


@pytest.fixture(params=["real", "fake"])
def world(
    request: pytest.FixtureRequest, apikeys: VaultServer, postgres: Postgres
) -> Iterator[World]:
    makers: dict[str, Callable[[], World]] = {
        "real": lambda: RealWorld(apikeys),
        "fake": FakeWorld,
    }
    found = makers[request.param]()
    with found.client:
        yield found


def test_kv(world: World) -> None:
    client = world.client
    world.put("conf/single", value="one")
    world.put("conf/pair", user="u", password="p")
    assert client.get("conf/single") == "one"
    assert client.get("conf/pair#user") == client.get("conf/pair", "user") == "u"
    assert client.get_many(["conf/single", "conf/pair#password"]) == {
        "conf/single": "one",
        "conf/pair#password": "p",
    }
    assert dict(client.kv(f"/{BASE}/conf/pair")) == {"user": "u", "password": "p"}
    with pytest.raises(FieldNotFoundError, match="name one of its fields"):
        client.get("conf/pair")
    with pytest.raises(FieldNotFoundError, match="its fields: password, user"):
        client.get("conf/pair#other")
    with pytest.raises(SecretNotFoundError):
        client.get("conf/nothing")
    with pytest.raises(ConfigurationError):
        client.get("conf/../x")


def test_kv_cache_and_versions(world: World) -> None:
    client = world.client
    world.put("conf/v", value="one")
    first = client.kv("conf/v")
    world.put("conf/v", value="two")
    assert client.kv("conf/v") is first
    world.clock.shift += 61.0
    second = client.kv("conf/v")
    assert (second["value"], second.version - first.version) == ("two", 1)
    world.clock.shift += 61.0
    assert client.kv("conf/v") is second
    assert client.kv("conf/v", version=first.version)["value"] == "one"
    with pytest.raises(SecretNotFoundError):
        client.kv("conf/v", version=99)
    client.invalidate("conf/v")
    assert client.get("conf/v") == "two"


def test_api_keys(world: World) -> None:
    client = world.client
    world.define(f"conf/{type(world).__name__}")
    name = f"conf/{type(world).__name__}"
    first = client.api_key(name)
    assert client.get(f"apikey:{name}") == first.key
    assert (first.state, first.version) == ("current", 1)
    assert first.cache_ttl > 3600
    world.rotate(name)
    assert client.api_key(name) is first
    world.clock.shift += 61.0
    second = client.api_key(name)
    assert (second.version, second.key != first.key) == (2, True)
    world.clock.shift += 61.0
    assert client.api_key(name).version == 2
    old = client.api_key(name, version=1)
    assert (old.key, old.state) == (first.key, "grace")
    assert client.wait_for_rotation(name, 1, timeout=1) == client.api_key(name)
    assert client.wait_for_rotation(name, 2, timeout=1) is None
    with pytest.raises(RequestRefusedError):
        client.api_key(name, version=99)
    with pytest.raises(SecretNotFoundError):
        client.api_key("conf/no-such-key")
    with pytest.raises(ConfigurationError):
        client.wait_for_rotation(name, 1, timeout=61)


def test_database(world: World) -> None:
    client = world.client
    with client.database("reader") as db:
        now = db.current()
        assert now.username
        assert now.password
        assert world.lease_is_open(now.lease_id)
        with client.database("reader") as again:
            assert again.current() is now
        assert world.lease_is_open(now.lease_id)
    assert not world.lease_is_open(now.lease_id)
    with pytest.raises(ConfigurationError, match="closed"):
        db.current()
    with pytest.raises(Exception, match="none"):
        client.database("none").__enter__()


def test_masking(world: World) -> None:
    world.put("conf/mask", value="s3cr3t")
    secret = world.client.kv("conf/mask")
    assert "s3cr3t" not in repr(secret) + str(secret) + repr(world.client)
    assert "****" in repr(secret)


def test_denied_is_for_a_real_vault_only(apikeys: VaultServer) -> None:
    """The fake has no policies: what is not in it is not found."""
    with make_client(apikeys, "denied") as client, pytest.raises(AccessDeniedError):
        client.get("/other/x")
    with FakeVaultSecrets() as fake:
        with pytest.raises(SecretNotFoundError):
            fake.get("/other/x")
        with pytest.raises(ConfigurationError, match="no hvac"):
            _ = fake.hvac
