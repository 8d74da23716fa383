"""What the client passes on, shares between threads and leaves to a fork."""

from __future__ import annotations

import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from strongroom_dagster import (
    AppRoleAuth,
    ClosedError,
    ConfigurationError,
    InvalidResponseError,
    RequestRefusedError,
    Settings,
    Source,
    StrongroomError,
    VaultSecrets,
)
from strongroom_dagster.client import _PARALLEL

from .harness.model import model_vault


def test_many_are_asked_for_at_the_same_time() -> None:
    with model_vault() as (vault, _clock, client_for):
        values = {name: vault.write(name) for name in ("a", "b")}
        met = threading.Barrier(2)
        for name in values:
            vault.before[f"data/{name}"] = lambda: (met.wait(20), None)[1]
        assert client_for(deadline=60.0).get_many(values) == values
        assert not met.broken


AT_EXIT = """
import atexit, sys
from strongroom_dagster.fake import FakeVaultSecrets
vault = FakeVaultSecrets({"a": "1", "b": "2"})
atexit.register(lambda: sys.stdout.write("".join(vault.get_many(["a", "b"]).values())))
"""


def test_many_are_read_when_the_interpreter_ends() -> None:
    """It starts no threads any more."""
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("12", "", 0)


def in_a_handler(handle: Callable[[], object], during: Callable[[], object]) -> object:
    """Sends this process a signal in the middle of what it does, and brings what that gives."""
    before = signal.signal(signal.SIGUSR1, lambda *_: handle())
    try:
        return during()
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("where", ["auth/approle/login", "data/x"])
def test_the_handler_of_a_signal_may_read_what_is_being_read(where: str) -> None:
    with model_vault() as (vault, _clock, client_for):
        value, client = vault.write("x"), client_for()
        vault.before[where] = lambda: signal.pthread_kill(main, signal.SIGUSR1)
        main, found = threading.get_ident(), list[str]()
        assert in_a_handler(lambda: found.append(client.get("x")), lambda: client.get("x")) == value
        assert found == [value]
        client.close()
        assert not [name for name in vault.tokens if vault.alive(name)]


@pytest.mark.parametrize("where", ["auth/approle/login", "data/x"])
def test_the_handler_of_a_signal_may_close_the_client(where: str) -> None:
    with model_vault() as (vault, _clock, client_for):
        vault.write("x")
        client, main = client_for(), threading.get_ident()
        vault.before[where] = lambda: signal.pthread_kill(main, signal.SIGUSR1)
        with pytest.raises(StrongroomError):
            in_a_handler(client.close, lambda: client.get("x") and client.get("y"))
        assert not [name for name in vault.tokens if vault.alive(name)]


@pytest.mark.parametrize("lock", ["_cache._lock", "_tokens._lock", "_leases_lock",
                                  "_cache._flights._lock", "_tokens._flights._lock"])  # fmt: skip
def test_what_interrupts_a_lock_of_its_own_thread_does_not_wait_for_it(lock: str) -> None:
    with model_vault() as (vault, _clock, client_for):
        value, client = vault.write("x"), client_for()
        held = operator.attrgetter(lock)(client)
        done: list[str] = []
        with held:
            # A lock that waits for itself never ends; it is asked whether it would.
            assert held.acquire(blocking=False)
            held.release()
            done.append(client.get("x"))
            client.close()
        assert done == [value]


@pytest.mark.parametrize("auth", ["hvs.s3cr3t", None, Source.of("s3cr3t"), AppRoleAuth])
@pytest.mark.parametrize("settings", [None, "http://127.0.0.1:1"])
def test_what_is_no_settings_or_no_login_is_refused_at_once(auth: Any, settings: Any) -> None:
    given: Any = settings or Settings()
    if auth is AppRoleAuth:
        auth = AppRoleAuth("r", Source.of("s"))
        given = settings
    with pytest.raises(ConfigurationError, match="must be") as caught:
        VaultSecrets(given, auth)
    assert "s3cr3t" not in str(caught.value)


def test_a_lease_is_shared_by_those_who_ask_for_the_same() -> None:
    with model_vault() as (_vault, _clock, client_for):
        client = client_for()
        lease = client.database("reader")
        assert client.database("reader", min_ttl=0.0, mount="database") is lease
        assert client.database("reader", min_ttl=1.0) is not lease
        assert client.database("writer") is not lease
        assert client.database("reader", mount="other") is not lease
        assert lease.path == "database/creds/reader"
        assert client.database("a b", mount="m n").path == "m%20n/creds/a%20b"


def test_a_call_passes_on_what_it_was_given_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[Any, ...]] = []

    def send(method: str, path: str, **keywords: Any) -> dict[str, Any]:
        sent.append((method, path, keywords))
        return {"data": 1}

    with model_vault() as (_vault, _clock, client_for):
        client = client_for()
        monkeypatch.setattr(client, "_send", send)
        usual = {"headers": None, "raise_exception": False, "until": 5.0, "idempotent": False}
        assert client.call("get", "x", until=5.0) == {"data": 1}
        assert sent.pop() == ("get", "/v1/x", usual)
        given = {"read_timeout": 0.5, "params": {"a": "b"}, "json": {}, "headers": {"H": "h"}}
        client.call("put", "x", until=5.0, idempotent=True, **given)  # type: ignore[arg-type]
        assert sent.pop() == ("put", "/v1/x", {**usual, "idempotent": True, **given})


class _Status:
    text = ""
    headers: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code

    def json(self) -> Any:
        return {"errors": ["no"]}


def test_an_answer_without_an_object_is_empty_only_where_that_is_right() -> None:
    with model_vault() as (_vault, _clock, client_for):
        client = client_for()
        answers: list[Any] = []
        client._send = lambda *_, **__: answers.pop()  # type: ignore[method-assign]

        def call(answer: Any, *, allow_304: bool = False) -> dict[str, Any]:
            answers.append(answer)
            return client.call("get", "x", until=5.0, allow_304=allow_304)

        assert call(_Status(204)) == {}
        assert call(_Status(304), allow_304=True) == {}
        with pytest.raises(InvalidResponseError, match="no object"):
            call([])
        with pytest.raises(RequestRefusedError):
            call(_Status(400), allow_304=True)
        answers.append(_Status(304))
        with pytest.raises(StrongroomError):
            client.call("get", "x", until=5.0)


def test_after_a_fork_no_lock_of_the_parents_threads_is_waited_for() -> None:
    with model_vault() as (vault, _clock, client_for):
        value, client = vault.write("x"), client_for()
        lease = client.database("reader")

        def locks() -> list[Any]:
            return [client._leases_lock, client._cache._lock, client._tokens._lock, lease._lock]

        with ThreadPoolExecutor(1) as other:
            other.submit(lambda: [lock.acquire() for lock in locks()]).result(10)
            client._after_fork()
            for lock in locks():
                assert lock.acquire(blocking=False)
                lock.release()
        assert client.get("x") == value


def test_a_fork_of_the_process_is_noticed() -> None:
    with model_vault() as (_vault, _clock, client_for):
        client = client_for()
        fork, held = multiprocessing.get_context("fork"), client._leases_lock
        with held, ThreadPoolExecutor(1) as other:
            child = fork.Process(target=lambda: os._exit(7 if client._leases_lock is held else 0))
            other.submit(child.start).result(10)
            child.join(30)
        assert child.exitcode == 0
        assert client._leases_lock is held


def test_the_end_of_its_block_closes_a_client() -> None:
    with model_vault() as (vault, _clock, client_for):
        vault.write("x")
        with client_for() as client:
            client.get("x")
        assert not [token for token in vault.tokens if vault.alive(token)]
        with pytest.raises(ClosedError):
            client.get("x")


def test_what_was_handed_out_before_the_end_sends_nothing_either() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        handed_out, own = client.hvac.session, client._session
        client.close()
        for session in (handed_out, own):
            with pytest.raises(ClosedError):
                session.get(f"{client.settings.address}/v1/sys/health")
        assert vault.requests == []


def test_a_value_is_read_anew_at_the_moment_that_it_is_not_fresh_any_more() -> None:
    for read in ("get", "kv", "get_many"):
        with model_vault() as (vault, clock, client_for):
            value, client = vault.write("x"), client_for(kv_ttl=60.0)
            assert client.get("x") == value
            clock.advance(59.0)
            getattr(client, read)(["x"] if read == "get_many" else "x")
            assert vault.count("metadata/x") == 0
            clock.advance(1.0)
            getattr(client, read)(["x"] if read == "get_many" else "x")
            assert vault.count("metadata/x") == 1, read


@pytest.mark.parametrize("read", ["get", "kv", "get_many"])
def test_what_is_read_again_is_kept_longer(read: str) -> None:
    """Where there is no room for all, those that nobody has read since go first."""
    with model_vault() as (vault, _clock, client_for):
        client = client_for(max_entries=2)
        for name in ("often", "once", "new"):
            vault.write(name)
        client.get("often")
        client.get("once")
        for entry in client._entries.values():
            entry.used = False
        getattr(client, read)(["often"] if read == "get_many" else "often")
        client.get("new")
        asked = vault.count("data/often")
        client.get("often")
        assert vault.count("data/often") == asked


def test_a_name_may_have_its_field_beside_it() -> None:
    with model_vault() as (vault, _clock, client_for):
        value, client = vault.write("x"), client_for()
        assert client.get("x", field="value") == value
        assert client.get("x#value", field="value") == value
        with pytest.raises(ConfigurationError, match="another one is given"):
            client.get("x#value", field="other")


def test_variables_are_looked_at_before_anything_is_asked_for() -> None:
    with model_vault() as (vault, _clock, client_for):
        value, client = vault.write("x"), client_for()
        given: list[Any] = [{"A=B": "x"}, [("A", "x")]]
        for wrong in given:
            with pytest.raises(ConfigurationError), client.environment(wrong):
                raise AssertionError("the block was entered")
        assert vault.requests == []
        vault.write("nul", "a\0")
        with pytest.raises(ConfigurationError), client.environment({"A": "nul"}):
            raise AssertionError("the block was entered")
        with client.environment({"STRONGROOM_TEST_ONLY": "x"}):
            assert os.environ["STRONGROOM_TEST_ONLY"] == value
        assert "STRONGROOM_TEST_ONLY" not in os.environ


def test_a_client_from_the_environment_that_was_given() -> None:
    given = {"VAULT_ADDR": "https://given.example.com", "VAULT_TOKEN": "t"}
    with VaultSecrets.from_env(given) as client:
        assert client.settings.address == "https://given.example.com"


def test_a_copy_has_the_settings_and_neither_token_nor_cache() -> None:
    with model_vault() as (vault, _clock, client_for):
        value, client = vault.write("x"), client_for()
        assert client.get("x") == value
        kind, given = client.__reduce__()
        assert kind is VaultSecrets
        assert given == (client.settings, client._auth)
        assert value not in repr(given)


def test_no_more_threads_than_it_may_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, size: int) -> None:
            sizes.append(size)
            super().__init__(size)

    monkeypatch.setattr("strongroom_dagster.client.ThreadPoolExecutor", Pool)
    with model_vault() as (vault, _clock, client_for):
        for many in (3, _PARALLEL + 5):
            names = [f"s{many}-{number}" for number in range(many)]
            values = {name: vault.write(name) for name in names}
            assert client_for().get_many(names) == values
    assert sizes == [3, _PARALLEL]


def test_hvac_that_is_first_asked_for_after_the_end_sends_nothing() -> None:
    with model_vault() as (vault, _clock, client_for):
        client = client_for()
        client.close()
        with pytest.raises(ClosedError):
            client.hvac.session.get(f"{client.settings.address}/v1/sys/health")
        assert vault.requests == []


def test_what_is_at_a_path_is_read_as_it_is() -> None:
    with model_vault() as (vault, _clock, client_for):
        value = vault.write("a#b c")
        client = client_for(app="app", environment="prod")
        assert client.read_at("kv", "secret", "a#b c").text() == value
        key = vault.rotate("k#1")
        assert client.read_at("apikey", "apikeys", "k#1").text() == key


def test_names_are_parsed_once_and_the_memory_of_them_is_bounded() -> None:
    with model_vault() as (_vault, _clock, client_for):
        client = client_for(max_entries=1)
        assert client._parse("x") is client._parse("x")
        values: list[Any] = []
        client._value = lambda ref: values.append(ref)  # type: ignore[method-assign]
        client.kv("x")
        client.kv("x")
        assert values[0] is values[1]
        for number in range(1, 10_000):
            client._parse(f"n{number}")
            client.kv(f"n{number}")
        assert (len(client._names), len(client._paths)) == (10_000, 10_000)
        client._parse("y")
        client.kv("y")
        assert (len(client._names), len(client._paths)) == (1, 1)
        assert client_for(max_entries=6_000)._most_names == 12_000


def test_the_counts_are_of_all_that_was_sent() -> None:
    with model_vault() as (vault, clock, client_for):
        vault.write("x")
        client = client_for()
        assert client.stats == type(client.stats)(0, 0, 0, 0)
        client.get("x")
        client.hvac.auth.token.lookup_self()
        assert client.stats == type(client.stats)(3, 1, 0, 1)
        clock.advance(3000.0)
        client.get("x")
        assert (client.stats.logins, client.stats.renewals) == (1, 1)
        assert client.stats.requests == len(vault.requests)
        client.invalidate()
        assert client.stats.cached == 0
        assert repr(client).endswith(", AppRole, cached=0)")
