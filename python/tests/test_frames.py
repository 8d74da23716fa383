"""What keeps the local variables of a traceback (an error tracker, Dagster's, a test runner with
--showlocals) keeps no credential and no value of ours: an error comes without the frames that handle
them (findings 1 and 30).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import dagster as dg
import hvac.exceptions
import pytest

from strongroom_dagster import (
    AppRoleAuth,
    FakeVaultSecretsResource,
    InvalidResponseError,
    JwtAuth,
    KubernetesAuth,
    Settings,
    Source,
    StrongroomError,
    TokenAuth,
    VaultSecrets,
    VaultSecretsResource,
)
from strongroom_dagster.env import EnvironmentMap, Variable, VaultEnviron
from strongroom_dagster.fake import FakeVaultSecrets

from .harness import wait
from .harness.clock import FakeClock
from .harness.scripted import Answer, Request, Scripted
from .harness.shown import kept

CANARY = "c4n4ry"
LOGIN = {
    "auth": {"client_token": f"hvs.{CANARY}", "lease_duration": 3600, "renewable": True},
}
#: What a Vault, or what is taken for one, may answer to a read.
ANSWERS: dict[str, Answer] = {
    "403": Answer(403, {"errors": ["permission denied"]}),
    "dead": Answer(403, {"errors": ["invalid token"]}),
    "404": Answer(404, {"errors": []}),
    "400": Answer(400, {"errors": ["no"]}),
    "500": Answer(500, {"errors": ["no"]}),
    "html": Answer(404, b"<html>"),
    "another secret": Answer(200, {"data": {"key": CANARY, "password": CANARY}}),
    "no field": Answer(
        200,
        {"data": {"data": {"a": CANARY, "b": CANARY}, "metadata": {"version": 1}}},
    ),
    "odd lease": Answer(
        200,
        {"lease_id": "l", "lease_duration": "x", "data": {"username": "u", "password": CANARY}},
    ),
    "too deep": Answer(200, f'{{"data": "{CANARY}", "x": {"[" * 200_000}'.encode()),
    "no object": Answer(200, [CANARY]),
    "no UTF-8": Answer(200, f'{{"data": "{CANARY}\xff'.encode("latin-1")),
    "too long": Answer(200, {"data": CANARY * 100_000}),
}
USES: dict[str, Callable[[VaultSecrets], object]] = {
    "get": lambda c: c.get("x"),
    "field": lambda c: c.get("x#f"),
    "kv": lambda c: c.kv("x").text(),
    "api_key": lambda c: c.api_key("x"),
    "get_many": lambda c: c.get_many(["x", "y"]),
    "wait_for_rotation": lambda c: c.wait_for_rotation("x", 1),
    "database": lambda c: c.database("x").__enter__(),
    "environment": lambda c: c.environment({"A": "x"}).__enter__(),
    "read_at": lambda c: c.read_at("kv", "secret", "x").text(),
    "hvac": lambda c: c.hvac.secrets.kv.v2.read_secret_version("x", raise_on_deleted_version=True)[
        "data"
    ]["metadata"]["deletion"],
    "hvac's look up": lambda c: c.hvac.auth.token.lookup_self()["data"]["id"],
    "hvac with a token of its own": lambda c: _own(c).sys.list_policies()["data"]["keys"],
}


def _own(client: VaultSecrets) -> Any:
    client.hvac.token = f"hvs.{CANARY}.own"
    return client.hvac


def client_at(address: str, auth: Any = None, **settings: Any) -> VaultSecrets:
    values: dict[str, Any] = {
        "address": address, "deadline": 0.2, "max_response_bytes": 250_000, **settings,
    }  # fmt: skip
    auth = auth or AppRoleAuth("r", Source.of(CANARY))
    return VaultSecrets(Settings(**values), auth, clock=FakeClock().clock)


def assert_nothing_kept(use: Callable[[], object]) -> None:
    # (Of what is no object hvac makes errors of the language.)
    with pytest.raises(
        (StrongroomError, hvac.exceptions.VaultError, LookupError, TypeError)
    ) as caught:
        use()
    if isinstance(caught.value, (StrongroomError, hvac.exceptions.VaultError)):
        assert CANARY not in kept(caught.value)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_read_that_fails_keeps_no_credential(answer: str, use: str) -> None:
    with Scripted(
        lambda r: Answer(200, LOGIN) if r.path.endswith("/login") else ANSWERS[answer]
    ) as server:
        client = client_at(server.address)
        assert_nothing_kept(lambda: USES[use](client))


@pytest.mark.parametrize("use", ["get", "hvac", "database", "get_many"])
def test_a_vault_that_is_away_keeps_no_credential(use: str) -> None:
    """Before the login, and after it."""
    assert_nothing_kept(lambda: USES[use](client_at(f"http://127.0.0.1:{wait.free_port()}")))
    with Scripted(lambda _: Answer(200, LOGIN)) as server:
        client = client_at(server.address)
        client._tokens.token()
    assert_nothing_kept(lambda: USES[use](client))


REFUSALS = [
    Answer(400, {"errors": ["no"]}), Answer(500, {"errors": ["no"]}), Answer(404, b"<html>"),
    Answer(200, {"auth": {"client_token": CANARY, "lease_duration": "x"}}),
    Answer(200, {"auth": {"client_token": f"{CANARY} x", "lease_duration": 1}}),
    Answer(200, {"data": {"id": CANARY, "ttl": "x"}}), Answer(200, {"auth": None}),
]  # fmt: skip


@pytest.mark.parametrize("answer", REFUSALS, ids=range(len(REFUSALS)))
def test_a_login_that_fails_keeps_no_credential(
    answer: Answer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("frames") / "jwt"
    file.write_text(CANARY)
    odd = f"{CANARY}\nsecond"
    with Scripted(lambda _: answer) as server:
        for auth in (
            AppRoleAuth("r", Source.of(CANARY)), AppRoleAuth("r", Source.of(odd)),
            AppRoleAuth("r", Source.of(CANARY), wrapped=True), TokenAuth(Source.of(CANARY)),
            TokenAuth(Source.of(f"{CANARY} x")), JwtAuth("r", Source.of(CANARY)),
            KubernetesAuth("r", str(file)),
            JwtAuth("r", environ={
                "ACTIONS_ID_TOKEN_REQUEST_URL": server.address,
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": CANARY,
            }),
        ):  # fmt: skip
            assert_nothing_kept(partial(client_at(server.address, auth).get, "x"))
            assert_nothing_kept(partial(getattr, client_at(server.address, auth).hvac, "token"))


def test_a_renewal_that_fails_keeps_no_credential() -> None:
    clock = FakeClock()

    def answer(request: Request) -> Answer:
        if request.path.endswith("/login"):
            logins.append(1)
            return Answer(200 if len(logins) == 1 else 400, LOGIN | {"errors": ["used up"]})
        return Answer(403, {"errors": [f"invalid token {CANARY}"]})

    logins: list[int] = []
    with Scripted(answer) as server:
        client = VaultSecrets(
            Settings(address=server.address), AppRoleAuth("r", Source.of(CANARY)), clock=clock.clock
        )
        client._tokens.token()
        clock.advance(3000)
        assert_nothing_kept(lambda: client.get("x"))


def test_a_value_that_no_variable_holds_is_not_kept(tmp_path: Any) -> None:
    fake = FakeVaultSecrets({"x": f"{CANARY}\0"})
    assert_nothing_kept(lambda: fake.environment({"A": "x"}).__enter__())
    mapping = EnvironmentMap(tmp_path, {"A": Variable("kv", "secret", "x")})
    assert_nothing_kept(lambda: VaultEnviron(mapping, fake, {})["A"])


def test_what_fails_within_a_block_keeps_no_value_of_it() -> None:
    """The frames of the block itself are not those of what failed in it."""
    fake = FakeVaultSecrets({"x": CANARY})

    def use() -> None:
        with fake.environment({"A": "x"}):
            raise InvalidResponseError("of whoever uses it")

    with pytest.raises(InvalidResponseError) as caught:
        use()
    assert CANARY not in kept(caught.value)
    assert "A" not in os.environ


def test_an_environment_that_says_too_little_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"VAULT_ROLE_ID": "r", "OTHER": CANARY}
    uses: list[Callable[[], object]] = [
        lambda: VaultSecrets.from_env(given),
        lambda: VaultSecrets.from_env({**given, "VAULT_ADDR": "nonsense"}),
        lambda: Settings.from_env({**given, "VAULT_ADDR": "nonsense"}),
        VaultSecrets.from_env,
    ]
    monkeypatch.setenv("OTHER", CANARY)
    for use in uses:
        assert_nothing_kept(use)


def test_a_setting_that_dagster_resolved_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_PROXY", f"ftp://user:{CANARY}@proxy")
    monkeypatch.setenv("OUR_TTL", CANARY)
    for variables in ({"proxy": "OUR_PROXY"}, {"kv_ttl": "OUR_TTL"}):
        resource = VaultSecretsResource(token_file="/t", from_variables=variables)
        assert_nothing_kept(partial(resource.get, "x"))


@pytest.mark.parametrize("given", [
    {"secret_id": CANARY}, {"token": CANARY, "kv_ttl": 1}, {"kv_ttl": CANARY}, {"adress": CANARY},
    {"proxy": f"http://u:{CANARY}@h"}, {"from_variables": {"kv_ttl": f"{CANARY}-x"}},
    {"address": f"https://u:{CANARY}@h"}, {"secret_id": dg.EnvVar(f"{CANARY}-x")},
])  # fmt: skip
def test_a_slip_in_a_resource_is_not_kept(given: dict[str, Any]) -> None:
    for make in (VaultSecretsResource, FakeVaultSecretsResource):
        assert_nothing_kept(partial(make, **given))
        assert_nothing_kept(partial(make.configure_at_launch, **given))


def test_what_is_looked_at_here_is_what_a_tracker_keeps() -> None:
    with pytest.raises(ValueError, match="Expecting value") as caught:
        json.loads(CANARY)
    assert CANARY in kept(caught.value)


@pytest.fixture(autouse=True)
def _without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("VAULT_", "ACTIONS_"))]:
        monkeypatch.delenv(name)
