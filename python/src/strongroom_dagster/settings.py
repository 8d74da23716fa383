"""Where Vault is and how hard to try: plain data, validated as a whole before anything is sent."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ConfigurationError

DEFAULT_ADDRESS = "https://127.0.0.1:8200"


@dataclass(frozen=True)
class Settings:
    """Settings of one client. Every duration is in seconds.

    Attributes:
        address: `https://host:8200`, `http://127.0.0.1:8200` or `unix:///run/…/vault.sock`.
        ca_bundle: PEM file or hashed directory to trust instead of the public CAs.
        client_certificate, client_key: PEM files for mutual TLS.
        tls_server_name: name for SNI and for the check of the certificate, where it is not the
            host in `address`.
        namespace: Vault Enterprise or OpenBao namespace.
        proxy: HTTP proxy URL; the environment's `HTTP_PROXY` is not used.
        app, environment: a name without a leading slash is read from `{app}/{environment}/{name}`.
        kv_mount, apikeys_mount, database_mount: where the engines are mounted.
        connect_timeout, read_timeout: for one attempt.
        deadline: for one call with all its attempts.
        backoff_base, backoff_cap: the pause before attempt n is random between 0 and
            min(cap, base * 2^n) ("full jitter").
        kv_ttl: how long a KV secret is used before its version is looked at again.
        api_key_revalidate: how long an API key is used before asking whether it is still the
            current one; never longer than its `cache_ttl`.
        stale_if_error: how long after `kv_ttl` a KV secret may still be used when Vault cannot be
            reached; 0 turns it off. API keys need no such bound: they are used until the end of
            their `cache_ttl`, for which the engine promises that they work, and never longer.
        revalidate_deadline: replaces `deadline` where a usable value is at hand.
        max_entries: secrets kept in the cache.
        pool_size: connections kept open.
        max_response_bytes: longer answers are refused.
    """

    address: str = DEFAULT_ADDRESS
    ca_bundle: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    tls_server_name: str | None = None
    namespace: str | None = None
    proxy: str | None = None
    app: str | None = None
    environment: str | None = None
    kv_mount: str = "secret"
    apikeys_mount: str = "apikeys"
    database_mount: str = "database"
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    deadline: float = 60.0
    backoff_base: float = 0.1
    backoff_cap: float = 2.0
    kv_ttl: float = 60.0
    api_key_revalidate: float = 60.0
    stale_if_error: float = 0.0
    revalidate_deadline: float = 3.0
    max_entries: int = 10_000
    pool_size: int = 32
    max_response_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        problems = [*self._address_problems(), *self._number_problems(), *self._name_problems()]
        if problems:
            raise ConfigurationError("; ".join(problems))

    def _address_problems(self) -> list[str]:
        problems: list[str] = []
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https", "unix"):
            problems.append(
                f'address: "{self.address}" must start with https://, http:// or unix://'
            )
        elif parts.scheme == "unix" and not parts.path.startswith("/"):
            problems.append(
                f'address: "{self.address}" needs an absolute path, unix:///run/vault.sock'
            )
        elif parts.scheme != "unix" and not parts.hostname:
            problems.append(f'address: "{self.address}" has no host')
        if parts.username or parts.password:
            problems.append("address: must not hold a user or password")
        for name in ("ca_bundle", "client_certificate", "client_key"):
            path = getattr(self, name)
            if path is not None and not Path(path).exists():
                problems.append(f'{name}: "{path}" does not exist')
        if (self.client_certificate is None) != (self.client_key is None):
            problems.append("client_certificate and client_key go together")
        return problems

    def _number_problems(self) -> list[str]:
        problems = []
        positive = {
            "connect_timeout", "read_timeout", "deadline", "backoff_base", "backoff_cap",
            "revalidate_deadline", "max_entries", "pool_size", "max_response_bytes",
        }  # fmt: skip
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name in positive):
                least = "more than 0" if field.name in positive else "0 or more"
                problems.append(f"{field.name}: {value} must be {least} and finite")
        return problems

    def _name_problems(self) -> list[str]:
        problems = []
        for name in ("kv_mount", "apikeys_mount", "database_mount", "app", "environment"):
            value = getattr(self, name)
            if value is None:
                continue
            try:
                check_path(value)
            except ConfigurationError as error:
                problems.append(f"{name}: {error.message}")
        if self.environment is not None and self.app is None:
            problems.append("environment: needs app as well")
        return problems

    @property
    def prefix(self) -> str:
        """What goes before a relative name: `app/environment/`, `app/` or nothing."""
        return "".join(f"{part}/" for part in (self.app, self.environment) if part)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Settings from the variables that the `vault` command reads, and our own three.

        `VAULT_ADDR`, `VAULT_CACERT` or `VAULT_CAPATH`, `VAULT_CLIENT_CERT`, `VAULT_CLIENT_KEY`,
        `VAULT_TLS_SERVER_NAME`, `VAULT_NAMESPACE`, `VAULT_HTTP_PROXY`; `STRONGROOM_APP` and
        `STRONGROOM_ENVIRONMENT`.
        Source: https://developer.hashicorp.com/vault/docs/commands#environment-variables
        """
        env = os.environ if environ is None else environ
        return cls(
            address=env.get("VAULT_ADDR") or DEFAULT_ADDRESS,
            ca_bundle=env.get("VAULT_CACERT") or env.get("VAULT_CAPATH") or None,
            client_certificate=env.get("VAULT_CLIENT_CERT") or None,
            client_key=env.get("VAULT_CLIENT_KEY") or None,
            tls_server_name=env.get("VAULT_TLS_SERVER_NAME") or None,
            namespace=env.get("VAULT_NAMESPACE") or None,
            proxy=env.get("VAULT_HTTP_PROXY") or None,
            app=env.get("STRONGROOM_APP") or None,
            environment=env.get("STRONGROOM_ENVIRONMENT") or None,
        )


def check_path(path: str) -> str:
    """A path or mount as given, if it is safe to put into a URL.

    Raises:
        ConfigurationError: empty, an empty or dot segment, or a control character.
    """
    if not path:
        raise ConfigurationError("a path must not be empty")
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise ConfigurationError(f"path {path!r} holds a control character")
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            raise ConfigurationError(
                f'path "{path}" has an empty, "." or ".." segment',
                hint="write it as app/environment/name, without a slash at the end",
            )
    return path
