"""Variables that come from Vault by the mapping file, or from the environment with a warning."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from strongroom_dagster import (
    AccessDeniedError,
    ConfigurationError,
    SecretPicklingError,
    StrongroomError,
    env,
)
from strongroom_dagster.env import (
    EnvironmentFallbackWarning,
    EnvironmentMap,
    Variable,
    VaultEnviron,
)
from strongroom_dagster.fake import FakeVaultSecrets

from .conftest import POLICY, ClientFactory
from .harness.vault import VaultServer

BASE = "bike-data-flow/production"
MAPPING = f"""
format = 1

[variables.DATABASE_URL]
path = "{BASE}/env-database-url"

[variables.AWS_SECRET_ACCESS_KEY]
engine = "kv"
mount = "secret"
path = "{BASE}/env-aws"
field = "secret_key"

[variables.PROVIDER_A_TOKEN]
engine = "apikeys"
path = "{BASE}/env-provider"

[variables.NOT_IN_VAULT]
path = "{BASE}/env-nothing"

[variables.DENIED]
path = "other-app/production/x"
"""


@pytest.fixture
def mapping_file(tmp_path: Path) -> Path:
    file = tmp_path / "strongroom-env.toml"
    file.write_text(MAPPING)
    return file


def test_reading_from_vault_and_falling_back(
    apikeys: VaultServer, client_for: ClientFactory, mapping_file: Path
) -> None:
    apikeys.put(f"{BASE}/env-database-url", value="postgres://vault")
    apikeys.put(f"{BASE}/env-aws", access_key="AK", secret_key="SK")
    apikeys.define_key(f"{BASE}/env-provider")
    process = {"DATABASE_URL": "postgres://old", "NOT_IN_VAULT": "here", "PLAIN": "p"}
    client = client_for(apikeys)
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), client, process)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert environ["DATABASE_URL"] == "postgres://vault"
        assert environ.get("AWS_SECRET_ACCESS_KEY") == "SK"
        assert environ["PROVIDER_A_TOKEN"] == client.get("apikey:env-provider")
        assert environ.get("NOWHERE") is None
        assert environ.get("NOWHERE", "default") == "default"
    with pytest.warns(EnvironmentFallbackWarning, match="NOT_IN_VAULT could not be read") as caught:
        assert environ["NOT_IN_VAULT"] == "here"
    assert caught[0].filename == __file__
    with pytest.warns(EnvironmentFallbackWarning, match='PLAIN is not in ".*strongroom-env.toml"'):
        assert environ["PLAIN"] == "p"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert environ["PLAIN"] == "p"  # it says so once
    with pytest.raises(AccessDeniedError):
        _ = environ["DENIED"]
    with pytest.raises(KeyError):
        _ = environ["NOWHERE"]
    assert "DENIED" in environ
    assert set(environ) == {*process, "AWS_SECRET_ACCESS_KEY", "PROVIDER_A_TOKEN", "DENIED"}
    assert len(environ) == len(set(environ))
    assert "postgres" not in repr(environ)
    with pytest.raises(SecretPicklingError):
        pickle.dumps(environ)


def test_without_a_file_everything_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = VaultEnviron(environ={"A": "1"})
    with pytest.warns(EnvironmentFallbackWarning, match="A is not in"):
        assert environ["A"] == "1"
    assert environ.get("NOWHERE") is None
    said = [r.getMessage() for r in caplog.records if r.name == "strongroom_dagster"]
    assert len(said) == 1, "once, and for a missing variable, too"
    assert "no mapping file" in said[0]
    assert "STRONGROOM_ENV_FILE" in said[0]
    named = VaultEnviron(environ={"STRONGROOM_ENV_FILE": str(tmp_path / "gone.toml"), "A": "1"})
    with pytest.raises(ConfigurationError, match=r"gone\.toml.*no such file"):
        _ = named["A"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format = 2", "format: 2 must be 1"),
        ("", "format: None must be 1"),
        ("format = 1\nextra = 1", 'unknown key "extra"'),
        ("format = 1\nvariables = 3", "variables: must be a table"),
        ("format = 1\n[variables]\nA = 1", "variables.A: must be a table"),
        ("format = 1\n[variables.A]", "variables.A.path: is missing"),
        ("format = 1\n[variables.A]\npath = ''", "variables.A.path: must be a text"),
        ("format = 1\n[variables.A]\npath = 'a/../b'", "segment"),
        ("format = 1\n[variables.A]\npath = 'a'\nengine = 'x'", "variables.A.engine: 'x' must be"),
        ("format = 1\n[variables.A]\npath = 'a'\nx = 'y'", 'variables.A: unknown key "x"'),
        ("format = 1\n[variables.A]\nfield = 3\n[variables.B]", "A.field.*A.path.*B.path"),
        ("format = [", "line 1|invalid|unclosed"),
    ],
)
def test_a_faulty_file_is_refused_with_every_fault(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "map.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as caught:
        EnvironmentMap.read(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "map.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="decode"):
        EnvironmentMap.read(file)


def test_a_file_that_cannot_be_read_for_no_named_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(*_: Any, **__: Any) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(ConfigurationError, match=r'map\.toml": oserror'):
        EnvironmentMap.read(tmp_path / "map.toml")


def test_it_holds_what_is_mapped_and_what_the_process_has(mapping_file: Path) -> None:
    fake = FakeVaultSecrets({f"/{BASE}/env-database-url": "url"})
    process = {"DATABASE_URL": "old", "PLAIN": "p"}
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), fake, process)
    names = ["DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PROVIDER_A_TOKEN", "NOT_IN_VAULT", "DENIED"]
    assert [*environ] == [*names, "PLAIN"]
    assert len(environ) == 6
    assert [name in environ for name in ("DENIED", "PLAIN", "NOWHERE")] == [True, True, False]
    assert environ.get("DATABASE_URL", "default") == "url"
    assert (environ.get("NOWHERE"), environ.get("NOWHERE", "default")) == (None, "default")


def test_the_warning_names_the_line_that_asked(
    mapping_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks: list[Callable[[VaultEnviron], str | None]] = [
        lambda environ: environ["PLAIN"],
        lambda environ: environ.get("PLAIN"),
        lambda _: env.getenv("PLAIN"),
    ]
    for ask in asks:
        environ = VaultEnviron(EnvironmentMap.read(mapping_file), environ={"PLAIN": "p"})
        monkeypatch.setattr(env, "environ", environ)
        with pytest.warns(EnvironmentFallbackWarning, match="PLAIN is not in") as caught:
            assert ask(environ) == "p"
        assert caught[0].filename == __file__


def test_defaults_of_a_variable(mapping_file: Path) -> None:
    variables = EnvironmentMap.read(mapping_file).variables
    assert variables["DATABASE_URL"] == Variable("kv", "secret", f"{BASE}/env-database-url")
    assert variables["PROVIDER_A_TOKEN"].mount == "apikeys"


def test_the_process_wide_functions(vault: VaultServer, tmp_path: Path, mapping_file: Path) -> None:
    vault.put(f"{BASE}/env-database-url", value="postgres://vault")
    role_id, secret_id = vault.approle("env", POLICY)
    (tmp_path / "sid").write_text(secret_id)
    code = (
        "from strongroom_dagster.env import environ, getenv\n"
        "print(getenv('DATABASE_URL'), environ['DATABASE_URL'], getenv('HOME'), getenv('X', 'y'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={
            "PATH": os.environ["PATH"], "HOME": "/h", "VAULT_ADDR": vault.http,
            "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID_FILE": str(tmp_path / "sid"),
        },
    )  # fmt: skip
    assert done.stdout == "postgres://vault postgres://vault /h y\n"
    assert "HOME is not in" in done.stderr


def test_an_api_key_follows_its_rotation(mapping_file: Path) -> None:
    fake = FakeVaultSecrets(api_keys={f"/{BASE}/env-provider": "first"})
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), fake, {})
    assert environ["PROVIDER_A_TOKEN"] == "first"
    fake.rotate(f"/{BASE}/env-provider", "second")
    fake.invalidate()
    assert environ["PROVIDER_A_TOKEN"] == "second"


def test_a_variable_that_leaves_the_environment_while_it_is_read_is_not_read_twice(
    mapping_file: Path,
) -> None:
    class Leaving(dict[str, str]):
        """What is asked for is gone at the next question."""

        def __getitem__(self, name: str) -> str:
            return self.pop(name)

        def get(self, name: str, default: Any = None) -> Any:
            return self.pop(name, default)

    mapping = EnvironmentMap.read(mapping_file)
    environ = VaultEnviron(mapping, FakeVaultSecrets(), Leaving(NOT_IN_VAULT="here", PLAIN="p"))
    with pytest.warns(EnvironmentFallbackWarning):
        assert environ["NOT_IN_VAULT"] == "here"
    with pytest.raises(StrongroomError):
        _ = environ["NOT_IN_VAULT"]


def test_a_mapped_path_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "map.toml"
    file.write_text(
        'format = 1\n[variables.A]\npath = "app/a#b"\n'
        '[variables.K]\nengine = "apikeys"\npath = "apikey:k"\n'
    )
    fake = FakeVaultSecrets()
    fake.put("/app/a", "not this")
    fake._vault.kv["app/a#b"] = fake._vault.kv["app/a"]
    fake.rotate("/apikey:k", "key")
    environ = VaultEnviron(EnvironmentMap.read(file), fake, {})
    assert (environ["A"], environ["K"]) == ("not this", "key")


def test_threads_warn_once_and_read_the_file_once(
    mapping_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = EnvironmentMap.read.__func__  # type: ignore[attr-defined]

    def slow(cls: type[EnvironmentMap], file: Path) -> EnvironmentMap:
        read.append(file)
        found: EnvironmentMap = real(cls, file)
        return found

    monkeypatch.setattr(EnvironmentMap, "read", classmethod(slow))
    environ = VaultEnviron(environ={"STRONGROOM_ENV_FILE": str(mapping_file), "PLAIN": "p"})
    together = threading.Barrier(8)

    def use() -> str:
        together.wait(20)
        return environ["PLAIN"]

    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("always")
        assert {one.result(30) for one in [pool.submit(use) for _ in range(8)]} == {"p"}
    assert len(read) == 1
    assert len([w for w in caught if w.category is EnvironmentFallbackWarning]) == 1


def test_a_lock_of_a_parents_thread_is_not_the_childs(mapping_file: Path) -> None:
    fake = FakeVaultSecrets({f"/{BASE}/env-database-url": "url"})
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), fake, {})
    with environ._lock:  # as a thread that is not in the child
        child = os.fork()
        if child == 0:
            os._exit(0 if environ["DATABASE_URL"] == "url" else 1)
    assert os.waitpid(child, 0)[1] == 0
