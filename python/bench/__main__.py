"""Prints what reads cost: cached, cold, in a crowd, and against plain hvac.

    python -m bench            # from the folder python/, with bin/vault and the plugin built
    python -m bench --strict   # exits with 1 if a goal is missed

One run prints everything, on one Vault behind TLS on loopback; figures of different machines or
runs are not comparable, nor those of a machine that is busy with something else.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import hvac

from strongroom_dagster import AppRoleAuth, Settings, Source, VaultSecrets
from tests.conftest import POLICY
from tests.harness.vault import VaultServer

from .ops import OPS, build_job

BASE = "bike-data-flow/production"
READS = 1000
ROUNDS = 100


class Report:
    """Lines of the table, and whether a goal was missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def line(self, what: str, value: str, goal: str = "", met: bool = True) -> None:
        """One line; `met` counts only with a goal."""
        mark = "" if not goal else "  ok" if met else "  MISSED"
        print(f"{what:<58} {value:>22}  {goal:<16}{mark}", flush=True)
        if goal and not met:
            self.missed.append(what)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.499999) - 1))]


def per_call(call: Callable[[], object], number: int) -> float:
    """Median over 7 rounds of this thread's seconds for one call, which waits for nothing."""
    rounds = []
    for _ in range(7):
        began = time.thread_time()
        for _ in range(number):
            call()
        rounds.append((time.thread_time() - began) / number)
    return statistics.median(rounds)


def cached(report: Report, client: VaultSecrets) -> None:
    """A hit of each kind."""
    client.get_many(["bench", "apikey:bench"])
    for what, most, call in (
        ('get("bench")', 0.5, lambda: client.get("bench")),
        ('get("apikey:bench")', 0.5, lambda: client.get("apikey:bench")),
        ('kv("bench")', 1.0, lambda: client.kv("bench")),
        ('api_key("bench")', 1.0, lambda: client.api_key("bench")),
    ):
        micros = per_call(call, 200_000) * 1e6
        report.line(f"cached {what}, median", f"{micros:.2f} µs", f"< {most} µs", micros < most)

    def crowd() -> None:
        for _ in range(50_000):
            client.get("bench")

    threads = [threading.Thread(target=crowd) for _ in range(8)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = 8 * 50_000 / (time.perf_counter() - began)
    report.line("cached get, 8 threads together", f"{rate / 1e6:.2f} M/s")


def cold(report: Report, make: Callable[[], VaultSecrets]) -> None:
    """Login and first read: a new client each time, so also new TLS."""
    times: list[float] = []
    for _ in range(200):
        client = make()
        began = time.perf_counter()
        client.get("bench")
        times.append(time.perf_counter() - began)
        client.close()
    report.line("cold login and first read, p50 of 200", f"{percentile(times, 0.5) * 1e3:.1f} ms")
    p99 = percentile(times, 0.99)
    report.line("cold login and first read, p99", f"{p99 * 1e3:.1f} ms", "< 500 ms", p99 < 0.5)


def crowd_of_clients(report: Report, make: Callable[[], VaultSecrets]) -> None:
    """50 clients that start in the same moment in one process, ten times."""
    times: list[float] = []
    for _ in range(10):
        clients = [make() for _ in range(50)]
        barrier = threading.Barrier(50)

        def first(client: VaultSecrets, barrier: threading.Barrier = barrier) -> float:
            barrier.wait()
            began = time.perf_counter()
            client.get("bench")
            return time.perf_counter() - began

        with ThreadPoolExecutor(50) as pool:
            times += pool.map(first, clients)
        for client in clients:
            client.close()
    report.line("50 cold clients in threads, p50 of 500", f"{percentile(times, 0.5) * 1e3:.1f} ms")
    report.line("50 cold clients in threads, p99", f"{percentile(times, 0.99) * 1e3:.1f} ms")


def dagster_run(report: Report, environ: dict[str, str]) -> None:
    """One real run whose 50 ops are 50 processes at once."""
    os.environ.update(environ)
    directory = tempfile.mkdtemp(prefix="strongroom-bench-")
    try:
        with dg.DagsterInstance.local_temp(directory) as instance:
            with dg.execute_job(dg.reconstructable(build_job), instance=instance) as result:
                assert result.success
            messages = [entry.user_message for entry in instance.all_logs(result.run_id)]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    found = [m.split()[1:] for m in messages if m.startswith("BENCH ")]
    assert len({pid for pid, *_ in found}) == OPS
    figures = [[float(number) for number in numbers] for _, *numbers in found]
    what = f"run of {OPS} concurrent ops: login and first read"
    ours, plain = [f[0] for f in figures], [f[2] for f in figures]
    own = [seconds - waited for seconds, waited, *_ in figures]
    report.line(f"{what}, p50", f"{percentile(ours, 0.5) * 1e3:.1f} ms")
    p99 = percentile(ours, 0.99)
    report.line(f"{what}, p99", f"{p99 * 1e3:.1f} ms", "< 400 ms", p99 < 0.4)
    report.line("  without waiting for a core, p50", f"{percentile(own, 0.5) * 1e3:.1f} ms")
    report.line("  without waiting for a core, p99", f"{percentile(own, 0.99) * 1e3:.1f} ms")
    report.line("  plain hvac in the same ops, p50", f"{percentile(plain, 0.5) * 1e3:.1f} ms")
    theirs = percentile(plain, 0.99)
    report.line("  plain hvac in the same ops, p99", f"{theirs * 1e3:.1f} ms")
    report.line("  p99, ours to plain hvac", f"{p99 / theirs:.2f}", "< 1", p99 < theirs)
    report.line("  load of the machine, 1 minute", f"{os.getloadavg()[0]:.1f}")


def whole_life(
    report: Report, server: VaultServer, make: Callable[[], VaultSecrets], role: tuple[str, str]
) -> None:
    """Login, one read, revocation of the token: with both, in turn."""

    def plain() -> None:
        client = hvac.Client(server.https, token="", verify=server.ca)
        client.auth.approle.login(*role)
        client.secrets.kv.v2.read_secret_version(f"{BASE}/bench", raise_on_deleted_version=True)
        client.auth.token.revoke_self()
        client.adapter.close()

    def ours() -> None:
        with make() as client:
            client.get("bench")

    times: dict[Callable[[], None], list[float]] = {plain: [], ours: []}
    for number in range(2 * ROUNDS):
        for way in (plain, ours) if number % 2 else (ours, plain):
            began = time.perf_counter()
            way()
            times[way].append(time.perf_counter() - began)
    mine, theirs = statistics.median(times[ours]), statistics.median(times[plain])
    what = "login, read and revoke"
    report.line(f"{what} with plain hvac, median of {2 * ROUNDS}", f"{theirs * 1e3:.1f} ms")
    report.line(f"{what} with VaultSecrets", f"{mine * 1e3:.1f} ms")
    ratio = mine / theirs
    report.line(f"{what}, ours to plain hvac", f"{ratio:.2f}", "<= 1", ratio <= 1.0)


def against_hvac(
    report: Report, server: VaultServer, make: Callable[[], VaultSecrets], role: tuple[str, str]
) -> None:
    """A job of 1,000 reads of one secret, in the same process; requests from Vault's audit file."""
    path = f"{BASE}/bench"

    def plain() -> None:
        client = hvac.Client(server.https, token="", verify=server.ca)
        client.auth.approle.login(*role)
        for _ in range(READS):
            client.secrets.kv.v2.read_secret_version(path, raise_on_deleted_version=True)

    def ours() -> None:
        client = make()
        for _ in range(READS):
            client.get("bench")

    def measured(job: Callable[[], None]) -> tuple[float, int, int]:
        reads = server.count(f"secret/data/{path}")
        logins = server.count("auth/approle/login")
        began = time.perf_counter()
        job()
        seconds = time.perf_counter() - began
        return (
            seconds,
            server.count(f"secret/data/{path}") - reads,
            server.count("auth/approle/login") - logins,
        )

    theirs, mine = measured(plain), measured(ours)
    report.line(
        f"{READS} reads with plain hvac",
        f"{theirs[0] * 1e3:.0f} ms, {theirs[1]} reads, {theirs[2]} login",
    )
    report.line(
        f"{READS} reads with VaultSecrets",
        f"{mine[0] * 1e3:.1f} ms, {mine[1]} read, {mine[2]} login",
    )
    ratio = theirs[1] / mine[1]
    report.line(
        "read requests, plain hvac to ours", f"{ratio:.0f} : 1", ">= 1000 : 1", ratio >= 1000
    )
    report.line("time, plain hvac to ours", f"{theirs[0] / mine[0]:.0f} : 1")


def main() -> int:
    """Runs all; 1 if a goal was missed."""
    report = Report()
    directory = Path(tempfile.mkdtemp(prefix="strongroom-bench-"))
    server = VaultServer(directory)
    try:
        server.start()
        server.initialise()
        server.mount_apikeys()
        server.admin().adapter.post("/v1/apikeys/providers/internal", json={"type": "generated"})
        server.define_key(f"{BASE}/bench")
        server.put(f"{BASE}/bench", value="postgres://bench")
        role = server.approle("bench", POLICY)
        secret_id_file = directory / "secret-id"
        secret_id_file.write_text(role[1])

        def make(**settings: Any) -> VaultSecrets:
            values = {
                "address": server.https, "ca_bundle": server.ca,
                "app": "bike-data-flow", "environment": "production", **settings,
            }  # fmt: skip
            return VaultSecrets(Settings(**values), AppRoleAuth(role[0], Source.of(role[1])))

        print(f"Python {platform.python_version()}, {os.cpu_count()} cores, Vault on TLS loopback")
        client = make(kv_ttl=3600.0, api_key_revalidate=3600.0)
        cached(report, client)
        client.close()
        cold(report, make)
        crowd_of_clients(report, make)
        whole_life(report, server, make, role)
        against_hvac(report, server, make, role)
        dagster_run(
            report,
            {
                "VAULT_ADDR": server.https, "VAULT_CACERT": server.ca, "VAULT_ROLE_ID": role[0],
                "VAULT_SECRET_ID_FILE": str(secret_id_file), "DAGSTER_DISABLE_TELEMETRY": "yes",
            },
        )  # fmt: skip
    finally:
        server.kill()
        shutil.rmtree(directory)
    for what in report.missed:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if report.missed and "--strict" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
