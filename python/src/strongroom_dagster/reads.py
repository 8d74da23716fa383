"""What the two cached engines answer, and how long each answer may be kept.

Every lifetime counts from before the request was sent, so that a slow answer never makes a
value live too long.
"""

from __future__ import annotations

import math
from typing import Any, Protocol
from urllib.parse import quote

from .cache import Cache, Entry
from .errors import (
    AccessDeniedError,
    InvalidResponseError,
    RequestRefusedError,
    SecretNotFoundError,
    StrongroomError,
)
from .lease import is_seconds
from .masked import ApiKey, SecretMapping, same_version
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


class Mounts:
    """What a client has learnt about the mounts it reads from.

    Attributes:
        metadata_denied: KV mounts whose metadata the policy does not let it read.
        right: mounts that were asked after, and are what they should be.
    """

    def __init__(self) -> None:
        self.metadata_denied: set[str] = set()
        self.right: set[str] = set()


# --- KV v2 ---------------------------------------------------------------------------------


def fetch_kv(caller: Caller, ref: Ref, mounts: Mounts, old: Entry | None, until: float) -> Entry:
    """A KV v2 secret. One that is cached is first asked for its version only.

    Where the policy does not allow `metadata`, the data itself is read each time; that is
    remembered per mount.
    Source: https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
    """
    asked_at = caller.now()
    path = quote(ref.path)
    denied = False
    if old is not None and ref.version is None and ref.mount not in mounts.metadata_denied:
        try:
            answer = caller.call("get", f"{quote(ref.mount)}/metadata/{path}", until=until)
        except SecretNotFoundError:
            answer = {}
        except AccessDeniedError:
            answer, denied = {}, True
        if _still_current(answer.get("data"), old.value):
            return _kv_entry(caller, old.value, asked_at)
        asked_at = caller.now()
    params = {"version": str(ref.version)} if ref.version is not None else None
    refused: AccessDeniedError | SecretNotFoundError | None = None
    try:
        answer = caller.call("get", f"{quote(ref.mount)}/data/{path}", until=until, params=params)
    except (AccessDeniedError, SecretNotFoundError) as error:
        refused = error
    if refused is not None:
        _explain(caller, ref, mounts, until)
        raise refused
    if denied:
        mounts.metadata_denied.add(ref.mount)
    return _kv_entry(caller, _secret(answer, ref, old), asked_at)


def _still_current(metadata: Any, value: SecretMapping) -> bool:
    if not isinstance(metadata, dict) or metadata.get("current_version") != value.version:
        return False
    versions = metadata.get("versions")
    version = versions.get(str(value.version)) if isinstance(versions, dict) else None
    # A secret that was made anew counts its versions from 1 again, so the number does not tell.
    if not isinstance(version, dict) or not value.created_time:
        return False
    if version.get("created_time") != value.created_time:
        return False
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
    version = metadata.get("version") if isinstance(metadata, dict) else None
    if not isinstance(data, dict) or isinstance(version, bool) or not isinstance(version, int):
        raise InvalidResponseError(
            f"{ref.label} is not a KV version 2 secret", hint=_for_version_1(ref)
        )
    assert isinstance(metadata, dict)
    secret = SecretMapping(
        data,
        path=f"{ref.mount}/{ref.path}",
        version=version,
        created_time=str(metadata.get("created_time") or ""),
    )
    # The same version is the same object, so that users can compare with `is`.
    if old is not None and same_version(secret, old.value) and secret == old.value:
        return old.value  # type: ignore[no-any-return]
    return secret


def _for_version_1(ref: Ref) -> str:
    return (
        f"check the mount; KV version 1 is read with "
        f'hvac.secrets.kv.v1.read_secret("{ref.path}", mount_point="{ref.mount}"), or made '
        f"version 2 by: vault kv enable-versioning {ref.mount}"
    )


def _explain(caller: Caller, ref: Ref, mounts: Mounts, until: float) -> None:
    """After a 403 or 404: says so if the mount is no KV version 2, else nothing.

    KV version 1 has the data right under the mount, so that there it looks as if the secret were
    missing, or its policy.
    Source: https://developer.hashicorp.com/vault/api-docs/system/internal-ui-mounts
    """
    if ref.mount in mounts.right:
        return
    try:
        answer = caller.call("get", f"sys/internal/ui/mounts/{quote(ref.mount)}", until=until)
    except StrongroomError:
        return
    mount = answer.get("data")
    kind = mount.get("type") if isinstance(mount, dict) else None
    if not isinstance(mount, dict) or not isinstance(kind, str):
        return
    options = mount.get("options")
    number = str(options.get("version", "1")) if isinstance(options, dict) else "1"
    if kind in ("kv", "generic") and number != "2":
        raise InvalidResponseError(
            f'{ref.label} is not a KV version 2 secret: mount "{ref.mount}" is KV version 1',
            hint=_for_version_1(ref),
        )
    if kind not in ("kv", "generic"):
        raise InvalidResponseError(
            f'{ref.label} is not a KV version 2 secret: mount "{ref.mount}" is of type "{kind}"',
            hint="check the mount; an API key is read with api_key(…)",
        )
    mounts.right.add(ref.mount)


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


# Seconds. The engine answers after 55 at the most, since stock clients give up after 60; what is
# left of a wait is then asked for again. An answer that comes sooner is an engine that lets nobody
# wait, or no more; it is not asked in a loop.
_A_REAL_WAIT = 5.0


def wait_for_api_key(
    caller: Caller, cache: Cache, ref: Ref, known: int | ApiKey, timeout: int
) -> ApiKey | None:
    """A long poll; what it brings goes into the cache for all.

    It asks by etag where one is known: a key that was deleted and made anew has the same number
    again. An etag stands for more than the version, so an answer may be the known version still;
    then the wait goes on.
    """
    question = cache.ask(ref.key)
    entry: Entry | None = None
    try:
        if isinstance(known, int):
            cached = question.old.value if question.old is not None else None
            same = cached is not None and cached.version == known
            number, seen = known, (cached if same else None)
        else:
            number, seen = known.version, known
        end = caller.now() + timeout
        while True:
            asked_at = caller.now()
            left = max(1, math.ceil(end - asked_at))
            answer = _poll(caller, ref, number, seen, left)
            if not answer:
                now = caller.now()
                if now - asked_at < _A_REAL_WAIT or now >= end:
                    return None
                continue
            # Written at any time of the wait: the promise counts from its start.
            key = _api_key(ref, answer)
            entry = _api_key_entry(caller, key, asked_at)
            if seen is None or not same_version(key, seen):
                return key if seen is not None or key.version != number else None
            if caller.now() >= end or key.etag == seen.etag:
                return None
            seen = key
    finally:
        cache.learn(question, entry)


def _poll(
    caller: Caller, ref: Ref, number: int, seen: ApiKey | None, seconds: int
) -> dict[str, Any]:
    path, wait = _creds_path(ref), {"wait": str(seconds)}
    until = caller.now() + seconds + caller.settings.deadline
    read_timeout = seconds + caller.settings.read_timeout
    if seen is not None and seen.etag:
        try:
            return caller.call(
                "get", path, until=until, headers={"If-None-Match": seen.etag}, params=wait,
                allow_304=True, read_timeout=read_timeout,
            )  # fmt: skip
        except RequestRefusedError:
            pass  # the mount is not tuned to pass the header on
    answer = caller.call(
        "get", path, until=until, params={"if_version": str(number), **wait}, allow_304=True,
        read_timeout=read_timeout,
    )  # fmt: skip
    if answer or seen is None:
        return answer
    return caller.call("get", path, until=until)  # the number alone does not tell


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
    version, cache_ttl, ttl = data.get("version"), data.get("cache_ttl"), data.get("ttl", 0)
    named = data["values"] if isinstance(data.get("values"), dict) else {"key": data.get("key")}
    if not (
        type(version) is int
        and is_seconds(cache_ttl)
        and is_seconds(ttl)
        and all(isinstance(value, str) for value in named.values())
    ):
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
