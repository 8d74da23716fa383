"""One suite for the client on a real Vault, on OpenBao and for the fake: same values, same errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import pytest

from strongroom_dagster import (
    AccessDeniedError,
    ConfigurationError,
    FieldNotFoundError,
    RequestRefusedError,
    SecretNotFoundError,
    Settings,
    VaultSecrets,
    VaultUnavailableError,
)
from strongroom_dagster.fake import FakeVaultSecrets
from strongroom_dagster.masked import same_version

from .conftest import POLICY, make_client
from .harness import wait
from .harness.clock import ShiftedClock
from .harness.proxy import Proxy
from .harness.vault import VaultServer

BASE = "bike-data-flow/production"


class World(Protocol):
    """A client and what happens in its Vault."""

    client: VaultSecrets
    clock: ShiftedClock

    def put(self, name: str, **fields: Any) -> None: ...

    def define(self, name: str) -> None: ...

    def rotate(self, name: str) -> None: ...

    def lease_is_open(self, lease_id: str) -> bool: ...

    def delete(self, name: str) -> None: ...

    def undelete(self, name: str) -> None: ...

    def destroy(self, name: str) -> None: ...

    def purge(self, name: str) -> None: ...

    def remove_key(self, name: str) -> None: ...

    def compromise(self, name: str) -> None: ...

    def deny(self, name: str) -> None: ...

    def outage(self) -> AbstractContextManager[None]: ...

    def another_client(self) -> VaultSecrets: ...


class RealWorld:
    """On a shared server."""

    def __init__(self, vault: VaultServer, proxy: Proxy) -> None:
        self.vault = vault
        self._proxy = proxy
        self.clock = ShiftedClock()
        policy = POLICY.replace(
            'path "database/creds/reader"',
            'path "database/creds/none" { capabilities = ["read"] }\npath "database/creds/reader"',
        )
        self._policy = policy + "\n"
        self.client = make_client(
            vault, "conformance", policy, clock=self.clock.clock, address=proxy.address,
            stale_if_error=300.0,
            role_options={"token_ttl": "24h", "token_max_ttl": "24h"},
        )  # fmt: skip

    def put(self, name: str, **fields: Any) -> None:
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

    @property
    def _kv(self) -> Any:
        return self.vault.admin().secrets.kv.v2

    def delete(self, name: str) -> None:
        self._kv.delete_latest_version_of_secret(f"{BASE}/{name}")

    def undelete(self, name: str) -> None:
        self._kv.undelete_secret_versions(f"{BASE}/{name}", [1])

    def destroy(self, name: str) -> None:
        self._kv.destroy_secret_versions(f"{BASE}/{name}", [1])

    def purge(self, name: str) -> None:
        self._kv.delete_metadata_and_all_versions(f"{BASE}/{name}")

    def remove_key(self, name: str) -> None:
        self.vault.admin().adapter.delete(
            f"/v1/apikeys/keys/{BASE}/{name}", params={"revoke_now": "true"}
        )
        wait.until(lambda: not self._key_is_there(name), "the key is gone")

    def _key_is_there(self, name: str) -> bool:
        answer = self.vault.admin().adapter.get(
            f"/v1/apikeys/keys/{BASE}/{name}", raise_exception=False
        )
        return isinstance(answer, dict)

    def compromise(self, name: str) -> None:
        self.vault.rotate_key(f"{BASE}/{name}", compromised=True)

    def deny(self, name: str) -> None:
        engine, _, rest = name.rpartition(":")
        path = {"": "secret/data", "apikey": "apikeys/creds", "database": "database/creds"}[engine]
        where = f"{path}/{rest}" if engine == "database" else f"{path}/{BASE}/{rest}"
        self._policy += f'path "{where}" {{ capabilities = ["deny"] }}\n'
        if not engine:
            self._policy += f'path "secret/metadata/{BASE}/{rest}" {{ capabilities = ["deny"] }}\n'
        self.vault.admin().sys.create_or_update_policy("conformance", self._policy)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self._proxy.cut_after = [0] * 100_000
        self._proxy.drop()
        self.clock.hurried = True
        try:
            yield
        finally:
            self.clock.hurried = False
            self._proxy.cut_after = []

    def another_client(self) -> VaultSecrets:
        return copy.copy(self.client)


class FakeWorld:
    """In memory."""

    def __init__(self) -> None:
        self.clock = ShiftedClock()
        self.fake = FakeVaultSecrets(
            databases={"reader": ("user", "password")},
            settings=Settings(app="bike-data-flow", environment="production", stale_if_error=300.0),
            clock=self.clock.clock,
        )
        self.client: VaultSecrets = self.fake
        self._made = 0

    def put(self, name: str, **fields: Any) -> None:
        self.fake.put(name, fields)

    def define(self, name: str) -> None:
        self.rotate(name)

    def rotate(self, name: str) -> None:
        self._made += 1
        self.fake.rotate(name, f"made-up-{self._made}")

    def lease_is_open(self, lease_id: str) -> bool:
        return lease_id in self.fake.leases

    def delete(self, name: str) -> None:
        self.fake.delete(name)

    def undelete(self, name: str) -> None:
        self.fake.undelete(name)

    def destroy(self, name: str) -> None:
        self.fake.destroy(name)

    def purge(self, name: str) -> None:
        self.fake.purge(name)

    def remove_key(self, name: str) -> None:
        self.fake.delete(f"apikey:{name}")

    def compromise(self, name: str) -> None:
        self._made += 1
        self.fake.rotate(name, f"made-up-{self._made}", compromised=True)

    def deny(self, name: str) -> None:
        self.fake.deny(name)

    def outage(self) -> AbstractContextManager[None]:
        return self.fake.outage()

    def another_client(self) -> VaultSecrets:
        return copy.copy(self.fake)


@pytest.fixture(params=["vault", "openbao", "fake"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeWorld()
        with fake.client:
            yield fake
        return
    prefix = {"vault": "", "openbao": "openbao_"}[request.param]
    request.getfixturevalue(f"{prefix}postgres")
    server = request.getfixturevalue(f"{prefix}apikeys")
    with Proxy(server.http) as proxy:
        real = RealWorld(server, proxy)
        with real.client:
            yield real


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


def test_numbers(world: World) -> None:
    numbers = {
        1.10: "1.1", 100.0: "100", 1e3: "1000", 1e-05: "0.00001", 1e-6: "0.000001", 9.5e-7: "9.5e-7",
        1e20: "100000000000000000000", 1e21: "1e+21", 1.5e-12: "1.5e-12", 0.1 + 0.2: "0.30000000000000004",
        2**70: "1.1805916207174113e+21", 2**53 + 1: "9007199254740992", -2.5: "-2.5", 5432: "5432",
    }  # fmt: skip
    fields = {f"n{place}": number for place, number in enumerate(numbers)}
    world.put("conf/numbers", **fields, minus=-0.0, tree={"l": [1e-5, 2.0]})
    found = world.client.kv("conf/numbers")
    assert [found.text(name) for name in fields] == [*numbers.values()]
    assert [found[name] for name in fields] == [float(number) for number in numbers]
    assert type(found["n1"]) is int
    assert (found.text("minus"), found.text("tree")) == ("-0", '{"l":[0.00001,2]}')


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


def test_a_deleted_secret(world: World) -> None:
    client = world.client
    name = f"conf/deleted-{type(world).__name__}"
    world.put(name, value="one")
    first = client.kv(name)
    world.delete(name)
    assert client.kv(name) is first  # as long as it is fresh
    world.clock.shift += 61.0
    with pytest.raises(SecretNotFoundError, match="version 1 was deleted"):
        client.get(name)
    assert client.stats.cached == 0
    world.undelete(name)
    assert client.get(name) == "one"
    world.destroy(name)
    world.clock.shift += 61.0
    with pytest.raises(SecretNotFoundError, match="version 1 was destroyed"):
        client.get(name)
    world.put(name, value="two")
    assert client.kv(name).version == 2


def test_a_secret_made_anew(world: World) -> None:
    client = world.client
    name = f"conf/anew-{type(world).__name__}"
    world.put(name, value="one")
    first = client.kv(name)
    assert first.created_time
    world.purge(name)
    world.put(name, value="two")
    world.clock.shift += 61.0
    second = client.kv(name)
    assert (second["value"], second.version) == ("two", 1)
    assert not same_version(first, second)
    world.purge(name)
    world.clock.shift += 61.0
    with pytest.raises(SecretNotFoundError):
        client.get(name)


def test_an_api_key_made_anew(world: World) -> None:
    client = world.client
    name = f"conf/anew-{type(world).__name__}"
    world.define(name)
    first = client.api_key(name)
    assert first.created_time
    world.remove_key(name)
    world.define(name)
    second = client.wait_for_rotation(name, first, timeout=1)
    assert second is not None
    assert (second.version, second.key != first.key) == (2, True)
    assert client.api_key(name) is second
    world.remove_key(name)
    world.clock.shift += 61.0
    with pytest.raises(SecretNotFoundError):
        client.api_key(name)


def test_a_compromised_key(world: World) -> None:
    client = world.client
    name = f"conf/leaked-{type(world).__name__}"
    world.define(name)
    first = client.api_key(name)
    world.compromise(name)
    client.invalidate(f"apikey:{name}")
    assert client.api_key(name).key != first.key
    with pytest.raises(RequestRefusedError, match="compromised"):
        client.api_key(name, version=1)


def test_an_outage(world: World) -> None:
    client = world.client
    name = f"conf/outage-{type(world).__name__}"
    world.put(name, value="one")
    world.define(name)
    secret, key = client.kv(name), client.api_key(name)
    with world.outage():
        world.clock.shift += 61.0
        assert client.kv(name) is secret
        assert client.api_key(name) is key
        world.clock.shift += 301.0
        with pytest.raises(VaultUnavailableError):
            client.kv(name)
        assert client.api_key(name) is key  # for as long as it is promised
        with pytest.raises(VaultUnavailableError):
            client.get("conf/never-read")
        with pytest.raises(VaultUnavailableError):
            client.database("reader").__enter__()
    assert client.get(name) == "one"


def test_denial(world: World) -> None:
    client = world.client
    name = f"conf/denied-{type(world).__name__}"
    world.put(name, value="one")
    world.put(f"{name}-not", value="two")
    world.define(name)
    assert client.get(name) == "one"
    for denied in (name, f"apikey:{name}", "database:reader"):
        world.deny(denied)
    world.clock.shift += 61.0
    with pytest.raises(AccessDeniedError, match="permission denied"):
        client.get(name)
    with pytest.raises(AccessDeniedError):
        client.api_key(name)
    with pytest.raises(AccessDeniedError):
        client.database("reader").__enter__()
    assert client.get(f"{name}-not") == "two"


def test_a_copy_is_another_client_of_the_same_vault(world: World) -> None:
    name = f"conf/copied-{type(world).__name__}"
    world.put(name, value="one")
    assert world.client.get(name) == "one"
    with world.another_client() as other:
        assert other.stats.cached == 0
        assert other.get(name) == "one"
        world.put(name, value="two")
        other.invalidate()
        assert other.get(name) == "two"
    assert world.client.get(name) == "one"  # its cache is its own, and it is still open


def test_a_closed_client(world: World) -> None:
    world.put("conf/closed", value="one")
    client = world.another_client()
    with client:
        assert client.get("conf/closed") == "one"
    for use in (lambda: client.get("conf/closed"), lambda: client.database("reader")):
        with pytest.raises(ConfigurationError, match="closed"):
            use()


def test_what_the_fake_alone_does() -> None:
    fake = FakeVaultSecrets({"x": {"l": ["a"]}}, {"k": "one"}, {"reader": ("u", "p")})
    for made in (pickle.loads(pickle.dumps(fake)), copy.deepcopy(fake)):
        assert made.kv("x")["l"] == ["a"]
        assert made.get("apikey:k") == "one"
        with made.database("reader") as db:
            assert db.username == "u"
            assert (len(made.leases), len(fake.leases)) == (1, 0)
        made.put("x", "another")
        made.rotate("k", "two")
        assert fake.kv("x").version == 1
        assert fake.api_key("k").version == 1
    assert not [value for value in vars(fake._vault).values() if hasattr(value, "acquire")]
    given = {"l": ["a"]}
    fake.put("own", given)
    given["l"].append("evil")
    assert fake.kv("own")["l"] == ["a"]
    fake.deny("x")
    fake.invalidate()
    with pytest.raises(AccessDeniedError):
        fake.get("x")
    fake.allow("x")
    assert fake.get("x#l") == '["a"]'
    with pytest.raises(SecretNotFoundError):
        fake.get("/other/x")
    with pytest.raises(ConfigurationError, match="no hvac"):
        _ = fake.hvac
    for gone in ("nothing", "apikey:nothing"):
        with pytest.raises(SecretNotFoundError, match="in the fake"):
            fake.delete(gone)
    with pytest.raises(SecretNotFoundError, match="no version 9"):
        fake.destroy("x", version=9)


def test_slips_with_the_fake_are_said() -> None:
    """They would write another secret than the one that was meant."""
    fake = FakeVaultSecrets({"x": {"a": "1"}}, {"k": "one"})
    slips: list[Callable[[], object]] = [
        lambda: fake.put("x#a", "2"), lambda: fake.put("apikey:k", "2"),
        lambda: fake.rotate("k#key", "2"), lambda: fake.rotate("kv:k", "2"),
        lambda: fake.delete("x#a"), lambda: fake.delete("apikey:k", version=1),
        lambda: fake.destroy("apikey:k"), lambda: fake.undelete("apikey:k"),
        lambda: fake.purge("x#a"), lambda: fake.purge("apikey:k"),
        lambda: fake.put("x", {"a": object()}), lambda: fake.put("x", {"a": {1, 2}}),
        lambda: fake.put("x", {"a": b"2"}),
    ]  # fmt: skip
    for slip in slips:
        with pytest.raises(ConfigurationError):
            slip()
    assert (dict(fake.kv("x")), fake.get("apikey:k")) == ({"a": "1"}, "one")
    # What JSON makes of it is what Vault would give.
    fake.put("kv:y", {"t": (1, 2), "n": None, "f": 1.10})
    assert fake.kv("y") == {"t": [1, 2], "n": None, "f": 1.1}
    fake.rotate("apikey:k", "two")
    fake.invalidate()
    assert fake.get("apikey:k") == "two"


def test_outages_of_the_fake_within_one_another() -> None:
    fake = FakeVaultSecrets({"x": "1"})
    with fake.outage():
        with fake.outage():
            pass
        apart, shared = copy.deepcopy(fake), copy.copy(fake)
        for away in (fake, shared):
            with pytest.raises(VaultUnavailableError):
                away.get("x")
        assert apart.get("x") == "1"  # it has a Vault of its own
    assert fake.get("x") == shared.get("x") == "1"
