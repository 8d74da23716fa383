"""`VaultSecretsResource`: one `VaultSecrets` for each run or step process of Dagster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import InitVar, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import dagster as dg
import hvac
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from pydantic_core.core_schema import no_info_before_validator_function

from .client import VaultSecrets
from .database import DatabaseLease
from .errors import ClosedError, ConfigurationError, StrongroomError, without_frames
from .jwt import JwtAuth
from .masked import ApiKey, SecretMapping
from .methods import (
    KUBERNETES_JWT,
    AppRoleAuth,
    AuthMethod,
    KubernetesAuth,
    TokenAuth,
    TokenFileAuth,
)
from .resource_input import (
    checked,
    from_variables,
    hidden,
    named,
    setting,
    told_apart,
    unresolved,
)
from .settings import Settings
from .shared import SharedClients
from .source import Source

#: A number of seconds, or the environment variable that holds one.
if TYPE_CHECKING:
    Seconds: TypeAlias = float | dg.EnvVar
else:
    Seconds = float

#: One login for each process and identity, whether the resource stands alone or within others.
_clients = SharedClients()
os.register_at_fork(after_in_child=_clients.reset_after_fork)


class VaultSecretsResource(dg.ConfigurableResource[Any]):
    """Secrets from Vault for assets, ops, sensors and schedules.

    Give one way to log in: `role_id` with a secret id, `token_file` (Vault Agent), `jwt_role`
    (GitHub Actions, GitLab CI), `kubernetes_role`, or `token`. For another one, override
    `auth_method` in a class of your own.

    A credential is never a value of the configuration. `secret_id`, `wrapped_secret_id`, `token`
    and `jwt` take an `EnvVar`, of which only the name is kept, so that neither the UI nor run
    configuration nor an event can show more than that name; the files are named by path.

    To use it within another resource, give that a field `vault: VaultSecretsResource`. All that
    are configured alike share one client and its login in a process.

    Raises:
        ConfigurationError: an unknown name, a value of a wrong type, a credential itself. Never
            quotes a value.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    address: str = setting("address", "URL of Vault: https://…, http://… or unix:///…")
    allow_plain_http: bool = Field(
        default=False,
        description="insist on http:// to another host: secrets cross the network in clear",
    )
    role_id: str | None = hidden("AppRole's role id (not a secret)")
    secret_id_file: str | None = hidden("path of the file that holds AppRole's secret id")
    secret_id_variable: str | None = named("holds AppRole's secret id")
    wrapped_secret_id_file: str | None = hidden(
        "path of the file that holds a wrapping token for the secret id"
    )
    wrapped_secret_id_variable: str | None = named("holds a wrapping token for the secret id")
    approle_mount: str = Field(default="approle", description="mount of the AppRole login")
    token_file: str | None = hidden("path of Vault Agent's token sink")
    token_variable: str | None = named("holds a token")
    jwt_role: str | None = hidden("role of the JWT login (GitHub Actions, GitLab CI, OIDC)")
    jwt_file: str | None = hidden("path of the file that holds the JWT")
    jwt_variable: str | None = named("holds the JWT; GitLab's id_tokens sets one")
    jwt_audience: str | None = Field(
        default=None, description="audience of the JWT that GitHub Actions is asked for"
    )
    jwt_mount: str = Field(default="jwt", description="mount of the JWT login")
    kubernetes_role: str | None = hidden("role of the Kubernetes login")
    kubernetes_mount: str = Field(default="kubernetes", description="mount of the Kubernetes login")
    kubernetes_jwt_file: str = hidden(
        "path of the pod's service account token", default=KUBERNETES_JWT
    )

    app: str | None = setting("app", "names are read from app/environment/name")
    environment_name: str | None = Field(
        default=None, alias="environment", description="names are read from app/environment/name"
    )
    namespace: str | None = setting("namespace", "Vault Enterprise or OpenBao namespace")
    ca_bundle: str | None = setting("ca_bundle", "path of a PEM file or folder of CAs to trust")
    client_certificate: str | None = setting(
        "client_certificate", "path of the PEM certificate for mutual TLS"
    )
    client_key: str | None = hidden("path of the PEM key for mutual TLS")
    tls_server_name: str | None = setting(
        "tls_server_name", "name that the certificate must be for, if not the host in the address"
    )
    proxy: str | None = hidden(
        "URL of a proxy; one with a password goes into a variable, proxy=EnvVar(…)"
    )
    kv_mount: str = setting("kv_mount", "mount of the KV engine, version 2")
    apikeys_mount: str = setting("apikeys_mount", "mount of the apikeys engine")
    database_mount: str = setting("database_mount", "mount of the database engine")
    kv_ttl: Seconds = setting("kv_ttl", "seconds after which a KV secret's version is looked at")
    api_key_revalidate: Seconds = setting(
        "api_key_revalidate", "seconds after which an API key is looked at again"
    )
    stale_if_error: Seconds = setting(
        "stale_if_error", "seconds for which a KV secret is used longer while Vault is away"
    )
    deadline: Seconds = setting("deadline", "seconds for one call with all its attempts")
    revalidate_deadline: Seconds = setting(
        "revalidate_deadline", "seconds for one call where a usable value is at hand"
    )
    connect_timeout: Seconds = setting("connect_timeout", "seconds for connecting, each attempt")
    read_timeout: Seconds = setting("read_timeout", "seconds to wait for an answer, each attempt")
    backoff_base: Seconds = setting("backoff_base", "seconds of the first pause, at most")
    backoff_cap: Seconds = setting("backoff_cap", "seconds of a later pause, at most")
    max_entries: int = setting("max_entries", "number of secrets kept in the cache")
    pool_size: int = setting("pool_size", "number of connections kept open")
    max_response_bytes: int = setting("max_response_bytes", "bytes of an answer, at most")

    from_variables: dict[str, str] = Field(
        default={},
        description="fields that are read from environment variables when the resource is made: "
        "field to variable; kv_ttl=EnvVar(…) adds to it",
    )

    # Arguments and not fields: only the variable's name is kept, in the field …_variable.
    if TYPE_CHECKING:
        secret_id: InitVar[dg.EnvVar | None] = None
        wrapped_secret_id: InitVar[dg.EnvVar | None] = None
        token: InitVar[dg.EnvVar | None] = None
        jwt: InitVar[dg.EnvVar | None] = None

    _client: VaultSecrets | None = PrivateAttr(default=None)
    _shared_as: object = PrivateAttr(default=None)
    _ended: bool = PrivateAttr(default=False)

    if not TYPE_CHECKING:  # type checkers take the signature from the fields, as pydantic does

        @without_frames()
        def __init__(
            self,
            *,
            secret_id: dg.EnvVar | None = None,
            wrapped_secret_id: dg.EnvVar | None = None,
            token: dg.EnvVar | None = None,
            jwt: dg.EnvVar | None = None,
            **data: Any,
        ) -> None:
            by_name = {
                "secret_id": secret_id,
                "wrapped_secret_id": wrapped_secret_id,
                "token": token,
                "jwt": jwt,
            }
            super().__init__(
                **checked(type(self), {**by_name, **data}, VaultSecretsResource.model_fields)
            )

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_"):  # Dagster's error would quote the value
                raise ConfigurationError(
                    "a resource's fields cannot be set", hint="make another resource"
                )
            super().__setattr__(name, value)

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return no_info_before_validator_function(cls._as_resource, handler(source))

        @classmethod
        def _as_resource(cls, value: Any) -> Any:
            """In place of pydantic's error, which would quote a credential that was given where
            this resource is wanted. (Of a `ValueError` it would make its own.)"""
            if value is None or isinstance(value, BaseModel):
                return value
            fault = f"a {type(value).__name__} was given in place of a {cls.__name__}"
            if isinstance(value, dict):
                try:
                    return checked(cls, value, VaultSecretsResource.model_fields)
                except ConfigurationError as error:
                    fault = error.message
            raise StrongroomError(fault, hint=f"write {cls.__name__}(…)")

    @classmethod
    @without_frames()
    def configure_at_launch(cls, **kwargs: Any) -> Any:
        """The resource with these values, and the rest from run configuration.

        Raises:
            ConfigurationError: as for the class itself.
        """
        return super().configure_at_launch(
            **checked(cls, kwargs, VaultSecretsResource.model_fields)
        )

    # --- life -----------------------------------------------------------------------------

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Checks the whole configuration; the login happens at the first read."""
        self._settings()
        self._shared_as = told_apart(self)
        with _clients.lock:
            self._client = _clients.acquire(self._shared_as, self._make_client)
            self._ended = False

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Revokes leases and token, forgets every value; the last one of a process that shares
        the client does so. A read after that is an error."""
        with _clients.lock:
            client, self._client = self._client, None
            self._ended = True
        if client is not None:
            _clients.release(self._shared_as)

    @property
    def client(self) -> VaultSecrets:
        """The client itself; outside of a run it is made at first use (close it then)."""
        client = self._client
        if client is not None:
            return client
        with _clients.lock:  # another thread may be making it, or ending the step
            if self._ended:
                raise ClosedError(
                    "the run or step of this resource has ended, and its client is closed",
                    hint="end what reads secrets, a thread for example, before the step ends",
                )
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def auth_method(self) -> AuthMethod:
        """How the client logs in. Override it for a login that has no fields here.

        Raises:
            ConfigurationError: no way to log in is configured, or several are.
        """
        methods: list[AuthMethod] = []
        if self.role_id is not None:
            secret_id, wrapped = self._secret_id()
            methods.append(AppRoleAuth(self.role_id, secret_id, wrapped, self.approle_mount))
        if self.token_file is not None:
            methods.append(TokenFileAuth(self.token_file))
        if self.jwt_role is not None:
            source = _one_source("the JWT", file=self.jwt_file, variable=self.jwt_variable)
            methods.append(JwtAuth(self.jwt_role, source, self.jwt_audience, self.jwt_mount))
        if self.kubernetes_role is not None:
            methods.append(
                KubernetesAuth(
                    self.kubernetes_role, self.kubernetes_jwt_file, self.kubernetes_mount
                )
            )
        if self.token_variable is not None:
            methods.append(TokenAuth(Source(variable=self.token_variable)))
        if len(methods) != 1:
            raise ConfigurationError(
                f"{len(methods)} ways to log in to Vault are configured, 1 is needed",
                hint="role_id, token_file, jwt_role, kubernetes_role or token",
            )
        return methods[0]

    def _secret_id(self) -> tuple[Source, bool]:
        plain = _one_source(
            "the secret id", file=self.secret_id_file, variable=self.secret_id_variable
        )
        wrapped = _one_source(
            "the secret id",
            file=self.wrapped_secret_id_file,
            variable=self.wrapped_secret_id_variable,
        )
        source = plain or wrapped
        if source is None or (plain and wrapped):
            raise ConfigurationError(
                f"{2 if source else 0} sources for the secret id are configured, 1 is needed",
                hint="secret_id, secret_id_file, wrapped_secret_id or wrapped_secret_id_file",
            )
        return source, wrapped is not None

    def _make_client(self) -> VaultSecrets:
        return VaultSecrets(self._settings(), self.auth_method())

    @without_frames()
    def _settings(self) -> Settings:
        if waiting := unresolved(self):
            raise ConfigurationError(
                f"{', '.join(waiting)}: an EnvVar that Dagster has not resolved yet",
                hint="outside of a run: with resource.process_config_and_initialize_cm() as vault",
            )
        values = {field.name: getattr(self, field.name, None) for field in fields(Settings)}
        values["environment"] = self.environment_name
        return Settings(**{**values, **from_variables(self.from_variables)})

    # --- reads ----------------------------------------------------------------------------

    def get(self, name: str, field: str | None = None) -> str:
        """One value as text. See `VaultSecrets.get`."""
        return self.client.get(name, field)

    def get_many(self, names: Iterable[str]) -> dict[str, str]:
        """Several values by name. See `VaultSecrets.get_many`."""
        return self.client.get_many(names)

    def kv(
        self, path: str, *, version: int | None = None, mount: str | None = None
    ) -> SecretMapping:
        """All fields of a KV secret. See `VaultSecrets.kv`."""
        return self.client.kv(path, version=version, mount=mount)

    def api_key(self, name: str, *, version: int | None = None, mount: str | None = None) -> ApiKey:
        """An API key. See `VaultSecrets.api_key`."""
        return self.client.api_key(name, version=version, mount=mount)

    def database(
        self, role: str, *, min_ttl: float = 0.0, mount: str | None = None
    ) -> DatabaseLease:
        """Credentials for a `with` block. See `VaultSecrets.database`."""
        return self.client.database(role, min_ttl=min_ttl, mount=mount)

    def environment(self, variables: Mapping[str, str]) -> AbstractContextManager[None]:
        """Environment variables for a `with` block. See `VaultSecrets.environment`."""
        return self.client.environment(variables)

    def invalidate(self, name: str | None = None) -> None:
        """Forgets what is cached. See `VaultSecrets.invalidate`."""
        self.client.invalidate(name)

    def wait_for_rotation(
        self, name: str, version: int | ApiKey, *, timeout: int = 60, mount: str | None = None
    ) -> ApiKey | None:
        """The API key as soon as it was rotated. See `VaultSecrets.wait_for_rotation`."""
        return self.client.wait_for_rotation(name, version, timeout=timeout, mount=mount)

    @property
    def hvac(self) -> hvac.Client:
        """hvac for everything else. See `VaultSecrets.hvac`."""
        return self.client.hvac


def _one_source(what: str, *, file: str | None, variable: str | None) -> Source | None:
    if file and variable:
        raise ConfigurationError(f"2 sources for {what} are configured, 1 is needed")
    if file:
        return Source(file=file)
    return Source(variable=variable) if variable else None
