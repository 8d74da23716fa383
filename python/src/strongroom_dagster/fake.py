"""A Vault in memory for the tests of those who use this package. Never for production.

`FakeVaultSecrets` is the real client, with its cache and its errors, over a dictionary instead of
a network; it passes the same conformance suite as the client on a real Vault.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from .client import VaultSecrets
from .clock import Clock
from .errors import ConfigurationError, RequestRefusedError, SecretNotFoundError
from .methods import Caller
from .settings import Settings

_CACHE_TTL = 7 * 24 * 3600
_PERIOD = 90 * 24 * 3600


class _NoAuth:
    owns_token = False

    def login(self, caller: Caller) -> dict[str, Any]:  # noqa: ARG002
        return {"client_token": "fake", "lease_duration": 0, "renewable": False}

    def describe(self) -> str:
        return "fake"


class FakeVaultSecrets(VaultSecrets):
    """A client whose Vault is a few dictionaries. Names are those that `get` takes.

    Args:
        secrets: KV secrets; a string stands for the single field `value`.
        api_keys: API keys; a string stands for the single value `key`.
        databases: user and password by role. They are handed out as they are: give those of a
            real test database where one is used.
        settings, clock: as for `VaultSecrets`.

    Attributes:
        leases: the leases that are open; empty when every `with` block has ended.
    """

    def __init__(
        self,
        secrets: Mapping[str, str | Mapping[str, Any]] | None = None,
        api_keys: Mapping[str, str | Mapping[str, str]] | None = None,
        databases: Mapping[str, tuple[str, str]] | None = None,
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(settings or Settings(), _NoAuth(), clock=clock)
        self._kv_versions: dict[str, list[dict[str, Any]]] = {}
        self._key_versions: dict[str, list[dict[str, str]]] = {}
        self._next_rotations: dict[str, str] = {}
        self._databases = dict(databases or {})
        self._lease_numbers = itertools.count(1)
        self.leases: set[str] = set()
        for name, fields in (secrets or {}).items():
            self.put(name, fields)
        for name, values in (api_keys or {}).items():
            self.rotate(name, values)

    @property
    def hvac(self) -> Any:
        """There is none."""
        raise ConfigurationError(
            "the fake has no hvac", hint="test what uses hvac against a real Vault"
        )

    # --- what a test does to it -----------------------------------------------------------------

    def put(self, name: str, fields: str | Mapping[str, Any]) -> None:
        """Writes a new version of a KV secret. A cached older one stays cached, as with Vault."""
        data = {"value": fields} if isinstance(fields, str) else dict(fields)
        self._kv_versions.setdefault(self._parse(f"kv:{name}").path, []).append(data)

    def rotate(
        self, name: str, values: str | Mapping[str, str], *, next_rotation_time: str = ""
    ) -> None:
        """Makes a new version of an API key the current one."""
        data = {"key": values} if isinstance(values, str) else dict(values)
        path = self._parse(f"apikey:{name}").path
        self._key_versions.setdefault(path, []).append(data)
        self._next_rotations[path] = next_rotation_time

    # --- Vault ----------------------------------------------------------------------------------

    def call(
        self,
        method: str,  # noqa: ARG002
        path: str,
        *,
        until: float,  # noqa: ARG002
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        json: Any = None,
        idempotent: bool = False,  # noqa: ARG002
        allow_304: bool = False,
        read_timeout: float | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Answers as Vault would."""
        path, settings = unquote(path), self.settings
        if path == "sys/leases/revoke":
            self.leases.discard(json["lease_id"])
            return {}
        if path == "sys/leases/renew":
            if json["lease_id"] not in self.leases:
                raise RequestRefusedError(f'vault refused "{path}": lease not found')
            return {"lease_duration": 3600, "renewable": True}
        for prefix, answer in (
            (f"{settings.kv_mount}/data/", self._read_kv),
            (f"{settings.kv_mount}/metadata/", self._read_metadata),
            (f"{settings.database_mount}/creds/", self._read_database),
            (f"{settings.apikeys_mount}/creds/", self._read_key),
        ):
            if path.startswith(prefix):
                asked = {**(params or {}), **(headers or {})}
                found = answer(path.removeprefix(prefix), asked)
                if found is None and allow_304:
                    return {}
                if found is not None:
                    return found
        raise SecretNotFoundError(f'nothing at "{path}" in vault', hint="put it into the fake")

    def _read_kv(self, path: str, params: dict[str, str]) -> dict[str, Any] | None:
        versions = self._kv_versions.get(path, [])
        number = int(params.get("version") or len(versions))
        if not 1 <= number <= len(versions):
            return None
        metadata = {"version": number, "created_time": f"fake-{number}"}
        return {"data": {"data": versions[number - 1], "metadata": metadata}}

    def _read_metadata(self, path: str, _: dict[str, str]) -> dict[str, Any] | None:
        versions = self._kv_versions.get(path)
        return {"data": {"current_version": len(versions)}} if versions else None

    def _read_key(self, path: str, params: dict[str, str]) -> dict[str, Any] | None:
        versions = self._key_versions.get(path)
        if not versions:
            raise SecretNotFoundError(f'no API key "{path}" in vault', hint="put it into the fake")
        number = int(params.get("version") or len(versions))
        if not 1 <= number <= len(versions):
            raise RequestRefusedError(f'vault refused "{path}": no version {number}')
        etag = f'"{number}"'
        if params.get("if_version") == str(number) or params.get("If-None-Match") == etag:
            return None
        values = versions[number - 1]
        return {
            "data": {
                **({"key": values["key"]} if set(values) == {"key"} else {"values": values}),
                "version": number,
                "etag": etag,
                "state": "current" if number == len(versions) else "grace",
                "cache_ttl": _CACHE_TTL,
                "ttl": _CACHE_TTL,
                "rotation_period": _PERIOD,
                "next_rotation_time": self._next_rotations[path],
            }
        }

    def _read_database(self, role: str, _: dict[str, str]) -> dict[str, Any] | None:
        if role not in self._databases:
            return None
        username, password = self._databases[role]
        lease_id = f"database/creds/{role}/fake-{next(self._lease_numbers)}"
        self.leases.add(lease_id)
        return {
            "lease_id": lease_id,
            "lease_duration": 3600,
            "renewable": True,
            "data": {"username": username, "password": password},
        }
