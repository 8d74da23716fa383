"""No error, cause or context quotes what may be a secret in the wrong field (findings 1 and 30).

Every text of every setting, source and login is the secret once, in each of the shapes that a
credential comes in; what comes of it at once or at the login must not show it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from strongroom_dagster import (
    AppRoleAuth,
    AuthenticationError,
    ConfigurationError,
    JwtAuth,
    KubernetesAuth,
    Settings,
    Source,
    StrongroomError,
    TokenAuth,
    TokenFileAuth,
    VaultSecrets,
)
from strongroom_dagster.auth_env import auth_from_env
from strongroom_dagster.methods import AuthMethod

from .harness import wait
from .harness.clock import FakeClock
from .harness.scripted import Answer, Request, Scripted
from .harness.shown import everything

#: How credentials look: a UUID, a token, what can be a variable's name, base64 with slashes, with
#: a line break, with percent signs and quotes.
CANARIES = [
    "8f5c0b8e-c4n4ry-4a7c-9d3e-1b2f6a7c8d9e", "hvs.CAESIc4n4ry", "SUPER_SECRET_c4n4ry",
    "wJalr/XUtnFEMI/c4n4ry+CYEXAMPLEKEY", "/kc4n4ry/x", "c4n4ry\nsecond line", 'a"c4n4ry%s{0}',
    "c4n4ry\x00x", "../c4n4ry", "https://c4n4ry@x:99999", "c4n4ry\u00e9",
]  # fmt: skip

LOGINS: dict[str, Callable[[str], AuthMethod]] = {
    "role id": lambda c: AppRoleAuth(c, Source.of("s")),
    "secret id": lambda c: AppRoleAuth("r", Source.of(c)),
    "secret id file": lambda c: AppRoleAuth("r", Source(file=c)),
    "secret id variable": lambda c: AppRoleAuth("r", Source(variable=c)),
    "secret id itself": lambda c: AppRoleAuth("r", c),  # type: ignore[arg-type]
    "wrapped": lambda c: AppRoleAuth("r", Source.of(c), wrapped=True),
    "wrapped file": lambda c: AppRoleAuth("r", Source(file=c), wrapped=True),
    "approle mount": lambda c: AppRoleAuth("r", Source.of("s"), mount=c),
    "token": lambda c: TokenAuth(Source.of(c)),
    "token variable": lambda c: TokenAuth(Source(variable=c)),
    "token in a mapping": lambda c: auth_from_env({"VAULT_TOKEN": c}),
    "secret id in a mapping": lambda c: auth_from_env({"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": c}),
    "role id in a mapping": lambda c: auth_from_env({"VAULT_ROLE_ID": c}),
    "secret id file in a mapping": lambda c: auth_from_env(
        {"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID_FILE": c}
    ),
    "token itself": lambda c: TokenAuth(c),  # type: ignore[arg-type]
    "token file": TokenFileAuth,
    "kubernetes role": lambda c: KubernetesAuth(c, __file__),
    "kubernetes file": lambda c: KubernetesAuth("r", c),
    "kubernetes mount": lambda c: KubernetesAuth("r", __file__, c),
    "jwt": lambda c: JwtAuth("r", Source.of(c)),
    "jwt role": lambda c: JwtAuth(c, Source.of("j")),
    "jwt mount": lambda c: JwtAuth("r", Source.of("j"), mount=c),
}


def echo(request: Request) -> Answer:
    """A Vault that repeats what it was sent, as some of Vault's messages do."""
    sent = f"{request.path} {request.body.decode()} {request.headers.get('X-Vault-Token')}"
    return Answer(400, {"errors": [f"invalid: {sent}"]})


@pytest.fixture(autouse=True)
def _nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG, "strongroom_dagster")
    yield
    assert "c4n4ry" not in caplog.text


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("login", LOGINS)
def test_no_field_of_a_login_is_quoted(login: str, canary: str) -> None:
    with Scripted(echo) as server:
        for address in (server.address, f"http://127.0.0.1:{wait.free_port()}"):
            with pytest.raises(StrongroomError) as caught:
                VaultSecrets(
                    Settings(address=address, deadline=1.0),
                    LOGINS[login](canary),
                    clock=FakeClock().clock,
                ).get("x")
            assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
def test_no_setting_is_quoted(name: str, canary: str) -> None:
    values: dict[str, Any] = {"app": "a", name: canary}
    settings = None
    with contextlib.suppress(ConfigurationError):
        settings = Settings(**values)
    if settings is not None:
        assert name in ("namespace", "tls_server_name", "app", "environment") or "mount" in name
        assert getattr(settings, name) == canary
        return
    with pytest.raises(ConfigurationError, match=name) as caught:
        Settings(**values)
    assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize("canary", CANARIES)
def test_no_variable_of_the_environment_is_quoted(canary: str) -> None:
    for name in (
        "VAULT_ADDR", "VAULT_CACERT", "VAULT_CAPATH", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY",
        "VAULT_HTTP_PROXY", "STRONGROOM_ALLOW_PLAIN_HTTP",
    ):  # fmt: skip
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_env({name: canary})
        assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize(
    "proxy",
    ["http://user:c4n4ry@proxy:3128", "http://c4n4ry@proxy:3128", "https://u:c4n4ry@[::1]:1",
     "HTTP://user:c4n4ry@proxy"],
)  # fmt: skip
def test_a_proxys_password_is_masked(proxy: str) -> None:
    settings = Settings(proxy=proxy)
    assert settings.proxy == proxy
    assert "c4n4ry" not in f"{settings!r} {settings!s}"
    assert "****@" in repr(settings)
    client = VaultSecrets(settings, TokenAuth(Source.of("t")))
    assert "c4n4ry" not in f"{client!r} {client.settings!r}"


@pytest.mark.parametrize("name", ["SUPER-SECRET", "1abc", "a b", "", "x=y", "A.B", "\u00c4"])
def test_a_variable_must_be_a_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match="must be the name of an environment variable"):
        Source(variable=name)


def test_what_names_something_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWN_VARIABLE", " ")
    (tmp_path / "empty").write_text("\n")
    for source, words in (
        (Source(variable="KNOWN_VARIABLE"), "environment variable KNOWN_VARIABLE is not set"),
        (Source(variable="VAULT_SECRET_ID"), "environment variable VAULT_SECRET_ID is not set"),
        (Source(variable="Unknown"), "its environment variable is not set"),
        (Source(file=str(tmp_path / "none")), f'file "{tmp_path}/none" cannot be read: no such'),
        (Source(file=str(tmp_path / "empty")), f'file "{tmp_path}/empty" is empty'),
        (Source(file=str(tmp_path)), f'file "{tmp_path}" cannot be read: is a directory'),
        (Source(file="none"), "the file that it names cannot be read: no such file"),
        (Source.of("first\nsecond"), "the value holds a line break"),
        (Source.of("tab\tbed"), "the value holds a line break"),
        (Source(file="/dev/zero"), 'file "/dev/zero" is longer than'),
    ):
        with pytest.raises(AuthenticationError) as caught:
            source.read("secret id")
        assert f"secret id: {words}" in str(caught.value)
