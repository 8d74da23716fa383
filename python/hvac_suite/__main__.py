"""Runs hvac's own integration suite over `VaultSecrets.hvac`.

    python -m hvac_suite        # from the folder python/, with bin/vault built

The suite is in hvac's source package, which is fetched from the package index by its hash into
.cache/ and is no part of this repository. Whatever passes there with plain hvac has to pass over
ours; that list is passes.txt. With STRONGROOM_SOAK=1 the list is measured anew first, and it has
to be the one that is kept; a change of hvac's or Vault's version is a reason for another list,
which is then in .cache/.

Not run: the LDAP tests, which need a Java server.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CACHE = REPOSITORY / ".cache" / "hvac-suite"
VAULT = Path(os.environ.get("VAULT_BIN") or REPOSITORY / "bin" / "vault").resolve()
PASSES = HERE / "passes.txt"
SKIPPED = ("test_ldap.py",)
#: They move a mount and look at once. Vault answers before it has done so, over any client.
CHANCE = {
    "tests/integration_tests/api/system_backend/test_mount.py::TestMount::test_secret_backend_manipulation",
    "tests/integration_tests/v1/test_system_backend.py::TestSystemBackend::test_secret_backend_manipulation",
}
SHARDS = 2


def say(text: str) -> None:
    """One line of progress."""
    print(f"   python: hvac's suite: {text}", flush=True)


def fetch() -> Path:
    """The folder with hvac's `tests`, made once for these versions.

    Raises:
        SystemExit: the version of hvac that is installed has another suite.
    """
    version = (HERE / "source.txt").read_text().split("==")[1].split()[0]
    if (found := importlib.metadata.version("hvac")) != version:
        sys.exit(f"hvac_suite: hvac {found} is installed, and source.txt has {version}")
    wanted = b"".join((HERE / name).read_bytes() for name in ("source.txt", "requirements.txt"))
    done = CACHE / hashlib.sha256(wanted + sys.version.encode()).hexdigest()[:16]
    if done.exists():
        return done
    say(f"fetching the source package of hvac {version} (once)")
    shutil.rmtree(CACHE, ignore_errors=True)
    making = CACHE / "making"
    making.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    common = ["--no-deps", "--require-hashes"]
    subprocess.run(
        [*pip, "install", *common, "--only-binary", ":all:", "--target", making / "libraries",
         "-r", HERE / "requirements.txt"],
        check=True,
    )  # fmt: skip
    subprocess.run(
        [*pip, "download", *common, "--no-binary", "hvac", "--no-build-isolation", "-d", making,
         "-r", HERE / "source.txt"],
        check=True, env={**os.environ, "PYTHONPATH": str(making / "libraries")},
    )  # fmt: skip
    with tarfile.open(making / f"hvac-{version}.tar.gz") as package:
        inside = [m for m in package.getmembers() if m.name.startswith(f"hvac-{version}/tests/")]
        package.extractall(making, inside, filter="data")
    (making / f"hvac-{version}" / "tests").rename(making / "tests")
    (making / "tests" / "config_files" / "generated").mkdir(exist_ok=True)
    making.rename(done)
    return done


def run(folder: Path, client: str) -> set[str]:
    """The tests that pass over `plain` or `strongroom`."""
    modules = sorted(
        path.relative_to(folder)
        for path in folder.glob("tests/integration_tests/**/test_*.py")
        if path.name not in SKIPPED
    )
    began = time.monotonic()
    # The largest first, so that the shards end together.
    modules.sort(key=lambda path: -(folder / path).stat().st_size)
    with ThreadPoolExecutor(SHARDS) as pool:
        shards = [modules[n::SHARDS] for n in range(SHARDS)]
        outputs = pool.map(lambda n: _shard(folder, client, n, shards[n]), range(SHARDS))
        text = "\n".join(outputs)
    passed = set(re.findall(r"^PASSED (\S+)", text, re.MULTILINE))
    failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE))
    (CACHE / f"{client}.log").write_text(text)
    say(f"{client}: {len(passed)} passed, {len(failed)} failed, {time.monotonic() - began:.0f} s")
    return passed - CHANCE


def _shard(folder: Path, client: str, number: int, modules: list[Path]) -> str:
    version = subprocess.run([VAULT, "-version"], check=True, capture_output=True, text=True)
    found = re.search(r"v([0-9.]+)", version.stdout)
    assert found is not None
    environ = {
        "PATH": f"{CACHE / 'bin'}:/usr/bin:/bin",
        "HOME": str(CACHE),
        "PYTHONPATH": f"{folder}:{HERE}:{folder / 'libraries'}",
        "PYTEST_XDIST_WORKER": f"shard{number}",  # names the server's configuration
        "HVAC_SUITE_CLIENT": client,
        "HVAC_SUITE_VAULT_VERSION": found[1],
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider",
         "-p", "over_strongroom", "-c", os.devnull, "--rootdir", folder, *modules],
        cwd=folder, env=environ, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    )  # fmt: skip
    if done.returncode not in (0, 1):
        sys.exit(f"hvac_suite: pytest ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def _link_vault() -> None:
    """A folder with nothing but `vault` in it, for the path."""
    link = CACHE / "bin" / "vault"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(VAULT)


def main() -> int:
    """1 if something that passes with plain hvac does not over ours."""
    folder = fetch()
    _link_vault()
    kept = {line for line in PASSES.read_text().split("\n") if line and not line.startswith("#")}
    missing: set[str] = set()
    if os.environ.get("STRONGROOM_SOAK"):
        measured = run(folder, "plain")
        missing |= _differ(measured, kept)
    passed = run(folder, "strongroom")
    if lost := sorted(kept - passed):
        say(f"{len(lost)} pass with plain hvac, and not over ours; see {CACHE / 'strongroom.log'}:")
        print("\n".join(lost))
    return 1 if lost or missing else 0


def _differ(measured: set[str], kept: set[str]) -> set[str]:
    lines = "\n".join(sorted(measured)) + "\n"
    (CACHE / "passes.txt").write_text(lines)
    differ = measured ^ kept
    if differ:
        say(f"plain hvac passes other tests than passes.txt says; measured: {CACHE}/passes.txt")
        print("\n".join(f"{'+' if name in measured else '-'} {name}" for name in sorted(differ)))
    return differ


if __name__ == "__main__":
    sys.exit(main())
