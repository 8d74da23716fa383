"""What is written wrong is said at once, with what to write instead; nothing is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from strongroom_dagster import (
    ConfigurationError,
    InvalidResponseError,
    SecretNotFoundError,
    Settings,
    Source,
    TokenAuth,
    VaultSecrets,
)
from strongroom_dagster.fake import FakeVaultSecrets

from .harness.scripted import Answer, Request, Scripted

Use = Callable[[VaultSecrets], Any]

WRITE: list[tuple[str, Use, str]] = [
    ("kv with a field", lambda c: c.kv("x#f"), 'kv("x")["f"]'),
    ("kv with an empty field", lambda c: c.kv("x#"), 'kv("x")'),
    ("kv with its engine", lambda c: c.kv("kv:x"), 'kv("x")'),
    ("kv with the other engine", lambda c: c.kv("apikey:x"), 'api_key("x")'),
    ("kv with both", lambda c: c.kv("kv:a/x#f"), 'kv("a/x")["f"]'),
    ("api_key with its engine", lambda c: c.api_key("apikey:x"), 'api_key("x")'),
    ("api_key with the other engine", lambda c: c.api_key("kv:x"), 'kv("x")'),
    ("api_key with a field", lambda c: c.api_key("x#f"), 'api_key("x").values["f"]'),
    ("api_key with both", lambda c: c.api_key("apikey:x#f"), 'api_key("x").values["f"]'),
    ("wait with an engine", lambda c: c.wait_for_rotation("apikey:x", 1), 'api_key("x")'),
    ("get_many of a text", lambda c: c.get_many("xyz"), "get_many(["),
    ("get_many of bytes", lambda c: c.get_many(b"xyz"), "get_many(["),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("use", "words"), [w[1:] for w in WRITE], ids=[w[0] for w in WRITE])
def test_it_is_said_what_to_write_instead(use: Use, words: str) -> None:
    with FakeVaultSecrets({"x": {"f": "v"}}, {"x": "k"}) as client:
        with pytest.raises(ConfigurationError) as caught:
            use(client)
        assert words in str(caught.value)


class Text(str):
    """As Dagster's EnvVar: a text that stands for another one."""

    env_var_name = "x"


NO_TEXTS: list[Any] = [
    None, 1, 1.5, True, b"x", ["x"], {"x": 1}, {"x"}, ("x",), object(), ("kv", "x", None, None),
    "\ud800", Text("x"),
]  # fmt: skip
TAKE_A_NAME: dict[str, Callable[[VaultSecrets, Any], Any]] = {
    "get": lambda c, n: c.get(n),
    "get_many": lambda c, n: c.get_many(iter([n])),
    "kv": lambda c, n: c.kv(n),
    "api_key": lambda c, n: c.api_key(n),
    "wait_for_rotation": lambda c, n: c.wait_for_rotation(n, 1),
    "database": lambda c, n: c.database(n),
}
MAY_BE_NONE: dict[str, Callable[[VaultSecrets, Any], Any]] = {
    "invalidate": lambda c, n: c.invalidate(n),
    "mount of kv": lambda c, n: c.kv("x", mount=n),
    "mount of api_key": lambda c, n: c.api_key("x", mount=n),
    "mount of database": lambda c, n: c.database("x", mount=n),
}


def refused(use: Callable[[VaultSecrets, Any], Any], value: Any) -> None:
    with FakeVaultSecrets({"x": "v"}, {"x": "k"}) as client:
        with pytest.raises(ConfigurationError) as caught:
            use(client, value)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("take", TAKE_A_NAME)
@pytest.mark.parametrize("name", NO_TEXTS, ids=lambda n: type(n).__name__)
def test_a_name_that_is_no_text_is_one_of_our_errors(take: str, name: Any) -> None:
    refused(TAKE_A_NAME[take], name)


@pytest.mark.parametrize("take", MAY_BE_NONE)
@pytest.mark.parametrize("name", NO_TEXTS[1:], ids=lambda n: type(n).__name__)
def test_what_may_be_left_out_must_be_a_text_otherwise(take: str, name: Any) -> None:
    refused(MAY_BE_NONE[take], name)


@pytest.mark.parametrize("field", NO_TEXTS[1:-2], ids=lambda n: type(n).__name__)
def test_a_field_that_is_no_text(field: Any) -> None:
    refused(lambda c, n: c.get("x", n), field)


@pytest.mark.parametrize("names", [None, 1, True, object(), 1.5])
def test_names_that_are_no_list(names: Any) -> None:
    with FakeVaultSecrets() as client, pytest.raises(ConfigurationError, match="get_many"):
        client.get_many(names)


@pytest.mark.parametrize("version", ["1", 1.0, 1.5, True, b"1", [1], 0, -1])
def test_a_version_that_is_no_number_from_1_on(version: Any) -> None:
    with FakeVaultSecrets({"x": "v"}, {"x": "k"}) as client:
        for read in (client.kv, client.api_key):
            with pytest.raises(ConfigurationError, match="version"):
                read("x", version=version)


@pytest.mark.parametrize("timeout", [0, 61, -1, None, "5", 1.5, True, float("nan")])
def test_a_timeout_that_is_no_number_of_seconds(timeout: Any) -> None:
    client = FakeVaultSecrets(api_keys={"x": "k"})
    with pytest.raises(ConfigurationError, match="timeout: must be from 1 to 60"):
        client.wait_for_rotation("x", 1, timeout=timeout)


def test_two_fields_that_differ_are_refused() -> None:
    with FakeVaultSecrets({"x": {"a": "1", "b": "2"}}) as client:
        assert client.get("x#a", "a") == "1"
        with pytest.raises(ConfigurationError, match="another one"):
            client.get("x#a", "b")


# --- a mount that is something else ---------------------------------------------------------


class Mounts:
    """A Vault with a mount of each kind; nothing is readable by the paths of KV version 2."""

    def __init__(self, status: int, described: dict[str, Any] | None) -> None:
        self.status = status
        self.described = described
        self.asked = 0

    def __call__(self, request: Request) -> Answer:
        if request.path.endswith("lookup-self"):
            return Answer(200, {"data": {"ttl": 0, "renewable": False}})
        if "/sys/internal/ui/mounts/" in request.path:
            self.asked += 1
            if self.described is None:
                return Answer(403, {"errors": ["preflight capability check returned 403"]})
            return Answer(200, {"data": self.described})
        return Answer(self.status, {"errors": []})


def reading(server: Scripted) -> VaultSecrets:
    return VaultSecrets(Settings(address=server.address, deadline=5.0), TokenAuth(Source.of("t")))


@pytest.mark.parametrize("status", [404, 403])
@pytest.mark.parametrize("options", [None, {}, {"version": "1"}])
def test_a_mount_of_kv_version_1_is_named(status: int, options: Any) -> None:
    with Scripted(Mounts(status, {"type": "kv", "options": options})) as server:
        with pytest.raises(InvalidResponseError) as caught:
            reading(server).kv("app/x", mount="old")
        for words in ("KV version 1", "enable-versioning old", "kv.v1.read_secret", '"app/x"'):
            assert words in str(caught.value)


def test_a_mount_of_another_engine_is_named() -> None:
    with Scripted(Mounts(404, {"type": "apikeys", "options": None})) as server:
        client = reading(server)
        with pytest.raises(InvalidResponseError, match='type "apikeys"'):
            client.kv("x")


@pytest.mark.parametrize(
    "described", [None, {"type": "kv", "options": {"version": "2"}}, {}, {"type": 3}]
)
def test_where_the_mount_is_right_or_unknown_it_is_the_secret_that_is_missing(
    described: Any,
) -> None:
    mounts = Mounts(404, described)
    with Scripted(mounts) as server:
        client = reading(server)
        for _ in range(3):
            with pytest.raises(SecretNotFoundError):
                client.kv("x")
        if described and described.get("options"):
            assert mounts.asked == 1  # it is right, and that is remembered
