"""From an HTTP answer to a JSON object or to one of our errors, without hvac's exceptions.

hvac's lose the status, and hold the request; ours name the path and Vault's own words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeGuard
from urllib.parse import quote

from .errors import (
    AccessDeniedError,
    InvalidResponseError,
    RequestRefusedError,
    SecretNotFoundError,
    StrongroomError,
    VaultUnavailableError,
)
from .masked import MASK

#: Refused before anything was done: safe to repeat whatever the method.
#: 408: not all of it had come; 412: not yet replicated; 429: quota; 503: sealed or standby.
REFUSED = frozenset({408, 412, 429, 503})
#: What would be said again: 501: no such method; 505: no such HTTP; 511: log in to the network.
#: It is still an outage: what answers here cannot do what Vault can.
FINAL = frozenset({501, 505, 511})
_WORDS = 300
_SHORTEST = 4  # of what is masked; what is shorter is a part of many words


def body_of(response: Any) -> dict[str, Any]:
    """The JSON object of an answer; empty if it is none."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def errors_of(response: Any) -> list[Any]:
    """Vault's own words for a refusal; empty if there are none, or it was not Vault."""
    errors = body_of(response).get("errors")
    return errors if is_words(errors) else []


def is_words(errors: Any) -> TypeGuard[list[str]]:
    """Whether they are what Vault sends with a refusal; others send objects, or a text."""
    return isinstance(errors, list) and all(isinstance(error, str) for error in errors)


def is_of_vault(response: Any) -> bool:
    """Whether a refusal is Vault's own: of words, or of an engine that has more to say of it."""
    body = body_of(response)
    return is_words(body.get("errors")) or isinstance(body.get("data"), dict)


def words_of(response: Any, hide: Iterable[str] = ()) -> str:
    """Vault's own words for a refusal, on one line and not too long; else the status.

    Args:
        hide: texts that may be secrets. They are masked first: half of one is one, too.
    """
    errors = errors_of(response)
    if not errors:
        return f"status {response.status_code}"
    words = "; ".join(str(e) for e in errors)
    long = (text for text in hide if len(text) >= _SHORTEST)
    shapes = {shape for text in long for shape in (text, json.dumps(text)[1:-1], quote(text))}
    for shape in sorted(shapes, key=len, reverse=True):
        words = words.replace(shape, MASK)
    return " ".join(words.split())[:_WORDS]


def is_dead(errors: Iterable[Any]) -> bool:
    """Whether a refusal says that the token is dead: Vault's does since 1.13, OpenBao's never."""
    return any("invalid token" in str(error) for error in errors)


def is_transient(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in REFUSED or status >= 500


def failure_of(response: Any, path: str, hide: Iterable[str] = ()) -> StrongroomError:
    """The error for an answer that is not the JSON that was asked for.

    Args:
        hide: as for `words_of`.
    """
    hidden = [*hide]
    status = response.status_code
    if 400 <= status < 500 and not is_transient(status) and not is_of_vault(response):
        return InvalidResponseError(
            f'"{path}" was answered with status {status}, and not by a vault',
            hint="is the address right? is there a proxy in between?",
        )
    if status in (401, 403):
        return AccessDeniedError(
            f'permission denied on "{path}"', hint="the policy of this identity must allow it"
        )
    if status == 404:
        return SecretNotFoundError(
            f'nothing at "{path}" in vault', hint=_why_not_found(response, hidden)
        )
    if is_transient(status):
        return VaultUnavailableError(f'vault failed at "{path}": {words_of(response, hidden)}')
    if status >= 400:
        return RequestRefusedError(f'vault refused "{path}": {words_of(response, hidden)}')
    return InvalidResponseError(
        f'vault answered "{path}" with status {status} where JSON was expected',
        hint="is the address that of a Vault, and of its active node?",
    )


def _why_not_found(response: Any, hide: Iterable[str]) -> str:
    """KV answers 404 with metadata for a version that was deleted."""
    data = body_of(response).get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if isinstance(metadata, dict) and metadata.get("destroyed"):
        return f"version {metadata.get('version')} was destroyed"
    if isinstance(metadata, dict) and metadata.get("deletion_time"):
        return f"version {metadata.get('version')} was deleted at {metadata['deletion_time']}"
    if body_of(response).get("errors"):
        words = words_of(response, hide)
        unmounted = "no handler for route" in words
        return f"{words} Is the engine mounted there?" if unmounted else words
    return "check app, environment and name"
