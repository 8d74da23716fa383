"""No secret in repr, logs, exceptions, tracebacks' context or pickles."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import traceback

import pytest
import requests

from strongroom_dagster import (
    ApiKey,
    AppRoleAuth,
    Credentials,
    SecretMapping,
    SecretPicklingError,
    Settings,
    Source,
    VaultSecrets,
    VaultUnavailableError,
)
from strongroom_dagster.masked import Masked, Sensitive

from .conftest import ClientFactory
from .harness.scripted import Answer, Scripted
from .harness.vault import VaultServer
from .harness.wait import free_port

SECRET = "s3cr3t-value"

MAPPING = SecretMapping({"value": SECRET}, path="secret/x", version=3)
MASKED: list[Masked] = [
    MAPPING,
    ApiKey(name="x", values=MAPPING, version=3),
    Credentials("v-user", SECRET, "lease"),
    Sensitive(SECRET),
]


@pytest.mark.parametrize("value", MASKED, ids=lambda v: type(v).__name__)
def test_values_mask_themselves(value: Masked) -> None:
    for text in (repr(value), str(value), f"{value}", f"{value!r}", "%s" % value, repr([value])):  # noqa: UP031
        assert SECRET not in text
        assert "****" in text
    for dump in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(SecretPicklingError, match="refused to pickle"):
            dump(value)


def test_the_client_is_pickled_without_what_it_holds(
    vault: VaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    role_id, secret_id = vault.approle("pickle", 'path "secret/data/p" { capabilities = ["read"] }')
    vault.put("p", value=SECRET)
    monkeypatch.setenv("PICKLE_SECRET_ID", secret_id)
    settings = Settings(address=vault.http)
    client = VaultSecrets(settings, AppRoleAuth(role_id, Source(variable="PICKLE_SECRET_ID")))
    assert client.get("p") == SECRET
    token = client.hvac.token
    dump = pickle.dumps(client)
    for hidden in (SECRET, secret_id, token):
        assert hidden.encode() not in dump
    other = pickle.loads(dump)
    assert other.get("p") == SECRET
    assert other.hvac.token != token
    assert other.stats.logins == 1
    for one in (client, other):
        one.close()
    inline = VaultSecrets(settings, AppRoleAuth(role_id, Source.of(secret_id)))
    with pytest.raises(SecretPicklingError):
        pickle.dumps(inline)


def test_logs_of_everything_show_nothing(vault: VaultServer, client_for: ClientFactory) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    try:
        vault.put("bike-data-flow/production/logged", value=SECRET)
        client = client_for(vault)
        assert client.get("logged") == SECRET
        token = str(client.hvac.token)
        with pytest.raises(LookupError):
            client.get("logged#nothing")
        client.close()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    text = stream.getvalue()
    assert "logged in to vault" in text
    assert SECRET not in text
    assert token not in text


@pytest.mark.parametrize("fault", ["refused", "answers 500"])
def test_errors_hold_neither_request_nor_secret(fault: str) -> None:
    with Scripted(lambda _: Answer(500, {"errors": ["boom"]})) as server:
        address = server.address if fault == "answers 500" else f"http://127.0.0.1:{free_port()}"
        client = VaultSecrets(
            Settings(address=address, deadline=0.3), AppRoleAuth("r", Source.of(SECRET))
        )
        with pytest.raises(VaultUnavailableError) as caught:
            client.get("x")
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in "".join(traceback.format_exception(error))
        assert not isinstance(error, requests.RequestException)
        for value in [*error.args, *vars(error).values()]:
            assert not isinstance(value, (requests.PreparedRequest, requests.Response))
        error = error.__cause__ or error.__context__
