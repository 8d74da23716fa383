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
    process = {
        "DATABASE_URL": "postgres://old", "NOT_IN_VAULT": "here", "PLAIN": "p",
        "STRONGROOM_ENV_PREFER": "vault",
    }  # fmt: skip
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
        ("format = 2", "format: must be 1"),
        ("", "format: must be 1"),
        ("format = 1\nextra = 1", 'unknown key "extra"'),
        ("format = 1\nvariables = 3", "variables: must be a table"),
        ("format = 1\n[variables]\nA = 1", "variables.A: must be a table"),
        ("format = 1\n[variables.A]", "variables.A.path: is missing"),
        ("format = 1\n[variables.A]\npath = ''", "variables.A.path: must be a text"),
        ("format = 1\n[variables.A]\npath = 'a/../b'", "segment"),
        ("format = 1\n[variables.A]\npath = 'a'\nengine = 'x'", "variables.A.engine: must be"),
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


def test_a_file_may_be_named_by_a_text(mapping_file: Path) -> None:
    named: Any = str(mapping_file)
    assert EnvironmentMap.read(named) == EnvironmentMap.read(mapping_file)


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
    process = {"DATABASE_URL": "", "PLAIN": "p"}
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), fake, process)
    names = ["DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PROVIDER_A_TOKEN", "NOT_IN_VAULT", "DENIED"]
    assert [*environ] == [*names, "PLAIN"]
    assert len(environ) == 6
    assert [name in environ for name in ("DENIED", "PLAIN", "NOWHERE")] == [True, True, False]
    assert environ.get("DATABASE_URL", "default") == "url"
    assert (environ.get("NOWHERE"), environ.get("NOWHERE", "default")) == (None, "default")


def test_the_client_is_made_from_the_environment_that_was_given(mapping_file: Path) -> None:
    given = {"VAULT_ADDR": "https://given.example.com", "VAULT_TOKEN": "t"}
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), environ=given)
    client = environ._vault()
    assert client.settings.address == "https://given.example.com"
    assert environ._vault() is client
    client.close()


def test_without_a_mapping_it_is_the_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_TEST_PLAIN", "p")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert VaultEnviron(EnvironmentMap(Path("x"), {}))["STRONGROOM_TEST_PLAIN"] == "p"


def test_a_file_in_the_working_directory_needs_no_name(
    mapping_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mapping_file.parent)
    assert "DATABASE_URL" in VaultEnviron(environ={}).mapping().variables
    monkeypatch.chdir("/")
    assert VaultEnviron(environ={}).mapping().variables == {}


def test_the_environment_is_not_pickled_with_what_it_holds(mapping_file: Path) -> None:
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), environ={"PLAIN": "p"})
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(SecretPicklingError):
            pickle.dumps(environ, protocol)


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
        assert (caught[0].filename, caught[0].lineno) == (__file__, ask.__code__.co_firstlineno)


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
    mapping_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaving(dict[str, str]):
        """What is asked for is gone at the next question."""

        def __getitem__(self, name: str) -> str:
            return self.pop(name)

        def get(self, name: str, default: Any = None) -> Any:
            return self.pop(name, default)

    mapping = EnvironmentMap.read(mapping_file)
    own = Leaving(NOT_IN_VAULT="here", PLAIN="p")
    monkeypatch.setattr(VaultEnviron, "_own", lambda *_: None)  # which would be the first to ask
    environ = VaultEnviron(mapping, FakeVaultSecrets(), own)
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


SAID = (
    "strongroom: DATABASE_URL comes from this process's environment and not from Vault "
    "(STRONGROOM_ENV_PREFER=vault turns that round)\n"
)


@pytest.mark.parametrize(
    ("process", "value", "said"),
    [
        ({}, "url", ""),
        ({"DATABASE_URL": "own-value"}, "own-value", SAID),
        ({"DATABASE_URL": ""}, "url", ""),
        ({"DATABASE_URL": " "}, " ", SAID),
        ({"DATABASE_URL": "own-value", "STRONGROOM_ENV_PREFER": ""}, "own-value", SAID),
        ({"DATABASE_URL": "own-value", "STRONGROOM_ENV_PREFER": "environment"}, "own-value", SAID),
        ({"DATABASE_URL": "own-value", "STRONGROOM_ENV_PREFER": "vault"}, "url", ""),
        ({"database_url": "own-value"}, "url", ""),
    ],
)
def test_the_process_own_environment_wins_and_one_line_says_so(
    mapping_file: Path,
    capsys: pytest.CaptureFixture[str],
    process: dict[str, str],
    value: str,
    said: str,
) -> None:
    fake = FakeVaultSecrets({f"/{BASE}/env-database-url": "url"})
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), fake, process)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert environ["DATABASE_URL"] == value
        assert environ.get("DATABASE_URL", "default") == value
        assert "DATABASE_URL" in environ
    out, err = capsys.readouterr()
    assert (out, err) == ("", said)


def test_what_the_program_sets_later_wins_from_then_on(
    mapping_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    fake = FakeVaultSecrets({f"/{BASE}/env-database-url": "url"})
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), fake)
    assert environ["DATABASE_URL"] == "url"
    monkeypatch.setenv("DATABASE_URL", "for this test")
    assert environ["DATABASE_URL"] == "for this test"
    monkeypatch.delenv("DATABASE_URL")
    assert environ["DATABASE_URL"] == "url"
    assert capsys.readouterr().err == SAID


def test_a_preference_that_is_none_is_refused(mapping_file: Path) -> None:
    process = {"STRONGROOM_ENV_PREFER": "Vault", "DATABASE_URL": "own-value"}
    environ = VaultEnviron(EnvironmentMap.read(mapping_file), FakeVaultSecrets(), process)
    with pytest.raises(
        ConfigurationError, match="STRONGROOM_ENV_PREFER: must be environment or vault"
    ) as caught:
        _ = environ["DATABASE_URL"]
    assert "own-value" not in str(caught.value)


def test_an_empty_variable_is_no_way_out(mapping_file: Path) -> None:
    """A program that waits for a secret never gets nothing instead."""
    environ = VaultEnviron(
        EnvironmentMap.read(mapping_file), FakeVaultSecrets(), {"NOT_IN_VAULT": ""}
    )
    with pytest.raises(StrongroomError):
        _ = environ["NOT_IN_VAULT"]


def test_a_process_without_standard_error(
    mapping_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    environ = VaultEnviron(
        EnvironmentMap.read(mapping_file), FakeVaultSecrets(), {"DATABASE_URL": "own-value"}
    )
    assert environ["DATABASE_URL"] == "own-value"
