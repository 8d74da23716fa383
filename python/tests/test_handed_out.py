"""What is handed out stays right: through forks, logins and closing.

| finding | tests |
|---|---|
| 2 | test_what_was_taken_before_a_fork_*, test_a_stream_that_was_begun_* |
| 7 | test_what_is_set_on_hvac_* |
| 8 | test_after_closing_*, test_a_login_that_was_under_way_* |
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hvac
import pytest
import requests

from strongroom_dagster import (
    AppRoleAuth,
    ClosedError,
    ConfigurationError,
    Settings,
    Source,
    StrongroomError,
    TokenAuth,
    VaultSecrets,
)

from .conftest import POLICY, ClientFactory
from .harness.scripted import Answer, Request, Scripted
from .harness.vault import VaultServer

BASE = "bike-data-flow/production"
READS = 40
fork = multiprocessing.get_context("fork")


def read(client: Any, number: int) -> str:
    """One secret through hvac, whole or wrapped: each with another value."""
    answer = client.secrets.kv.v2.read_secret_version(
        f"{BASE}/fork/{number}", raise_on_deleted_version=True
    )
    return str(answer["data"]["data"]["value"])


def wrong_reads(way: Callable[[int], str]) -> list[str]:
    numbers = [n % 8 for n in range(READS)]
    found = []
    for n in numbers:
        try:
            got = way(n)
        except (StrongroomError, requests.RequestException) as error:
            got = type(error).__name__
        if got != str(n):
            found.append(f"{n}: {got}")
    return found


def in_children(way: Callable[[int], str], children: int = 3) -> list[str]:
    """What children and their parent, all at once, read wrong."""
    results = fork.SimpleQueue()
    processes = [
        fork.Process(target=lambda: results.put(wrong_reads(way))) for _ in range(children)
    ]
    for process in processes:
        process.start()
    wrong = wrong_reads(way)
    for process in processes:
        wrong += results.get()
        process.join(30)
        assert process.exitcode == 0
    return wrong


@pytest.mark.parametrize("listener", ["http", "https", "unix"])
def test_what_was_taken_before_a_fork_reads_the_right_secret_after_it(
    vault: VaultServer, client_for: ClientFactory, listener: str
) -> None:
    for number in range(8):
        vault.put(f"{BASE}/fork/{number}", value=str(number))
    client = client_for(vault, address=getattr(vault, listener), ca_bundle=vault.ca)
    h = client.hvac
    adapter, session, engine, raw = h.adapter, h.session, h.secrets.kv.v2, h.adapter.get
    transport = session.get_adapter(adapter.base_uri)
    other = requests.Session()
    other.mount(adapter.base_uri, transport)
    headers = {"X-Vault-Token": str(h.token), "X-Vault-Request": "true"}

    def url(number: int) -> str:
        return f"{adapter.base_uri}/v1/secret/data/{BASE}/fork/{number}"

    def by_session(number: int) -> str:
        return str(session.get(url(number), headers=headers).json()["data"]["data"]["value"])

    def by_transport(number: int) -> str:
        answer = other.get(url(number), headers=headers)
        return str(answer.json()["data"]["data"]["value"])

    def by_engine(number: int) -> str:
        answer = engine.read_secret_version(f"{BASE}/fork/{number}", raise_on_deleted_version=True)
        return str(answer["data"]["data"]["value"])

    def by_adapter(number: int) -> str:
        return str(raw(f"/v1/secret/data/{BASE}/fork/{number}")["data"]["data"]["value"])

    def by_client(number: int) -> str:
        client.invalidate()
        return client.get(f"fork/{number}")

    ways = [lambda n: read(h, n), by_session, by_transport, by_engine, by_adapter, by_client]
    for way in ways:
        assert way(3) == "3"
    for way in ways:
        assert in_children(way, 2) == []
    assert client.hvac is h


def test_what_was_taken_before_a_fork_stays_after_its_client_is_gone(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    for number in range(8):
        vault.put(f"{BASE}/fork/{number}", value=str(number))
    role_id, secret_id = vault.approle("gone", POLICY)
    settings = Settings(address=vault.http)
    h = VaultSecrets(settings, AppRoleAuth(role_id, Source.of(secret_id))).hvac
    session, headers = h.session, {"X-Vault-Token": str(h.token)}
    assert read(h, 1) == "1"
    assert in_children(lambda n: read(h, n), 2) == []
    base = h.adapter.base_uri
    h = None

    def by_session(number: int) -> str:
        answer = session.get(f"{base}/v1/secret/data/{BASE}/fork/{number}", headers=headers)
        return str(answer.json()["data"]["data"]["value"])

    assert in_children(by_session, 2) == []
    session.close()


def test_what_was_taken_before_a_fork_waits_for_no_thread_of_the_parent(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    """A thread that holds every lock of the connections at the moment of the fork."""
    for number in range(8):
        vault.put(f"{BASE}/fork/{number}", value=str(number))
    client = client_for(vault)
    h = client.hvac
    assert read(h, 1) == "1"
    pools = h.session.get_adapter(vault.http).poolmanager.pools
    locks = [pools.lock, h.session.cookies._cookies_lock, client._tokens._lock]
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            lock.acquire()
        held.set()
        go.wait(30)
        for lock in reversed(locks):
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    results = fork.SimpleQueue()
    child = fork.Process(target=lambda: results.put(wrong_reads(lambda n: read(h, n))))
    child.start()
    child.join(30)
    go.set()
    thread.join()
    assert child.exitcode == 0
    assert results.get() == []


def test_a_stream_that_was_begun_before_a_fork_is_the_parents() -> None:
    body = os.urandom(3_000_000)
    with Scripted(
        lambda r: Answer(200, {"data": {"ttl": 0}} if r.path.endswith("self") else body)
    ) as server:
        client = VaultSecrets(Settings(address=server.address), TokenAuth(Source.of("t")))
        answer = client.hvac.session.get(f"{server.address}/v1/x", stream=True)
        first = answer.raw.read(1000)
        results = fork.SimpleQueue()

        def child() -> None:
            try:
                results.put(f"{len(answer.content)} bytes")
            except ClosedError:
                answer.close()
                results.put("refused")

        process = fork.Process(target=child)
        process.start()
        process.join(30)
        assert results.get() == "refused"
        assert first + b"".join(answer.iter_content(65536)) == body


# --- 7 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{other}", "https://127.0.0.1:{port}", "http://localhost:{port}",
     "http://127.0.0.1:{port}@127.0.0.1:{other}", "http://u@127.0.0.1:{port}", "//127.0.0.1:{port}",
     "http://127.0.0.1:{port}.evil.test", "", "https://[nonsense"],
)  # fmt: skip
def test_another_address_that_is_set_on_hvac_gets_no_token(url: str) -> None:
    with Scripted(lambda _: Answer(200, {})) as server, Scripted(lambda _: Answer()) as another:
        client = VaultSecrets(Settings(address=server.address), TokenAuth(Source.of("t")))
        ports = {"port": server.address.split(":")[2], "other": another.address.split(":")[2]}
        client.hvac.token = "hvs.own"
        client.hvac.url = url.format(**ports)
        for use in (client.hvac.sys.list_policies, client.hvac.sys.is_sealed):
            with pytest.raises(ConfigurationError, match="to nobody else"):
                use()
        client.hvac.url = server.address.replace("http", "HTTP")
        assert client.hvac.sys.list_policies() == {}
        assert another.requests == []
        assert len(server.requests) == 1


def test_what_is_set_on_hvac_does_not_reach_the_reads(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    vault.put(f"{BASE}/own", value="ok")
    role_id, secret_id = vault.approle("nobody", 'path "x" { capabilities = ["read"] }')
    client = client_for(vault)
    assert client.get("own") == "ok"
    h, mine = client.hvac, client.hvac.token
    for change in (
        lambda: h.auth.approle.login(role_id, secret_id),
        lambda: setattr(h, "token", "hvs.garbage"),
        lambda: setattr(h.adapter, "token", "hvs.garbage"),
        lambda: setattr(h.adapter, "namespace", "elsewhere"),
        lambda: setattr(h, "url", "http://127.0.0.1:1"),
        lambda: h.session.headers.update(
            {"X-Vault-Token": "hvs.garbage", "X-Vault-Namespace": "no"}
        ),
        lambda: setattr(h.session, "proxies", {"http": "http://127.0.0.1:1"}),
        lambda: setattr(h.session, "verify", False),
        lambda: h.session.mount("http://", requests.adapters.HTTPAdapter()),
        lambda: h.session.cookies.set("a", "b"),
        h.session.close,
        h.adapter.close,
    ):
        change()
        client.invalidate()
        assert client.get("own") == "ok"
        assert client._tokens.current().reveal() == mine
    assert client.stats.logins == 1


def test_what_is_set_on_hvac_counts_there_until_it_is_taken_back(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    role_id, secret_id = vault.approle("somebody", 'path "x" { capabilities = ["read"] }')
    client = client_for(vault)
    h, mine = client.hvac, client.hvac.token
    made = h.auth.approle.login(role_id, secret_id)["auth"]["client_token"]
    assert h.token == made != mine
    assert client.hvac.auth.token.lookup_self()["data"]["id"] == made
    h.logout(revoke_token=True)
    assert h.token == mine
    assert h.auth.token.lookup_self()["data"]["id"] == mine


def test_another_session_that_is_set_on_hvac_is_used_as_it_is() -> None:
    """Which takes no keywords of ours."""
    health = {"initialized": True, "sealed": False}
    with Scripted(lambda _: Answer(200, health)) as server, requests.Session() as other:
        client = VaultSecrets(Settings(address=server.address), TokenAuth(Source.of("t")))
        client.hvac.token = "hvs.own"
        client.hvac.session = other
        assert client.hvac.sys.is_sealed() is False
        assert client.hvac.sys.read_health_status(method="GET") == health
        assert client.hvac.auth.token.lookup_self() == health
        for kind in (hvac.adapters.RawAdapter, hvac.adapters.JSONAdapter):
            assert kind.from_adapter(client.hvac.adapter).get("/v1/sys/health")


def test_what_is_set_on_hvac_does_not_switch_verification_off(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    client = client_for(vault, address=vault.expired, ca_bundle=vault.ca)
    client.hvac.session.verify = False
    with pytest.raises(requests.exceptions.SSLError):
        client.hvac.sys.is_sealed()
    with pytest.raises(requests.exceptions.SSLError):
        client.hvac.session.get(f"{vault.expired}/v1/sys/health", verify=False)


# --- 8 ---------------------------------------------------------------------------------------


def test_after_closing_everything_that_was_handed_out_is_an_error(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    vault.put(f"{BASE}/late", value="ok")
    client = client_for(vault)
    assert client.get("late") == "ok"
    h, session = client.hvac, client.hvac.session
    lease = client.database("reader")
    logins = vault.count("auth/approle/login")
    client.close()
    client.close()
    h.token = None
    uses: list[Callable[[], object]] = [
        lambda: client.get("late"), lambda: client.get_many(["late", "later"]),
        lambda: client.kv("late"), lambda: client.api_key("late"),
        lambda: client.wait_for_rotation("late", 1), lambda: client.database("reader"),
        lambda: client.hvac.auth.token.lookup_self(), lambda: h.token, h.sys.is_sealed,
        lambda: h.adapter.get("/v1/sys/health"), lambda: session.get(f"{vault.http}/v1/sys/health"),
        lease.current, lease.__enter__, client.__enter__,
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(StrongroomError, match="closed"):
            use()
    h.token = "explicit"
    with pytest.raises(ClosedError):
        h.auth.token.lookup_self()
    assert vault.count("auth/approle/login") == logins


def test_after_closing_in_a_child_the_parent_goes_on(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    vault.put(f"{BASE}/late", value="ok")
    client = client_for(vault)
    token = client.hvac.token
    child = fork.Process(target=client.close)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert client.get("late") == "ok"
    assert client.hvac.token == token


def test_a_login_that_was_under_way_while_closing_leaves_no_token() -> None:
    asked, go = threading.Event(), threading.Event()
    revoked = []

    def answer(request: Request) -> Answer:
        if request.path.endswith("login"):
            asked.set()
            go.wait(10)
            auth = {"client_token": "hvs.late", "lease_duration": 3600, "renewable": True}
            return Answer(200, {"auth": auth})
        if request.path.endswith("revoke-self"):
            revoked.append(request.headers["X-Vault-Token"])
            return Answer(204)
        return Answer(200, {"data": {"data": {"value": "v"}, "metadata": {"version": 1}}})

    with Scripted(answer) as server, ThreadPoolExecutor(1) as pool:
        auth = AppRoleAuth("r", Source.of("s"))
        client = VaultSecrets(Settings(address=server.address), auth)
        late = pool.submit(client.get, "x")
        assert asked.wait(10)
        client.close()
        go.set()
        with pytest.raises(StrongroomError, match="closed"):
            late.result(10)
        assert revoked == ["hvs.late"]
        with pytest.raises(StrongroomError, match="closed"):
            client.get("x")
        assert sum(r.path.endswith("login") for r in server.requests) == 1
