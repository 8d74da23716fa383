"""Ways to log in and the life of a token, against a real Vault.

| finding | tests |
|---|---|
| 9 | test_a_policy_that_denies_revoking_*, test_a_token_that_stays_* |
| 15 | test_http.test_a_token_*, test_http.test_an_odd_lifetime_* |
| 28 | test_a_mapping_* |
| 31 | test_a_wrapping_token_* |
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
from collections import ChainMap, UserDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from strongroom_dagster import (
    AppRoleAuth,
    AuthenticationError,
    ConfigurationError,
    JwtAuth,
    KubernetesAuth,
    SecretPicklingError,
    Settings,
    Source,
    TokenAuth,
    TokenFileAuth,
    VaultSecrets,
)
from strongroom_dagster.auth_env import auth_from_env
from strongroom_dagster.env import EnvironmentMap, Variable, VaultEnviron
from strongroom_dagster.methods import AuthMethod

from .conftest import POLICY, ClientFactory
from .harness.clock import FakeClock, ShiftedClock
from .harness.scripted import Answer, Request, Scripted
from .harness.shown import everything
from .harness.vault import DOCS, VaultServer

BASE = "bike-data-flow/production"


def client_with(
    server: VaultServer, auth: AuthMethod, clock: ShiftedClock | None = None
) -> VaultSecrets:
    settings = Settings(
        address=server.http, app="bike-data-flow", environment="production", deadline=10.0
    )
    return VaultSecrets(settings, auth, clock=clock.clock if clock else None)


@pytest.fixture(autouse=True)
def _secret(vault: VaultServer) -> None:
    vault.put(f"{BASE}/auth", value="ok")


def test_secret_id_from_file_and_variable(
    vault: VaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role_id, secret_id = vault.approle("sources", POLICY)
    file = tmp_path / "secret-id"
    file.write_text(secret_id + "\n")
    with client_with(vault, AppRoleAuth(role_id, Source(file=str(file)))) as client:
        assert client.get("auth") == "ok"
    monkeypatch.setenv("SOME_SECRET_ID", secret_id)
    with client_with(vault, AppRoleAuth(role_id, Source(variable="SOME_SECRET_ID"))) as client:
        assert client.get("auth") == "ok"


def test_a_wrapped_secret_id_is_unwrapped_once_and_serves_every_login(vault: VaultServer) -> None:
    clock = ShiftedClock()
    role_id, _ = vault.approle("wrapped", POLICY, token_ttl="60s", token_max_ttl="60s")
    made = vault.admin().adapter.post("/v1/auth/approle/role/wrapped/secret-id", wrap_ttl="5m")
    token = made["wrap_info"]["token"]
    auth = AppRoleAuth(role_id, Source.of(token), wrapped=True)
    with client_with(vault, auth, clock) as client:
        assert client.get("auth") == "ok"
        clock.shift = 61.0
        client.invalidate()
        assert client.get("auth") == "ok"
        assert client.stats.logins == 2
        with pytest.raises(SecretPicklingError):
            pickle.dumps(client)
    again = client_with(vault, AppRoleAuth(role_id, Source.of(token), wrapped=True))
    with pytest.raises(AuthenticationError, match="wrapping token is not valid"):
        again.get("auth")


def test_a_wrapping_token_from_elsewhere_is_refused(vault: VaultServer) -> None:
    role_id, _ = vault.approle("intercepted", POLICY)
    made = vault.admin().adapter.post(
        "/v1/sys/wrapping/wrap", json={"secret_id": "attacker"}, wrap_ttl="5m"
    )
    auth = AppRoleAuth(role_id, Source.of(made["wrap_info"]["token"]), wrapped=True)
    with pytest.raises(AuthenticationError, match='made by "sys/wrapping/wrap"') as caught:
        client_with(vault, auth).get("auth")
    assert "intercepted" in caught.value.hint


def test_a_wrapping_token_of_another_approle_mount_is_refused(vault: VaultServer) -> None:
    admin = vault.admin()
    role_id, _ = vault.approle("two-mounts", POLICY)
    for mount in ("approle-2", "deep/approle"):
        admin.sys.enable_auth_method("approle", path=mount)
        admin.auth.approle.create_or_update_approle(
            "two-mounts", token_policies=["two-mounts"], mount_point=mount
        )
        made = admin.adapter.post(f"/v1/auth/{mount}/role/two-mounts/secret-id", wrap_ttl="5m")[
            "wrap_info"
        ]["token"]
        for other in ("approle", "approle-", "role"):
            auth = AppRoleAuth(role_id, Source.of(made), wrapped=True, mount=other)
            with pytest.raises(AuthenticationError, match=f'made by "auth/{mount}/role'):
                client_with(vault, auth).get("auth")
        info = admin.adapter.post("/v1/sys/wrapping/lookup", json={"token": made})
        assert info["data"]["creation_path"].startswith(f"auth/{mount}/")  # it was not unwrapped
        own = admin.auth.approle.read_role_id("two-mounts", mount_point=mount)["data"]["role_id"]
        auth = AppRoleAuth(own, Source.of(made), wrapped=True, mount=mount)
        with client_with(vault, auth) as client:
            assert client.get("auth") == "ok"
    custom = admin.adapter.post(
        "/v1/auth/approle/role/two-mounts/custom-secret-id",
        json={"secret_id": "chosen-by-somebody"}, wrap_ttl="5m",
    )["wrap_info"]["token"]  # fmt: skip
    with pytest.raises(AuthenticationError, match="not by this AppRole mount"):
        client_with(vault, AppRoleAuth(role_id, Source.of(custom), wrapped=True)).get("auth")


def test_a_policy_that_denies_revoking_is_said(
    vault: VaultServer, client_for: ClientFactory, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_for(vault, role_options={"token_no_default_policy": True})
    assert client.get("auth") == "ok"
    client.close()
    (warning,) = [r for r in caplog.records if r.levelname == "WARNING"]
    text = warning.getMessage()
    assert "the policy does not allow update on auth/token/revoke-self" in text
    assert "it ends by itself in 3" in text


def test_a_token_that_is_dead_already_is_nothing_to_say(
    vault: VaultServer, client_for: ClientFactory, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_for(vault)
    vault.admin().auth.token.revoke(client.hvac.token)
    client.close()
    assert [r for r in caplog.records if r.levelname == "WARNING"] == []


@pytest.mark.skipif(not DOCS.exists(), reason="without the repository")
def test_a_policy_as_in_the_documentation_is_enough(
    vault: VaultServer, client_for: ClientFactory, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = re.findall(r"```hcl\n(.*?)```", (DOCS / "dagster.md").read_text(), re.DOTALL)
    (policy,) = [b for b in blocks if "secret/data/bike-data-flow" in b]
    clock = ShiftedClock()
    options = {"token_no_default_policy": True, "token_ttl": "60s", "token_max_ttl": "1h"}
    client = client_for(vault, policy=policy, clock=clock.clock, role_options=options)
    assert client.get("auth") == "ok"
    clock.shift = 50.0
    client.invalidate()
    assert client.get("auth") == "ok"
    assert (client.stats.logins, client.stats.renewals) == (1, 1)
    vault.admin().auth.token.revoke(client.hvac.token)
    client.invalidate()
    assert client.get("auth") == "ok"  # it may look itself up, so a dead token is known at once
    client.close()
    assert [r for r in caplog.records if r.levelname == "WARNING"] == []


@pytest.mark.parametrize("status", [400, 404, 405, 500])
def test_a_token_that_stays_is_said(status: int, caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: Request) -> Answer:
        if request.path.endswith("login"):
            auth = {"client_token": "hvs.canary", "lease_duration": 3600, "renewable": True}
            return Answer(200, {"auth": auth})
        if request.path.endswith("revoke-self"):
            return Answer(status, {"errors": ["no"]})
        return Answer(200, {"data": {"data": {"value": "v"}, "metadata": {"version": 1}}})

    with Scripted(answer) as server:
        settings, auth = Settings(address=server.address), AppRoleAuth("r", Source.of("s"))
        with VaultSecrets(settings, auth, clock=FakeClock().clock) as client:
            assert client.get("x") == "v"
    assert f"could not revoke the vault token (status {status}); it ends by itself" in caplog.text
    assert "canary" not in caplog.text


def test_a_mapping_is_read_instead_of_the_environment(
    vault: VaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = vault.admin()
    admin.sys.create_or_update_policy("given", POLICY)
    given = admin.auth.token.create(policies=["given"], ttl="1h")["auth"]["client_token"]
    role_id, secret_id = vault.approle("given", POLICY)
    for name in (
        "VAULT_TOKEN",
        "VAULT_SECRET_ID",
        "VAULT_ROLE_ID",
        "VAULT_ADDR",
        "VAULT_NAMESPACE",
    ):
        monkeypatch.setenv(name, "http://of-the-process")
    where = {"VAULT_ADDR": vault.http, "STRONGROOM_APP": "bike-data-flow/production"}
    by_token = {**where, "VAULT_TOKEN": given}
    for environ, path in (
        (by_token, "auth/token/create"),
        ({**where, "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id}, "auth/approle/login"),
    ):
        with VaultSecrets.from_env(environ) as client:
            assert client.get("auth") == "ok"
            assert client.hvac.auth.token.lookup_self()["data"]["path"] == path
            assert secret_id not in repr(client._auth)
            assert given not in repr(client._auth)
            with pytest.raises(SecretPicklingError):
                pickle.dumps(client)
    # It is read at each login, as a file is.
    client = VaultSecrets.from_env(by_token)
    by_token["VAULT_TOKEN"] = vault.root_token
    assert client.hvac.token == vault.root_token
    mapped = VaultEnviron(
        EnvironmentMap(Path("f"), {"X": Variable("kv", "secret", f"{BASE}/auth")}), environ=by_token
    )
    assert mapped["X"] == "ok"


@pytest.mark.parametrize("kind", ["batch", "service"])
def test_a_batch_token_is_not_revoked_which_no_vault_does(
    vault: VaultServer, client_for: ClientFactory, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    vault.put(f"{BASE}/auth", value="ok")
    before = vault.count("auth/token/revoke-self")
    client = client_for(vault, role_options={"token_type": kind})
    assert client.get("auth") == "ok"
    client.close()
    assert vault.count("auth/token/revoke-self") - before == (kind == "service")
    assert "could not revoke" not in caplog.text


@pytest.mark.parametrize("environ", [[("VAULT_TOKEN", "t")], "VAULT_TOKEN=t", 5, {"VAULT_TOKEN"}])
def test_what_is_no_mapping_is_not_read_as_an_environment(environ: Any) -> None:
    uses: list[Callable[[], object]] = [
        lambda: VaultSecrets.from_env(environ), lambda: Settings.from_env(environ),
        lambda: auth_from_env(environ), lambda: VaultEnviron(environ=environ),
        lambda: Source(variable="VAULT_TOKEN", environ=environ).read("token"),
        lambda: JwtAuth("r", environ=environ).login(None),  # type: ignore[arg-type]
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(ConfigurationError, match=r"environ: a .* must be a mapping"):
            use()


@pytest.mark.parametrize("value", [5, b"hvs.c4n4ry", ["hvs.c4n4ry"], True])
def test_what_is_no_text_in_a_mapping_is_no_credential(value: Any) -> None:
    kind = type(value).__name__
    given = {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": value}
    with pytest.raises(AuthenticationError, match=f"of type {kind} and no text") as caught:
        VaultSecrets.from_env(given).get("x")
    assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize(
    "environ",
    [
        MappingProxyType({"VAULT_TOKEN": "t"}),
        ChainMap({}, {"VAULT_TOKEN": "t"}),
        UserDict({"VAULT_TOKEN": "t"}),
        defaultdict(str, VAULT_TOKEN="t"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_any_mapping_is_an_environment(environ: Any) -> None:
    assert Settings.from_env(environ) == Settings()
    assert isinstance(auth_from_env(environ), TokenAuth)
    assert Source(variable="VAULT_TOKEN", environ=environ).read("token") == "t"


def test_a_mapping_that_is_the_environment_may_be_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "t")
    for environ in (None, os.environ):
        assert pickle.loads(pickle.dumps(VaultSecrets.from_env(environ)))


def test_token_and_token_file_of_vault_agent(vault: VaultServer, tmp_path: Path) -> None:
    admin = vault.admin()
    admin.sys.create_or_update_policy("plain", POLICY)
    first = admin.auth.token.create(policies=["plain"], ttl="1h")["auth"]["client_token"]
    client = client_with(vault, TokenAuth(Source.of(first)))
    assert client.get("auth") == "ok"
    client.close()
    assert admin.lookup_token(first)["data"]["id"] == first  # not ours to revoke

    sink = tmp_path / "sink"
    sink.write_text(first)
    with client_with(vault, TokenFileAuth(str(sink))) as client:
        assert client.get("auth") == "ok"
        second = admin.auth.token.create(policies=["plain"], ttl="1h")["auth"]["client_token"]
        sink.write_text(second)
        admin.auth.token.revoke(first)
        client.invalidate()
        assert client.get("auth") == "ok"
        admin.auth.token.revoke(second)
        client.invalidate()
        with pytest.raises(AuthenticationError, match="refused the login by token file"):
            client.get("auth")


def test_kubernetes(vault: VaultServer, tmp_path: Path) -> None:
    def review(request: Request) -> Answer:
        token = json.loads(request.body)["spec"]["token"]
        good = token == jwt
        user = {
            "username": "system:serviceaccount:dagster:user-code",
            "uid": "9d2a", "groups": ["system:serviceaccounts"],
        }  # fmt: skip
        status = {"authenticated": True, "user": user} if good else {"error": "no"}
        return Answer(201, {"kind": "TokenReview", "status": status})

    def part(data: dict[str, str]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    claims = {
        "iss": "kubernetes/serviceaccount",
        "sub": "system:serviceaccount:dagster:user-code",
        "kubernetes.io/serviceaccount/namespace": "dagster",
        "kubernetes.io/serviceaccount/service-account.name": "user-code",
        "kubernetes.io/serviceaccount/service-account.uid": "9d2a",
    }
    jwt = f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.{'A' * 342}"
    file = tmp_path / "token"
    file.write_text(jwt)
    admin = vault.admin()
    admin.sys.enable_auth_method("kubernetes")
    admin.sys.create_or_update_policy("pods", POLICY)
    with Scripted(review) as cluster:
        admin.adapter.post(
            "/v1/auth/kubernetes/config",
            json={"kubernetes_host": cluster.address, "disable_local_ca_jwt": True},
        )
        admin.adapter.post(
            "/v1/auth/kubernetes/role/pods",
            json={
                "bound_service_account_names": "user-code",
                "bound_service_account_namespaces": "dagster",
                "token_policies": "pods",
            },
        )
        with client_with(vault, KubernetesAuth("pods", str(file))) as client:
            assert client.get("auth") == "ok"
        file.write_text(jwt[:-5] + "BBBBB")
        with pytest.raises(AuthenticationError, match="refused the login by Kubernetes"):
            client_with(vault, KubernetesAuth("pods", str(file))).get("auth")


def test_renewal_then_login_at_the_maximum_lifetime(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    clock = ShiftedClock()
    client = client_for(
        vault, clock=clock.clock, role_options={"token_ttl": "60s", "token_max_ttl": "90s"}
    )
    client.get("auth")
    held = client._tokens.held
    assert held is not None
    assert held.renewable
    assert held.ttl == 60.0
    clock.shift = 50.0  # past two thirds
    client.invalidate()
    client.get("auth")
    assert (client.stats.logins, client.stats.renewals) == (1, 1)
    # Vault's own clock has not moved, so the real lifetime goes on; ours says 60 s again.
    clock.shift = 200.0
    client.invalidate()
    client.get("auth")
    assert client.stats.logins == 2


def test_a_renewal_cut_short_by_the_maximum_is_the_last(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    clock = ShiftedClock()
    client = client_for(
        vault, clock=clock.clock,
        role_options={"token_ttl": "3600s", "token_max_ttl": "3600s", "token_explicit_max_ttl": "3600s"},
    )  # fmt: skip
    client.get("auth")
    token = client._tokens.held
    assert token is not None
    token.grant(100.0, client.now(), renewable=True)
    assert not token.renewable
    clock.shift = 80.0
    client.invalidate()
    client.get("auth")
    assert client.stats.logins == 2
    assert client.stats.renewals == 0


def test_close_revokes_the_token_that_is_ours(
    vault: VaultServer, client_for: ClientFactory
) -> None:
    client = client_for(vault)
    client.get("auth")
    held = client._tokens.held
    assert held is not None
    token = held.value.reveal()
    client.close()
    assert client.stats.cached == 0
    answer = vault.admin().adapter.post(
        "/v1/auth/token/lookup", json={"token": token}, raise_exception=False
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_a_missing_or_empty_credential_names_its_source(
    vault: VaultServer, tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sid"
    if content is not None:
        file.write_text(content)
        monkeypatch.setenv("SID", content)
    with pytest.raises(AuthenticationError, match=str(file)):
        client_with(vault, AppRoleAuth("role", Source(file=str(file)))).get("auth")
    with pytest.raises(AuthenticationError, match=r"variable.* is not set or empty"):
        client_with(vault, AppRoleAuth("role", Source(variable="SID"))).get("auth")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID_FILE": "/f"}, AppRoleAuth("r", Source(file="/f"))),
        (
            {"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": "s"},
            AppRoleAuth("r", Source(variable="VAULT_SECRET_ID")),
        ),
        (
            {"VAULT_ROLE_ID": "r", "VAULT_WRAPPED_SECRET_ID_FILE": "/w"},
            AppRoleAuth("r", Source(file="/w"), wrapped=True),
        ),
        ({"VAULT_TOKEN_FILE": "/t"}, TokenFileAuth("/t")),
        ({"VAULT_TOKEN": "t"}, TokenAuth(Source(variable="VAULT_TOKEN"))),
        ({"VAULT_KUBERNETES_ROLE": "k"}, KubernetesAuth("k")),
    ],
)
def test_methods_from_the_environment(environ: dict[str, str], expected: AuthMethod) -> None:
    assert auth_from_env(environ) == expected


@pytest.mark.parametrize("environ", [{}, {"VAULT_ROLE_ID": "r"}])
def test_an_environment_without_credentials_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        auth_from_env(environ)
    assert "VAULT_SECRET_ID_FILE" in caught.value.hint


def test_from_env_works_end_to_end(
    vault: VaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role_id, secret_id = vault.approle("from-env", POLICY)
    (tmp_path / "sid").write_text(secret_id)
    environ = {
        "VAULT_ADDR": vault.https, "VAULT_CACERT": vault.ca, "VAULT_ROLE_ID": role_id,
        "VAULT_SECRET_ID_FILE": str(tmp_path / "sid"),
        "STRONGROOM_APP": "bike-data-flow", "STRONGROOM_ENVIRONMENT": "production",
    }  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with VaultSecrets.from_env() as client:
        assert client.get("auth") == "ok"
    # hvac's own habits do not come through: a token in the environment or in the home is not used.
    monkeypatch.setenv("VAULT_TOKEN", "from-the-environment")
    with VaultSecrets.from_env() as client:
        assert client.get("auth") == "ok"
    assert os.environ["VAULT_TOKEN"] == "from-the-environment"
