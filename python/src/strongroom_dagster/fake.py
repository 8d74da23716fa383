"""A Vault in memory for the tests of those who use this package. Never for production.

`FakeVaultSecrets` is the real client, with its cache and its errors, over a dictionary instead of
a network; it passes the same conformance suite as the client on a real Vault.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from .client import VaultSecrets
from .clock import Clock
from .errors import (
    AccessDeniedError,
    ConfigurationError,
    RequestRefusedError,
    SecretNotFoundError,
    VaultUnavailableError,
)
from .masked import AS_VAULT_HAS_THEM
from .methods import Caller
from .refs import parse_ref
from .settings import Settings, quoted_name

_CACHE_TTL = 7 * 24 * 3600
_PERIOD = 90 * 24 * 3600


class _NoAuth:
    owns_token = False

    def login(self, caller: Caller) -> dict[str, Any]:  # noqa: ARG002
        return {"client_token": "fake", "lease_duration": 0, "renewable": False}

    def describe(self) -> str:
        return "fake"


@dataclass
class _KvVersion:
    data: str  # as JSON, which is what Vault takes and gives
    created_time: str
    deletion_time: str = ""
    destroyed: bool = False

    def metadata(self, number: int) -> dict[str, Any]:
        return {
            "version": number,
            "created_time": self.created_time,
            "deletion_time": self.deletion_time,
            "destroyed": self.destroyed,
        }


@dataclass
class _KeyVersion:
    values: dict[str, str]
    created_time: str
    compromised: bool = False


class _FakeVault:
    """What the copies of a fake share, as clients share a Vault."""

    def __init__(self, databases: Mapping[str, tuple[str, str]]) -> None:
        self.kv: dict[str, list[_KvVersion]] = {}
        self.keys: dict[str, list[_KeyVersion]] = {}
        self.ended: dict[str, int] = {}  # last number of a deleted key; the next counts on
        self.next_rotations: dict[str, str] = {}
        self.databases = dict(databases)
        self.leases: set[str] = set()
        self.denied: set[str] = set()
        self.outages = 0
        self._ticks = itertools.count(1)

    def tick(self) -> int:
        """Another number each time, without a lock that a fork could leave held: of a lease, or of
        a moment."""
        return next(self._ticks)

    def time(self) -> str:
        """A moment of its own for everything that is made, so that a key which is made anew is
        not the one that was there before."""
        return f"2026-01-01T00:00:00.{self.tick():09d}Z"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_ticks": self.tick(), "outages": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _ticks=itertools.count(state["_ticks"] + 1))


def _as_kv_has_it(text: str) -> Any:
    """KV version 2 makes each number one of floating point, and writes it as Go does: with an
    exponent below 1e-6 and from 1e21."""
    number = float(text)
    plain = 1e-6 <= abs(number) < 1e21
    text = format(Decimal(repr(number)), "f") if plain else repr(number)
    text = re.sub(r"e-0(\d)", r"e-\1", text.removesuffix(".0"))
    return json.loads(text, **AS_VAULT_HAS_THEM)


class FakeVaultSecrets(VaultSecrets):
    """A client whose Vault is a few dictionaries. Names are those that `get` takes.

    A copy (`copy.copy`) is another client of the same Vault; a deep copy and one that was pickled
    have a Vault of their own, which holds the same.

    Args:
        secrets: KV secrets; a string stands for the single field `value`.
        api_keys: API keys; a string stands for the single value `key`.
        databases: user and password by role. They are handed out as they are: give those of a
            real test database where one is used.
        settings, clock: as for `VaultSecrets`.
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
        self._vault = _FakeVault(databases or {})
        for name, fields in (secrets or {}).items():
            self.put(name, fields)
        for name, values in (api_keys or {}).items():
            self.rotate(name, values)

    def __reduce__(self) -> tuple[Any, ...]:
        made = functools.partial(type(self), settings=self.settings)
        return (made, (), {"_vault": self._vault})

    @property
    def hvac(self) -> Any:
        """There is none."""
        raise ConfigurationError(
            "the fake has no hvac", hint="test what uses hvac against a real Vault"
        )

    @property
    def leases(self) -> set[str]:
        """The leases that are open; empty when every `with` block has ended."""
        return set(self._vault.leases)

    # --- what a test does to it -----------------------------------------------------------------
    # What is cached stays cached, as with Vault.

    def put(self, name: str, fields: str | Mapping[str, Any]) -> None:
        """Writes a new version of a KV secret."""
        data = {"value": fields} if isinstance(fields, str) else dict(fields)
        try:
            text = json.dumps(data)
        except (TypeError, ValueError, RecursionError):
            text = ""
        if not text:
            raise ConfigurationError("a secret's fields must be what JSON can hold")
        versions = self._vault.kv.setdefault(self._path("kv", name), [])
        versions.append(_KvVersion(text, self._vault.time()))

    def rotate(
        self,
        name: str,
        values: str | Mapping[str, str],
        *,
        next_rotation_time: str = "",
        compromised: bool = False,
    ) -> None:
        """Makes a new version of an API key the current one.

        Args:
            compromised: whether the versions before it end now, without grace.
        """
        data = {"key": values} if isinstance(values, str) else dict(values)
        path = self._path("apikey", name)
        versions = self._vault.keys.setdefault(path, [])
        for version in versions if compromised else ():
            version.compromised = True
        versions.append(_KeyVersion(data, self._vault.time()))
        self._vault.next_rotations[path] = next_rotation_time

    def delete(self, name: str, *, version: int | None = None) -> None:
        """Deletes a KV secret's current or given version, which `undelete` brings back.

        An API key (`apikey:…`) is gone for good; `rotate` makes another, which counts on.
        """
        if name.startswith("apikey:"):
            path = self._path("apikey", name)
            if version is not None:
                raise ConfigurationError("version: an API key is deleted with all its versions")
            versions = self._vault.keys.pop(path, None)
            if versions is None:
                raise SecretNotFoundError(f'no API key "{path}" in the fake')
            self._vault.ended[path] = self._vault.ended.get(path, 0) + len(versions)
            return
        self._kv_version(name, version).deletion_time = self._vault.time()

    def undelete(self, name: str, *, version: int | None = None) -> None:
        """Takes `delete` of a KV secret back."""
        self._kv_version(name, version).deletion_time = ""

    def destroy(self, name: str, *, version: int | None = None) -> None:
        """Destroys the data of a KV secret's current or given version."""
        self._kv_version(name, version).destroyed = True

    def purge(self, name: str) -> None:
        """Deletes a KV secret with all its versions; `put` makes another with version 1."""
        self._kv_version(name, None)
        del self._vault.kv[self._path("kv", name)]

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Within the block Vault does not answer, as if every deadline had passed at once."""
        self._vault.outages += 1
        try:
            yield
        finally:
            self._vault.outages -= 1

    def deny(self, name: str) -> None:
        """From now on the policy does not allow to read a name, or `database:ROLE`."""
        self._vault.denied |= self._api_paths(name)

    def allow(self, name: str) -> None:
        """Takes `deny` back."""
        self._vault.denied -= self._api_paths(name)

    def _path(self, engine: str, name: str) -> str:
        ref = parse_ref(name, self.settings)
        if ref.field is not None or (ref.engine != engine and name.startswith(f"{ref.engine}:")):
            raise ConfigurationError(
                f"{quoted_name('name', name)} is not that of a whole "
                f"{'KV secret' if engine == 'kv' else 'API key'}",
                hint="put is for KV secrets and rotate for API keys, both without a field",
            )
        return ref.path

    def _kv_version(self, name: str, version: int | None) -> _KvVersion:
        path = self._path("kv", name)
        versions = self._vault.kv.get(path, [])
        number = len(versions) if version is None else version
        if not 1 <= number <= len(versions):
            raise SecretNotFoundError(f'no version {number} of "{path}" in the fake')
        return versions[number - 1]

    def _api_paths(self, name: str) -> set[str]:
        if name.startswith("database:"):
            return {f"{self.settings.database_mount}/creds/{name.removeprefix('database:')}"}
        ref = self._parse(name)
        kinds = ("data", "metadata") if ref.engine == "kv" else ("creds",)
        return {f"{ref.mount}/{kind}/{ref.path}" for kind in kinds}

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
        path, settings, vault = unquote(path), self.settings, self._vault
        if vault.outages:
            raise VaultUnavailableError(
                "vault gave no answer: outage of the fake", hint="the outage ends with its block"
            )
        if path in vault.denied:
            raise AccessDeniedError(
                f'permission denied on "{path}"', hint="the policy of this identity must allow it"
            )
        if path == "sys/leases/revoke":
            vault.leases.discard(json["lease_id"])
            return {}
        if path == "sys/leases/renew":
            if json["lease_id"] not in vault.leases:
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
        versions = self._vault.kv.get(path, [])
        number = int(params.get("version") or len(versions))
        if not 1 <= number <= len(versions):
            return None
        version = versions[number - 1]
        how = "destroyed" if version.destroyed else "deleted" if version.deletion_time else ""
        if how:
            raise SecretNotFoundError(
                f'nothing at "{self.settings.kv_mount}/data/{path}" in vault',
                hint=f"version {number} was {how}",
            )
        data = json.loads(version.data, parse_float=_as_kv_has_it, parse_int=_as_kv_has_it)
        return {"data": {"data": data, "metadata": version.metadata(number)}}

    def _read_metadata(self, path: str, _: dict[str, str]) -> dict[str, Any] | None:
        versions = self._vault.kv.get(path)
        if not versions:
            return None
        numbered = {str(n): v.metadata(n) for n, v in enumerate(versions, 1)}
        return {"data": {"current_version": len(versions), "versions": numbered}}

    def _read_key(self, path: str, params: dict[str, str]) -> dict[str, Any] | None:
        versions = self._vault.keys.get(path)
        if not versions:
            raise SecretNotFoundError(f'no API key "{path}" in vault', hint="put it into the fake")
        before = self._vault.ended.get(path, 0)
        last = before + len(versions)
        number = int(params.get("version") or last)
        if not before < number <= last:
            raise RequestRefusedError(f'vault refused "{path}": no version {number}')
        version = versions[number - before - 1]
        if version.compromised:
            raise RequestRefusedError(f'vault refused "{path}": version {number} is compromised')
        etag = f'"{number} {version.created_time}"'
        if params.get("if_version") == str(number) or params.get("If-None-Match") == etag:
            return None
        values = version.values
        return {
            "data": {
                **({"key": values["key"]} if set(values) == {"key"} else {"values": values}),
                "version": number,
                "etag": etag,
                "state": "current" if number == last else "grace",
                "created_time": version.created_time,
                "last_rotated_time": versions[-1].created_time,
                "cache_ttl": _CACHE_TTL,
                "ttl": _CACHE_TTL,
                "rotation_period": _PERIOD,
                "next_rotation_time": self._vault.next_rotations[path],
            }
        }

    def _read_database(self, role: str, _: dict[str, str]) -> dict[str, Any] | None:
        if role not in self._vault.databases:
            return None
        username, password = self._vault.databases[role]
        lease_id = f"{self.settings.database_mount}/creds/{role}/fake-{self._vault.tick()}"
        self._vault.leases.add(lease_id)
        return {
            "lease_id": lease_id,
            "lease_duration": 3600,
            "renewable": True,
            "data": {"username": username, "password": password},
        }
