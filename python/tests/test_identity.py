"""A secret that was deleted and made anew is another one, although it counts from 1 again."""

from __future__ import annotations

from typing import Any

import pytest

from strongroom_dagster import ApiKey, ConfigurationError, Settings, Source, TokenAuth, VaultSecrets
from strongroom_dagster.masked import SecretMapping, same_version

from .harness.clock import FakeClock
from .harness.model import model_vault
from .harness.scripted import Answer, Request, Scripted


def test_a_kv_secret_made_anew_is_seen_at_the_next_look() -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for(stale_if_error=3600.0)
        first = vault.write("x")
        assert client.get("x") == first
        vault.delete(vault.kv, "x")
        second = vault.write("x")
        clock.advance(61.0)
        assert client.get("x") == second
        assert client.kv("x").version == 1


@pytest.mark.parametrize("value", ["the same value", None])
def test_another_version_of_the_same_number_is_another_object(value: str | None) -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for()
        vault.write("x", value)
        first = client.kv("x")
        vault.delete(vault.kv, "x")
        vault.write("x", value)
        clock.advance(61.0)
        second = client.kv("x")
        assert second is not first
        assert second.created_time != first.created_time
        clock.advance(61.0)
        assert client.kv("x") is second


def test_a_pinned_version_that_was_made_anew_is_seen() -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for()
        vault.write("x")
        client.kv("x", version=1)
        vault.delete(vault.kv, "x")
        value = vault.write("x")
        clock.advance(61.0)
        assert client.kv("x", version=1)["value"] == value


@pytest.mark.parametrize(
    "metadata",
    [
        {"current_version": 1},
        {"current_version": 1, "versions": {}},
        {"current_version": 1, "versions": {"1": {}}},
        {"current_version": 1, "versions": {"1": {"created_time": ""}}},
        {"current_version": 1, "versions": {"1": {"created_time": "another"}}},
        {"current_version": 1, "versions": [{"created_time": "a time"}]},
        {"current_version": 1, "versions": {"1": "a time"}},
        {"current_version": "1", "versions": {"1": {"created_time": "a time"}}},
        {"current_version": 1, "versions": {"1": {"created_time": "a time", "destroyed": True}}},
        {
            "current_version": 1,
            "versions": {"1": {"created_time": "a time", "deletion_time": "soon"}},
        },
    ],
)
def test_metadata_that_does_not_prove_it_is_not_believed(metadata: dict[str, Any]) -> None:
    clock = FakeClock()

    def answer(request: Request) -> Answer:
        if request.path.endswith("lookup-self"):
            return Answer(200, {"data": {"ttl": 0, "renewable": False}})
        if "/metadata/" in request.path:
            return Answer(200, {"data": metadata})
        mine = {"version": 1, "created_time": "a time"}
        return Answer(200, {"data": {"data": {"value": str(clock.time)}, "metadata": mine}})

    with Scripted(answer) as server:
        client = VaultSecrets(
            Settings(address=server.address), TokenAuth(Source.of("t")), clock=clock.clock
        )
        client.get("x")
        clock.advance(61.0)
        assert client.get("x") == str(clock.time)


def test_an_api_key_made_anew_is_seen_at_the_next_look() -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for()
        vault.rotate("k")
        first = client.api_key("k")
        vault.delete(vault.keys, "k")
        value = vault.rotate("k")
        clock.advance(61.0)
        second = client.api_key("k")
        assert (second.key, second.version) == (value, first.version)


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize("known", ["the key", "its number, which is cached"])
def test_a_wait_for_a_rotation_sees_a_key_made_anew(known: str, tuned: bool) -> None:
    with model_vault(tuned=tuned) as (vault, _clock, client_for):
        client = client_for()
        vault.rotate("k")
        first = client.api_key("k")
        vault.delete(vault.keys, "k")
        value = vault.rotate("k")
        second = client.wait_for_rotation(
            "k", first if known == "the key" else first.version, timeout=2
        )
        assert second is not None
        assert (second.key, second.version) == (value, first.version)
        assert client.api_key("k") is second


@pytest.mark.parametrize("tuned", [True, False])
def test_a_wait_in_which_only_the_promise_changes_goes_on(tuned: bool) -> None:
    """An etag stands for more than the version: not every new one is a rotation."""
    with model_vault(tuned=tuned) as (vault, clock, client_for):
        client = client_for()
        vault.rotate("k")
        first = client.api_key("k")

        def shorten() -> None:
            vault.keys["k"][-1].until = clock.time + 500.0

        vault.before["creds/k"] = shorten
        assert client.wait_for_rotation("k", first, timeout=5) is None
        assert client.api_key("k").version == first.version


def test_a_wait_that_brings_an_older_key_than_the_cache_has_does_not_win() -> None:
    """The long poll's answer is under way while a read brings the key after it."""
    with model_vault() as (vault, clock, client_for):
        client = client_for(api_key_revalidate=1.0)
        vault.rotate("k")
        first = client.api_key("k")

        def overtake() -> None:
            latest.append(vault.rotate("k"))
            clock.advance(1.5)
            assert client.api_key("k").key == latest[0]

        latest: list[str] = []
        vault.rotate("k")
        vault.after["creds/k"] = overtake
        second = client.wait_for_rotation("k", first, timeout=5)
        assert second is not None
        assert second.version == 2
        assert client.api_key("k").key == latest[0]


def test_a_read_under_way_does_not_win_over_what_a_wait_has_brought() -> None:
    with model_vault() as (vault, clock, client_for):
        client = client_for()
        vault.rotate("k")
        first = client.api_key("k")
        clock.advance(61.0)
        found: list[ApiKey | None] = []

        def rotate() -> None:
            vault.rotate("k")
            found.append(client.wait_for_rotation("k", first, timeout=5))

        vault.after["creds/k"] = rotate  # the answer to the look is there, and says: no change
        client.api_key("k")
        (second,) = found
        assert second is not None
        assert client.api_key("k") is second


@pytest.mark.parametrize("version", [None, "1", 1.0, True, b"1"])
def test_a_wait_for_something_else_than_a_version_is_refused(version: Any) -> None:
    with model_vault() as (vault, _clock, client_for):
        with pytest.raises(ConfigurationError, match="version"):
            client_for().wait_for_rotation("k", version)
        assert not vault.requests


def test_versions_are_the_same_by_number_and_time() -> None:
    def one(version: int, created: str) -> SecretMapping:
        return SecretMapping({}, path="p", version=version, created_time=created)

    assert same_version(one(1, "t"), one(1, "t"))
    assert not same_version(one(1, "t"), one(1, "u"))
    assert not same_version(one(1, "t"), one(2, "t"))
    assert not same_version(one(1, ""), one(1, ""))  # nobody knows
    same = one(1, "")
    assert same_version(same, same)
