"""One process that has imported the package and collected its tests, and is copied for each mutant.

So a change costs a fork and the tests that run its line, the quickest first, up to the first that
complains.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import pytest

from .mutants import Mutant

HERE = Path(__file__).resolve().parent.parent
PACKAGE = HERE / "src" / "strongroom_dagster"
#: No more of pytest than it takes, for each change begins it.
LEAN = ["-q", "-p", "pytest_timeout", "--assert=plain", "-s"]
#: Fixtures of tests that need another program.
REAL = frozenset({"vault", "fragile", "openbao", "apikeys", "postgres", "a_postgres"})
#: Of the tests that run a line, those whose times add up to so many seconds.
ENOUGH = 20.0
#: A child's exit code when what went wrong is the run itself.
BROKEN = 3


@dataclass
class Run:
    """What the tests did without a change.

    Attributes:
        of: what tells this state of the package and its tests from another one.
        tests: for each module and line, the numbers of the tests that ran it.
        seconds: of each test.
        failed: the names of those that failed.
    """

    of: str
    tests: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class Warm:
    """A plugin of pytest: collects, and gives `work` the tests in place of running them."""

    def __init__(self, work: Callable[[Warm], None], notes: Path, *, real: bool) -> None:
        self._work = work
        self._real = real
        self._complained = False
        self._functions: dict[tuple[str, int], list[FunctionType]] = {}
        self._told: dict[str, list[int]] = {}
        self._notes = notes
        self.items: list[pytest.Item] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if not self._real:
            items[:] = [i for i in items if not REAL & _named(i)]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = session.items
        for one in gc.get_objects():
            if isinstance(one, FunctionType) and Path(one.__code__.co_filename).parent == PACKAGE:
                key = (Path(one.__code__.co_filename).stem, one.__code__.co_firstlineno)
                self._functions.setdefault(key, []).append(one)
        gc.freeze()  # so that no child walks through what all of them have
        self._work(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._complained = self._complained or report.failed

    def _complains(self, numbers: list[int]) -> Iterator[tuple[int, bool]]:
        """Runs tests in this process; each and whether it complained."""
        chosen = [self.items[number] for number in numbers]
        for number, item, after in zip(numbers, chosen, [*chosen[1:], None], strict=True):
            self._complained = False
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            yield number, self._complained

    def unchanged(self, kept: Path) -> Run:
        """All tests once, in a child: which lines each runs, how long it takes, which fail.

        Args:
            kept: the file of the last such run, which is good for as long as nothing has changed.
        """
        of = self._state()
        if kept.is_file():
            last: Run = pickle.loads(kept.read_bytes())  # noqa: S301 - our own
            if last.of == of:
                return last
            kept.unlink()
        kept.parent.mkdir(exist_ok=True)
        child = _fork(lambda: _write(kept, self._measure(of)))
        os.waitpid(child, 0)
        if not kept.is_file():
            sys.exit("mutation: the tests do not end without a change")
        run: Run = pickle.loads(kept.read_bytes())  # noqa: S301
        return run

    def _state(self) -> str:
        digest = hashlib.sha256("\n".join(item.nodeid for item in self.items).encode())
        for file in sorted([*PACKAGE.glob("*.py"), *(HERE / "tests").rglob("*.py")]):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def _measure(self, of: str) -> Run:
        run = Run(of)
        traced = coverage.Coverage(data_file=None, include=[f"{PACKAGE}/*"], config_file=False)
        traced.start()
        began = time.monotonic()
        traced.switch_context("0")
        for number, complained in self._complains([*range(len(self.items))]):
            run.seconds[number] = time.monotonic() - began
            if complained:
                run.failed.append(self.items[number].nodeid)
            began = time.monotonic()
            traced.switch_context(str(number + 1))
        traced.stop()
        data = traced.get_data()
        for file in data.measured_files():
            lines = data.contexts_by_lineno(file)
            run.tests[Path(file).stem] = {
                line: sorted({int(c) for c in contexts if c}) for line, contexts in lines.items()
            }
        return run

    def chosen(self, run: Run, module: str, mutant: Mutant, own: list[str]) -> list[int]:
        """The tests that run what it changes: those of the files `own`, and then of the others as
        many as there is time for."""
        lines = run.tests.get(module, {})
        numbers = {n for line in mutant.lines for n in lines.get(line, ())}
        if not numbers:  # in a forked child, or at the import
            numbers = {n for line in mutant.around for n in lines.get(line, ())}
        if not numbers:
            numbers = {n for found in lines.values() for n in found}
        # Of each test's cases one before the next of any, and first of all what has told before.
        told = self._told.get(module, [])
        cases: Counter[str] = Counter()
        order = []
        for number in sorted(numbers, key=run.seconds.__getitem__):
            name = self.items[number].nodeid.split("[")[0]
            cases[name] += 1
            others = self.items[number].path.name not in own
            before = told.index(number) if number in told else len(told)
            order.append((before, others, cases[name], number))
        chosen: list[int] = []
        left = ENOUGH
        for _, others, _, number in sorted(order):
            if self.items[number].nodeid not in run.failed:
                left -= run.seconds[number] * others
                if left > 0 or not others:
                    chosen.append(number)
        return chosen

    def start(self, module: str, mutant: Mutant, numbers: list[int]) -> int | None:
        """Begins the tests with the mutant in a child, whose process id it returns; None if the
        change is not within a function, so that the package has to be imported anew.

        The child's exit code is 0 if none complained.
        """
        swaps = self._swaps(module, mutant)
        if swaps is None:
            return None

        def run() -> int:
            for function, code in swaps:
                function.__code__ = code
            for number, complained in self._complains(numbers):
                if complained:
                    (self._notes / str(os.getpid())).write_text(str(number))
                    return 1
            return 0

        return _fork(run)

    def learn(self, module: str, child: int) -> None:
        """Notes which test it was that complained in a child."""
        with contextlib.suppress(FileNotFoundError):
            number = int((self._notes / str(child)).read_text())
            told = self._told.setdefault(module, [])
            self._told[module] = [number, *(other for other in told if other != number)]

    def start_anew(self, module: str, source: str, numbers: list[int]) -> int:
        """The same for a change anywhere in a module; the child imports all of the package anew."""
        names = [self.items[number].nodeid for number in numbers]

        def run() -> int:
            with tempfile.TemporaryDirectory(prefix="strongroom-mutant-") as folder:
                package = Path(folder) / PACKAGE.name
                shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
                (package / f"{module}.py").write_text(source)
                sys.path.insert(0, folder)
                for name in [*sys.modules]:
                    if name.split(".")[0] in (PACKAGE.name, "tests"):
                        del sys.modules[name]
                return int(pytest.main([*LEAN, "-x", *names]) != pytest.ExitCode.OK)

        return _fork(run)

    def _swaps(self, module: str, mutant: Mutant) -> list[tuple[FunctionType, CodeType]] | None:
        new = mutant.code(str(PACKAGE / f"{module}.py"))
        if new is None or mutant.first_line is None:
            return None
        found = self._functions.get((module, mutant.first_line), [])
        if any(len(one.__code__.co_freevars) != len(new.co_freevars) for one in found):
            return None
        return [(one, new) for one in found] or None


def _named(item: pytest.Item) -> set[str]:
    """Its fixtures, and what their parameters name."""
    called = getattr(item, "callspec", None)
    named = [p for p in (called.params.values() if called else ()) if isinstance(p, str)]
    return {*getattr(item, "fixturenames", ()), *named}


def _write(file: Path, run: Run) -> int:
    file.write_bytes(pickle.dumps(run))
    return 0


def _fork(work: Callable[[], int]) -> int:
    """Does it in a child that says nothing and leads a group of processes."""
    child = os.fork()
    if child:
        return child
    code = BROKEN
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        code = work()
    finally:
        os._exit(code)


def end(child: int) -> None:
    """Ends it and what it has begun."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
