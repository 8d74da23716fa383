"""Secrets from Vault for Dagster, and for Python without Dagster.

`VaultSecrets` is the client; `VaultSecretsResource` hands one to assets and ops. Importing this
package does not import Dagster: the names that need it are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .client import VaultSecrets
from .errors import (
    AccessDeniedError,
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    FieldNotFoundError,
    InvalidResponseError,
    RequestRefusedError,
    SecretNotFoundError,
    SecretPicklingError,
    StrongroomError,
    TLSVerificationError,
    VaultUnavailableError,
    needs,
)
from .jwt import JwtAuth
from .masked import ApiKey, Credentials, SecretMapping
from .methods import AppRoleAuth, AuthMethod, Caller, KubernetesAuth, TokenAuth, TokenFileAuth
from .settings import Settings
from .source import Source

if TYPE_CHECKING:
    from .checks import build_rotation_check, build_rotation_sensor
    from .fake_resource import FakeVaultSecretsResource
    from .resource import VaultSecretsResource

__version__ = "0.1.0"

_LAZY = {
    "FakeVaultSecretsResource": "fake_resource",
    "VaultSecretsResource": "resource",
    "build_rotation_check": "checks",
    "build_rotation_sensor": "checks",
}

__all__ = [
    "AccessDeniedError",
    "ApiKey",
    "AppRoleAuth",
    "AuthMethod",
    "AuthenticationError",
    "Caller",
    "ClosedError",
    "ConfigurationError",
    "Credentials",
    "FakeVaultSecretsResource",
    "FieldNotFoundError",
    "InvalidResponseError",
    "JwtAuth",
    "KubernetesAuth",
    "RequestRefusedError",
    "SecretMapping",
    "SecretNotFoundError",
    "SecretPicklingError",
    "Settings",
    "Source",
    "StrongroomError",
    "TLSVerificationError",
    "TokenAuth",
    "TokenFileAuth",
    "VaultSecrets",
    "VaultSecretsResource",
    "VaultUnavailableError",
    "__version__",
    "build_rotation_check",
    "build_rotation_sensor",
]

if not TYPE_CHECKING and find_spec("dagster") is None:
    # For those who take all that there is: `import *`, `help`, `inspect`.
    __all__ = [name for name in __all__ if name not in _LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name not in ("dagster", "pydantic"):
            raise
        raise needs(name, "Dagster", "dagster", error.name) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
