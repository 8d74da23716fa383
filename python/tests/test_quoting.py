"""No error, cause or context quotes what may be a secret in the wrong field (findings 1 and 30).

Every text of every setting, source and login is the secret once, in each of the shapes that a
credential comes in; what comes of it at once or at the login must not show it.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

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
    StrongroomError,
    TokenAuth,
    TokenFileAuth,
    VaultSecrets,
)
from strongroom_dagster.auth_env import auth_from_env
from strongroom_dagster.env import EnvironmentMap, VaultEnviron
from strongroom_dagster.fake import FakeVaultSecrets
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
    # Longer than what is quoted of Vault's words, and with what a single line does not keep.
    "eyJ." + "c4n4ry" * 200, "two  spaces  c4n4ry  and  more", "<c4n4ry>&amp;",
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
    "jwt itself": lambda c: JwtAuth("r", c),  # type: ignore[arg-type]
    "both ids": lambda c: AppRoleAuth(c, Source.of(c)),
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


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    """Of one that repeats what it was sent, and of nobody."""
    with Scripted(echo) as server:
        yield [server.address, f"http://127.0.0.1:{wait.free_port()}"]


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("login", LOGINS)
def test_no_field_of_a_login_is_quoted(login: str, canary: str, addresses: list[str]) -> None:
    for address in addresses:
        with pytest.raises(StrongroomError) as caught:
            VaultSecrets(
                Settings(address=address, deadline=1.0),
                LOGINS[login](canary),
                clock=FakeClock().clock,
            ).get("x")
        assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize("asked", ["/login", "/data/x", "/creds/x"])
@pytest.mark.parametrize("status", [400, 404, 405, 412, 429, 500, 503])
def test_no_answer_that_repeats_what_was_sent_is_quoted(asked: str, status: int) -> None:
    """At the login and at a read, whatever the status."""

    def failing(request: Request) -> Answer:
        if request.path.endswith(asked):
            sent = f"{request.body.decode()} {request.headers.get('X-Vault-Token')}"
            return Answer(status, {"errors": [f"invalid: {sent}"]})
        return Answer(200, login)

    login = {"auth": {"client_token": "hvs.c4n4ry-1", "lease_duration": 60, "renewable": True}}
    with Scripted(failing) as server:
        client = VaultSecrets(
            Settings(address=server.address, deadline=0.1),
            AppRoleAuth("r", Source.of("c4n4ry-2")), clock=FakeClock().clock,
        )  # fmt: skip
        for read in (client.get, client.api_key):
            with pytest.raises(StrongroomError) as caught:
                read("x")
            assert "c4n4ry" not in everything(caught.value)


def test_an_answer_that_somebody_keeps_holds_nothing_that_was_sent() -> None:
    """What hvac gives for a 204 is the answer itself, which Dagster would pickle as a step's output."""
    with Scripted(lambda _: Answer(204)) as server:
        client = VaultSecrets(Settings(address=server.address), TokenAuth(Source.of("t")))
        client.hvac.token = "hvs.c4n4ry"
        answer = client.hvac.adapter.post("/v1/x", json={"password": "c4n4ry"})
        assert answer.status_code == 204
        assert b"c4n4ry" not in pickle.dumps(answer)
        assert server.requests[0].headers["X-Vault-Token"] == "hvs.c4n4ry"
        with pytest.raises(SecretPicklingError):
            pickle.dumps(client.hvac.session)


@pytest.mark.parametrize("before", [0, 200, 270, 299])
def test_half_a_credential_is_not_quoted_either(before: int) -> None:
    """Vault's words are cut to a length."""
    canary = "c4n4ry-" * 60

    def late(request: Request) -> Answer:
        return Answer(400, {"errors": ["x" * before + " " + request.body.decode()]})

    with Scripted(late) as server:
        client = VaultSecrets(Settings(address=server.address), JwtAuth("r", Source.of(canary)))
        with pytest.raises(AuthenticationError) as caught:
            client.get("x")
    assert "c4n4" not in everything(caught.value)


def test_a_mount_is_not_quoted_as_it_is_sent_or_as_it_was_given() -> None:
    def echo_path(request: Request) -> Answer:
        return Answer(400, {"errors": [f"{request.path} {unquote(request.path)}"]})

    with Scripted(echo_path) as server:
        auth = AppRoleAuth("r", Source.of("s"), mount="c4n4ry \u00e9")
        with pytest.raises(AuthenticationError) as caught:
            VaultSecrets(Settings(address=server.address), auth).get("x")
    assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize("login", [
    AppRoleAuth("c4n4ry", Source(file="c4n4ry")), AppRoleAuth("c4n4ry", Source(variable="c4n4ry")),
    JwtAuth("c4n4ry", Source.of("c4n4ry")), KubernetesAuth("c4n4ry", "c4n4ry"),
    TokenFileAuth("c4n4ry"), TokenAuth(Source(file="/c4n4ry")),
    AppRoleAuth("r", Source.of("s"), mount="c4n4ry"), KubernetesAuth("r", "f", "c4n4ry"),
    JwtAuth("r", audience="c4n4ry"), JwtAuth("r", Source.of("j"), mount="c4n4ry"),
])  # fmt: skip
def test_no_login_shows_what_may_be_a_credential(login: AuthMethod) -> None:
    """As what records the local variables of a traceback would."""
    assert "c4n4ry" not in f"{login!r} {login}"


PEM = "-----BEGIN PRIVATE KEY-----\nc4n4ry\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "name", [PEM, "postgres://user:c4n4ry@host/db", "https://c4n4ry@host", "c4n4ry" * 100 + "/",
             "postgres://u:c4n4ry@h/db#", "kv:https://u:c4n4ry@h#f", "apikey:\tc4n4ry"]
)  # fmt: skip
def test_a_secret_in_place_of_its_name_is_not_quoted(name: str) -> None:
    client = VaultSecrets(Settings(), TokenAuth(Source.of("t")))
    uses: list[Callable[[], object]] = [
        lambda: client.get(name), lambda: client.kv(name), lambda: client.api_key(name),
        lambda: client.get_many([name]), lambda: client.database(name),
        lambda: client.kv("x", mount=name), lambda: client.environment({"X": name}).__enter__(),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(ConfigurationError) as caught:
            use()
        assert "c4n4ry" not in everything(caught.value)


def test_a_value_that_no_variable_holds_is_not_quoted() -> None:
    with FakeVaultSecrets({"nul": "c4n4ry\0", "half": "c4n4ry\ud800"}) as client:
        for name, words in (("nul", "a NUL byte"), ("half", "a character")):
            with (
                pytest.raises(ConfigurationError, match=f"X: holds {words}") as caught,
                client.environment({"X": name}),
            ):
                pass
            assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize("url", [
    "c4n4ry", "postgresql://h:c4n4ry/db", "postgresql://u:c4n4ry@h/db",
    "postgresql://h/db?password=c4n4ry", "postgresql://h/db?user=c4n4ry",
    "postgresql://h/db?sslpassword=c4n4ry",
])  # fmt: skip
def test_a_database_url_with_a_credential_is_refused_and_not_quoted(url: str) -> None:
    with FakeVaultSecrets(databases={"r": ("u", "p")}) as client, client.database("r") as db:
        with pytest.raises(ConfigurationError, match="the database URL") as caught:
            db.engine(url)
        assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize("conninfo", [
    "c4n4ry", "postgresql://u:c4n4ry@h/db", "host=h password=c4n4ry", "host=h user=c4n4ry",
    "postgresql://h/db?password=c4n4ry", "host='c4n4ry", b"host=c4n4ry", 5, {"password": "c4n4ry"},
    "postgres://c4n4ry@h", "hots=c4n4ry",
])  # fmt: skip
def test_a_connection_string_with_a_credential_is_refused_and_not_quoted(conninfo: Any) -> None:
    with FakeVaultSecrets(databases={"r": ("u", "p")}) as client, client.database("r") as db:
        with pytest.raises(ConfigurationError, match="the connection") as caught:
            db.connect(conninfo)
        assert "c4n4ry" not in everything(caught.value)
        for name in ("user", "password"):
            with pytest.raises(ConfigurationError, match="must not be given a user") as caught:
                db.connect("host=h", **{name: CANARIES[0]})
            assert "c4n4ry" not in everything(caught.value)


def test_what_is_given_in_place_of_something_else_is_not_quoted() -> None:
    long, short = CANARIES[9], CANARIES[2]
    uses: list[Callable[[Any], object]] = [
        lambda c: c.wait_for_rotation("k", 1, timeout=short),
        lambda c: c.wait_for_rotation("k", short),
        lambda c: c.get("x", long), lambda c: c.get("x", [short]),
        lambda c: c.get(f"x#{long}"), lambda c: c.get(f"x#{long}", "a"),
        lambda c: c.get(f"apikey:k#{long}"), lambda c: c.kv("x").text(long),
        lambda c: c.api_key("k").text(CANARIES[5]), lambda c: c.kv("x", version=short),
        lambda c: c.database("r", min_ttl=short), lambda c: c.get_many([[short]]),
    ]  # fmt: skip
    with FakeVaultSecrets({"x": {"a": "1", "b": "2"}}, {"k": "v"}, {"r": ("u", "p")}) as client:
        for use in uses:
            with pytest.raises(StrongroomError) as caught:
                use(client)
            assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize("text", [
    'format = "c4n4ry"', "format = c4n4ry", 'format = "c4n4ry', "c4n4ry", 'a = "c4n4ry"\na = 1',
    'format = 1\n[variables.A]\nengine = "c4n4ry"\npath = "x"',
    'format = 1\n[variables.A]\nengine = ["c4n4ry"]\npath = "x"',
    'format = 1\n[variables.A]\npath = "https://u:c4n4ry@h"',
    'format = 1\n[variables.A]\npath = "x"\nmount = "c4n4ry\\n"',
    'format = 1\n[variables.A]\npath = ["c4n4ry"]', 'format = 1\nvariables = "c4n4ry"',
    'format = 1\n[variables]\nA = "c4n4ry"', 'format = 1\n[variables]\n"https://c4n4ry" = "x"',
    'format = 1\n[variables.A]\npath = "x"\nvalue = "c4n4ry"',
    'format = 1\n[variables.A]\npath = "x"\n"https://c4n4ry" = "x"',
    'format = 1\n"https://c4n4ry" = 1', 'format = 1\n[variables."a\\nc4n4ry"]\npath = "x"',
    "format = " + "1" * 5000, "format = " + "[" * 5000,
])  # fmt: skip
def test_a_mapping_file_is_not_quoted(text: str, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r'mapping file ".*map\.toml"') as caught:
        EnvironmentMap.read(tmp_path / "map.toml")
    assert "c4n4ry" not in everything(caught.value)


@pytest.mark.parametrize("canary", CANARIES)
def test_no_variable_of_the_mapping_is_quoted(canary: str, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('format = 1\n[variables.A]\npath = "x"')
    mapping = EnvironmentMap.read(tmp_path / "map.toml")
    for environ in (
        VaultEnviron(environ={"STRONGROOM_ENV_FILE": canary}),
        VaultEnviron(mapping, environ={"STRONGROOM_ENV_PREFER": canary}),
    ):
        with pytest.raises(ConfigurationError) as caught:
            _ = environ["A"]
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
        "VAULT_HTTP_PROXY", "VAULT_PROXY_ADDR", "STRONGROOM_ALLOW_PLAIN_HTTP",
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


def test_a_proxys_password_is_not_pickled() -> None:
    """With the settings, or with the client that has them."""
    settings = Settings(proxy="http://user:c4n4ry@proxy:3128")
    client = VaultSecrets(settings, TokenAuth(Source(variable="VAULT_TOKEN")))
    for given in (settings, client, [settings]):
        for dump in (pickle.dumps, copy.deepcopy):
            with pytest.raises(SecretPicklingError, match="user and password of a proxy"):
                dump(given)
    assert replace(settings, app="a").proxy == settings.proxy
    for proxy in (None, "http://proxy:3128"):
        open_ = Settings(proxy=proxy)
        assert pickle.loads(pickle.dumps(open_)) == copy.copy(open_) == open_


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
