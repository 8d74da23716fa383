"""python -m mutation [MODULE …] [--jobs N] [--every N] [--real]

For each change to a module of the package: do its tests complain? What survives is printed; the
exit code is 1 if something does that `mutation/survivors.txt` does not argue away. `--real` takes
the tests that need a real Vault, too (VAULT_BIN).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# Not the package itself: what every child would import anew.
import cryptography.x509
import hvac
import hypothesis.stateful
import psycopg
import pytest
import sqlalchemy

from .mutants import Mutant, mutants_of

HERE = Path(__file__).resolve().parent.parent
PACKAGE = HERE / "src" / "strongroom_dagster"
ARGUED = Path(__file__).with_name("survivors.txt")
#: After which the tests of one mutant are taken to hang.
SECONDS = 60
_REAL = frozenset({"vault", "fragile", "apikeys", "postgres"})
_IMPORTED = (cryptography.x509, hvac, hypothesis.stateful, psycopg, sqlalchemy)

#: Tests that need no server but their own, those first that are likeliest to complain.
QUICK = {
    "cache": ["test_cache.py", "test_identity.py"],
    "singleflight": ["test_singleflight.py", "test_cache.py"],
    "database": ["test_leases.py", "test_close.py"],
    "reads": ["test_identity.py", "test_names.py", "test_apikeys.py", "test_cache.py"],
    "client": ["test_close.py", "test_cache.py", "test_names.py", "test_identity.py"],
    "refs": ["test_names.py"],
    "masked": ["test_masking.py", "test_identity.py", "test_names.py"],
    "lease": ["test_lease.py", "test_leases.py"],
    "rotation": ["test_rotation.py"],
}
REAL = [
    "test_model.py", "test_client_kv.py", "test_apikeys.py", "test_database.py", "test_conformance.py",
    "test_faults.py", "test_auth.py",
]  # fmt: skip


class _WithoutVault:
    """Leaves out the tests that need a real Vault."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [i for i in items if not _REAL & set(getattr(i, "fixturenames", ()))]


def start(module: str, mutant: Mutant, tests: list[str], *, real: bool) -> int:
    """Runs the tests with it in a child that has all else imported already; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        with tempfile.TemporaryDirectory(prefix="strongroom-mutant-") as directory:
            package = Path(directory) / PACKAGE.name
            shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
            (package / f"{module}.py").write_text(mutant.source)
            sys.path.insert(0, directory)
            os.chdir(HERE)
            plugins = [] if real else [_WithoutVault()]
            quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
            code = pytest.main(["-x", *quiet, *(f"tests/{test}" for test in tests)], plugins)
    finally:
        os._exit(int(code))


def survivors(
    module: str, mutants: list[Mutant], tests: list[str], options: Options
) -> list[Mutant]:
    """Those of which the tests do not complain."""
    waiting, alive = list(mutants), []
    running: dict[int, tuple[Mutant, float]] = {}
    while waiting or running:
        while waiting and len(running) < options.jobs:
            mutant = waiting.pop(0)
            child = start(module, mutant, tests, real=options.real)
            running[child] = (mutant, time.monotonic())
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            mutant, _ = running.pop(child)
            if status == 0:
                alive.append(mutant)
                say(f"{module}.py:{mutant.line}: {mutant.what}")
            continue
        time.sleep(0.1)
        for child, (_, began) in running.items():
            if time.monotonic() - began > SECONDS * (10 if options.real else 1):
                os.kill(child, signal.SIGKILL)  # it does not end: that is noticed, too
    return alive


def say(line: str) -> None:
    """At once, for whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Options:
    """As on the command line."""

    modules: list[str]
    jobs: int
    every: int
    real: bool


def options() -> Options:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", default=[*QUICK])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--every", type=int, default=1, help="only each n-th mutant")
    parser.add_argument("--real", action="store_true", help="with the tests on a real Vault")
    found = parser.parse_args()
    return Options(found.modules, found.jobs, found.every, found.real)


def main() -> int:
    """Returns 1 if a mutant lives that is not argued away."""
    asked = options()
    argued = set(ARGUED.read_text().splitlines())
    fresh = False
    for module in asked.modules:
        began = time.monotonic()
        tests = [*QUICK.get(module, []), *(REAL if asked.real else [])]
        source = (PACKAGE / f"{module}.py").read_text()
        if not survivors(module, [Mutant(0, "unchanged", source)], tests, asked):
            sys.exit(f"mutation: the tests of {module} fail as it is: {' '.join(tests)}")
        mutants = mutants_of(source)[:: asked.every]
        alive = survivors(module, mutants, tests, asked)
        new = [m for m in alive if f"{module}.py: {m.what}" not in argued]
        fresh = fresh or bool(new)
        say(
            f"{module}: {len(mutants)} mutants, {len(alive)} live, {len(new)} of them not argued, "
            f"{time.monotonic() - began:.0f} s"
        )
    return 1 if fresh else 0


if __name__ == "__main__":
    sys.exit(main())
