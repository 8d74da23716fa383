"""From an HTTP answer to a JSON object or to one of our errors, without hvac's exceptions.

hvac's lose the status, and hold the request; ours name the path and Vault's own words.
"""

from __future__ import annotations

from typing import Any

from .errors import (
    AccessDeniedError,
    InvalidResponseError,
    RequestRefusedError,
    SecretNotFoundError,
    StrongroomError,
    VaultUnavailableError,
)

_WORDS = 300


def body_of(response: Any) -> dict[str, Any]:
    """The JSON object of an answer; empty if it is none."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def errors_of(response: Any) -> list[Any]:
    """Vault's own words for a refusal; empty if there are none, or it was not Vault."""
    errors = body_of(response).get("errors")
    return errors if isinstance(errors, list) else []


def words_of(response: Any) -> str:
    """Vault's own words for a refusal, on one line and not too long; else the status."""
    if errors := errors_of(response):
        return " ".join("; ".join(str(e) for e in errors).split())[:_WORDS]
    return f"status {response.status_code}"


def is_transient(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in (412, 429) or status >= 500


def failure_of(response: Any, path: str) -> StrongroomError:
    """The error for an answer that is not the JSON that was asked for."""
    status = response.status_code
    if status in (401, 403, 404) and not body_of(response):
        return InvalidResponseError(  # Vault's own refusals are JSON
            f'"{path}" was answered with status {status}, and not by a vault',
            hint="is the address right? is there a proxy in between?",
        )
    if status in (401, 403):
        return AccessDeniedError(
            f'permission denied on "{path}"', hint="the policy of this identity must allow it"
        )
    if status == 404:
        return SecretNotFoundError(f'nothing at "{path}" in vault', hint=_why_not_found(response))
    if is_transient(status):
        return VaultUnavailableError(f'vault failed at "{path}": {words_of(response)}')
    if 400 <= status < 500:
        return RequestRefusedError(f'vault refused "{path}": {words_of(response)}')
    return InvalidResponseError(
        f'vault answered "{path}" with status {status} where JSON was expected',
        hint="is the address that of a Vault, and of its active node?",
    )


def _why_not_found(response: Any) -> str:
    """KV answers 404 with metadata for a version that was deleted."""
    data = body_of(response).get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if isinstance(metadata, dict) and metadata.get("destroyed"):
        return f"version {metadata.get('version')} was destroyed"
    if isinstance(metadata, dict) and metadata.get("deletion_time"):
        return f"version {metadata.get('version')} was deleted at {metadata['deletion_time']}"
    if body_of(response).get("errors"):
        return words_of(response)
    return "check app, environment and name"
