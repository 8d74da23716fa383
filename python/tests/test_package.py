"""The package as one installs it: without Dagster, from the wheel, from the sdist."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]

#: Runs code in a Python that has no Dagster.
WITHOUT_DAGSTER = """
import sys

sys.modules["dagster"] = sys.modules["pydantic"] = None
"""


def run_without_dagster(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_DAGSTER + code], capture_output=True, text=True, check=False
    )


def test_everything_but_the_dagster_half_works_without_dagster() -> None:
    done = run_without_dagster("""
import strongroom_dagster, strongroom_dagster.env, strongroom_dagster.rotation
from strongroom_dagster.fake import FakeVaultSecrets
assert "VaultSecretsResource" not in dir(strongroom_dagster)
with FakeVaultSecrets({"a": "b"}, {"k": "v"}) as vault:
    assert vault.get("a") == "b" and vault.api_key("k").key == "v"
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "FakeVaultSecretsResource",
        "VaultSecretsResource",
        "build_rotation_check",
        "build_rotation_sensor",
    ],
)
def test_what_needs_dagster_says_so(name: str) -> None:
    done = run_without_dagster(f"from strongroom_dagster import {name}")
    wanted = f"ImportError: {name} needs Dagster (pip install 'strongroom-dagster[dagster]')"
    assert done.stderr.strip().splitlines()[-1] == wanted


@pytest.mark.parametrize(
    "use",
    [
        "from strongroom_dagster import *; VaultSecrets, Settings",
        "import inspect, strongroom_dagster; inspect.getmembers(strongroom_dagster)",
        "import pydoc, strongroom_dagster; pydoc.render_doc(strongroom_dagster)",
        "import strongroom_dagster.sql, strongroom_dagster.migrate, strongroom_dagster.overlay",
    ],
)
def test_who_takes_all_that_there_is_gets_what_works_without_dagster(use: str) -> None:
    done = run_without_dagster(use)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ("engine('postgresql+psycopg://h/d')", "engine needs SQLAlchemy (pip install 'strongroom-dagster[sql]')"),
        ("connect('host=h')", "connect needs psycopg (pip install 'strongroom-dagster[postgresql]')"),
    ],
)  # fmt: skip
def test_what_needs_a_database_package_says_so(use: str, words: str) -> None:
    done = run_without_dagster(f"""
sys.modules["sqlalchemy"] = sys.modules["psycopg"] = None
from strongroom_dagster import Settings, Source, TokenAuth, VaultSecrets
VaultSecrets(Settings(), TokenAuth(Source.of("t"))).database("r").{use}
""")
    assert done.stderr.strip().splitlines()[-1] == f"ImportError: {words}"


def test_importing_the_package_does_not_import_dagster() -> None:
    code = "import sys, strongroom_dagster as s; sys.exit('dagster' in sys.modules or 'VaultSecretsResource' not in dir(s))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_licence_is_the_repositorys() -> None:
    repository = PACKAGE.parent / "LICENSE"
    if not repository.exists():
        pytest.skip("needs the repository")
    assert (PACKAGE / "LICENSE").read_bytes() == repository.read_bytes()


EXAMPLE = PACKAGE / "examples" / "bike_data_flow"


@pytest.mark.parametrize(
    "file",
    [
        ".venv/bin/python",
        "env.sh",
        "secret-id",
        "secret-id.new",
        ".env",
        ".env.production",
        ".envrc",
        "env.sh.bak",
        "env.sh~",
        "secret_id",
        "new-secret-id.txt",
        "vault-token",
        ".vault-token",
        "ca-key.pem",
        "venv/bin/python",
        "dagster_home/storage/run.db",
        "storage/x/compute_logs/1.out",
        "history/runs.db",
        "bike_data_flow/.env",
        ".tmp_dagster_home_x1/storage/run.db",
        "bike_data_flow/__pycache__/a.pyc",
        "bike_data_flow.egg-info/PKG-INFO",
    ],
)
def test_git_add_takes_no_secret_from_the_example(file: str, tmp_path: Path) -> None:
    """What the example's README has one make is ignored, also in a copy of the example."""
    shutil.copy(EXAMPLE / ".gitignore", tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("s3cr3t")
    (tmp_path / "assets.py").write_text("")

    def git(*arguments: str) -> str:
        command = ["git", "-c", "core.excludesFile=", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    git("add", "-A")
    assert git("ls-files").split() == [".gitignore", "assets.py"]
