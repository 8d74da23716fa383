"""What a name or a path stands for: engine, mount, path, version, field, and its key."""

from __future__ import annotations

from typing import Any

import pytest

from strongroom_dagster import ConfigurationError, Settings
from strongroom_dagster.refs import Ref, check_text, parse_ref, path_ref, resolve

SETTINGS = Settings(
    address="https://vault", app="app", environment="prod", kv_mount="kv-1", apikeys_mount="keys"
)


def parts(ref: Ref) -> tuple[Any, ...]:
    return ref.engine, ref.mount, ref.path, ref.version, ref.field


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x", ("kv", "kv-1", "app/prod/x", None, None)),
        ("kv:x", ("kv", "kv-1", "app/prod/x", None, None)),
        ("kv:a/x#f", ("kv", "kv-1", "app/prod/a/x", None, "f")),
        ("x#f#g", ("kv", "kv-1", "app/prod/x", None, "f#g")),
        ("/other/x#f", ("kv", "kv-1", "other/x", None, "f")),
        ("apikey:x", ("apikey", "keys", "app/prod/x", None, None)),
        ("apikey:/x#f", ("apikey", "keys", "x", None, "f")),
        ("other:x", ("kv", "kv-1", "app/prod/other:x", None, None)),
    ],
)
def test_a_name(name: str, expected: tuple[Any, ...]) -> None:
    ref = parse_ref(name, SETTINGS)
    assert parts(ref) == expected
    assert ref.key == (*expected[:3], None)
    assert ref.label == f'{expected[0]} "{expected[1]}/{expected[2]}"'


@pytest.mark.parametrize(
    ("engine", "name", "mount", "expected"),
    [
        ("kv", "x", None, ("kv", "kv-1", "app/prod/x", 3, None)),
        ("kv", "/x", "m", ("kv", "m", "x", 3, None)),
        ("apikey", "a/x", None, ("apikey", "keys", "app/prod/a/x", 3, None)),
        ("apikey", "x", "m/n", ("apikey", "m/n", "app/prod/x", 3, None)),
    ],
)
def test_a_path(engine: str, name: str, mount: str | None, expected: tuple[Any, ...]) -> None:
    ref = path_ref(engine, name, SETTINGS, 3, mount)
    assert parts(ref) == expected
    assert ref.key == expected[:4]


@pytest.mark.parametrize(
    ("name", "words"),
    [("", 'name "" is empty'), ("#f", 'name "#f" is empty'), ("kv:", 'name "kv:" is empty'), ("x#", 'ends in "#"'), ("kv:x#", "ends"),
     ("a/../b", "name|path"), ("/", "path|empty"), (7, "name: a int"), (None, "name: a None")],
)  # fmt: skip
def test_a_name_that_is_none(name: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_ref(name, SETTINGS)


@pytest.mark.parametrize(
    ("engine", "name", "instead"),
    [
        ("kv", "x#f", 'write kv("x")["f"], or get("x#f")'),
        ("kv", "x#", 'write kv("x"), or'),
        ("kv", "kv:x", 'write kv("x"), or'),
        ("kv", "apikey:x#f", 'write api_key("x").values["f"], or'),
        ("apikey", "x#f", 'write api_key("x").values["f"], or'),
        ("apikey", "kv:x", 'write kv("x"), or'),
    ],
)
def test_a_name_where_a_path_belongs(engine: str, name: str, instead: str) -> None:
    with pytest.raises(ConfigurationError, match="takes a path") as caught:
        path_ref(engine, name, SETTINGS)
    assert instead in str(caught.value)


@pytest.mark.parametrize("mount", [7, b"m", "", "a/../b"])
def test_a_mount_that_is_none(mount: Any) -> None:
    with pytest.raises(ConfigurationError):
        path_ref("kv", "x", SETTINGS, mount=mount)


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0])
def test_a_version_that_is_none(version: Any) -> None:
    with pytest.raises(ConfigurationError, match="version"):
        Ref("kv", "m", "x", version)


def test_the_first_version_is_one_and_a_name_has_none() -> None:
    assert Ref("kv", "m", "x", 1).version == 1
    assert Ref("kv", "m", "x").version is None


@pytest.mark.parametrize("text", ["", "x", "ä", "\ud7ff", "\ue000", "\U0001f511"])
def test_a_text(text: str) -> None:
    assert check_text("name", text) == text


@pytest.mark.parametrize("text", ["\ud800", "a\udbff", "\udc00b", 7, None, b"x"])
def test_what_is_no_text(text: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^name: "):
        check_text("name", text)


def test_a_name_from_the_root_of_the_mount() -> None:
    assert resolve("/a/b", "p/") == "a/b"
    assert resolve("a/b", "p/") == "p/a/b"
    with pytest.raises(ConfigurationError):
        resolve("//a", "p/")
