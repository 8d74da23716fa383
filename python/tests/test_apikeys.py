"""API keys of the real engine: lifetime from its promise, conditional reads, rotations."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from strongroom_dagster import (
    InvalidResponseError,
    RequestRefusedError,
    SecretNotFoundError,
    Settings,
    Source,
    TokenAuth,
    VaultSecrets,
    VaultUnavailableError,
)

from .conftest import ClientFactory
from .harness.clock import FakeClock, ShiftedClock
from .harness.scripted import Answer, Request, Scripted
from .harness.vault import VaultServer

BASE = "bike-data-flow/production"
CREDS = f"apikeys/creds/{BASE}"


def test_an_api_key_and_its_times(apikeys: VaultServer, client_for: ClientFactory) -> None:
    apikeys.define_key(f"{BASE}/times", grace_period="1h", rotation_period="90d")
    client = client_for(apikeys)
    key = client.api_key("times")
    assert apikeys.verify_key(f"{BASE}/times", key.key)
    assert (key.version, key.state, key.name) == (1, "current", f"{BASE}/times")
    assert key.cache_ttl == pytest.approx(3600, abs=5)
    assert 0 < key.ttl <= key.cache_ttl
    assert key.etag
    assert key.next_rotation_time > key.last_rotated_time
    assert client.get("apikey:times") == key.key
    for _ in range(100):
        assert client.api_key("times") is key
    assert apikeys.count(f"{CREDS}/times") == 1


def test_revalidation_is_a_304_and_renews_the_promise(
    apikeys: VaultServer, client_for: ClientFactory
) -> None:
    apikeys.define_key(f"{BASE}/etag", grace_period="1h")
    clock = ShiftedClock()
    client = client_for(apikeys, clock=clock.clock, api_key_revalidate=60.0)
    key = client.api_key("etag")
    answers: list[int] = []
    client._session.hooks["response"].append(lambda r, **_: answers.append(r.status_code))
    for step in range(1, 4):
        clock.shift = 61.0 * step
        assert client.api_key("etag") is key
    assert answers == [304, 304, 304]
    entry = client._entries[("apikey", "apikeys", f"{BASE}/etag", None)]
    assert entry.usable_until == pytest.approx(client.now() + key.cache_ttl, abs=5)


def test_rotation_between_two_reads(apikeys: VaultServer, client_for: ClientFactory) -> None:
    name = f"{BASE}/rotated"
    apikeys.define_key(name, grace_period="1h")
    clock = ShiftedClock()
    client = client_for(apikeys, clock=clock.clock, api_key_revalidate=60.0)
    old = client.api_key("rotated")
    apikeys.rotate_key(name)
    assert client.api_key("rotated") is old  # cached, and still accepted: it is in grace
    assert apikeys.verify_key(name, old.key)
    clock.shift = 61.0
    new = client.api_key("rotated")
    assert (new.version, new.key != old.key) == (2, True)
    assert apikeys.verify_key(name, new.key)
    grace = client.api_key("rotated", version=1)
    assert (grace.key, grace.state) == (old.key, "grace")
    assert grace.cache_ttl <= 3600
    with pytest.raises(RequestRefusedError, match="no version 9"):
        client.api_key("rotated", version=9)
    with pytest.raises(SecretNotFoundError):
        client.api_key("no-such-key")


def test_a_compromised_key_is_dropped_when_told(
    apikeys: VaultServer, client_for: ClientFactory
) -> None:
    name = f"{BASE}/leaked"
    apikeys.define_key(name, grace_period="1h")
    client = client_for(apikeys)
    old = client.api_key("leaked")
    apikeys.rotate_key(name, compromised=True)
    assert not apikeys.verify_key(name, old.key)
    assert client.api_key("leaked") is old  # for api_key_revalidate at most; the provider says 401
    client.invalidate("apikey:leaked")
    new = client.api_key("leaked")
    assert new.version == 2
    assert apikeys.verify_key(name, new.key)
    with pytest.raises(RequestRefusedError):
        client.api_key("leaked", version=1)


def test_a_long_poll_learns_of_a_rotation_within_a_second(
    apikeys: VaultServer, client_for: ClientFactory
) -> None:
    name = f"{BASE}/polled"
    apikeys.define_key(name, grace_period="1h")
    client = client_for(apikeys)
    old = client.api_key("polled")
    assert client.wait_for_rotation("polled", old.version, timeout=1) is None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_for_rotation, "polled", old.version, timeout=30)
        threading.Event().wait(0.3)  # let it get there; the result is right either way
        apikeys.rotate_key(name)
        new = waiting.result(25)  # left alone, it would wait for 30 s
    assert new is not None
    assert new.version == 2
    assert client.api_key("polled") is new  # for all who read


def test_an_untuned_mount_is_read_in_full_and_right(
    fragile: VaultServer, client_for: ClientFactory
) -> None:
    fragile.mount_apikeys(tuned=False)
    fragile.admin().adapter.post("/v1/apikeys/providers/internal", json={"type": "generated"})
    fragile.define_key(f"{BASE}/untuned", grace_period="1h")
    clock = ShiftedClock()
    client = client_for(fragile, clock=clock.clock)
    key = client.api_key("untuned")
    clock.shift = 61.0
    again = client.api_key("untuned")
    assert (again.key, again.version) == (key.key, 1)


def test_a_dead_vault_is_bridged_for_the_time_of_the_promise_and_no_longer(
    apikeys: VaultServer, client_for: ClientFactory
) -> None:
    apikeys.define_key(f"{BASE}/bridge", grace_period="1h")
    clock = ShiftedClock()
    client = client_for(
        apikeys, clock=clock.clock, deadline=5.0, revalidate_deadline=0.2,
        stale_if_error=10**9,  # must not matter: the promise is the bound
        role_options={"token_ttl": "4h", "token_max_ttl": "8h"},
    )  # fmt: skip
    key = client.api_key("bridge")
    address = client._adapter.base_uri
    client._adapter.base_uri = "http://127.0.0.1:1"
    for shift in (61.0, 1800.0, key.cache_ttl - 5):
        clock.shift = shift
        assert client.api_key("bridge") is key
    clock.shift = key.cache_ttl + 1
    with pytest.raises(VaultUnavailableError):
        client.api_key("bridge")
    client._adapter.base_uri = address
    assert client.api_key("bridge").key == key.key


# --- what a real engine answers only in rare moments: a server that says it on demand --------


def answer_key(version: int = 1, **fields: Any) -> Answer:
    data = {
        "key": f"key-{version}", "version": version, "etag": f'"{version}"', "state": "current",
        "cache_ttl": 3600, "ttl": 3600, **fields,
    }  # fmt: skip
    return Answer(200, {"data": data})


class Engine:
    """Answers in turn; the look-up of the token is answered well."""

    def __init__(self, *answers: Answer) -> None:
        self.queue = list(answers)

    def __call__(self, request: Request) -> Answer:
        if request.path.endswith("lookup-self"):
            return Answer(200, {"data": {"ttl": 0, "renewable": False}})
        return self.queue.pop(0)


def keyed_client(server: Scripted, clock: FakeClock, **settings: Any) -> VaultSecrets:
    values = {"address": server.address, "deadline": 20.0, **settings}
    return VaultSecrets(Settings(**values), TokenAuth(Source.of("t")), clock=clock.clock)


def test_the_next_look_is_at_the_next_rotation_and_never_past_the_promise() -> None:
    clock = FakeClock()
    engine = Engine(
        answer_key(1, ttl=20), answer_key(2, ttl=3600, cache_ttl=30), answer_key(3, cache_ttl=0)
    )
    with Scripted(engine) as server:
        client = keyed_client(server, clock)
        assert client.api_key("k").version == 1
        clock.advance(19.9)
        assert client.api_key("k").version == 1
        clock.advance(0.2)  # ttl, not the 60 s of api_key_revalidate
        assert client.api_key("k").version == 2
        clock.advance(29.9)
        assert client.api_key("k").version == 2
        clock.advance(0.2)  # cache_ttl
        engine.queue.append(answer_key(4))
        assert client.api_key("k").version == 3
        assert client.api_key("k").version == 4  # no promise: not kept at all
        # A dead key is not asked for conditionally: its etag is not known to be one of ours.
        assert "If-None-Match" not in server.requests[-1].headers


def test_the_promise_counts_from_before_the_request() -> None:
    clock = FakeClock()

    def slow(request: Request) -> Answer:
        if request.path.endswith("lookup-self"):
            return Answer(200, {"data": {"ttl": 0, "renewable": False}})
        clock.advance(25.0)  # the answer takes its time
        return answer_key(1, cache_ttl=30)

    with Scripted(slow) as server:
        client = keyed_client(server, clock, deadline=100.0, read_timeout=50.0)
        client.api_key("k")
        clock.advance(4.9)
        sent = client.stats.requests
        client.api_key("k")
        assert client.stats.requests == sent
        clock.advance(0.2)
        client.api_key("k")
        assert client.stats.requests == sent + 1


def test_several_named_values() -> None:
    values = {"access_key": "AK", "secret_key": "SK"}
    both = Answer(200, {"data": {"version": 1, "cache_ttl": 60, "values": values}})
    with Scripted(Engine(both)) as server:
        client = keyed_client(server, FakeClock())
        assert client.get("apikey:pair#secret_key") == "SK"
        assert dict(client.api_key("pair").values) == values
        with pytest.raises(LookupError, match="access_key, secret_key"):
            client.get("apikey:pair")


@pytest.mark.parametrize(
    "data",
    [
        None, [], {}, {"version": 1, "cache_ttl": 5}, {"version": "x", "cache_ttl": 5, "key": "k"},
        {"version": 1, "key": "k"}, {"version": 1, "cache_ttl": "soon", "key": "k"},
        {"version": 1, "cache_ttl": float("nan"), "key": "k"},
        {"version": 1, "cache_ttl": None, "key": "k"},
        {"version": 1, "cache_ttl": 1e300, "key": "k"}, {"version": 1, "cache_ttl": -1, "key": "k"},
        {"version": 1, "cache_ttl": True, "key": "k"}, {"version": 1, "cache_ttl": "60", "key": "k"},
        {"version": 1, "cache_ttl": 5, "ttl": 1e300, "key": "k"},
        {"version": 1, "cache_ttl": 5, "ttl": "soon", "key": "k"},
        {"version": 1, "cache_ttl": 5, "ttl": [], "key": "k"},
        {"version": 1.5, "cache_ttl": 5, "key": "k"}, {"version": True, "cache_ttl": 5, "key": "k"},
        {"version": "1", "cache_ttl": 5, "key": "k"}, {"version": 1, "cache_ttl": 5, "key": 5},
        {"version": 1, "cache_ttl": 5, "key": None}, {"version": 1, "cache_ttl": 5, "values": {"a": 5}},
    ],
)  # fmt: skip
def test_malformed_answers_are_refused_and_not_shown(data: Any) -> None:
    with Scripted(Engine(Answer(200, {"data": data}))) as server:
        with pytest.raises(InvalidResponseError) as caught:
            keyed_client(server, FakeClock()).api_key("k")
        assert caught.value.__context__ is None
