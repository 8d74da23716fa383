"""Ways to log in. Each only knows where its credential is and what to send.

Credentials are read from their source at every login, so that a secret id that was replaced in
its file or a service account token that the kubelet renewed is picked up without a restart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .errors import AuthenticationError, ConfigurationError, SecretPicklingError
from .masked import Sensitive
from .settings import check_path

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


@dataclass(frozen=True)
class Source:
    """Where one credential comes from: exactly one of a file, a variable or the value itself.

    Attributes:
        file: path; its content without surrounding white space.
        variable: name of an environment variable.
        value: the credential in memory. A client made with it cannot be pickled.
    """

    file: str | None = None
    variable: str | None = None
    value: Sensitive | None = None

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.file, self.variable, self.value)) != 1:
            raise ConfigurationError(
                "a credential needs exactly one source", hint="a file, a variable or a value"
            )

    @classmethod
    def of(cls, value: str) -> Source:
        """The credential itself, masked from now on."""
        return cls(value=Sensitive(value))

    def read(self, what: str) -> str:
        """The credential now.

        Raises:
            AuthenticationError: the file or variable is missing or empty; names it.
        """
        if self.value is not None:
            return self.value.reveal()
        if self.variable is not None:
            found = os.environ.get(self.variable, "").strip()
            if not found:
                raise AuthenticationError(
                    f"{what}: environment variable {self.variable} is not set or empty"
                )
            return found
        reason = "is empty"
        try:
            found = Path(str(self.file)).read_text(encoding="utf-8").strip()
            if found:
                return found
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not text"
        raise AuthenticationError(f'{what}: file "{self.file}": {reason.lower()}')


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
        """For messages; without credentials."""
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

    role_id: str
    secret_id: Source | None = None
    wrapped: bool = False
    mount: str = "approle"
    owns_token: bool = field(default=True, init=False)
    _unwrapped: Sensitive | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_path(self.mount)
        if not self.role_id:
            raise ConfigurationError("role_id must not be empty")
        if self.wrapped and self.secret_id is None:
            raise ConfigurationError("a wrapped secret id needs a source")

    def login(self, caller: Caller) -> dict[str, Any]:
        payload = {"role_id": self.role_id}
        if self.secret_id is not None:
            payload["secret_id"] = self._secret_id(caller)
        path = f"auth/{self.mount}/login"
        return _auth_block(caller.call("post", path, token=None, json=payload))

    def _secret_id(self, caller: Caller) -> str:
        assert self.secret_id is not None
        if not self.wrapped:
            return self.secret_id.read("secret id")
        if self._unwrapped is None:
            token = self.secret_id.read("wrapped secret id")
            info = caller.call("post", "sys/wrapping/lookup", token=None, json={"token": token})
            made_by = str(info.get("data", {}).get("creation_path", ""))
            if not (
                made_by.startswith(f"auth/{self.mount}/role/") and made_by.endswith("/secret-id")
            ):
                raise AuthenticationError(
                    f'the wrapping token was made by "{made_by}", not by AppRole "{self.mount}"',
                    hint="treat it as intercepted: destroy the secret id and find out who had it",
                )
            answer = caller.call("post", "sys/wrapping/unwrap", token=token, idempotent=False)
            self._unwrapped = Sensitive(str(answer["data"]["secret_id"]))
        return self._unwrapped.reveal()

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        if self.wrapped:
            raise SecretPicklingError(
                "an AppRole with a wrapped secret id cannot be pickled: the token works once",
                hint="give each process its own",
            )
        return (type(self), (self.role_id, self.secret_id, self.wrapped, self.mount))

    def describe(self) -> str:
        return f'AppRole "{self.mount}"'


@dataclass
class TokenAuth:
    """A token that somebody else made. It is renewed while Vault allows it, never revoked."""

    token: Source
    owns_token: bool = field(default=False, init=False)

    def login(self, caller: Caller) -> dict[str, Any]:
        return _adopt(caller, self.token.read("token"), renew=True)

    def describe(self) -> str:
        return "token"


@dataclass
class TokenFileAuth:
    """The sink file of Vault Agent, which renews the token and writes the file anew.

    Source: https://developer.hashicorp.com/vault/docs/agent-and-proxy/autoauth/sinks/file
    """

    path: str
    owns_token: bool = field(default=False, init=False)

    def login(self, caller: Caller) -> dict[str, Any]:
        return _adopt(caller, Source(file=self.path).read("token file"), renew=False)

    def describe(self) -> str:
        return f'token file "{self.path}"'


@dataclass
class KubernetesAuth:
    """The service account of the pod.

    Source: https://developer.hashicorp.com/vault/docs/auth/kubernetes
    """

    role: str
    jwt_file: str = KUBERNETES_JWT
    mount: str = "kubernetes"
    owns_token: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_path(self.mount)

    def login(self, caller: Caller) -> dict[str, Any]:
        jwt = Source(file=self.jwt_file).read("service account token")
        path = f"auth/{self.mount}/login"
        return _auth_block(
            caller.call("post", path, token=None, json={"role": self.role, "jwt": jwt})
        )

    def describe(self) -> str:
        return f'Kubernetes role "{self.role}"'


def _auth_block(answer: dict[str, Any]) -> dict[str, Any]:
    auth = answer.get("auth")
    if not isinstance(auth, dict) or not auth.get("client_token"):
        raise AuthenticationError("vault's login answer holds no token")
    return auth


def _adopt(caller: Caller, token: str, *, renew: bool) -> dict[str, Any]:
    """The `auth` block of a token that we were given, from looking it up."""
    data = caller.call("get", "auth/token/lookup-self", token=token).get("data") or {}
    return {
        "client_token": token,
        "lease_duration": int(data.get("ttl") or 0),
        "renewable": renew and bool(data.get("renewable")),
        "accessor": data.get("accessor", ""),
        "num_uses": data.get("num_uses"),
    }


def auth_from_env(environ: Mapping[str, str] | None = None) -> AuthMethod:
    """The method that the environment asks for; the first of these that is there:

    `VAULT_ROLE_ID` with `VAULT_SECRET_ID_FILE` or `VAULT_SECRET_ID`, or with
    `VAULT_WRAPPED_SECRET_ID_FILE`; `VAULT_TOKEN_FILE` (Vault Agent); `VAULT_TOKEN`;
    `VAULT_KUBERNETES_ROLE`.

    Raises:
        ConfigurationError: none is there.
    """
    env = os.environ if environ is None else environ
    if role_id := env.get("VAULT_ROLE_ID"):
        if path := env.get("VAULT_WRAPPED_SECRET_ID_FILE"):
            return AppRoleAuth(role_id, Source(file=path), wrapped=True)
        if path := env.get("VAULT_SECRET_ID_FILE"):
            return AppRoleAuth(role_id, Source(file=path))
        if env.get("VAULT_SECRET_ID"):
            return AppRoleAuth(role_id, Source(variable="VAULT_SECRET_ID"))
        raise ConfigurationError(
            "VAULT_ROLE_ID is set, but no secret id",
            hint="set VAULT_SECRET_ID_FILE, VAULT_SECRET_ID or VAULT_WRAPPED_SECRET_ID_FILE",
        )
    if path := env.get("VAULT_TOKEN_FILE"):
        return TokenFileAuth(path)
    if env.get("VAULT_TOKEN"):
        return TokenAuth(Source(variable="VAULT_TOKEN"))
    if role := env.get("VAULT_KUBERNETES_ROLE"):
        return KubernetesAuth(role)
    raise ConfigurationError(
        "nothing in the environment says how to log in to Vault",
        hint="set VAULT_ROLE_ID and VAULT_SECRET_ID_FILE, or VAULT_TOKEN_FILE",
    )
