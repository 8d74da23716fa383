"""`VaultSecretsResource`: one `VaultSecrets` for each run or step process of Dagster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg
import hvac
from pydantic import Field, PrivateAttr

from .client import VaultSecrets
from .database import DatabaseLease
from .errors import ConfigurationError
from .masked import ApiKey, SecretMapping
from .methods import (
    KUBERNETES_JWT,
    AppRoleAuth,
    AuthMethod,
    KubernetesAuth,
    Source,
    TokenAuth,
    TokenFileAuth,
)
from .settings import DEFAULT_ADDRESS, Settings

#: Credentials that may only be named, never given: argument -> the field that holds its name.
_BY_NAME = {
    "secret_id": "secret_id_variable",
    "wrapped_secret_id": "wrapped_secret_id_variable",
    "token": "token_variable",
}


class VaultSecretsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Secrets from Vault for assets, ops, sensors and schedules.

    Give one way to log in: `role_id` with a secret id, `token_file` (Vault Agent),
    `kubernetes_role`, or `token`.

    A secret id or token is never a value of the configuration. `secret_id`, `wrapped_secret_id`
    and `token` take an `EnvVar`, of which only the name is kept, so that neither the UI nor run
    configuration nor an event can show more than that name; the files are named by path.

    Durations are in seconds; what they mean is said at `Settings`.
    """

    address: str = Field(default=DEFAULT_ADDRESS, description="https://…, http://… or unix:///…")
    role_id: str | None = Field(default=None, description="AppRole role id (not a secret)")
    secret_id_file: str | None = Field(default=None, description="file that holds the secret id")
    secret_id_variable: str | None = Field(
        default=None, description="name of the environment variable that holds the secret id"
    )
    wrapped_secret_id_file: str | None = Field(
        default=None, description="file that holds a wrapping token for the secret id"
    )
    wrapped_secret_id_variable: str | None = Field(
        default=None, description="name of the variable that holds a wrapping token"
    )
    approle_mount: str = Field(default="approle")
    token_file: str | None = Field(default=None, description="sink file of Vault Agent")
    token_variable: str | None = Field(
        default=None, description="name of the environment variable that holds a token"
    )
    kubernetes_role: str | None = Field(default=None)
    kubernetes_mount: str = Field(default="kubernetes")
    kubernetes_jwt_file: str = Field(default=KUBERNETES_JWT)

    app: str | None = Field(default=None, description="names are read from app/environment/name")
    environment: str | None = Field(default=None)
    namespace: str | None = Field(default=None)
    ca_bundle: str | None = Field(default=None)
    tls_server_name: str | None = Field(default=None)
    proxy: str | None = Field(default=None)
    kv_mount: str = Field(default="secret")
    apikeys_mount: str = Field(default="apikeys")
    database_mount: str = Field(default="database")
    kv_ttl: float = Field(default=60.0)
    api_key_revalidate: float = Field(default=60.0)
    stale_if_error: float = Field(default=0.0)
    deadline: float = Field(default=60.0)
    connect_timeout: float = Field(default=5.0)
    read_timeout: float = Field(default=30.0)
    max_entries: int = Field(default=1024)

    _client: VaultSecrets | None = PrivateAttr(default=None)

    def __init__(self, **data: Any) -> None:
        for argument, field in _BY_NAME.items():
            if argument not in data:
                continue
            value = data.pop(argument)
            if value is None:
                continue
            if not isinstance(value, dg.EnvVar):
                raise ConfigurationError(
                    f"{argument}: a literal would be shown in the Dagster UI",
                    hint=f'use EnvVar("…"), or {argument}_file with a path',
                )
            data[field] = value.env_var_name
        super().__init__(**data)

    # --- life -----------------------------------------------------------------------------

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Checks the whole configuration; the login happens at the first read."""
        self._client = self._make_client()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Revokes leases and token, forgets every value."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @property
    def client(self) -> VaultSecrets:
        """The client itself; outside of a run it is made at first use (close it then)."""
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def _make_client(self) -> VaultSecrets:
        return VaultSecrets(self._settings(), self._auth())

    def _settings(self) -> Settings:
        return Settings(
            address=self.address,
            ca_bundle=self.ca_bundle,
            tls_server_name=self.tls_server_name,
            namespace=self.namespace,
            proxy=self.proxy,
            app=self.app,
            environment=self.environment,
            kv_mount=self.kv_mount,
            apikeys_mount=self.apikeys_mount,
            database_mount=self.database_mount,
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            deadline=self.deadline,
            kv_ttl=self.kv_ttl,
            api_key_revalidate=self.api_key_revalidate,
            stale_if_error=self.stale_if_error,
            max_entries=self.max_entries,
        )

    def _auth(self) -> AuthMethod:
        methods: list[AuthMethod] = []
        if self.role_id is not None:
            methods.append(self._approle(self.role_id))
        if self.token_file is not None:
            methods.append(TokenFileAuth(self.token_file))
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
                hint="role_id, token_file, kubernetes_role or token",
            )
        return methods[0]

    def _approle(self, role_id: str) -> AppRoleAuth:
        plain = [
            *([Source(file=self.secret_id_file)] if self.secret_id_file else []),
            *([Source(variable=self.secret_id_variable)] if self.secret_id_variable else []),
        ]
        wrapped = [
            *([Source(file=self.wrapped_secret_id_file)] if self.wrapped_secret_id_file else []),
            *(
                [Source(variable=self.wrapped_secret_id_variable)]
                if self.wrapped_secret_id_variable
                else []
            ),
        ]
        if len(plain) + len(wrapped) != 1:
            raise ConfigurationError(
                f"{len(plain) + len(wrapped)} sources for the secret id are configured, 1 is needed",
                hint="secret_id, secret_id_file, wrapped_secret_id or wrapped_secret_id_file",
            )
        return AppRoleAuth(role_id, (plain + wrapped)[0], bool(wrapped), self.approle_mount)

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

    @property
    def hvac(self) -> hvac.Client:
        """hvac for everything else. See `VaultSecrets.hvac`."""
        return self.client.hvac
