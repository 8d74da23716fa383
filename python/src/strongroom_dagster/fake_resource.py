"""The fake as a Dagster resource, for tests of Dagster code. Never for production."""

from __future__ import annotations

from pydantic import Field

from .client import VaultSecrets
from .fake import FakeVaultSecrets
from .resource import VaultSecretsResource


class FakeVaultSecretsResource(VaultSecretsResource):
    """The resource for tests of Dagster code: put it where `VaultSecretsResource` stands.

    Its values are Dagster configuration, so that they reach the processes of the multiprocess
    executor, and the UI shows them: give it made-up ones.

    Attributes:
        secrets: fields of each KV secret by name.
        api_keys: values of each API key by name.
        databases: `[user, password]` by role.
    """

    secrets: dict[str, dict[str, str]] = Field(default_factory=dict)
    api_keys: dict[str, dict[str, str]] = Field(default_factory=dict)
    databases: dict[str, list[str]] = Field(default_factory=dict)

    def _make_client(self) -> VaultSecrets:
        return FakeVaultSecrets(
            self.secrets,
            self.api_keys,
            {role: (pair[0], pair[1]) for role, pair in self.databases.items()},
            settings=self._settings(),
        )
