"""python -m mutation [MODULE …] [--sites N] [--seed TEXT] [--minutes M] [--jobs N] [--real]

For each change to a module of the package: do its tests complain? What survives is printed; the
exit code is 1 if something does that `mutation/survivors.txt` does not argue away, or if an
argument there is about a change that cannot be made any more. `--real` takes the tests that need
a real Vault, too (VAULT_BIN).
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import secrets
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
import pytest_timeout  # type: ignore[import-untyped]
import sqlalchemy

from .mutants import Mutant, mutants_of

HERE = Path(__file__).resolve().parent.parent
PACKAGE = HERE / "src" / "strongroom_dagster"
ARGUED = Path(__file__).with_name("survivors.txt")
#: The tests of one mutant are taken to hang after this many seconds and five times what they take
#: without a change.
SECONDS = 60.0
_REAL = frozenset({"vault", "fragile", "openbao", "apikeys", "postgres"})
_IMPORTED = (cryptography.x509, hvac, hypothesis.stateful, psycopg, pytest_timeout, sqlalchemy)

#: Tests that need no server but their own, those first that are likeliest to complain.
QUICK = {
    "cache": ["test_cache.py", "test_identity.py"],
    "singleflight": ["test_singleflight.py", "test_cache.py"],
    "database": ["test_leases.py", "test_close.py"],
    "reads": ["test_reads.py", "test_identity.py", "test_apikeys.py", "test_cache.py", "test_names.py"],
    "client": ["test_client.py", "test_close.py", "test_cache.py", "test_identity.py", "test_names.py"],
    "refs": ["test_refs.py", "test_names.py"],
    "masked": ["test_masking.py", "test_identity.py"],
    "lease": ["test_lease.py", "test_leases.py"],
    "rotation": ["test_rotation.py"],
    "session": ["test_session.py", "test_http.py", "test_transport.py", "test_handed_out.py"],
    "methods": ["test_methods.py"],
    "auth": ["test_token.py", "test_leases.py", "test_http.py", "test_handed_out.py", "test_cache.py"],
    "adapter": ["test_http.py", "test_handed_out.py", "test_frames.py", "test_masking.py", "test_cache.py"],
    "transport": ["test_http.py", "test_session.py", "test_transport.py", "test_handed_out.py"],
    "env": ["test_env.py", "test_env_vectors.py", "test_migrate.py"],
}  # fmt: skip
REAL = [
    "test_model.py", "test_client_kv.py", "test_apikeys.py", "test_database.py", "test_conformance.py",
    "test_faults.py", "test_auth.py", "test_openbao.py",
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
            # No more than it takes, for it is done for each mutant.
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            lean = ["-x", "-p", "pytest_timeout", "--assert=plain"]
            code = pytest.main([*lean, *(f"tests/{test}" for test in tests)], plugins)
    finally:
        os._exit(int(code))


@dataclass
class Tally:
    """What became of the mutants of one module.

    Attributes:
        killed: a test complained.
        hung: its tests did not end, which is noticed, too.
        alive: no test complained.
    """

    killed: int
    hung: int
    alive: list[Mutant]


def tried(
    module: str, mutants: list[Mutant], tests: list[str], asked: Options, end: float, limit: float
) -> Tally:
    """Runs the tests with one mutant after the other, in their order, until `end`.

    Args:
        end: of the time, as `time.monotonic` has it; what was begun by then is ended.
        limit: seconds for one mutant.
    """
    waiting, tally = list(mutants), Tally(0, 0, [])
    running: dict[int, tuple[Mutant, float]] = {}
    while waiting or running:
        while waiting and len(running) < asked.jobs and time.monotonic() < end:
            mutant = waiting.pop(0)
            child = start(module, mutant, tests, real=asked.real)
            running[child] = (mutant, time.monotonic())
        if not running:
            break
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            mutant, _ = running.pop(child)
            if status == 0:
                tally.alive.append(mutant)
                if mutant.line:
                    say(f"{module}.py:{mutant.line} {mutant.what}")
            elif os.WIFSIGNALED(status):
                tally.hung += 1
            else:
                tally.killed += 1
            continue
        time.sleep(0.1)
        for child, (_, began) in running.items():
            if time.monotonic() - began > limit:
                os.kill(child, signal.SIGKILL)
    return tally


def say(line: str) -> None:
    """At once, for whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Options:
    """As on the command line."""

    modules: list[str]
    jobs: int
    sites: int
    seed: str
    minutes: float
    real: bool


def options() -> Options:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", default=[*QUICK])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sites", type=int, default=10**6, help="at most so many of a module")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="which of them")
    parser.add_argument("--minutes", type=float, default=10**6, help="for all modules together")
    parser.add_argument("--real", action="store_true", help="with the tests on a real Vault")
    found = parser.parse_args()
    for module in found.modules:
        if module not in QUICK:
            parser.error(f'"{module}" is none of {", ".join(QUICK)}')
        for test in tests_of(module, real=found.real):
            if not (HERE / "tests" / test).is_file():
                parser.error(f"the tests of {module}: there is no tests/{test}")
    return Options(found.modules, found.jobs, found.sites, found.seed, found.minutes, found.real)


def _chosen(mutants: list[Mutant], asked: Options, module: str) -> list[Mutant]:
    """In an order that the seed decides, so that fewer of them are the first of more."""
    mixed = random.Random(f"{asked.seed} {module}")  # noqa: S311
    return mixed.sample(mutants, len(mutants))[: asked.sites]


def tests_of(module: str, *, real: bool) -> list[str]:
    """Names of files, each once."""
    return [*dict.fromkeys([*QUICK[module], *(REAL if real else [])])]


def main() -> int:
    """Returns 1 if a mutant lives that is not argued away."""
    asked = options()
    end = time.monotonic() + 60 * asked.minutes
    gc.freeze()  # so that no child walks through what all of them have imported
    say(f"mutation: --seed {asked.seed}")
    argued = [x for x in ARGUED.read_text().splitlines() if x and not x.startswith("#")]
    faults = 0
    for number, module in enumerate(asked.modules):
        began = time.monotonic()
        share = began + (end - began) / (len(asked.modules) - number)
        tests = tests_of(module, real=asked.real)
        source = (PACKAGE / f"{module}.py").read_text()
        unchanged = [Mutant(0, "unchanged", source)]
        limit = SECONDS * (10 if asked.real else 1)
        # How long they take is not known yet, and a busy machine is no fault of theirs.
        as_it_is = tried(module, unchanged, tests, asked, float("inf"), 10 * limit)
        if not as_it_is.alive:
            does = "do not end" if as_it_is.hung else "fail"
            sys.exit(f"mutation: the tests of {module} {does} as it is: {' '.join(tests)}")
        limit += 5 * (time.monotonic() - began)
        mutants = mutants_of(source)
        names = {f"{module}.py {m.what}" for m in mutants}
        gone = [x for x in argued if x.startswith(f"{module}.py ") and x not in names]
        for line in gone:
            say(f"argued in survivors.txt, and not there any more: {line}")
        tally = tried(module, _chosen(mutants, asked, module), tests, asked, share, limit)
        new = [m for m in tally.alive if f"{module}.py {m.what}" not in argued]
        faults += len(new) + len(gone)
        say(
            f"{module}: {tally.killed + tally.hung + len(tally.alive)} of {len(mutants)} tried, "
            f"{tally.killed} killed, {tally.hung} hung, {len(tally.alive) - len(new)} argued, "
            f"{len(new)} live, {time.monotonic() - began:.0f} s"
        )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
