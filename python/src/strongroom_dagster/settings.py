"""Where Vault is and how hard to try: plain data, validated as a whole before anything is sent."""

from __future__ import annotations

import importlib.util
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .errors import ConfigurationError, SecretPicklingError, without_frames

DEFAULT_ADDRESS = "https://127.0.0.1:8200"

#: What a value of an HTTP header, and so a token and a namespace, is made of here.
VISIBLE = re.compile(r"[\x21-\x7e]+")
#: The name of an environment variable that every program understands.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
#: What is wrong with an `EnvVar` in place of a value.
UNRESOLVED = "an EnvVar is only resolved in the configuration of a resource"
_LONGEST_NAME = 256
_SOCKET_PATH_BYTES = 103  # what fits into every system's sockaddr_un
_POSITIVE = frozenset(
    {"connect_timeout", "read_timeout", "deadline", "backoff_base", "backoff_cap",
     "revalidate_deadline", "max_entries", "pool_size", "max_response_bytes"}
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Settings:
    """Settings of one client. Every duration is in seconds.

    No message of a fault quotes a text that it was given: it may be a secret in the wrong field.

    Attributes:
        address: `https://host:8200`, `http://127.0.0.1:8200` or `unix:///run/…/vault.sock`.
        allow_plain_http: insists on `http://` to a host that is not this machine, so that
            credentials and secrets cross the network in clear.
        ca_bundle: PEM file or hashed directory to trust instead of the public CAs.
        client_certificate, client_key: PEM files for mutual TLS.
        tls_server_name: name for SNI and for the check of the certificate, where it is not the
            host in `address`.
        namespace: Vault Enterprise or OpenBao namespace.
        proxy: URL of an HTTP or SOCKS proxy; the environment's `HTTPS_PROXY` is not used.
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
    allow_plain_http: bool = False
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
        problems = self._type_problems()
        if not problems:
            problems = [
                *self._address_problems(), *self._proxy_problems(), *self._file_problems(),
                *self._number_problems(), *self._name_problems(),
            ]  # fmt: skip
        if problems:
            raise ConfigurationError("; ".join(problems))

    def _type_problems(self) -> list[str]:
        problems = []
        for field in fields(self):
            value, kind = getattr(self, field.name), str(field.type)
            found = type(value).__name__
            if is_env_var(value):
                problems.append(f"{field.name}: {UNRESOLVED}")
            elif kind.startswith("str"):
                if not (isinstance(value, str) or (value is None and "None" in kind)):
                    problems.append(f"{field.name}: must be a text, not {found}")
            elif kind == "bool":
                if not isinstance(value, bool):
                    problems.append(f"{field.name}: must be True or False, not {found}")
            elif isinstance(value, bool) or not isinstance(
                value, int if kind == "int" else (int, float)
            ):
                what = "a whole number" if kind == "int" else "a number of seconds"
                problems.append(f"{field.name}: must be {what}, not {found}")
        return problems

    def _address_problems(self) -> list[str]:
        parts = _split(self.address)
        if parts is None:
            return ["address: is not a URL"]
        if parts.username is not None or parts.password is not None:
            return ["address: must not hold a user or password"]
        if parts.scheme == "unix":
            return _socket_problems(parts)
        if parts.scheme not in ("http", "https"):
            return ["address: must start with https://, http:// or unix://"]
        problems = []
        if not parts.hostname:
            problems.append("address: has no host")
        if parts.query or parts.fragment:
            problems.append('address: must not hold "?" or "#"')
        if f"{parts.path.rstrip('/')}/".endswith("/v1/"):
            problems.append("address: must not end in /v1, which every request adds")
        if parts.scheme == "http" and not self.allow_plain_http:
            proxy = _split(self.proxy) if self.proxy else None
            if not (_is_loopback(parts) and (proxy is None or _is_loopback(proxy))):
                problems.append(
                    "address: http:// sends credentials and secrets over the network in clear; "
                    "write https://, or insist with allow_plain_http"
                )
        return problems

    def _proxy_problems(self) -> list[str]:
        if self.proxy is None:
            return []
        parts = _split(self.proxy)
        if parts is None:
            return ["proxy: is not a URL"]
        if parts.scheme not in _PROXY_SCHEMES:
            return ["proxy: must start with http://, https:// or socks5://"]
        if not parts.hostname:
            return ["proxy: has no host"]
        if parts.scheme.startswith("socks") and importlib.util.find_spec("socks") is None:
            return [
                "proxy: SOCKS needs the package PySocks, which is not installed: "
                "pip install 'requests[socks]'"
            ]
        return []

    def _file_problems(self) -> list[str]:
        problems = []
        for name in ("ca_bundle", "client_certificate", "client_key"):
            path = getattr(self, name)
            if path == "":
                problems.append(f"{name}: must not be empty")
            elif path is not None and not _exists(path):
                problems.append(f"{name}: {quoted_path(path)} does not exist")
        if (self.client_certificate is None) != (self.client_key is None):
            problems.append("client_certificate and client_key go together")
        return problems

    def _number_problems(self) -> list[str]:
        problems = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name in _POSITIVE):
                least = "more than 0" if field.name in _POSITIVE else "0 or more"
                problems.append(f"{field.name}: {value} must be {least} and finite")
        return problems

    def _name_problems(self) -> list[str]:
        problems = []
        for name in ("kv_mount", "apikeys_mount", "database_mount", "app", "environment"):
            value = getattr(self, name)
            if value is not None and (fault := path_fault(value)):
                problems.append(f"{name}: {fault}")
        for name in ("namespace", "tls_server_name"):
            value = getattr(self, name)
            if value is not None and not VISIBLE.fullmatch(value):
                problems.append(
                    f"{name}: is empty, or holds a space, a line break or another odd character"
                )
        if self.environment is not None and self.app is None:
            problems.append("environment: needs app as well")
        return problems

    def __repr__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.proxy is not None:
            shown["proxy"] = host_of(self.proxy)
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.proxy is not None and "@" in self.proxy:
            raise SecretPicklingError(
                "refused to pickle settings with the user and password of a proxy",
                hint="make the client in the process that needs it",
            )
        return super().__reduce_ex__(protocol)

    @property
    def prefix(self) -> str:
        """What goes before a relative name: `app/environment/`, `app/` or nothing."""
        return "".join(f"{part}/" for part in (self.app, self.environment) if part)

    @classmethod
    @without_frames()
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Settings from the variables that the `vault` command reads, and our own.

        `VAULT_ADDR`, `VAULT_CACERT` or `VAULT_CAPATH`, `VAULT_CLIENT_CERT`, `VAULT_CLIENT_KEY`,
        `VAULT_TLS_SERVER_NAME`, `VAULT_NAMESPACE`, `VAULT_PROXY_ADDR` or `VAULT_HTTP_PROXY`;
        `STRONGROOM_APP`,
        `STRONGROOM_ENVIRONMENT` and `STRONGROOM_ALLOW_PLAIN_HTTP` (`true` or `false`). No other
        variable is read, neither here nor by hvac or requests underneath.
        Source: https://developer.hashicorp.com/vault/docs/commands#environment-variables

        Args:
            environ: read instead of this process's environment.
        """
        env = variables_of(environ)
        return cls(
            address=env.get("VAULT_ADDR") or DEFAULT_ADDRESS,
            allow_plain_http=_truth(env, "STRONGROOM_ALLOW_PLAIN_HTTP"),
            ca_bundle=env.get("VAULT_CACERT") or env.get("VAULT_CAPATH") or None,
            client_certificate=env.get("VAULT_CLIENT_CERT") or None,
            client_key=env.get("VAULT_CLIENT_KEY") or None,
            tls_server_name=env.get("VAULT_TLS_SERVER_NAME") or None,
            namespace=env.get("VAULT_NAMESPACE") or None,
            proxy=env.get("VAULT_PROXY_ADDR") or env.get("VAULT_HTTP_PROXY") or None,
            app=env.get("STRONGROOM_APP") or None,
            environment=env.get("STRONGROOM_ENVIRONMENT") or None,
        )


def check_path(path: str) -> str:
    """A path or mount as given, if it is safe to put into a URL.

    Raises:
        ConfigurationError: empty, an empty or dot segment, or a control character.
    """
    if fault := path_fault(path):
        raise ConfigurationError(
            f"{quoted_name('path', path)} {fault}",
            hint="write it as app/environment/name, without a slash at the end",
        )
    return path


def path_fault(path: str) -> str:
    """What is wrong with a path or mount, without quoting it; empty if nothing is."""
    if not path:
        return "must not be empty"
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        return "holds a control character"
    if any(segment in ("", ".", "..") for segment in path.split("/")):
        return 'has an empty, "." or ".." segment'
    return ""


def is_env_var(value: object) -> bool:
    """Whether a text or a number is an `EnvVar` of Dagster's, which stands for another one."""
    return isinstance(value, (str, int)) and (
        hasattr(value, "env_var_name") or hasattr(value, "get_value")
    )


def quoted_name(what: str, name: str) -> str:
    """`what "name"` for a message; `what` alone if the name looks like a secret in its place: a
    URL, a text of several lines, a long one."""
    odd = len(name) > _LONGEST_NAME or not name.isprintable() or "://" in name
    return what if odd else f'{what} "{name}"'


def quoted_path(path: str) -> str:
    """`file "…"` for a message, if the path is one: it may be a secret in its place.

    It is one if the file, or the directory that it would be in, exists.
    """
    directory = os.path.dirname(path)  # noqa: PTH120  (Path() would make "." of what has none)
    if _exists(path) or (directory.strip("./") and _exists(directory)):
        return f'file "{path}"'
    return "the file that it names"


def host_of(url: str) -> str:
    """Scheme, host and port of a URL, without what may be a secret in it."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return "****"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    user = "****@" if parts.username is not None or parts.password is not None else ""
    return f"{parts.scheme}://{user}{host}" + (f":{parts.port}" if parts.port else "")


def _split(url: str) -> SplitResult | None:
    if not url.isprintable() or " " in url:
        return None  # urlsplit would drop a line break silently
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _socket_problems(parts: SplitResult) -> list[str]:
    if parts.netloc or not parts.path.startswith("/"):
        return ["address: needs an absolute path, unix:///run/vault.sock"]
    if len(os.fsencode(parts.path)) > _SOCKET_PATH_BYTES:
        return [f"address: a socket's path is at most {_SOCKET_PATH_BYTES} bytes long"]
    return []


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _exists(path: str) -> bool:
    try:
        Path(path).stat()
    except PermissionError:
        return True  # what is wrong with it is said by whoever reads it
    except (OSError, ValueError):
        return False
    return True


def variables_of(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    """This process's environment, or what is given in its place.

    Raises:
        ConfigurationError: it is no mapping.
    """
    if environ is None:
        return os.environ
    if not isinstance(environ, Mapping):
        raise ConfigurationError(f"environ: a {type(environ).__name__} must be a mapping")
    return environ


def _truth(env: Mapping[str, str], name: str) -> bool:
    known = {"": False, "false": False, "0": False, "true": True, "1": True}
    found = known.get(str(env.get(name, "")).strip().lower())
    if found is None:
        raise ConfigurationError(f"{name}: must be true or false")
    return found
