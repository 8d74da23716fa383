"""From a .env file to Vault by `strongroom migrate`, and read from there by `env`."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from strongroom_dagster import migrate
from strongroom_dagster.env import EnvironmentMap, VaultEnviron

from .conftest import ClientFactory
from .harness.vault import REPOSITORY, VaultServer

STRONGROOM = Path(os.environ.get("STRONGROOM_BIN") or REPOSITORY / "bin" / "strongroom")


def test_arguments_and_exit_code_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "strongroom"
    program.write_text('#!/bin/sh\nprintf "<%s>" "$@"\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.delenv("STRONGROOM_BIN", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert migrate.main(["scan", "--root", "a b"]) == 3
    assert capfd.readouterr().out == "<migrate><scan><--root><a b>"
    monkeypatch.setattr(sys, "argv", ["x", "plan"])
    assert migrate.main() == 3
    assert capfd.readouterr().out == "<migrate><plan>"
    # Not SIGTERM: whoever started the tests may have it ignored, and that is inherited.
    program.write_text("#!/bin/sh\nkill -KILL $$\n")
    assert migrate.main([]) == 128 + 9


def test_a_missing_program_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRONGROOM_BIN", "/nowhere/strongroom")
    assert migrate.main(["scan"]) == 2
    assert '"/nowhere/strongroom" was not found' in capsys.readouterr().err


def test_from_a_file_to_vault_and_back(
    vault: VaultServer, client_for: ClientFactory, tmp_path: Path
) -> None:
    if not STRONGROOM.exists():
        pytest.skip(f"no program at {STRONGROOM}: make build, or set STRONGROOM_BIN")
    (tmp_path / ".env.production").write_text(
        "MIGRATED_DATABASE_URL=postgres://u:pw-4711@h/bikes\n"
    )
    (tmp_path / "app.py").write_text('import os\n\nURL = os.environ["MIGRATED_DATABASE_URL"]\n')
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "STRONGROOM_BIN": str(STRONGROOM),
        "VAULT_ADDR": vault.https, "VAULT_CACERT": vault.ca, "VAULT_TOKEN": vault.root_token,
    }  # fmt: skip

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "strongroom_dagster.migrate", *arguments],
            cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "pw-4711" not in done.stdout + done.stderr

    run("plan", "--app", "bike-data-flow", "--no-history")
    run("apply")
    mapping = EnvironmentMap.read(tmp_path / "strongroom-env.toml")
    client = client_for(vault)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = VaultEnviron(mapping, client, {})["MIGRATED_DATABASE_URL"]
    assert value == "postgres://u:pw-4711@h/bikes"
