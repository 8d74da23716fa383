"""Ways to log in. Each only knows where its credential is and what to send.

Credentials are read from their source at every login, so that a secret id that was replaced in
its file or a service account token that the kubelet renewed is picked up without a restart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from .errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidResponseError,
    SecretPicklingError,
)
from .lease import seconds_of
from .masked import Sensitive
from .settings import UNRESOLVED, VISIBLE, is_env_var, path_fault
from .source import Source

KUBERNETES_JWT = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class Caller(Protocol):
    """Sends one request of a login; `auth.TokenManager` is one."""

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        json: Mapping[str, Any] | None = None,
        idempotent: bool = True,
    ) -> dict[str, Any]: ...


class AuthMethod(Protocol):
    """A way to get a token."""

    #: Whether the token is ours alone: it is then renewed by us, and revoked on close.
    owns_token: bool

    def login(self, caller: Caller) -> dict[str, Any]:
        """The `auth` block of a login, or one of the same shape.

        Returns:
            `client_token`, `lease_duration` (seconds, 0: does not end) and `renewable`.
        """
        ...

    def describe(self) -> str:
        """For messages: the kind, without anything that was configured."""
        ...


@dataclass
class AppRoleAuth:
    """AppRole, with the secret id from a file, a variable, or wrapped in a response.

    Attributes:
        role_id: not a secret.
        secret_id: its source; None for a role with `bind_secret_id=false`.
        wrapped: whether the source holds a wrapping token instead of the secret id. It is
            unwrapped once, after checking that it was made by this AppRole mount (a token made
            elsewhere is a sign that the real one was intercepted), and the secret id then stays
            in this process's memory: processes that it spawns need a wrapping token each.
        mount: of the auth method.
    Source: https://developer.hashicorp.com/vault/docs/auth/approle
    """

    role_id: str = field(repr=False)
    secret_id: Source | None = None
    wrapped: bool = False
    mount: str = field(default="approle", repr=False)
    owns_token: bool = field(default=True, init=False)
    _unwrapped: Sensitive | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_mount(self.mount)
        check_text("role_id", self.role_id)
        check_source("secret_id", self.secret_id, optional=True)
        if not isinstance(self.wrapped, bool):
            raise ConfigurationError(f"wrapped must be a bool, not {type(self.wrapped).__name__}")
        if self.wrapped and self.secret_id is None:
            raise ConfigurationError("a wrapped secret id needs a source")

    def login(self, caller: Caller) -> dict[str, Any]:
        payload = {"role_id": self.role_id}
        if self.secret_id is not None:
            payload["secret_id"] = self._secret_id(caller)
        return log_in(caller, self.mount, payload)

    def _secret_id(self, caller: Caller) -> str:
        assert self.secret_id is not None
        if not self.wrapped:
            return self.secret_id.read("secret id")
        if self._unwrapped is None:
            token = self.secret_id.read_token()
            info = caller.call("post", "sys/wrapping/lookup", token=None, json={"token": token})
            made_by = _text_of(info, "creation_path", "sys/wrapping/lookup")
            ours = rf"auth/{re.escape(self.mount)}/role/[^/]+/secret-id"
            if not re.fullmatch(ours, made_by):
                raise AuthenticationError(
                    f'the wrapping token was made by "{made_by}", not by this AppRole mount',
                    hint="treat it as intercepted: destroy the secret id and find out who had it",
                )
            answer = caller.call("post", "sys/wrapping/unwrap", token=token, idempotent=False)
            self._unwrapped = Sensitive(_text_of(answer, "secret_id", "sys/wrapping/unwrap"))
        return self._unwrapped.reveal()

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        if self.wrapped:
            raise SecretPicklingError(
                "an AppRole with a wrapped secret id cannot be pickled: the token works once",
                hint="give each process its own",
            )
        return (type(self), (self.role_id, self.secret_id, self.wrapped, self.mount))

    def describe(self) -> str:
        return "AppRole"


@dataclass
class TokenAuth:
    """A token that somebody else made. It is renewed while Vault allows it, never revoked."""

    token: Source
    owns_token: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        check_source("token", self.token)

    def login(self, caller: Caller) -> dict[str, Any]:
        return _adopt(caller, self.token.read_token(), renew=True)

    def describe(self) -> str:
        return "token"


@dataclass
class TokenFileAuth:
    """The sink file of Vault Agent, which renews the token and writes the file anew.

    Source: https://developer.hashicorp.com/vault/docs/agent-and-proxy/autoauth/sinks/file
    """

    path: str = field(repr=False)
    owns_token: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        check_text("path", self.path)

    def login(self, caller: Caller) -> dict[str, Any]:
        return _adopt(caller, Source(file=self.path).read_token(), renew=False)

    def describe(self) -> str:
        return "token file"


@dataclass
class KubernetesAuth:
    """The service account of the pod.

    Source: https://developer.hashicorp.com/vault/docs/auth/kubernetes
    """

    role: str = field(repr=False)
    jwt_file: str = field(default=KUBERNETES_JWT, repr=False)
    mount: str = field(default="kubernetes", repr=False)
    owns_token: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_mount(self.mount)
        check_text("role", self.role)
        check_text("jwt_file", self.jwt_file)

    def login(self, caller: Caller) -> dict[str, Any]:
        jwt = Source(file=self.jwt_file).read("service account token")
        return log_in(caller, self.mount, {"role": self.role, "jwt": jwt})

    def describe(self) -> str:
        return "Kubernetes"


def check_mount(mount: str) -> None:
    """Raises ConfigurationError if it is none; does not quote it."""
    check_text("mount", mount)
    if fault := path_fault(mount):
        raise ConfigurationError(f"mount: {fault}")


def check_text(name: str, value: object) -> None:
    """Raises ConfigurationError if it is no text, or empty."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{name} must be a text that is not empty")
    if is_env_var(value):
        raise ConfigurationError(f"{name}: {UNRESOLVED}", hint="give its value")


def check_source(name: str, value: object, *, optional: bool = False) -> None:
    """Raises ConfigurationError if it is no source."""
    if not (isinstance(value, Source) or (optional and value is None)):
        raise ConfigurationError(
            f"{name} must be a Source, not {type(value).__name__}",
            hint="write Source(file=…), Source(variable=…) or Source.of(…)",
        )


def log_in(caller: Caller, mount: str, payload: Mapping[str, str]) -> dict[str, Any]:
    """The `auth` block of a login, which is sent once: a secret id may be good for one use."""
    path = f"auth/{quote(mount)}/login"
    auth = caller.call("post", path, token=None, json=payload, idempotent=False).get("auth")
    if isinstance(auth, dict) and auth.get("mfa_requirement") and not auth.get("client_token"):
        raise AuthenticationError(
            "vault wants a second factor for this login", hint="exempt this role from login MFA"
        )
    token = auth.get("client_token") if isinstance(auth, dict) else None
    if not isinstance(auth, dict) or not isinstance(token, str) or not VISIBLE.fullmatch(token):
        raise InvalidResponseError(
            "the answer to the login holds no token", hint="is the address that of a Vault?"
        )
    return auth


def _adopt(caller: Caller, token: str, *, renew: bool) -> dict[str, Any]:
    """The `auth` block of a token that we were given, from looking it up."""
    path = "auth/token/lookup-self"
    data = caller.call("get", path, token=token).get("data")
    data = data if isinstance(data, dict) else {}
    return {
        "client_token": token,
        "lease_duration": seconds_of(data, "ttl", path),
        "renewable": renew and bool(data.get("renewable")),
        "num_uses": data.get("num_uses"),
    }


def _text_of(answer: Mapping[str, Any], name: str, where: str) -> str:
    data = answer.get("data")
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, str) or not value:
        raise InvalidResponseError(f'vault\'s answer to "{where}" holds no {name}')
    return value
