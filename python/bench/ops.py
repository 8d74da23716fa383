"""A Dagster job of 50 ops that run at the same time, each in a process of its own."""

import os
import time
from pathlib import Path

import dagster as dg
import hvac

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


def _ours(vault: VaultSecretsResource) -> None:
    vault.get("bench")


def _plain_hvac(_: VaultSecretsResource) -> None:
    client = hvac.Client(os.environ["VAULT_ADDR"], token="", verify=os.environ["VAULT_CACERT"])
    secret_id = Path(os.environ["VAULT_SECRET_ID_FILE"]).read_text()
    client.auth.approle.login(os.environ["VAULT_ROLE_ID"], secret_id)
    client.secrets.kv.v2.read_secret_version(
        "bike-data-flow/production/bench", raise_on_deleted_version=True
    )


def _op(number: int) -> dg.OpDefinition:
    """Logs in and reads with both, in an order that alternates from op to op."""

    @dg.op(name=f"read_{number}")
    def read(context: dg.OpExecutionContext, vault: VaultSecretsResource) -> None:
        ways = [_ours, _plain_hvac]
        took = {}
        for way in ways if number % 2 else reversed(ways):
            began, waited = time.perf_counter(), _waited_for_a_core()
            way(vault)
            took[way] = (time.perf_counter() - began, _waited_for_a_core() - waited)
        figures = " ".join(f"{s:.6f} {w:.6f}" for s, w in (took[way] for way in ways))
        context.log.info(f"BENCH {os.getpid()} {figures}")

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
