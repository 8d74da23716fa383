"""Ways to log in, without a server: what each sends, and what it makes of the answers."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from strongroom_dagster import (
    AppRoleAuth,
    AuthenticationError,
    ConfigurationError,
    InvalidResponseError,
    JwtAuth,
    KubernetesAuth,
    SecretPicklingError,
    Settings,
    Source,
    TokenAuth,
    TokenFileAuth,
)
from strongroom_dagster.methods import log_in

LOGIN = {"auth": {"client_token": "hvs.t", "lease_duration": 60, "renewable": True}}
OF_ANY: Any = AppRoleAuth, TokenAuth, TokenFileAuth, KubernetesAuth, JwtAuth
APPROLE, TOKEN, FILE, KUBERNETES, JWT = OF_ANY
MADE_HERE = {"data": {"creation_path": "auth/approle/role/app/secret-id"}}


@dataclass
class Answers:
    """A `Caller` with one answer after the other; it keeps what it was asked."""

    answers: list[dict[str, Any]]
    asked: list[tuple[str, str, str | None, Mapping[str, Any] | None, bool]] = field(
        default_factory=list
    )

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        json: Mapping[str, Any] | None = None,
        idempotent: bool = True,
    ) -> dict[str, Any]:
        self.asked.append((method, path, token, json, idempotent))
        return self.answers.pop(0)


def test_approle_sends_both_ids_once() -> None:
    caller = Answers([LOGIN, LOGIN])
    assert AppRoleAuth("r", Source.of("s"), mount="a b").login(caller) == LOGIN["auth"]
    AppRoleAuth("r").login(caller)
    assert caller.asked == [
        ("post", "auth/a%20b/login", None, {"role_id": "r", "secret_id": "s"}, False),
        ("post", "auth/approle/login", None, {"role_id": "r"}, False),
    ]


def test_a_wrapped_secret_id_is_checked_unwrapped_once_and_kept() -> None:
    caller = Answers([MADE_HERE, {"data": {"secret_id": "s"}}, LOGIN, LOGIN])
    auth = AppRoleAuth("r", Source.of("w"), wrapped=True)
    auth.login(caller)
    auth.login(caller)
    login = ("post", "auth/approle/login", None, {"role_id": "r", "secret_id": "s"}, False)
    assert caller.asked == [
        ("post", "sys/wrapping/lookup", None, {"token": "w"}, True),
        ("post", "sys/wrapping/unwrap", "w", None, False),
        login, login,
    ]  # fmt: skip
    for wrapped in (auth, AppRoleAuth("r", Source(variable="V"), wrapped=True)):
        with pytest.raises(SecretPicklingError):
            pickle.dumps(wrapped)
    plain = AppRoleAuth("r", Source(variable="V"), mount="m")
    assert pickle.loads(pickle.dumps(plain)) == plain


@pytest.mark.parametrize(
    "path",
    [
        "auth/other/role/app/secret-id", "auth/approle2/role/app/secret-id",
        "auth/approle/role/app/secret-id/x", "x/auth/approle/role/app/secret-id",
        "auth/approle/role/a/b/secret-id", "cubbyhole/secret", "auth/approle/role/app/role-id",
    ],
)  # fmt: skip
def test_a_wrapping_token_that_another_mount_made_is_not_unwrapped(path: str) -> None:
    caller = Answers([{"data": {"creation_path": path}}])
    with pytest.raises(AuthenticationError, match="intercepted"):
        AppRoleAuth("r", Source.of("w"), wrapped=True).login(caller)
    assert len(caller.asked) == 1


def test_the_mount_of_a_wrapping_token_is_taken_as_it_is_written() -> None:
    caller = Answers([{"data": {"creation_path": "auth/axb/role/app/secret-id"}}])
    with pytest.raises(AuthenticationError):
        AppRoleAuth("r", Source.of("w"), wrapped=True, mount="a.b").login(caller)


@pytest.mark.parametrize(
    "odd", [{}, {"data": None}, {"data": []}, {"data": {}}, {"data": {"creation_path": ""}},
            {"data": {"creation_path": 7}}]
)  # fmt: skip
def test_an_odd_answer_to_a_lookup_is_one_of_our_errors(odd: dict[str, Any]) -> None:
    caller = Answers([odd])
    with pytest.raises(InvalidResponseError, match="creation_path"):
        AppRoleAuth("r", Source.of("w"), wrapped=True).login(caller)
    assert len(caller.asked) == 1


@pytest.mark.parametrize(
    "auth",
    [None, [], {}, {"client_token": ""}, {"client_token": 7}, {"client_token": "a b"},
     {"client_token": "a\n"}, {"mfa_requirement": {}}],
)  # fmt: skip
def test_a_login_without_a_token_is_no_login(auth: Any) -> None:
    with pytest.raises(InvalidResponseError, match="holds no token"):
        log_in(Answers([{"auth": auth}]), "approle", {})


def test_a_second_factor_is_said_unless_there_is_a_token() -> None:
    wanted = {"client_token": "", "mfa_requirement": {"mfa_request_id": "x"}}
    with pytest.raises(AuthenticationError, match="second factor"):
        log_in(Answers([{"auth": wanted}]), "approle", {})
    both = {**wanted, "client_token": "hvs.t"}
    assert log_in(Answers([{"auth": both}]), "approle", {}) == both


@pytest.mark.parametrize("renewable", [True, False, None])
def test_a_token_is_looked_up_and_renewed_unless_an_agent_does(
    renewable: bool | None, tmp_path: Path
) -> None:
    data = {"ttl": 60, "renewable": renewable, "num_uses": 3}
    caller = Answers([{"data": data}, {"data": data}])
    (tmp_path / "sink").write_text("hvs.f\n")
    given = {"lease_duration": 60.0, "num_uses": 3}
    assert TokenAuth(Source.of("hvs.t")).login(caller) == {
        **given, "client_token": "hvs.t", "renewable": bool(renewable),
    }  # fmt: skip
    assert TokenFileAuth(str(tmp_path / "sink")).login(caller) == {
        **given, "client_token": "hvs.f", "renewable": False,
    }  # fmt: skip
    look_up = ("get", "auth/token/lookup-self")
    assert [asked[:3] for asked in caller.asked] == [(*look_up, "hvs.t"), (*look_up, "hvs.f")]


@pytest.mark.parametrize("odd", [{}, {"data": None}, {"data": 7}, {"data": {"ttl": "x"}}])
def test_an_odd_answer_to_a_lookup_of_a_token(odd: dict[str, Any]) -> None:
    with pytest.raises(InvalidResponseError, match="ttl"):
        TokenAuth(Source.of("t")).login(Answers([odd]))


def test_kubernetes_sends_the_token_of_the_pod(tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text("pod-jwt\n")
    caller = Answers([LOGIN])
    assert KubernetesAuth("app", str(tmp_path / "jwt")).login(caller) == LOGIN["auth"]
    sent = {"role": "app", "jwt": "pod-jwt"}
    assert caller.asked == [("post", "auth/kubernetes/login", None, sent, False)]


def test_a_token_that_was_made_for_us_is_ours_alone_and_one_that_was_given_is_not() -> None:
    assert AppRoleAuth("r").owns_token
    assert KubernetesAuth("r").owns_token
    assert not TokenAuth(Source.of("t")).owns_token
    assert not TokenFileAuth("/x").owns_token
    for make, given in ((APPROLE, "r"), (KUBERNETES, "r"), (TOKEN, Source.of("t")), (FILE, "/x")):
        with pytest.raises(TypeError):
            make(given, owns_token=True)  # it is not theirs to say
    with pytest.raises(TypeError):
        APPROLE("r", _unwrapped="s")
    assert "unwrapped" not in repr(AppRoleAuth("r"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: APPROLE(""), lambda: APPROLE(None), lambda: APPROLE("r", "s3cr3t"),
        lambda: APPROLE("r", wrapped=True), lambda: APPROLE("r", mount=""),
        lambda: APPROLE("r", mount="a/../b"), lambda: APPROLE("r", mount=7),
        lambda: TOKEN(None), lambda: TOKEN("s3cr3t"),
        lambda: FILE(""), lambda: FILE(7),
        lambda: KUBERNETES(""), lambda: KUBERNETES("r", ""),
        lambda: KUBERNETES("r", mount="a/../b"),
        lambda: JWT("r", "s3cr3t"), lambda: JWT("r", audience=7), lambda: JWT("r", audience=""),
        lambda: APPROLE("r", Source.of("s"), wrapped="false"),
    ],
)  # fmt: skip
def test_what_no_login_can_come_of_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert "s3cr3t" not in str(caught.value)


UNRESOLVED: Any = dg.EnvVar("S3CR3T"), dg.EnvVar.int("S3CR3T")


@pytest.mark.parametrize(
    "make",
    [
        lambda v: APPROLE(v), lambda v: APPROLE("r", mount=v), lambda v: FILE(v),
        lambda v: KUBERNETES(v), lambda v: KUBERNETES("r", v), lambda v: JWT(v),
        lambda v: JWT("r", audience=v), lambda v: Source.of(v), lambda v: Source(file=v),
        lambda v: Source(variable=v),
    ],
)  # fmt: skip
def test_an_env_var_is_not_taken_for_the_value_that_it_stands_for(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make(UNRESOLVED[0])


@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
def test_an_env_var_is_no_setting(name: str) -> None:
    for value in UNRESOLVED:
        with pytest.raises(ConfigurationError, match=f"{name}: an EnvVar is only resolved"):
            Settings(**{name: value})
