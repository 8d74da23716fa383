"""What the two cached engines answer, and how long each answer may be kept.

Every lifetime counts from before the request was sent, so that a slow answer never makes a
value live too long.
"""

from __future__ import annotations

import math
from typing import Any, Protocol
from urllib.parse import quote

from .cache import Cache, Entry
from .errors import AccessDeniedError, InvalidResponseError, SecretNotFoundError
from .masked import ApiKey, SecretMapping
from .refs import Ref
from .settings import Settings


class Caller(Protocol):
    """What is needed of `client.VaultSecrets`."""

    settings: Settings

    def now(self) -> float: ...

    def call(
        self,
        method: str,
        path: str,
        *,
        until: float,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        allow_304: bool = False,
        read_timeout: float | None = None,
    ) -> dict[str, Any]: ...


# --- KV v2 ---------------------------------------------------------------------------------


def fetch_kv(
    caller: Caller, ref: Ref, metadata_denied: set[str], old: Entry | None, until: float
) -> Entry:
    """A KV v2 secret. One that is cached is first asked for its version only.

    Where the policy does not allow `metadata`, the data itself is read each time; that is
    remembered per mount.
    Source: https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
    """
    asked_at = caller.now()
    path = quote(ref.path)
    if old is not None and ref.version is None and ref.mount not in metadata_denied:
        try:
            answer = caller.call("get", f"{quote(ref.mount)}/metadata/{path}", until=until)
        except (AccessDeniedError, SecretNotFoundError):
            answer = {}
        if _still_current(answer.get("data"), old.value):
            return _kv_entry(caller, old.value, asked_at)
        probe_failed = not answer
        asked_at = caller.now()
    else:
        probe_failed = False
    params = {"version": str(ref.version)} if ref.version is not None else None
    answer = caller.call("get", f"{quote(ref.mount)}/data/{path}", until=until, params=params)
    if probe_failed:
        metadata_denied.add(ref.mount)
    return _kv_entry(caller, _secret(answer, ref, old), asked_at)


def _still_current(metadata: Any, value: SecretMapping) -> bool:
    if not isinstance(metadata, dict) or metadata.get("current_version") != value.version:
        return False
    version = (metadata.get("versions") or {}).get(str(value.version)) or {}
    # Deleted, or to be deleted: the data must be asked. A soft delete keeps the version's number.
    return not version.get("destroyed") and not version.get("deletion_time")


def _kv_entry(caller: Caller, value: SecretMapping, asked_at: float) -> Entry:
    settings = caller.settings
    fresh = asked_at + settings.kv_ttl
    return Entry(value, fresh, fresh + settings.stale_if_error)


def _secret(answer: dict[str, Any], ref: Ref, old: Entry | None) -> SecretMapping:
    block = answer.get("data")
    data = block.get("data") if isinstance(block, dict) else None
    metadata = block.get("metadata") if isinstance(block, dict) else None
    if not isinstance(data, dict) or not isinstance(metadata, dict):
        raise InvalidResponseError(
            f"{ref.label} is not a KV version 2 secret", hint="check the mount and its version"
        )
    secret = SecretMapping(
        data,
        path=f"{ref.mount}/{ref.path}",
        version=int(metadata.get("version") or 0),
        created_time=str(metadata.get("created_time") or ""),
    )
    # The same version is the same object, so that users can compare with `is`.
    if old is not None and secret.created_time == old.value.created_time and secret == old.value:
        return old.value  # type: ignore[no-any-return]
    return secret


# --- apikeys --------------------------------------------------------------------------------


def fetch_api_key(caller: Caller, ref: Ref, old: Entry | None, until: float) -> Entry:
    """An API key, asked conditionally if it is cached and still promised to work.

    The etag stands for the version, its state and what its readers were promised, so a 304 to it
    promises `cache_ttl` anew; the engine answers with the body where that would not be true.
    `if_version` is not used here: it stands for the version alone.
    """
    asked_at = caller.now()
    params = {"version": str(ref.version)} if ref.version is not None else None
    conditional = old is not None and bool(old.value.etag) and asked_at < old.usable_until
    headers = {"If-None-Match": old.value.etag} if old is not None and conditional else None
    answer = caller.call(
        "get", _creds_path(ref), until=until, headers=headers, params=params, allow_304=conditional
    )
    key = old.value if old is not None and not answer else _api_key(ref, answer)
    return _api_key_entry(caller, key, asked_at)


def wait_for_api_key(
    caller: Caller, cache: Cache, ref: Ref, version: int, timeout: int
) -> ApiKey | None:
    """A long poll; what it brings goes into the cache for all."""
    asked_at = caller.now()
    answer = caller.call(
        "get", _creds_path(ref), until=asked_at + timeout + caller.settings.deadline,
        params={"if_version": str(version), "wait": str(timeout)},
        allow_304=True, read_timeout=timeout + caller.settings.read_timeout,
    )  # fmt: skip
    if not answer:
        return None
    # The key may have been written at any time of the wait: the promise counts from its start.
    key = _api_key(ref, answer)
    if key.version == version:
        return None
    cache.put(ref.key, _api_key_entry(caller, key, asked_at))
    return key


def _creds_path(ref: Ref) -> str:
    return f"{quote(ref.mount)}/creds/{quote(ref.path)}"


def _api_key_entry(caller: Caller, key: ApiKey, asked_at: float) -> Entry:
    # At the next rotation there is a newer one. Entry never goes past the promise.
    look_again = min(caller.settings.api_key_revalidate, key.ttl or math.inf)
    return Entry(key, asked_at + look_again, asked_at + key.cache_ttl)


def _api_key(ref: Ref, answer: dict[str, Any]) -> ApiKey:
    data = answer.get("data")
    if not isinstance(data, dict):
        raise InvalidResponseError(f"{ref.label}: the answer holds no data")
    fault = ""
    try:
        version = int(data["version"])
        cache_ttl = float(data["cache_ttl"])
        ttl = float(data.get("ttl") or 0)
        named = data["values"] if isinstance(data.get("values"), dict) else {"key": data["key"]}
    except (KeyError, TypeError, ValueError) as error:
        fault = type(error).__name__
    if fault or not (0 <= cache_ttl < math.inf and 0 <= ttl < math.inf):
        raise InvalidResponseError(
            f"{ref.label}: the answer lacks version, cache_ttl or key, or they are malformed",
            hint="is an apikeys engine mounted there?",
        )

    def text(name: str) -> str:
        return str(data.get(name) or "")

    values = SecretMapping(
        named, path=f"{ref.mount}/{ref.path}", version=version, created_time=text("created_time")
    )
    return ApiKey(
        name=ref.path,
        values=values,
        version=version,
        etag=text("etag"),
        state=text("state"),
        created_time=text("created_time"),
        last_rotated_time=text("last_rotated_time"),
        next_rotation_time=text("next_rotation_time"),
        cache_ttl=cache_ttl,
        ttl=ttl,
        warnings=tuple(str(w) for w in answer.get("warnings") or ()),
    )
