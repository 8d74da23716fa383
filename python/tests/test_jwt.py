"""JWT login against a real Vault, with a key made here: a file, a variable, GitHub Actions."""

from __future__ import annotations

import os
import pickle
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from strongroom_dagster import (
    AuthenticationError,
    ConfigurationError,
    JwtAuth,
    SecretPicklingError,
    Settings,
    Source,
    StrongroomError,
    VaultSecrets,
    VaultSecretsResource,
    VaultUnavailableError,
)
from strongroom_dagster.auth_env import auth_from_env

from .harness.scripted import Answer, Request, Scripted
from .harness.vault import VaultServer

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
AUDIENCE = "https://vault.test"
REQUEST_TOKEN = "github-request-t0k3n"
POLICY = 'path "secret/data/jwt/*" { capabilities = ["read"] }'


def token(key: rsa.RSAPrivateKey = KEY, **claims: Any) -> str:
    now = int(time.time())
    return jwt.encode(
        {"sub": "repo:o/r", "aud": AUDIENCE, "iat": now, "exp": now + 300, **claims},
        key,
        algorithm="RS256",
    )


@pytest.fixture(scope="module")
def server(vault: VaultServer) -> VaultServer:
    """A Vault that trusts the key, for one subject and audience."""
    admin = vault.admin()
    admin.sys.enable_auth_method("jwt")
    public = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    admin.adapter.post("/v1/auth/jwt/config", json={"jwt_validation_pubkeys": [public.decode()]})
    admin.sys.create_or_update_policy("jwt", POLICY)
    admin.adapter.post(
        "/v1/auth/jwt/role/ci",
        json={
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": [AUDIENCE],
            "bound_subject": "repo:o/r", "token_policies": ["jwt"], "token_ttl": "10m",
        },
    )  # fmt: skip
    vault.put("jwt/one", value="1")
    return vault


def client(server: VaultServer, source: Source | None = None, **arguments: Any) -> VaultSecrets:
    settings = Settings(address=server.http, deadline=10.0)
    return VaultSecrets(settings, JwtAuth("ci", source, **arguments))


def test_login_with_a_token_from_a_variable(
    server: VaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitLab: `id_tokens: {VAULT_ID_TOKEN: {aud: …}}`."""
    monkeypatch.setenv("VAULT_ID_TOKEN", token())
    with client(server, Source(variable="VAULT_ID_TOKEN")) as vault:
        assert vault.get("/jwt/one") == "1"


def test_a_token_in_a_file_is_read_at_each_login(server: VaultServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token(exp=int(time.time()) - 600, iat=int(time.time()) - 900))
    with client(server, Source(file=str(file))) as vault:
        with pytest.raises(AuthenticationError):
            vault.get("/jwt/one")
        file.write_text(token())
        assert vault.get("/jwt/one") == "1"


@pytest.mark.parametrize(
    "claims", [{"aud": "another"}, {"sub": "repo:evil/r"}], ids=["audience", "subject"]
)
def test_a_token_of_somebody_else_is_refused_and_not_quoted(
    server: VaultServer, claims: dict[str, Any]
) -> None:
    given = token(**claims)
    with client(server, Source.of(given)) as vault:
        with pytest.raises(AuthenticationError) as caught:
            vault.get("/jwt/one")
        assert given not in "".join(traceback.format_exception(caught.value))


def test_a_token_of_another_key_is_refused(server: VaultServer) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with client(server, Source.of(token(other))) as vault, pytest.raises(AuthenticationError):
        vault.get("/jwt/one")


# --- GitHub Actions ----------------------------------------------------------------------------


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Request]]:
    """GitHub's token service, as a job with `id-token: write` sees it; the requests it got."""
    asked: list[Request] = []

    def issue(request: Request) -> Answer:
        asked.append(request)
        if request.headers.get("Authorization") != f"Bearer {REQUEST_TOKEN}":
            return Answer(401)
        given = AUDIENCE if "audience=https%3A%2F%2Fvault.test" in request.path else "owner"
        return Answer(200, {"value": token(aud=given), "count": 1})

    with Scripted(issue) as service:
        url = f"{service.address}/token?api-version=2.0"
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", url)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN)
        yield asked


def test_github_is_asked_for_a_token_with_the_audience(
    server: VaultServer, github: list[Request]
) -> None:
    with client(server, audience=AUDIENCE) as vault:
        assert vault.get("/jwt/one") == "1"
    (request,) = github
    assert request.path == "/token?api-version=2.0&audience=https%3A%2F%2Fvault.test"


def test_without_an_audience_github_chooses_it(server: VaultServer, github: list[Request]) -> None:
    with client(server) as vault, pytest.raises(AuthenticationError):
        vault.get("/jwt/one")  # the role is bound to another
    assert github[0].path == "/token?api-version=2.0"


def test_the_resource_logs_in_as_a_github_job(server: VaultServer, github: list[Request]) -> None:
    resource = VaultSecretsResource(address=server.http, jwt_role="ci", jwt_audience=AUDIENCE)
    with resource.process_config_and_initialize_cm() as vault:
        assert vault.get("/jwt/one") == "1"


def test_the_resource_takes_the_name_of_gitlabs_variable(
    server: VaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    monkeypatch.setenv("VAULT_ID_TOKEN", token())
    resource = VaultSecretsResource(
        address=server.http, jwt_role="ci", jwt=dg.EnvVar("VAULT_ID_TOKEN")
    )
    with resource.process_config_and_initialize_cm() as vault:
        assert vault.get("/jwt/one") == "1"


@pytest.mark.parametrize("variable", ["URL", "TOKEN"])
def test_outside_of_a_job_that_may_ask_it_is_said_what_to_write(
    variable: str, github: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"ACTIONS_ID_TOKEN_REQUEST_{variable}")
    with pytest.raises(AuthenticationError, match="id-token: write"):
        JwtAuth("ci").login(None)  # type: ignore[arg-type]
    assert not github


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_github_that_cannot_now_is_no_refusal(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is still good is then used further."""
    with Scripted(lambda _: Answer(status)) as service:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", service.address)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN)
        with pytest.raises(VaultUnavailableError, match=f"GitHub answered {status}"):
            JwtAuth("ci").login(None)  # type: ignore[arg-type]


ODD_ANSWERS = {
    "401": Answer(401),
    "redirect": Answer(302),
    "no JSON": Answer(200, b"<html>"),
    "no object": Answer(200, b"[]"),
    "no token": Answer(200, {"value": ""}),
    "a number": Answer(200, {"value": 5}),
}


@pytest.mark.parametrize("answer", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_an_odd_answer_of_githubs_is_one_of_our_errors(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Scripted(lambda _: answer) as service:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", service.address)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN)
        with pytest.raises(StrongroomError, match="JWT: GitHub") as caught:
            JwtAuth("ci").login(None)  # type: ignore[arg-type]
    assert REQUEST_TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1:1/t0k3n", VaultUnavailableError),
        ("http://github.test/t0k3n", AuthenticationError),
        ("ftp://127.0.0.1/t0k3n", StrongroomError),
        ("t0k3n", AuthenticationError),
        ("https://[t0k3n", StrongroomError),
    ],
)
def test_an_odd_url_of_githubs_is_not_quoted(
    url: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", url)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN)
    with pytest.raises(kind) as caught:
        JwtAuth("ci").login(None)  # type: ignore[arg-type]
    said = "".join(traceback.format_exception(caught.value))
    assert "t0k3n" not in said.replace("github-request-t0k3n", "") or url not in said
    assert REQUEST_TOKEN not in said


def test_an_audience_beside_a_given_token_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="audience"):
        JwtAuth("ci", Source(variable="VAULT_ID_TOKEN"), audience="x")


# --- from the environment ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "method"),
    [
        ({"VAULT_JWT_FILE": "/f"}, JwtAuth("ci", Source(file="/f"))),
        ({"VAULT_ID_TOKEN": "t"}, JwtAuth("ci", Source(variable="VAULT_ID_TOKEN"))),
        ({"VAULT_JWT_AUDIENCE": "a"}, JwtAuth("ci", audience="a")),
        ({}, JwtAuth("ci")),
    ],
    ids=["file", "GitLab", "GitHub with an audience", "GitHub"],
)
def test_the_environment_may_ask_for_it(environ: dict[str, str], method: JwtAuth) -> None:
    assert auth_from_env({"VAULT_JWT_ROLE": "ci", **environ}) == method


def test_a_mapping_is_read_in_place_of_the_environment(
    server: VaultServer, github: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    given = {name: os.environ[name] for name in names}
    for name in names:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    wanted = {"VAULT_ADDR": server.http, "VAULT_JWT_ROLE": "ci", "VAULT_JWT_AUDIENCE": AUDIENCE}
    with VaultSecrets.from_env({**wanted, **given}) as vault:
        assert vault.get("/jwt/one") == "1"
        with pytest.raises(SecretPicklingError) as caught:
            pickle.dumps(vault)
        assert REQUEST_TOKEN not in str(caught.value)
    assert pickle.loads(pickle.dumps(JwtAuth("ci", audience="a"))) == JwtAuth("ci", audience="a")
