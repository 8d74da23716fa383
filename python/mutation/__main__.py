"""python -m mutation [MODULE …] [--sites N] [--seed TEXT] [--minutes M] [--jobs N] [--real]

For each change to a module of the package: do the tests that run its line complain? What survives
is printed; the exit code is 1 if something does that `mutation/survivors.txt` does not argue away,
or if an argument there is about a change that cannot be made any more. `--real` takes the tests
that need a real Vault, too (VAULT_BIN). `--place TEXT` takes only the changes whose line in the
list of survivors has the text in it, and `--tests FILE` only those tests, to look again.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .mutants import Mutant, mutants_of
from .warm import BROKEN, HERE, LEAN, PACKAGE, Run, Warm, end

ARGUED = Path(__file__).with_name("survivors.txt")
#: The tests of one mutant are taken to hang after this many seconds and five times what they take
#: without a change.
SECONDS = 30.0
MODULES = sorted(f.stem for f in PACKAGE.glob("*.py") if f.stem != "__init__")
#: Tests of what is not the package: types, documents, pages in a browser.
_NOT = ["test_typing.py", "test_docs.py", "test_package.py", "test_ui.py", "test_recipes.py"]
#: Files of tests that were written for a module; all of them are run, of others the quickest.
OWN = {
    "cache": ["test_cache.py", "test_identity.py"],
    "singleflight": ["test_singleflight.py"],
    "database": ["test_leases.py", "test_close.py"],
    "sql": ["test_leases.py"],
    "reads": ["test_reads.py", "test_identity.py", "test_apikeys.py", "test_names.py"],
    "client": ["test_client.py", "test_close.py", "test_identity.py", "test_names.py"],
    "refs": ["test_refs.py", "test_names.py"],
    "masked": ["test_masking.py"],
    "lease": ["test_lease.py"],
    "session": ["test_session.py", "test_http.py", "test_handed_out.py"],
    "handed_out": ["test_handed_out.py"],
    "methods": ["test_methods.py", "test_quoting.py"],
    "jwt": ["test_jwt.py", "test_quoting.py"],
    "source": ["test_quoting.py", "test_methods.py"],
    "auth": ["test_token.py", "test_handed_out.py", "test_cache.py"],
    "adapter": ["test_handed_out.py", "test_frames.py", "test_cache.py"],
    "answers": ["test_http.py", "test_quoting.py"],
    "faults": ["test_http.py", "test_transport.py"],
    "transport": ["test_http.py", "test_session.py", "test_transport.py", "test_handed_out.py"],
    "settings": ["test_transport.py", "test_quoting.py", "test_http.py", "test_names.py"],
    "env": ["test_env.py", "test_env_vectors.py"],
    "overlay": ["test_environment.py"],
    "shared": ["test_environment.py"],
    "resource": ["test_resource.py", "test_environment.py", "test_slips.py"],
    "resource_input": ["test_resource.py", "test_slips.py"],
}


@dataclass
class Tally:
    """What became of the mutants of one module.

    Attributes:
        killed: a test complained.
        hung: its tests did not end, which is noticed, too.
        alive: no test complained.
    """

    killed: int = 0
    hung: int = 0
    alive: list[Mutant] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """All of them."""
        return self.killed + self.hung + len(self.alive)


def tried(
    warm: Warm, run: Run, module: str, mutants: list[Mutant], asked: Options, until: float
) -> Tally:
    """Runs the tests with one mutant after the other, in their order, until `until`, as
    `time.monotonic` has it; what was begun by then is ended."""
    waiting, tally = list(mutants), Tally()
    running: dict[int, tuple[Mutant, float]] = {}
    while waiting or running:
        while waiting and len(running) < asked.jobs and time.monotonic() < until:
            mutant = waiting.pop(0)
            numbers = warm.chosen(run, module, mutant, OWN.get(module, []))
            if not numbers:
                tally.alive.append(mutant)
                say(f"{module}.py:{mutant.line} {mutant.what} (no test runs it)")
                continue
            child = warm.start(module, mutant, numbers)
            if child is None:
                child = warm.start_anew(module, mutant.source, numbers)
            limit = SECONDS + 5 * sum(run.seconds[number] for number in numbers)
            running[child] = (mutant, time.monotonic() + limit)
        if not running:
            break
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            time.sleep(0.02)
            for child, (_, limit) in running.items():
                if time.monotonic() > limit:
                    end(child)
            continue
        mutant, _ = running.pop(child)
        if os.WIFSIGNALED(status):
            tally.hung += 1
        elif os.WEXITSTATUS(status) == BROKEN:
            sys.exit(f"mutation: the run itself failed at {module}.py: {mutant.what}")
        elif status:
            tally.killed += 1
            warm.learn(module, child)
        else:
            tally.alive.append(mutant)
            say(f"{module}.py:{mutant.line} {mutant.what}")
        end(child)
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
    place: str
    tests: list[str]
    map: Path


def options() -> Options:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES, metavar="MODULE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sites", type=int, default=10**6, help="at most so many of a module")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="which of them")
    parser.add_argument("--minutes", type=float, default=10**6, help="for all modules together")
    parser.add_argument("--real", action="store_true", help="with the tests on a real Vault")
    parser.add_argument("--place", default="", help="only changes that have it in their line")
    parser.add_argument("--tests", nargs="+", default=[], metavar="FILE", help="of tests/")
    kept = HERE.parent / ".cache" / "mutation-map"
    parser.add_argument("--map", type=Path, default=kept, help="which tests run which line")
    found = parser.parse_args()
    for module in found.modules:
        if module not in MODULES:
            parser.error(f'"{module}" is none of {", ".join(MODULES)}')
    for test in found.tests:
        if not (HERE / "tests" / test).is_file():
            parser.error(f"there is no tests/{test}")
    return Options(**vars(found))


def _chosen(mutants: list[Mutant], asked: Options, module: str) -> list[Mutant]:
    """In an order that the seed decides, so that fewer of them are the first of more."""
    mixed = random.Random(f"{asked.seed} {module}")  # noqa: S311
    some = [m for m in mutants if asked.place in f"{module}.py {m.what}"]
    return mixed.sample(some, len(some))[: asked.sites]


class _Work:
    def __init__(self, asked: Options) -> None:
        self._asked = asked
        self.faults = 0

    def __call__(self, warm: Warm) -> None:
        asked = self._asked
        until = time.monotonic() + 60 * asked.minutes
        run = warm.unchanged(asked.map)
        for name in run.failed:
            say(f"fails without a change, and is left out: {name}")
            self.faults += 1
        say(
            f"mutation: --seed {asked.seed}; {len(warm.items)} tests in "
            f"{sum(run.seconds.values()):.0f} s"
        )
        argued = [x for x in ARGUED.read_text().splitlines() if x and not x.startswith("#")]
        for number, module in enumerate(asked.modules):
            began = time.monotonic()
            share = began + (until - began) / (len(asked.modules) - number)
            mutants = mutants_of((PACKAGE / f"{module}.py").read_text())
            names = {f"{module}.py {m.what}" for m in mutants}
            gone = [x for x in argued if x.startswith(f"{module}.py ") and x not in names]
            for line in gone:
                say(f"argued in survivors.txt, and not there any more: {line}")
            tally = tried(warm, run, module, _chosen(mutants, asked, module), asked, share)
            new = [m for m in tally.alive if f"{module}.py {m.what}" not in argued]
            self.faults += len(new) + len(gone)
            say(
                f"{module}: {tally.tried} of {len(mutants)} tried, {tally.killed} killed, "
                f"{tally.hung} hung, {len(tally.alive) - len(new)} argued, {len(new)} live, "
                f"{time.monotonic() - began:.0f} s"
            )


def main() -> int:
    """Returns 1 if a mutant lives that is not argued away."""
    asked = options()
    os.chdir(HERE)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    work = _Work(asked)
    files = [f"tests/{name}" for name in asked.tests]
    left_out = [] if files else [f"--ignore=tests/{name}" for name in _NOT]
    with tempfile.TemporaryDirectory(prefix="strongroom-mutation-") as notes:
        warm = Warm(work, Path(notes), real=asked.real)
        code = pytest.main([*LEAN, *left_out, *files], [warm])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return 1
    return 1 if work.faults else 0


if __name__ == "__main__":
    sys.exit(main())
