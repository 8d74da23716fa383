"""KV reads against a real Vault: values, names, versions, cache and revalidation."""

from __future__ import annotations

import pytest

from strongroom_dagster import (
    AccessDeniedError,
    ConfigurationError,
    FieldNotFoundError,
    InvalidResponseError,
    SecretNotFoundError,
)

from .conftest import POLICY, ClientFactory
from .harness.clock import ShiftedClock
from .harness.vault import VaultServer

BASE = "bike-data-flow/production"
DATA = f"secret/data/{BASE}"
METADATA = f"secret/metadata/{BASE}"


def test_reads_of_all_shapes(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/database-url", value="postgres://x")
    vault.put(f"{BASE}/api-keys/provider-a", token="only-field")
    vault.put(f"{BASE}/aws", access_key="AK", secret_key="SK")
    vault.put(f"{BASE}/odd name+ü%2F", value="ok")
    vault.put(f"{BASE}/typed", port=5432, tls=True, hosts=["a", "b"])
    client = client_for(vault)
    assert client.get("database-url") == "postgres://x"
    assert client.get("api-keys/provider-a") == "only-field"
    assert client.get("aws", "secret_key") == "SK"
    assert client.get("kv:aws#access_key") == "AK"
    assert client.get(f"/{BASE}/aws#access_key") == "AK"
    assert client.get("odd name+ü%2F") == "ok"
    assert client.get("typed#port") == "5432"
    assert client.get("typed#tls") == "true"
    assert client.kv("typed")["hosts"] == ["a", "b"]
    assert dict(client.kv("aws")) == {"access_key": "AK", "secret_key": "SK"}
    assert client.get_many(["database-url", "aws#access_key", "aws#secret_key"]) == {
        "database-url": "postgres://x",
        "aws#access_key": "AK",
        "aws#secret_key": "SK",
    }


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("nothing-here", SecretNotFoundError, "nothing at"),
        ("/other-app/production/x", AccessDeniedError, "permission denied"),
        ("two", FieldNotFoundError, "name one of its fields: a, b"),
        ("two#c", FieldNotFoundError, 'no field "c"'),
        ("", ConfigurationError, "empty"),
        ("a//b", ConfigurationError, "segment"),
        ("../staging/x", ConfigurationError, "segment"),
        ("a/./b", ConfigurationError, "segment"),
        ("a/", ConfigurationError, "segment"),
        ("a\nb", ConfigurationError, "control character"),
        ("two#", ConfigurationError, "without a field"),
    ],
)
def test_refusals_name_what_is_wrong(
    vault: VaultServer,
    client_for: ClientFactory,
    name: str,
    error: type[Exception],
    words: str,
) -> None:
    vault.put(f"{BASE}/two", a="first-secret", b="second-secret")
    with pytest.raises(error, match=words) as caught:
        client_for(vault).get(name)
    assert "secret-" not in str(caught.value).replace("first-secret", "LEAK")
    assert caught.value.__context__ is None


def test_a_cached_secret_costs_no_request_and_is_then_asked_for_its_version(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    clock = ShiftedClock()
    vault.put(f"{BASE}/cached", value="one")
    client = client_for(vault, kv_ttl=60.0, clock=clock.clock)
    first = client.kv("cached")
    for _ in range(1000):
        assert client.get("cached") == "one"
    assert vault.count(f"{DATA}/cached") == 2  # one of them the write
    clock.shift = 61.0
    assert client.kv("cached") is first  # the same object: nothing has changed
    assert vault.count(f"{DATA}/cached") == 2
    assert vault.count(f"{METADATA}/cached") == 1
    vault.put(f"{BASE}/cached", value="two")
    assert client.get("cached") == "one"
    clock.shift = 122.0
    assert client.get("cached") == "two"
    assert client.kv("cached").version == 2


def test_without_metadata_in_the_policy_the_data_is_read_and_that_is_remembered(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    clock = ShiftedClock()
    vault.put(f"{BASE}/plain", value="one")
    policy = POLICY.replace("secret/metadata", "unused")
    client = client_for(vault, policy=policy, clock=clock.clock)
    first = client.kv("plain")
    for shift in (61.0, 122.0, 183.0):
        clock.shift = shift
        assert client.kv("plain") is first
    assert vault.count(f"{METADATA}/plain") == 1
    assert client.stats.logins == 1


@pytest.mark.parametrize("how", ["deleted", "destroyed", "metadata"])
def test_a_deleted_secret_is_gone_after_its_ttl(
    vault: VaultServer, client_for: ClientFactory, how: str
) -> None:
    clock = ShiftedClock()
    path = f"{BASE}/{how}"
    vault.put(path, value="one")
    client = client_for(vault, clock=clock.clock, stale_if_error=3600.0)
    assert client.get(how) == "one"
    kv = vault.admin().secrets.kv.v2
    if how == "deleted":
        kv.delete_latest_version_of_secret(path)
    elif how == "destroyed":
        kv.destroy_secret_versions(path, versions=[1])
    else:
        kv.delete_metadata_and_all_versions(path)
    clock.shift = 61.0
    with pytest.raises(SecretNotFoundError) as caught:
        client.get(how)
    if how != "metadata":
        assert f"was {how}" in str(caught.value)
    assert client.stats.cached == 0
    vault.put(path, value="back")  # no negative caching
    assert client.get(how) == "back"


def test_an_older_version_on_request(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/versions", value="one")
    vault.put(f"{BASE}/versions", value="two")
    client = client_for(vault)
    assert client.kv("versions", version=1)["value"] == "one"
    assert client.kv("versions")["value"] == "two"
    with pytest.raises(SecretNotFoundError):
        client.kv("versions", version=7)
    with pytest.raises(ConfigurationError, match="must be 1 or more"):
        client.kv("versions", version=0)


def test_the_cache_is_bounded_and_keeps_what_is_used(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    for number in range(12):
        vault.put(f"{BASE}/many/{number}", value=str(number))
    client = client_for(vault, max_entries=4)
    for number in range(12):
        client.get("many/0")
        client.get(f"many/{number}")
        assert client.stats.cached <= 4
    assert vault.count(f"{DATA}/many/0") == 2  # the write and one read


def test_invalidate(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/inv", value="one")
    vault.put(f"{BASE}/other", value="x")
    client = client_for(vault)
    client.get_many(["inv", "other"])
    vault.put(f"{BASE}/inv", value="two")
    client.invalidate("inv")
    assert client.stats.cached == 1
    assert client.get("inv") == "two"
    client.invalidate()
    assert client.stats.cached == 0


def test_a_mount_that_is_not_kv_v2(vault: VaultServer, client_for: ClientFactory) -> None:
    admin = vault.admin()
    admin.sys.enable_secrets_engine("kv", path="old", options={"version": "1"})
    admin.secrets.kv.v1.create_or_update_secret("data/x", {"value": "v"}, mount_point="old")
    client = client_for(
        vault, policy='path "old/*" { capabilities = ["read"] }', app=None, environment=None
    )
    with pytest.raises(InvalidResponseError, match="not a KV version 2"):
        client.kv("x", mount="old")


def test_hvac_for_everything_else(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/via-hvac", value="v")
    client = client_for(vault)
    assert client.hvac.is_authenticated()
    read = client.hvac.secrets.kv.v2.read_secret_version(
        f"{BASE}/via-hvac", raise_on_deleted_version=True
    )
    assert read["data"]["data"] == {"value": "v"}
    assert client.hvac.auth.token.lookup_self()["data"]["path"] == "auth/approle/login"
    assert client.stats.logins == 1
