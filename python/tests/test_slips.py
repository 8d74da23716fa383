"""A credential in the wrong field: no error quotes it, with its causes and contexts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import dagster as dg
import pytest

from strongroom_dagster import StrongroomError, VaultSecretsResource

from .test_resource import SECRET, everything_said, resource

#: A secret without a character that no name of a variable has.
PLAIN_SECRET = "hvsCAESIJ3cr3tSUPER"


def first_read(given: VaultSecretsResource) -> str:
    """What is said when somebody reads with the resource."""
    with pytest.raises(StrongroomError) as caught:
        given.get("anything")
    return everything_said(caught.value)


#: The ways to log in, each with the fields that a hurried reader confuses.
SLIPS: list[dict[str, Any]] = [
    {"role_id": "r", "secret_id_file": PLAIN_SECRET},
    {"role_id": "r", "secret_id_file": f"/{PLAIN_SECRET}"},
    {"role_id": "r", "secret_id_file": f"secrets/{PLAIN_SECRET}"},
    {"role_id": "r", "secret_id_variable": PLAIN_SECRET},
    {"role_id": "r", "wrapped_secret_id_file": PLAIN_SECRET},
    {"role_id": "r", "wrapped_secret_id_variable": PLAIN_SECRET},
    {"role_id": PLAIN_SECRET, "secret_id_variable": "NOT_SET"},
    {"role_id": "r", "secret_id_variable": "NOT_SET", "approle_mount": f"{PLAIN_SECRET}/"},
    {"token_file": PLAIN_SECRET},
    {"token_variable": PLAIN_SECRET},
    {"jwt_role": "r", "jwt_file": PLAIN_SECRET},
    {"jwt_role": "r", "jwt_variable": PLAIN_SECRET},
    {"jwt_role": PLAIN_SECRET},
    {"kubernetes_role": PLAIN_SECRET},
    {"kubernetes_role": "r", "kubernetes_jwt_file": PLAIN_SECRET},
    *(
        {"token_variable": "NOT_SET", name: PLAIN_SECRET}
        for name in ("address", "ca_bundle", "client_certificate", "client_key", "proxy")
    ),
    *(
        {"token_variable": "NOT_SET", name: f"{PLAIN_SECRET}//"}
        for name in ("app", "kv_mount", "apikeys_mount", "database_mount")
    ),
    {"token_variable": "NOT_SET", "environment": PLAIN_SECRET},
    {"token_variable": "NOT_SET", "namespace": f"{PLAIN_SECRET} "},
    {"token_variable": "NOT_SET", "tls_server_name": f"{PLAIN_SECRET}\n"},
    {"token_variable": "NOT_SET", "from_variables": {"kv_ttl": PLAIN_SECRET}},
]  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: "-".join(slip))
def test_no_error_quotes_a_credential_in_the_wrong_field(slip: dict[str, Any]) -> None:
    given = resource(**{"address": "http://127.0.0.1:1", "deadline": 0.2, **slip})
    assert PLAIN_SECRET not in first_read(given)
    if not {"token_variable", "approle_mount"} & set(slip):
        assert PLAIN_SECRET not in repr(given)


@pytest.mark.parametrize("slip", SLIPS[:9:2], ids=lambda slip: "-".join(slip))
def test_no_error_quotes_a_credential_in_run_configuration(slip: dict[str, Any]) -> None:
    """Run configuration is stored by Dagster as it is; what we add to the event log is not it."""

    @dg.op
    def reads(vault: VaultSecretsResource) -> None:
        vault.get("anything")

    @dg.job(resource_defs={"vault": VaultSecretsResource.configure_at_launch()})
    def job() -> None:
        reads()

    config = {"address": "http://127.0.0.1:1", "deadline": 0.2, **slip}
    with pytest.raises(Exception) as caught:  # noqa: PT011
        job.execute_in_process(run_config={"resources": {"vault": {"config": config}}})
    assert PLAIN_SECRET not in everything_said(caught.value)


def test_no_error_quotes_a_credential_that_is_set_or_nested() -> None:
    class Loader(dg.ConfigurableResource[Any]):
        vault: VaultSecretsResource

    given = VaultSecretsResource(token=dg.EnvVar("VAULT_TOKEN"))
    nested: list[Any] = [
        SECRET, SECRET.encode(), [SECRET], (SECRET,), dg.EnvVar(SECRET), {"secret_id": SECRET},
        {"token_variable": SECRET}, {SECRET: "x"}, {"address": [SECRET]},
    ]  # fmt: skip
    names = ("address", "role_id", "namespace", "app", "environment", "ca_bundle", "kv_mount")
    uses: list[Callable[[], object]] = [
        *(partial(setattr, given, name, SECRET) for name in ("address", "secret_id", "vault")),
        *(partial(Loader, vault=value) for value in nested),
        *(partial(resource, **{name: dg.EnvVar(SECRET)}) for name in names),
    ]
    for use in uses:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            use()
        assert SECRET not in everything_said(caught.value)


def test_a_secret_that_dagster_resolved_from_a_variable_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VAULT_SECRET_ID", SECRET)
    given = VaultSecretsResource(role_id="r", secret_id_file=dg.EnvVar("VAULT_SECRET_ID"))
    with given.process_config_and_initialize_cm() as vault:
        assert SECRET not in first_read(vault)
