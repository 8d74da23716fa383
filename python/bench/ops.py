"""A Dagster job of 50 ops that run at the same time, each in a process of its own."""

import os
import time
from pathlib import Path

import dagster as dg

from strongroom_dagster import VaultSecretsResource

OPS = 50


def _resource() -> VaultSecretsResource:
    return VaultSecretsResource(
        address=dg.EnvVar("VAULT_ADDR"),
        ca_bundle=dg.EnvVar("VAULT_CACERT"),
        role_id=dg.EnvVar("VAULT_ROLE_ID"),
        secret_id_file=dg.EnvVar("VAULT_SECRET_ID_FILE"),
        app="bike-data-flow",
        environment="production",
    )


def _waited_for_a_core() -> float:
    """Seconds for which this thread was ready to run, but had no core (Linux; else 0)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def _op(number: int) -> dg.OpDefinition:
    @dg.op(name=f"read_{number}")
    def read(context: dg.OpExecutionContext, vault: VaultSecretsResource) -> None:
        began, waited = time.perf_counter(), _waited_for_a_core()
        vault.get("bench")  # a new process: login and first read
        cold = time.perf_counter() - began
        context.log.info(f"BENCH {os.getpid()} {cold:.6f} {_waited_for_a_core() - waited:.6f}")

    return read


def build_job() -> dg.JobDefinition:
    """For `dg.reconstructable`."""

    @dg.job(
        name="fifty",
        resource_defs={"vault": _resource()},
        executor_def=dg.multiprocess_executor.configured(
            {
                "max_concurrent": OPS,
                "start_method": {"forkserver": {"preload_modules": ["bench.ops"]}},
            }
        ),
    )
    def fifty() -> None:
        for number in range(OPS):
            _op(number)()

    return fifty
