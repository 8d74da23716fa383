"""What the two cached engines answer, and for how long it is kept; without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from strongroom_dagster import (
    AccessDeniedError,
    ApiKey,
    InvalidResponseError,
    RequestRefusedError,
    SecretMapping,
    SecretNotFoundError,
    Settings,
    VaultUnavailableError,
)
from strongroom_dagster.cache import Cache, Entry
from strongroom_dagster.reads import Mounts, fetch_api_key, fetch_kv, wait_for_api_key
from strongroom_dagster.refs import Ref

from .harness.clock import FakeClock

KV, PINNED = Ref("kv", "m", "a/x y"), Ref("kv", "m", "a/x y", 2)
KEY = Ref("apikey", "keys", "k")
OPTIONS = {
    "kv_ttl": 60.0, "stale_if_error": 300.0, "api_key_revalidate": 30.0, "deadline": 5.0,
    "read_timeout": 4.0,
}  # fmt: skip
Answer = dict[str, Any] | Exception


class Caller:
    """Answers in turn; each takes a second."""

    def __init__(self, *answers: Answer) -> None:
        self.settings = Settings(address="https://vault", **OPTIONS)  # type: ignore[arg-type]
        self.clock = FakeClock()
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def now(self) -> float:
        return self.clock.time

    def call(self, method: str, path: str, **keywords: Any) -> dict[str, Any]:
        assert method == "get"
        self.asked.append((path, keywords))
        self.clock.advance(1.0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def kv(version: int = 2, value: str = "v", created: str = "t") -> dict[str, Any]:
    metadata = {"version": version, "created_time": created}
    return {"data": {"data": {"value": value}, "metadata": metadata}}


def metadata(version: int = 2, created: str = "t") -> dict[str, Any]:
    versions = {str(version): {"created_time": created, "deletion_time": "", "destroyed": False}}
    return {"data": {"current_version": version, "versions": versions}}


def key(version: Any = 1, created: str = "t", **more: Any) -> dict[str, Any]:
    data = {"key": "k", "version": version, "cache_ttl": 100, "created_time": created, **more}
    return {"data": data}


def old_kv() -> Entry:
    value = SecretMapping({"value": "v"}, path="m/a/x y", version=2, created_time="t")
    return Entry(value, 0.0, 0.0)


def test_a_secret_is_kept_from_before_it_was_asked_for() -> None:
    caller = Caller(kv())
    entry = fetch_kv(caller, KV, Mounts(), None, 9.0)
    assert (entry.fresh_until, entry.usable_until) == (1060.0, 1360.0)
    value = entry.value
    assert (value.path, value.version, value.created_time) == ("m/a/x y", 2, "t")
    assert caller.asked == [("m/data/a/x%20y", {"until": 9.0, "params": None})]


def test_what_is_read_first_says_nothing_about_the_metadata() -> None:
    mounts, caller = Mounts(), Caller(kv(), metadata())
    first = fetch_kv(caller, KV, mounts, None, 9.0)
    assert mounts.metadata_denied == set()
    assert fetch_kv(caller, KV, mounts, first, 9.0).value is first.value
    assert [path.split("/")[1] for path, _ in caller.asked] == ["data", "metadata"]


def test_a_secret_that_does_not_say_when_it_was_made_has_no_time() -> None:
    answer = kv()
    del answer["data"]["metadata"]["created_time"]
    assert fetch_kv(Caller(answer), KV, Mounts(), None, 9.0).value.created_time == ""


def test_a_key_without_an_etag_is_not_asked_conditionally() -> None:
    """A 304 to no condition would be taken for the old key."""
    old = fetch_api_key(Caller(key()), KEY, None, 9.0)
    caller = Caller(key())
    fetch_api_key(caller, KEY, old, 9.0)
    plain = {"until": 9.0, "headers": None, "params": None, "allow_304": False}
    assert caller.asked == [("keys/creds/k", plain)]


def test_one_that_is_cached_is_asked_for_its_version() -> None:
    caller, old = Caller(metadata(), metadata(3), kv(3)), old_kv()
    entry = fetch_kv(caller, KV, Mounts(), old, 9.0)
    assert entry.value is old.value
    assert entry.fresh_until == 1060.0
    entry = fetch_kv(caller, KV, Mounts(), old, 9.0)
    assert entry.value.version == 3
    assert entry.fresh_until == 1002.0 + 60.0  # from the question for the data
    paths = [path for path, _ in caller.asked]
    assert paths == ["m/metadata/a/x%20y", "m/metadata/a/x%20y", "m/data/a/x%20y"]


def test_one_that_never_said_when_it_was_made_is_read_each_time() -> None:
    value = SecretMapping({"value": "v"}, path="m/a/x y", version=2, created_time="")
    caller = Caller(metadata(created=""), kv(value="anew", created=""))
    entry = fetch_kv(caller, KV, Mounts(), Entry(value, 0.0, 0.0), 9.0)
    assert entry.value.text() == "anew"


def test_a_pinned_version_is_asked_for_itself() -> None:
    caller, old = Caller(kv()), old_kv()
    assert fetch_kv(caller, PINNED, Mounts(), old, 9.0).value is old.value
    asked = {"until": 9.0, "params": {"version": "2"}}
    assert caller.asked == [("m/data/a/x%20y", asked)]


def test_metadata_that_is_denied_is_not_asked_for_again() -> None:
    mounts, denied = Mounts(), AccessDeniedError("no")
    caller = Caller(denied, kv(), kv())
    for _ in range(2):
        fetch_kv(caller, KV, mounts, old_kv(), 9.0)
    assert [path.split("/")[1] for path, _ in caller.asked] == ["metadata", "data", "data"]
    # Where the data is denied as well, it says nothing about the metadata.
    caller, mounts = Caller(denied, denied, VaultUnavailableError("away")), Mounts()
    with pytest.raises(AccessDeniedError):
        fetch_kv(caller, KV, mounts, old_kv(), 9.0)
    assert mounts.metadata_denied == set()


@pytest.mark.parametrize(
    "change",
    [{"value": "other"}, {"created": "later"}, {"version": 3}],
)
def test_another_version_or_value_is_another_object(change: dict[str, Any]) -> None:
    old = old_kv()
    new = fetch_kv(Caller(SecretNotFoundError("no"), kv(**change)), KV, Mounts(), old, 9.0)
    assert new.value is not old.value


@pytest.mark.parametrize(
    "odd",
    [
        {}, {"data": None}, {"data": []}, {"data": "x"}, {"data": {"data": {}}},
        {"data": {"data": {}, "metadata": []}}, {"data": {"data": {}, "metadata": {}}},
        {"data": {"data": [], "metadata": {"version": 1}}},
        {"data": {"data": {}, "metadata": {"version": True}}},
        {"data": {"data": {}, "metadata": {"version": "1"}}},
    ],
)  # fmt: skip
def test_what_is_no_secret_of_version_2(odd: dict[str, Any]) -> None:
    with pytest.raises(InvalidResponseError, match="KV version 2"):
        fetch_kv(Caller(odd), KV, Mounts(), None, 9.0)


def test_a_key_is_kept_as_long_as_it_is_promised() -> None:
    entry = fetch_api_key(Caller(key()), KEY, None, 9.0)
    assert (entry.fresh_until, entry.usable_until) == (1030.0, 1100.0)
    found = entry.value
    assert (found.name, found.version, found.ttl, found.cache_ttl) == ("k", 1, 0.0, 100.0)
    assert (found.etag, found.state, found.warnings) == ("", "", ())
    entry = fetch_api_key(Caller({**key(ttl=7), "warnings": ["due"]}), KEY, None, 9.0)
    assert entry.fresh_until == 1007.0
    assert entry.value.warnings == ("due",)
    assert fetch_api_key(Caller(key(cache_ttl=0)), KEY, None, 9.0).usable_until == 1000.0


def test_a_key_is_asked_conditionally_while_it_is_promised() -> None:
    caller = Caller({}, key(etag="f"), key(etag="g"))
    old = fetch_api_key(Caller(key(etag="e")), KEY, None, 9.0)
    entry = fetch_api_key(caller, KEY, old, 9.0)
    assert entry.value is old.value
    assert entry.usable_until == 1100.0
    caller.clock.time = 1100.0
    assert fetch_api_key(caller, KEY, old, 9.0).value.etag == "f"
    pinned = Ref("apikey", "keys", "k", 3)
    fetch_api_key(caller, pinned, None, 9.0)
    plain = {"until": 9.0, "headers": None, "params": None, "allow_304": False}
    assert caller.asked == [
        ("keys/creds/k", {**plain, "headers": {"If-None-Match": "e"}, "allow_304": True}),
        ("keys/creds/k", plain),
        ("keys/creds/k", {**plain, "params": {"version": "3"}}),
    ]


@pytest.mark.parametrize(
    "odd",
    [
        {}, {"data": []}, {"data": {}}, key(version="x"), key(cache_ttl=-1), key(ttl=-1),
        key(cache_ttl=float("inf")), key(ttl=float("nan")), key(cache_ttl="soon"), key(key=7),
        key(values={"a": 7}), key(values={"a": "1", "b": 7}), key(version=None),
        key(version=float("inf")),
    ],
)  # fmt: skip
def test_what_is_no_key(odd: dict[str, Any]) -> None:
    with pytest.raises(InvalidResponseError, match=r"holds no data|malformed"):
        fetch_api_key(Caller(odd), KEY, None, 9.0)


@pytest.mark.parametrize("odd", [{"warnings": []}, {"data": []}, {"data": None}])
def test_an_answer_without_data_is_said_to_hold_none(odd: dict[str, Any]) -> None:
    with pytest.raises(InvalidResponseError, match="holds no data"):
        fetch_api_key(Caller(odd), KEY, None, 9.0)


def test_named_values_stand_instead_of_the_key() -> None:
    found = fetch_api_key(Caller(key(values={"a": "1", "b": "2"})), KEY, None, 9.0).value
    assert dict(found.values) == {"a": "1", "b": "2"}
    assert found.values.path == "keys/k"


def waiting(
    known: int | ApiKey, *answers: Answer, timeout: int = 10, cached: ApiKey | None = None
) -> tuple[ApiKey | None, Caller, Cache]:
    caller = Caller(*answers)
    cache = Cache(caller.clock.clock, max_entries=9, deadline=5.0, revalidate_deadline=1.0)
    if cached is not None:
        cache.entries[KEY.key] = Entry(cached, 2000.0, 2000.0)
    return wait_for_api_key(caller, cache, KEY, known, timeout), caller, cache


def test_a_wait_by_number() -> None:
    asked = {
        "until": 1015.0, "params": {"if_version": "1", "wait": "10"}, "allow_304": True,
        "read_timeout": 14.0,
    }  # fmt: skip
    found, caller, cache = waiting(1, key(2))
    assert found is not None
    assert found.version == 2
    assert caller.asked == [("keys/creds/k", asked)]
    entry = cache.entries[KEY.key]
    assert (entry.value, entry.usable_until) == (found, 1100.0)
    assert waiting(1, key(1))[0] is None
    found, _, cache = waiting(1, {})
    assert (found, cache.entries) == (None, {})


def fetched(**more: Any) -> ApiKey:
    found: ApiKey = fetch_api_key(Caller(key(**more)), KEY, None, 9.0).value
    return found


class Waiting(Caller):
    """Answers in turn; each takes as long as the engine waits at most."""

    longest = 55.0

    def call(self, method: str, path: str, **keywords: Any) -> dict[str, Any]:
        self.clock.advance(min(self.longest, float(keywords["params"]["wait"])) - 1.0)
        return super().call(method, path, **keywords)


@pytest.mark.parametrize(
    ("longest", "asked", "version"),
    [(55.0, ["60", "5"], 2), (60.0, ["60"], None), (4.0, ["60"], None), (20.0, ["60", "40", "20"], None)],
)  # fmt: skip
def test_what_is_left_of_a_wait_is_asked_for_again(
    longest: float, asked: list[str], version: int | None
) -> None:
    caller = Waiting(*[{}] * (len(asked) - 1), key(version) if version else {})
    caller.longest = longest
    cache = Cache(caller.clock.clock, max_entries=9, deadline=5.0, revalidate_deadline=1.0)
    found = wait_for_api_key(caller, cache, KEY, 1, 60)
    assert (found.version if found else None) == version
    assert [k["params"]["wait"] for _, k in caller.asked] == asked


def test_a_wait_by_the_key_goes_on_while_only_the_promise_changes() -> None:
    one = fetched(etag="e")
    found, caller, _ = waiting(one, key(etag="f"), key(2, "u", etag="g"))
    assert found is not None
    assert found.version == 2
    asked = [(k["headers"]["If-None-Match"], k["params"]["wait"]) for _, k in caller.asked]
    assert asked == [("e", "10"), ("f", "9")]
    first = caller.asked[0][1]
    assert (first["until"], first["read_timeout"], first["allow_304"]) == (1015.0, 14.0, True)
    assert waiting(one, key(etag="e"))[0] is None
    found, caller, _ = waiting(one, key(etag="f"), timeout=1)
    assert found is None
    assert caller.asked[0][1]["params"] == {"wait": "1"}
    assert waiting(one, {})[0] is None


def test_a_wait_by_a_number_that_is_cached_is_one_by_the_key() -> None:
    one = fetched(etag="e")
    anew, caller, _ = waiting(1, key(1, "later", etag="f"), cached=one)
    assert anew is not None
    assert anew.created_time == "later"
    assert caller.asked[0][1]["headers"] == {"If-None-Match": "e"}
    other, caller, _ = waiting(2, key(3), cached=one)
    assert other is not None
    assert "headers" not in caller.asked[0][1]


@pytest.mark.parametrize("answer", [{}, key(2)])
def test_a_mount_that_passes_no_header_on_is_asked_by_number(answer: dict[str, Any]) -> None:
    one, anew = fetched(etag="e"), key(1, "later")
    refused = RequestRefusedError("wait needs to know what to wait for")
    found, caller, _ = waiting(one, refused, answer, anew)
    assert found is not None
    assert found.created_time == ("t" if answer else "later")
    assert caller.asked[1][1]["params"] == {"if_version": "1", "wait": "10"}
    assert caller.asked[1][1]["read_timeout"] == 14.0
    assert caller.asked[2:] == ([] if answer else [("keys/creds/k", {"until": 1015.0})])


def test_a_key_without_an_etag_is_waited_for_by_its_number() -> None:
    found, caller, _ = waiting(fetched(), key(2))
    assert found is not None
    assert caller.asked[0][1]["params"] == {"if_version": "1", "wait": "10"}
    assert "headers" not in caller.asked[0][1]


def explained(described: Answer, times: int = 1) -> tuple[Callable[[], object], Caller]:
    missing = SecretNotFoundError("no")
    caller, mounts = Caller(*[missing, described] * times), Mounts()
    return lambda: fetch_kv(caller, KV, mounts, None, 9.0), caller


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"type": "kv", "options": None}, "is KV version 1"),
        ({"type": "kv", "options": {}}, "is KV version 1"),
        ({"type": "generic", "options": {"version": "1"}}, "is KV version 1"),
        ({"type": "pki", "options": {"version": "2"}}, 'type "pki"'),
    ],
)
def test_a_mount_that_is_something_else_is_named(described: Any, words: str) -> None:
    read, caller = explained({"data": described})
    with pytest.raises(InvalidResponseError, match=words):
        read()
    assert caller.asked[1] == ("sys/internal/ui/mounts/m", {"until": 9.0})


@pytest.mark.parametrize(
    "described", [{}, {"data": []}, {"data": {}}, {"data": {"type": 7}}, AccessDeniedError("no")]
)
def test_a_mount_that_is_not_described_is_asked_after_again(described: Answer) -> None:
    read, caller = explained(described, 2)
    for _ in range(2):
        with pytest.raises(SecretNotFoundError):
            read()
    assert len(caller.asked) == 4
