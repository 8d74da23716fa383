"""`environment()` and resources that hold the vault resource: one login, and what they need."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg
import pytest

from strongroom_dagster import (
    AuthMethod,
    ClosedError,
    ConfigurationError,
    FakeVaultSecretsResource,
    SecretNotFoundError,
    Settings,
    Source,
    StrongroomError,
    TokenAuth,
    VaultSecrets,
    VaultSecretsResource,
)
from strongroom_dagster.fake import FakeVaultSecrets
from strongroom_dagster.masked import Sensitive

FAKE = FakeVaultSecretsResource(
    secrets={"warehouse": {"user": "u", "password": "p"}, "one": {"value": "1"}},
    api_keys={"provider-a": {"key": "k"}},
)


@pytest.fixture(params=["client", "resource"])
def vault(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The client, and the resource in front of it."""
    if request.param == "client":
        with FakeVaultSecrets(FAKE.secrets, FAKE.api_keys) as client:
            yield client
    else:
        with FAKE.process_config_and_initialize_cm() as resource:
            yield resource


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEW", raising=False)
    monkeypatch.setenv("OLD", "before")


def test_variables_are_there_for_the_block_and_gone_after_it(vault: Any) -> None:
    wanted = {"NEW": "warehouse#password", "OLD": "apikey:provider-a"}
    with vault.environment(wanted) as given:
        assert given is None
        assert (os.environ["NEW"], os.environ["OLD"]) == ("p", "k")
    assert "NEW" not in os.environ
    assert os.environ["OLD"] == "before"


def test_an_error_in_the_block_puts_everything_back(vault: Any) -> None:
    with pytest.raises(ZeroDivisionError), vault.environment({"NEW": "one", "OLD": "one"}):
        _ = 1 / 0
    assert "NEW" not in os.environ
    assert os.environ["OLD"] == "before"


def test_nothing_is_set_if_one_cannot_be_read(vault: Any) -> None:
    with pytest.raises(SecretNotFoundError), vault.environment({"OLD": "one", "NEW": "missing"}):
        pytest.fail("the block ran")
    assert "NEW" not in os.environ
    assert os.environ["OLD"] == "before"


@pytest.mark.parametrize("name", ["", "A=B", "1A", "A B", "A-B", "Ä", "A\n", "A\x00"])
def test_a_name_that_is_none_is_refused(vault: Any, name: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="no name of a variable"),
        vault.environment({name: "one"}),
    ):
        pytest.fail("the block ran")


@pytest.mark.parametrize("given", ["OLD", b"OLD", ["OLD"], [("OLD", "one")], None])
def test_what_is_no_mapping_is_refused(vault: Any, given: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a mapping"), vault.environment(given):
        pass
    assert os.environ["OLD"] == "before"


def test_a_nul_byte_is_refused_and_not_quoted() -> None:
    with (
        FakeVaultSecrets({"nul": "s3cr3t\x00"}) as client,
        pytest.raises(ConfigurationError, match="NEW: holds a NUL") as caught,
        client.environment({"NEW": "nul"}),
    ):
        pytest.fail("the block ran")
    assert "s3cr3t" not in str(caught.value)


def test_what_changes_while_it_is_read_is_one_mapping() -> None:
    """Names of variables, and of secrets, are looked at once."""

    class Values(dict[str, str]):
        def items(self) -> Any:
            return [("NEW", "warehouse#password")]

        def values(self) -> Any:
            return ["warehouse#user"]

    class Keys(Mapping[str, str]):
        looks = 0

        def __iter__(self) -> Iterator[str]:
            self.looks += 1
            return iter(["NEW"] if self.looks == 1 else ["NEW", "A=B"])

        def __len__(self) -> int:
            return self.looks

        def __getitem__(self, name: str) -> str:
            return "warehouse#user" if self.looks == 1 else "warehouse#password"

    with FakeVaultSecrets(FAKE.secrets) as client:
        for given in (Values(NEW="warehouse#user"), Keys()):
            before = dict(os.environ)
            with client.environment(given):
                assert {**before, "NEW": "u"} == dict(os.environ)
            assert before == dict(os.environ)


def test_blocks_within_blocks(vault: Any) -> None:
    with vault.environment({"OLD": "one"}):
        with vault.environment({"OLD": "warehouse#user"}):
            assert os.environ["OLD"] == "u"
        assert os.environ["OLD"] == "1"
    assert os.environ["OLD"] == "before"


def test_blocks_that_end_in_another_order_leave_no_secret_behind(vault: Any) -> None:
    """Two threads: the first to begin is the first to end."""
    first, second = vault.environment({"OLD": "one"}), vault.environment({"OLD": "warehouse#user"})
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.environ["OLD"] == "u"
    second.__exit__(None, None, None)
    assert os.environ["OLD"] == "before"


def test_many_threads_leave_the_environment_as_it_was(vault: Any) -> None:
    before = dict(os.environ)

    def use() -> None:
        for _ in range(50):
            with vault.environment({"NEW": "one", "OLD": "warehouse#user"}):
                assert os.environ["NEW"] == "1"

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(os.environ) == before


# --- nested resources --------------------------------------------------------------------------


class Warehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A resource that needs the secret when it is made."""

    vault: VaultSecretsResource
    _password: str = ""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Warehouse]:
        self._password = self.vault.get("warehouse#password")
        yield self


class Lake(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One that needs it later."""

    vault: VaultSecretsResource


def counting(monkeypatch: pytest.MonkeyPatch) -> list[VaultSecrets]:
    made: list[VaultSecrets] = []
    make = FakeVaultSecretsResource._make_client

    def count(self: FakeVaultSecretsResource) -> VaultSecrets:
        made.append(make(self))
        return made[-1]

    monkeypatch.setattr(FakeVaultSecretsResource, "_make_client", count)
    return made


def test_nested_and_top_level_use_log_in_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = counting(monkeypatch)
    seen: list[VaultSecrets] = []

    @dg.asset
    def uses(vault: VaultSecretsResource, warehouse: Warehouse, lake: Lake) -> None:
        assert warehouse._password == vault.get("warehouse#password") == "p"
        seen.extend([vault.client, warehouse.vault.client, lake.vault.client])

    resources = {"vault": FAKE, "warehouse": Warehouse(vault=FAKE), "lake": Lake(vault=FAKE)}
    assert dg.materialize([uses], resources=resources).success
    assert len(made) == 1
    assert seen == made * 3
    assert made[0].stats.logins <= 1
    assert dg.materialize([uses], resources=resources).success
    assert len(made) == 2, "the client of a run that has ended is used by the next"


def test_resources_of_another_identity_have_a_client_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = counting(monkeypatch)
    other = FakeVaultSecretsResource(secrets=FAKE.secrets, kv_ttl=1.0)

    @dg.asset
    def uses(vault: VaultSecretsResource, lake: Lake) -> None:
        assert vault.get("one") == lake.vault.get("one") == "1"
        assert vault.client is not lake.vault.client

    resources = {"vault": FAKE, "lake": Lake(vault=other)}
    assert dg.materialize([uses], resources=resources).success
    assert len(made) == 2


class Second(FakeVaultSecretsResource):
    """A login of its own with what another resource, or an object, holds."""

    first: VaultSecretsResource
    beside: Any = None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"role_id": "one", "secret_id_file": "/a"}, {"role_id": "two", "secret_id_file": "/b"}),
        ({"token_variable": "ONE"}, {"token_variable": "TWO"}),
        ({"jwt_role": "one"}, {"jwt_role": "one", "jwt_file": "/f"}),
        ({"kubernetes_role": "a"}, {"kubernetes_role": "b"}),
    ],
)
def test_what_no_repr_shows_tells_clients_apart(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Else one would read with the identity of the other."""
    resources = [
        Second(secrets={}, first=VaultSecretsResource(**given)) for given in (one, two, two)
    ]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(r.process_config_and_initialize_cm()).client for r in resources
        ]
        assert clients[0] is not clients[1]
        assert clients[1] is clients[2]


def test_what_looks_alike_tells_clients_apart() -> None:
    first = VaultSecretsResource(token_variable="ONE")
    resources = [
        Second(secrets={}, first=first, beside=held)
        for held in (Sensitive("a"), Sensitive("b"), True, 1, "1", [1], {"1": 1}, {"1": 1})
    ]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(r.process_config_and_initialize_cm()).client for r in resources
        ]
    assert len({id(client) for client in clients}) == 7


def test_a_shared_client_is_closed_by_the_last_who_holds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[VaultSecrets] = []

    def close(self: FakeVaultSecrets) -> None:
        closed.append(self)

    monkeypatch.setattr(FakeVaultSecrets, "close", close)
    with FAKE.process_config_and_initialize_cm() as outer:
        with FAKE.process_config_and_initialize_cm() as inner:
            assert inner.client is outer.client
        assert not closed
        assert outer.get("one") == "1"
        with pytest.raises(ClosedError):
            inner.get("one")
    assert len(closed) == 1


def test_a_thread_that_outlives_its_step_does_not_log_in_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = counting(monkeypatch)
    kept: list[VaultSecretsResource] = []

    @dg.asset
    def leaks(vault: VaultSecretsResource) -> None:
        kept.append(vault)

    assert dg.materialize([leaks], resources={"vault": FAKE}).success
    with pytest.raises(ClosedError, match="has ended"):
        kept[0].get("one")
    assert len(made) == 1


def test_threads_that_ask_first_at_once_make_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a run it is made at first use; a second one nobody would close."""
    made, together = counting(monkeypatch), threading.Barrier(8)
    real = FakeVaultSecretsResource._make_client

    def slowly(self: FakeVaultSecretsResource) -> VaultSecrets:
        with contextlib.suppress(threading.BrokenBarrierError):
            inside.wait(0.2)  # until another thread is here as well, if one can be
        return real(self)

    inside = threading.Barrier(2)
    monkeypatch.setattr(FakeVaultSecretsResource, "_make_client", slowly)
    resource = FakeVaultSecretsResource(secrets=FAKE.secrets)

    def read(_: int) -> tuple[str, VaultSecrets]:
        together.wait(20)
        return resource.get("one"), resource.client

    with ThreadPoolExecutor(8) as pool:
        assert {*pool.map(read, range(8))} == {("1", resource.client)}
    assert len(made) == 1


def test_a_thread_that_reads_while_its_step_ends_makes_no_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = counting(monkeypatch)
    late: list[Future[str]] = []
    real = VaultSecretsResource.__setattr__

    def between(self: Any, name: str, value: Any) -> None:
        real(self, name, value)
        if name == "_client" and value is None:
            late.append(pool.submit(vault.get, "one"))
            with contextlib.suppress(StrongroomError, futures.TimeoutError):
                late[0].result(0.2)  # if it does not wait for the end of the step

    with ThreadPoolExecutor(1) as pool:
        with FAKE.process_config_and_initialize_cm() as vault:
            monkeypatch.setattr(VaultSecretsResource, "__setattr__", between)
        with pytest.raises(ClosedError, match="has ended"):
            late[0].result(20)
    assert len(made) == 1


# --- a login of one's own ----------------------------------------------------------------------


class OurVault(VaultSecretsResource):
    """With another way to log in, and a field for it."""

    our_role: str = ""

    def auth_method(self) -> AuthMethod:
        return TokenAuth(Source(variable=self.our_role))


def test_another_login_is_added_by_overriding_auth_method() -> None:
    given = OurVault(our_role="THE_TOKEN", address="https://vault.test")
    with given.process_config_and_initialize_cm() as vault:
        assert vault.client.settings == Settings(address="https://vault.test")
        assert "token" in repr(vault.client)
    with pytest.raises(ConfigurationError, match='did you mean "our_role"'):
        OurVault(our_roll="x")  # type: ignore[call-arg]


# --- the rest of the client --------------------------------------------------------------------


def test_invalidate_and_wait_for_rotation_are_on_the_resource() -> None:
    with FAKE.process_config_and_initialize_cm() as vault:
        fake = vault.client
        assert isinstance(fake, FakeVaultSecrets)
        assert vault.get("one") == "1"
        fake.put("one", "2")
        assert vault.get("one") == "1"
        vault.invalidate("one")
        assert vault.get("one") == "2"
        fake.put("one", "3")
        vault.invalidate()
        assert vault.get("one") == "3"
        fake.rotate("provider-a", "k2")
        rotated = vault.wait_for_rotation("provider-a", 1, timeout=1)
        assert rotated is not None
        assert rotated.key == "k2"
