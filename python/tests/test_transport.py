"""Addresses, TLS, headers, retries and bounds."""

from __future__ import annotations

import time
from typing import Any

import pytest

from strongroom_dagster import (
    AccessDeniedError,
    ConfigurationError,
    InvalidResponseError,
    RequestRefusedError,
    SecretNotFoundError,
    Settings,
    Source,
    StrongroomError,
    TLSVerificationError,
    TokenAuth,
    VaultSecrets,
    VaultUnavailableError,
)

from .conftest import ClientFactory
from .harness.clock import FakeClock
from .harness.proxy import Proxy
from .harness.scripted import Answer, Request, Scripted
from .harness.vault import VaultServer

BASE = "bike-data-flow/production"
LOOKUP = Answer(200, {"data": {"ttl": 0, "renewable": False}})
SECRET = Answer(200, {"data": {"data": {"value": "v"}, "metadata": {"version": 1}}})


def scripted_client(
    server: Scripted, clock: FakeClock | None = None, **settings: Any
) -> VaultSecrets:
    values = {"address": server.address, "deadline": 30.0, **settings}
    return VaultSecrets(
        Settings(**values), TokenAuth(Source.of("t")), clock=clock.clock if clock else None
    )


def after_lookup(*answers: Answer) -> Any:
    """Answers in turn, the last one for ever; the look-up of the token is answered well."""
    queue = list(answers)

    def answer(request: Request) -> Answer:
        if request.path.endswith("lookup-self"):
            return LOOKUP
        return queue.pop(0) if len(queue) > 1 else queue[0]

    return answer


def test_tls_with_a_private_ca_by_address_and_by_name(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    vault.put(f"{BASE}/tls", value="ok")
    assert client_for(vault, address=vault.https, ca_bundle=vault.ca).get("tls") == "ok"
    by_name = client_for(
        vault, address=vault.https, ca_bundle=vault.ca, tls_server_name="vault.test"
    )
    assert by_name.get("tls") == "ok"


@pytest.mark.parametrize(
    ("listener", "settings", "words"),
    [
        ("https", {}, "unable to get local issuer|self-signed"),
        ("expired", {"ca": True}, "expired"),
        ("https", {"ca": True, "tls_server_name": "other.test"}, "ostname mismatch|doesn't match"),
    ],
)
def test_a_certificate_that_does_not_verify_is_refused_at_once(
    vault: VaultServer,
    client_for: ClientFactory,
    listener: str,
    settings: dict[str, Any],
    words: str,
) -> None:
    if settings.pop("ca", False):
        settings["ca_bundle"] = vault.ca
    client = client_for(vault, address=getattr(vault, listener), **settings)
    began = time.monotonic()
    with pytest.raises(TLSVerificationError, match=words):
        client.get("x")
    assert time.monotonic() - began < 15.0  # it is not tried until the deadline, 20 s
    assert client.stats.requests == 1


def test_unix_socket(vault: VaultServer, client_for: ClientFactory) -> None:
    vault.put(f"{BASE}/unix", value="ok")
    client = client_for(vault, address=vault.unix)
    assert client.get("unix") == "ok"
    assert client.hvac.auth.token.lookup_self()["data"]["path"] == "auth/approle/login"
    gone = client_for(vault, address="unix:///nowhere/vault.sock", deadline=0.3)
    with pytest.raises(VaultUnavailableError, match="no such file"):
        gone.get("unix")


def test_namespace_and_request_headers_reach_vault(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    vault.put(f"{BASE}/ns", value="ok")
    with Proxy(vault.http) as proxy:
        client = client_for(vault, address=proxy.address, namespace="team-a/")
        assert client.get("ns") == "ok"
        sent = bytes(proxy.received)
    assert sent.count(b"X-Vault-Namespace: team-a/") == 2
    assert sent.count(b"X-Vault-Request: true") == 2
    assert sent.count(b"X-Vault-Token: ") == 1  # none on the login


def test_connections_are_pooled(vault: VaultServer, client_for: ClientFactory) -> None:
    with Proxy(vault.http) as proxy:
        client = client_for(vault, address=proxy.address)
        for number in range(20):
            vault.put(f"{BASE}/pool{number}", value="ok")
            assert client.get(f"pool{number}") == "ok"
        assert proxy.connections == 1


@pytest.mark.parametrize("status", [412, 429, 500, 502, 503, 504])
def test_what_may_heal_is_tried_again(status: int) -> None:
    clock = FakeClock()
    failing = [Answer(status, {"errors": ["not now"]})] * 3
    with Scripted(after_lookup(*failing, SECRET)) as server:
        client = scripted_client(server, clock)
        assert client.get("x") == "v"
    assert clock.pauses == pytest.approx(
        [0.05, 0.1, 0.2]
    )  # half of 0.1, 0.2, 0.4: the fake's chance


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RequestRefusedError), (403, AccessDeniedError), (404, SecretNotFoundError),
        (405, RequestRefusedError), (413, RequestRefusedError), (307, InvalidResponseError),
        (204, InvalidResponseError),
    ],
)  # fmt: skip
def test_what_will_not_change_is_not_tried_again(status: int, error: type[StrongroomError]) -> None:
    with Scripted(
        after_lookup(Answer(status, {"errors": ["no"]}, {"Location": "/v1/y"}))
    ) as server:
        client = scripted_client(server)
        with pytest.raises(error):
            client.get("x")
        reads = [r for r in server.requests if r.path.endswith("/x")]
    assert len(reads) == 1


def test_retry_after_is_obeyed_and_the_deadline_is_not_passed() -> None:
    clock = FakeClock()
    busy = Answer(429, {"errors": ["slow down"]}, {"Retry-After": "7"})
    with Scripted(after_lookup(busy, SECRET)) as server:
        assert scripted_client(server, clock).get("x") == "v"
    assert clock.pauses == [7.0]
    clock = FakeClock()
    with (
        Scripted(after_lookup(busy)) as server,
        pytest.raises(VaultUnavailableError, match="slow down"),
    ):
        scripted_client(server, clock, deadline=20.0).get("x")
    assert clock.pauses == [7.0, 7.0]


def test_a_write_that_may_have_been_done_is_not_repeated() -> None:
    with Scripted(after_lookup(Answer(502, {"errors": ["gateway"]}))) as server:
        client = scripted_client(server, FakeClock())
        answer = client.hvac.adapter.post("/v1/x", json={}, raise_exception=False)
        assert answer.status_code == 502
        assert [r.method for r in server.requests] == ["GET", "POST"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"data": {"data"',
        b"<html>",
        b"null",
        b"[]",
        b'{"data": null}',
        b'{"data": {"data": [], "metadata": {}}}',
    ],
)
def test_answers_that_are_no_answers(body: bytes) -> None:
    with Scripted(after_lookup(Answer(200, body))) as server:
        client = scripted_client(server, FakeClock(), deadline=20.0)
        with pytest.raises((InvalidResponseError, VaultUnavailableError)):
            client.get("x")
        assert client.stats.cached == 0


def test_a_huge_answer_is_refused() -> None:
    huge = Answer(200, b'{"x": "' + b"a" * 3_000_000 + b'"}')
    with Scripted(after_lookup(huge)) as server:
        client = scripted_client(server, max_response_bytes=1_000_000)
        with pytest.raises(InvalidResponseError, match="longer than 1000000 bytes"):
            client.get("x")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"address": "vault.example.org"}, "must start with https"),
        ({"address": "https://"}, "has no host"),
        ({"address": "unix://relative"}, "absolute path"),
        ({"address": "https://u:p@h"}, "must not hold a user"),
        ({"ca_bundle": "/nowhere/ca.pem"}, "does not exist"),
        ({"client_key": "/etc/passwd"}, "go together"),
        ({"deadline": 0}, "deadline: 0 must be more than 0"),
        ({"kv_ttl": -1}, "kv_ttl: -1 must be 0 or more"),
        ({"kv_ttl": float("nan")}, "finite"),
        ({"environment": "production"}, "needs app"),
        ({"kv_mount": "a/../b"}, "kv_mount"),
        ({"deadline": 0, "kv_mount": ""}, "deadline: .*; kv_mount: "),
    ],
)
def test_settings_name_every_fault(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Settings(**values)
    assert "u:p" not in str(caught.value)
