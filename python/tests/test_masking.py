"""No secret in repr, logs, exceptions, tracebacks' context or pickles."""

from __future__ import annotations

import copy
import dataclasses
import heapq
import io
import json
import logging
import math
import operator
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import requests

from strongroom_dagster import (
    ApiKey,
    AppRoleAuth,
    ConfigurationError,
    Credentials,
    FieldNotFoundError,
    JwtAuth,
    SecretMapping,
    SecretPicklingError,
    Settings,
    Source,
    VaultSecrets,
    VaultUnavailableError,
)
from strongroom_dagster.fake import FakeVaultSecrets
from strongroom_dagster.masked import AS_VAULT_HAS_THEM, Masked, Sensitive, as_text

from .conftest import ClientFactory
from .harness.scripted import Answer, Scripted
from .harness.vault import VaultServer
from .harness.wait import free_port

SECRET = "s3cr3t-value"

MAPPING = SecretMapping({"value": SECRET}, path="secret/x", version=3)
ENVIRON = {"X": SECRET}
MASKED: list[Masked] = [
    MAPPING,
    ApiKey(name="x", values=MAPPING, version=3),
    Credentials("v-user", SECRET, "lease"),
    Sensitive(SECRET),
]


@pytest.mark.parametrize("value", MASKED, ids=lambda v: type(v).__name__)
def test_values_mask_themselves(value: Masked) -> None:
    for text in (repr(value), str(value), f"{value}", f"{value!r}", "%s" % value, repr([value])):  # noqa: UP031
        assert SECRET not in text
        assert "****" in text
    for dump in (pickle.dumps, copy.copy, copy.deepcopy, lambda v: v.__getstate__()):
        with pytest.raises(SecretPicklingError, match="refused to pickle"):
            dump(value)


@pytest.mark.parametrize(
    "holder", [Source(variable="X", environ=ENVIRON), JwtAuth("r", environ=ENVIRON)]
)
def test_a_mapping_that_was_given_is_not_shown(holder: Source | JwtAuth) -> None:
    assert SECRET not in f"{vars(holder)} {holder} {holder.environ!s}"
    with pytest.raises(SecretPicklingError):
        dataclasses.asdict(holder)
    assert holder.environ is not None
    assert (dict(holder.environ), len(holder.environ)) == (ENVIRON, 1)


def test_a_mapping_that_was_given_is_read_as_it_is_now() -> None:
    environ = {"X": "old"}
    source = Source(variable="X", environ=environ)
    environ["X"] = "new"
    assert source.read("token") == "new"


def test_the_client_is_pickled_without_what_it_holds(
    vault: VaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    role_id, secret_id = vault.approle("pickle", 'path "secret/data/p" { capabilities = ["read"] }')
    vault.put("p", value=SECRET)
    monkeypatch.setenv("PICKLE_SECRET_ID", secret_id)
    settings = Settings(address=vault.http)
    client = VaultSecrets(settings, AppRoleAuth(role_id, Source(variable="PICKLE_SECRET_ID")))
    assert client.get("p") == SECRET
    token = client.hvac.token
    dump = pickle.dumps(client)
    for hidden in (SECRET, secret_id, token):
        assert hidden.encode() not in dump
    other = pickle.loads(dump)
    assert other.get("p") == SECRET
    assert other.hvac.token != token
    assert other.stats.logins == 1
    for one in (client, other):
        one.close()
    inline = VaultSecrets(settings, AppRoleAuth(role_id, Source.of(secret_id)))
    with pytest.raises(SecretPicklingError):
        pickle.dumps(inline)


def test_logs_of_everything_show_nothing(vault: VaultServer, client_for: ClientFactory) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    try:
        vault.put("bike-data-flow/production/logged", value=SECRET)
        client = client_for(vault)
        assert client.get("logged") == SECRET
        token = str(client.hvac.token)
        with pytest.raises(LookupError):
            client.get("logged#nothing")
        client.close()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    text = stream.getvalue()
    assert "logged in to vault" in text
    assert SECRET not in text
    assert token not in text


@pytest.mark.parametrize("fault", ["refused", "answers 500"])
def test_errors_hold_neither_request_nor_secret(fault: str) -> None:
    with Scripted(lambda _: Answer(500, {"errors": ["boom"]})) as server:
        address = server.address if fault == "answers 500" else f"http://127.0.0.1:{free_port()}"
        client = VaultSecrets(
            Settings(address=address, deadline=0.3), AppRoleAuth("r", Source.of(SECRET))
        )
        with pytest.raises(VaultUnavailableError) as caught:
            client.get("x")
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in "".join(traceback.format_exception(error))
        assert not isinstance(error, requests.RequestException)
        for value in [*error.args, *vars(error).values()]:
            assert not isinstance(value, (requests.PreparedRequest, requests.Response))
        error = error.__cause__ or error.__context__


DEEP = {"l": [{"a": [1, 2]}, "x"], "o": {"k": {"l": [1]}}, "s": "text"}

CHANGES: dict[str, Callable[[Any], Any]] = {
    "append": lambda s: s["l"].append("evil"),
    "extend": lambda s: s["l"].extend(["evil"]),
    "insert": lambda s: s["l"].insert(0, "evil"),
    "pop": lambda s: s["l"].pop(),
    "remove": lambda s: s["l"].remove("x"),
    "clear": lambda s: s["l"].clear(),
    "sort": lambda s: s["l"].sort(key=str),
    "reverse": lambda s: s["l"].reverse(),
    "item of a list": lambda s: s["l"].__setitem__(0, "evil"),
    "slice of a list": lambda s: s["l"].__setitem__(slice(0, 1), ["evil"]),
    "del of a list": lambda s: s["l"].__delitem__(0),
    "+= of a list": lambda s: s["l"].__iadd__(["evil"]),
    "*= of a list": lambda s: s["l"].__imul__(2),
    "in a list in an object in a list": lambda s: s["l"][0]["a"].append(3),
    "item of an object": lambda s: s["o"].__setitem__("k", "evil"),
    "update": lambda s: s["o"].update(k="evil"),
    "setdefault": lambda s: s["o"].setdefault("evil", 1),
    "pop of an object": lambda s: s["o"].pop("k"),
    "popitem": lambda s: s["o"].popitem(),
    "clear of an object": lambda s: s["o"].clear(),
    "del of an object": lambda s: s["o"].__delitem__("k"),
    "|= of an object": lambda s: s["o"].__ior__({"k": "evil"}),
    "in a list in objects": lambda s: s["o"]["k"]["l"].append(2),
    "through values": lambda s: next(iter(s.values())).append("evil"),
    "through items": lambda s: dict(s.items())["o"].clear(),
    "through get": lambda s: s.get("l").append("evil"),
    "a field": lambda s: operator.setitem(s, "s", "evil"),
    "del of a field": lambda s: operator.delitem(s, "s"),
    "version": lambda s: setattr(s, "version", 9),
    "created_time": lambda s: setattr(s, "created_time", "never"),
    "del of version": lambda s: delattr(s, "version"),
    "an attribute of its own": lambda s: setattr(s, "new", 1),
    "what it holds": lambda s: setattr(s, "_data", {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_secret_is_read_only_all_the_way_down(change: str) -> None:
    fake = FakeVaultSecrets({"m": DEEP})
    before = copy.deepcopy(dict(fake.kv("m")))
    with pytest.raises((TypeError, AttributeError)):
        CHANGES[change](fake.kv("m"))
    assert dict(fake.kv("m")) == before == DEEP
    assert fake.kv("m").version == 1


def test_not_even_who_gets_around_that_changes_what_others_read() -> None:
    fake = FakeVaultSecrets({"m": DEEP})
    heapq.heapify(fake.kv("m")["o"]["k"]["l"])
    list.append(fake.kv("m")["l"], "evil")
    dict.clear(fake.kv("m")["o"])
    assert dict(fake.kv("m")) == DEEP


def test_what_is_inside_of_a_secret_is_used_and_copied_as_always() -> None:
    secret = FakeVaultSecrets({"m": DEEP}).kv("m")
    assert isinstance(secret["l"], list)
    assert isinstance(secret["o"], dict)
    assert json.loads(json.dumps(secret["l"])) == DEEP["l"]
    assert secret.text("o") == json.dumps(DEEP["o"], separators=(",", ":"))
    for made in (copy.deepcopy(secret["l"]), pickle.loads(pickle.dumps(secret["l"]))):
        made[0]["a"].append(3)  # a copy is one's own
        assert type(made) is list
        assert type(made[0]) is dict
    assert copy.copy(secret["o"]) | {"n": 1} == {**secret["o"], "n": 1}
    assert [*secret["l"], 1][-1] == 1
    assert sorted([*secret["o"]["k"]["l"], 0]) == [0, 1]


@pytest.mark.parametrize("name", ["version", "values", "cache_ttl", "etag", "state", "key", "new"])
def test_an_api_key_is_read_only(name: str) -> None:
    key = FakeVaultSecrets(api_keys={"k": "value"}).api_key("k")
    with pytest.raises(AttributeError):
        setattr(key, name, "evil")
    assert key.key == "value"


@pytest.mark.parametrize("value", MASKED, ids=lambda v: type(v).__name__)
def test_no_attribute_of_a_masked_value_can_be_set_or_deleted(value: Masked) -> None:
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    assert names
    for name in names:
        before = getattr(value, name)
        with pytest.raises(AttributeError, match="read-only"):
            setattr(value, name, "evil")
        with pytest.raises(AttributeError, match="read-only"):
            delattr(value, name)
        assert getattr(value, name) is before


def api_key(**values: str) -> ApiKey:
    return ApiKey(name="x", values=SecretMapping(values, path="apikeys/x", version=1), version=1)


def test_the_text_of_an_api_key_is_its_key_or_one_of_its_values() -> None:
    key = api_key(key="k", region="eu")
    assert (key.key, key.text(), key.text("region"), key.text("key")) == ("k", "k", "eu", "k")
    only = api_key(token="t")
    assert (only.key, only.text(), only.text("token")) == ("t", "t", "t")
    with pytest.raises(FieldNotFoundError, match=r"no single field \(.*: a, b\)"):
        _ = api_key(b="1", a="2").key
    with pytest.raises(FieldNotFoundError, match=r'no field "c" \(.*: a, b\)'):
        api_key(b="1", a="2").text("c")


def test_a_secret_without_fields_has_none() -> None:
    empty = SecretMapping({}, path="secret/x", version=1)
    assert (len(empty), list(empty)) == (0, [])
    with pytest.raises(FieldNotFoundError, match=r"no single field \(.*: none\)"):
        empty.text()
    with pytest.raises(FieldNotFoundError, match=r'no field "c" \(.*: none\)'):
        empty.text("c")


def test_the_field_called_value_stands_for_several_and_a_single_one_for_itself() -> None:
    assert SecretMapping({"a": 1.5}, path="x").text() == "1.5"
    assert SecretMapping({"a": "1", "value": "2"}, path="x").text() == "2"
    assert SecretMapping({"a": None}, path="x").text() == ""
    assert SecretMapping({"a": "1"}, path="x").version == 0
    with pytest.raises(ConfigurationError, match="field"):
        SecretMapping({"a": "1"}, path="x").text(7)  # type: ignore[arg-type]
    assert (api_key(key="k").cache_ttl, api_key(key="k").ttl) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.25, "1.25"), (5432, "5432"), (True, "true"), (None, ""), ("a b", "a b"),
        ({"b": [1, "ü"], "a": ("\u2028", None)}, '{"a":["\\u2028",null],"b":[1,"ü"]}'),
    ],
)  # fmt: skip
def test_a_field_as_text_is_what_vault_has(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.10", 1.1), ("1e3", 1000.0), ("-0", 0.0), ("-0.0", 0.0), ("1e400", math.inf), ("7", 7),
        (f"1{'0' * 3999}", 10**3999), (f"1{'0' * 4000}", math.inf), (f"1{'0' * 9999}", math.inf),
    ],
    ids=lambda value: str(value)[:9],
)  # fmt: skip
def test_a_number_is_one_and_has_the_text_that_vault_has(text: str, number: float) -> None:
    found = json.loads(f'{{"n": {text}, "l": [{text}]}}', **AS_VAULT_HAS_THEM)
    secret = SecretMapping(found, path="x")
    assert (secret["n"], secret.text("n"), secret.text("l")) == (number, text, f"[{text}]")
    assert isinstance(secret["n"], (int, float))
    for copied in (pickle.loads(pickle.dumps(secret["n"])), copy.deepcopy(secret["n"])):
        assert copied == number
        assert type(copied) in (int, float)
