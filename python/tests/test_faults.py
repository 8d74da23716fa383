"""What goes wrong in a real run, against a real Vault that is sealed, killed and lied to."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from strongroom_dagster import (
    AccessDeniedError,
    AppRoleAuth,
    AuthenticationError,
    Settings,
    Source,
    TLSVerificationError,
    VaultSecrets,
    VaultUnavailableError,
)

from .conftest import POLICY, ClientFactory
from .harness import wait
from .harness.clock import ShiftedClock
from .harness.proxy import Proxy
from .harness.vault import VaultServer

BASE = "bike-data-flow/production"
DATA = f"secret/data/{BASE}"


def test_sealed_for_ten_seconds_in_mid_run(fragile: VaultServer, client_for: ClientFactory) -> None:
    fragile.put(f"{BASE}/sealed", value="ok")
    fragile.put(f"{BASE}/cached", value="cached")
    client = client_for(fragile, deadline=100.0)
    assert client.get("cached") == "cached"
    fragile.seal()
    sealed_at = time.monotonic()
    timer = threading.Timer(10.0, fragile.unseal)
    timer.start()
    try:
        assert client.get("cached") == "cached"
        assert time.monotonic() - sealed_at < 9.0  # it does not wait for the end
        assert client.get("sealed") == "ok"  # waits, and the run goes on
        assert time.monotonic() - sealed_at > 9.5
    finally:
        timer.join()
    assert client.stats.logins == 1


def test_killed_and_restarted_in_mid_run(fragile: VaultServer, client_for: ClientFactory) -> None:
    fragile.put(f"{BASE}/killed", value="ok")
    client = client_for(fragile, deadline=100.0)
    assert client.hvac.auth.token.lookup_self()
    fragile.kill()
    thread = threading.Thread(target=fragile.start)
    thread.start()
    try:
        assert client.get("killed") == "ok"
    finally:
        thread.join()
    assert client.stats.logins == 1  # the token has survived in Vault's storage


def test_killed_between_two_reads_leaves_only_a_dead_connection(
    fragile: VaultServer, client_for: ClientFactory
) -> None:
    for number in (1, 2):
        fragile.put(f"{BASE}/dead{number}", value=str(number))
    client = client_for(fragile)
    assert client.get("dead1") == "1"
    fragile.kill()
    fragile.start()
    began = time.monotonic()
    assert client.get("dead2") == "2"
    assert time.monotonic() - began < 15.0  # and not until the deadline, 20 s


def test_down_for_good_ends_at_the_deadline_and_says_so(
    fragile: VaultServer, client_for: ClientFactory
) -> None:
    fragile.put(f"{BASE}/down", value="ok")
    fragile.put(f"{BASE}/down-kv", value="kept")
    clock = ShiftedClock()
    client = client_for(
        fragile, deadline=5.0, revalidate_deadline=0.2, stale_if_error=300.0, clock=clock.clock
    )
    assert client.get("down-kv") == "kept"
    fragile.kill()
    try:
        began = time.monotonic()
        with pytest.raises(VaultUnavailableError, match=r"no answer after \d+ attempts"):
            client.get("down")
        assert 2.0 < time.monotonic() - began < 60.0
        clock.shift = 61.0  # not fresh any more, but within stale_if_error
        assert client.get("down-kv") == "kept"
        sent = client.stats.requests
        assert client.get("down-kv") == "kept"  # and the next look is some seconds away
        assert client.stats.requests == sent
        clock.shift = 361.0
        with pytest.raises(VaultUnavailableError):
            client.get("down-kv")
    finally:
        fragile.start()
    assert client.get("down-kv") == "kept"


def test_token_revoked(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/revoked", value="ok")
    client = client_for(vault)
    client.get("revoked")
    vault.admin().auth.token.revoke(client.hvac.token)
    client.invalidate()
    assert client.get("revoked") == "ok"
    assert client.stats.logins == 2
    vault.admin().auth.token.revoke(client.hvac.token)
    assert client.hvac.auth.token.lookup_self()  # through hvac too
    assert client.stats.logins == 3


def test_a_denied_path_does_not_log_in_again(vault: VaultServer, client_for: ClientFactory) -> None:
    client = client_for(vault)
    for _ in range(5):
        with pytest.raises(AccessDeniedError, match="permission denied"):
            client.get("/other/production/x")
    assert client.stats.logins == 1


def test_a_denied_path_of_a_token_that_may_not_look_itself_up(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    clock = ShiftedClock()
    client = client_for(vault, clock=clock.clock, role_options={"token_no_default_policy": True})
    for shift in (0.0, 11.0, 12.0, 13.0):
        clock.shift = shift
        with pytest.raises(AccessDeniedError, match="permission denied"):
            client.get("/other/production/x")
    assert client.stats.logins <= 2


@pytest.mark.parametrize("how", ["expired", "used up"])
def test_secret_id_expired_and_replaced_in_its_file(
    vault: VaultServer, tmp_path: Path, how: str
) -> None:
    vault.put(f"{BASE}/sid", value="ok")
    clock = ShiftedClock()
    role_id, _ = vault.approle("sid", POLICY)
    file = tmp_path / "secret-id"
    limits = {"ttl": "1s"} if how == "expired" else {"num_uses": 1}
    secret_id = vault.secret_id("sid", **limits)
    file.write_text(secret_id)
    settings = Settings(address=vault.http, app="bike-data-flow", environment="production")
    client = VaultSecrets(settings, AppRoleAuth(role_id, Source(file=str(file))), clock=clock.clock)
    assert client.get("sid") == "ok"
    vault.admin().auth.token.revoke(client.hvac.token)
    assert client.get("sid") == "ok"  # cached
    client.invalidate()
    wait.until(lambda: not vault.knows_secret_id("sid", secret_id), f"the secret id is {how}")
    with pytest.raises(AuthenticationError, match="invalid role or secret ID") as caught:
        client.get("sid")
    assert "give a new one" in caught.value.hint
    file.write_text(vault.secret_id("sid"))
    assert client.get("sid") == "ok"
    client.close()


def test_fifty_threads_at_a_cold_cache_make_one_request(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    vault.put(f"{BASE}/crowd", value="ok")
    written = vault.count(f"{DATA}/crowd")
    logins = vault.count("auth/approle/login")
    client = client_for(vault)
    barrier = threading.Barrier(50)

    def read() -> str:
        barrier.wait()
        return client.get("crowd")

    with ThreadPoolExecutor(50) as pool:
        futures = [pool.submit(read) for _ in range(50)]
        assert {future.result() for future in futures} == {"ok"}
    assert vault.count(f"{DATA}/crowd") - written == 1
    assert vault.count("auth/approle/login") - logins == 1
    assert client.stats.requests == 2


def test_fifty_threads_and_a_dead_token_log_in_once(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    for number in range(50):
        vault.put(f"{BASE}/herd/{number}", value=str(number))
    client = client_for(vault)
    client.get("herd/0")
    vault.admin().auth.token.revoke(client.hvac.token)
    client.invalidate()
    barrier = threading.Barrier(50)

    def read(number: int) -> str:
        barrier.wait()
        return client.get(f"herd/{number}")

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(read, range(50))) == [str(n) for n in range(50)]
    assert client.stats.logins <= 3  # 1, and 1 for all of them; a straggler at most


Found = tuple[str, str, int, int, int]


def _in_child(client: VaultSecrets, results: multiprocessing.SimpleQueue[Found]) -> None:
    sent = client.stats.requests
    cached = client.get("fork")
    cold = client.get("fork-cold")
    results.put((cached, cold, client.stats.logins, sent, os.getpid()))
    client.close()


def test_fork_after_login(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/fork", value="warm")
    vault.put(f"{BASE}/fork-cold", value="cold")
    client = client_for(vault)
    client.get("fork")
    context = multiprocessing.get_context("fork")
    results: multiprocessing.SimpleQueue[Found] = context.SimpleQueue()
    # A thread that holds every lock at the moment of the fork does not exist in the child.
    locks = [client._cache._lock, client._cache._flights._lock, client._tokens._flights._lock]
    for lock in locks:
        lock.acquire()
    try:
        children = [context.Process(target=_in_child, args=(client, results)) for _ in range(4)]
        for child in children:
            child.start()
    finally:
        for lock in locks:
            lock.release()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    found = [results.get() for _ in children]
    for cached, cold, logins, sent, pid in found:
        assert (cached, cold, logins, sent) == ("warm", "cold", 1, 0)
        assert pid != os.getpid()
    # A child that closes leaves its parent's token alone, and its connections.
    client.invalidate()
    assert client.get("fork") == "warm"
    assert client.stats.logins == 1


def test_clock_that_jumps(
    vault: VaultServer, client_for: ClientFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.put(f"{BASE}/jump", value="ok")
    client = client_for(vault)
    assert client.get("jump") == "ok"
    real = time.time
    for shift in (-400 * 86400.0, 400 * 86400.0):
        monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
        sent = client.stats.requests
        assert client.get("jump") == "ok"
        assert client.stats.requests == sent  # neither too old nor from the future
        client.invalidate()
        assert client.get("jump") == "ok"
        assert client.stats.logins == 1


def test_tls_expired_while_values_are_cached(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/exp", value="ok")
    vault.put(f"{BASE}/exp2", value="ok")
    clock = ShiftedClock()
    client = client_for(
        vault, address=vault.https, ca_bundle=vault.ca, stale_if_error=60.0, clock=clock.clock
    )
    assert client.get("exp") == "ok"
    # The same Vault behind a certificate that has expired.
    client._adapter.base_uri = vault.expired
    clock.shift = 61.0
    assert client.get("exp") == "ok"
    with pytest.raises(TLSVerificationError, match="expired"):
        client.get("exp2")


def test_answers_cut_short_at_any_place(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/cut", value="whole")
    with Proxy(vault.http) as proxy:
        client = client_for(vault, address=proxy.address, backoff_base=0.005)
        client.hvac.auth.token.lookup_self()
        keep = 0
        while True:
            client.invalidate()
            client._session.close()  # so that the next request makes a connection, which is cut
            proxy.cut_after = [keep]
            sent = client.stats.requests
            assert client.get("cut") == "whole", keep
            if client.stats.requests == sent + 1:
                break  # it was whole after so many bytes
            keep += 7
        assert keep > 400
        client.close()


def test_answers_cut_short_for_ever(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/cut", value="whole")
    with Proxy(vault.http) as proxy:
        client = client_for(vault, address=proxy.address, deadline=5.0)
        client.hvac.auth.token.lookup_self()
        client._session.close()
        proxy.cut_after = [300] * 1000
        with pytest.raises(VaultUnavailableError):
            client.get("cut")
        proxy.cut_after = []
        assert client.get("cut") == "whole"
        client.close()


def test_an_interrupted_leader_is_replaced(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/leader", value="ok")
    client = client_for(vault)
    inside, go = threading.Event(), threading.Event()
    real = client.call
    calls = []

    class Interrupt(BaseException):
        pass

    def call(*args: object, **keywords: object) -> object:
        calls.append(args)
        if len(calls) == 1:
            inside.set()
            go.wait(10)
            raise Interrupt
        return real(*args, **keywords)  # type: ignore[arg-type]

    client.call = call  # type: ignore[assignment,method-assign]
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(client.get, "leader")
        assert inside.wait(10)
        follower = pool.submit(client.get, "leader")
        go.set()
        assert follower.result(10) == "ok"
        with pytest.raises(Interrupt):
            leader.result(10)


def test_an_invalidation_wins_over_a_read_that_was_under_way(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    vault.put(f"{BASE}/race", value="old")
    client = client_for(vault)
    client.hvac.auth.token.lookup_self()
    answered, go = threading.Event(), threading.Event()
    real = client.call

    def slow(*args: object, **keywords: object) -> object:
        answer = real(*args, **keywords)  # type: ignore[arg-type]
        answered.set()
        go.wait(10)
        return answer

    client.call = slow  # type: ignore[assignment,method-assign]
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(client.get, "race")
        assert answered.wait(10)
        vault.put(f"{BASE}/race", value="new")
        client.invalidate("race")
        go.set()
        assert reading.result(10) == "old"
    assert client.get("race") == "new"


def test_importing_the_client_imports_no_dagster() -> None:
    code = (
        "import sys, strongroom_dagster.client, strongroom_dagster\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'dagster'], 'dagster'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
