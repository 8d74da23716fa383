"""Which way to log in the environment asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .errors import ConfigurationError, without_frames
from .jwt import JwtAuth
from .methods import AppRoleAuth, AuthMethod, KubernetesAuth, TokenAuth, TokenFileAuth
from .settings import variables_of
from .source import Source


@without_frames()
def auth_from_env(environ: Mapping[str, str] | None = None) -> AuthMethod:
    """The method that the environment, or the mapping, asks for; the first that is there:

    `VAULT_ROLE_ID` with `VAULT_SECRET_ID_FILE` or `VAULT_SECRET_ID`, or with
    `VAULT_WRAPPED_SECRET_ID_FILE`; `VAULT_TOKEN_FILE` (Vault Agent); `VAULT_TOKEN`;
    `VAULT_JWT_ROLE` with `VAULT_JWT_FILE` or `VAULT_ID_TOKEN` (GitLab CI), or alone or with
    `VAULT_JWT_AUDIENCE` (GitHub Actions); `VAULT_KUBERNETES_ROLE`.

    Raises:
        ConfigurationError: none is there.
    """
    if environ is os.environ:
        environ = None  # the process's own: it may be pickled, and each process reads its own
    env = variables_of(environ)
    if role_id := env.get("VAULT_ROLE_ID"):
        if path := env.get("VAULT_WRAPPED_SECRET_ID_FILE"):
            return AppRoleAuth(role_id, Source(file=path), wrapped=True)
        if path := env.get("VAULT_SECRET_ID_FILE"):
            return AppRoleAuth(role_id, Source(file=path))
        if env.get("VAULT_SECRET_ID"):
            return AppRoleAuth(role_id, Source(variable="VAULT_SECRET_ID", environ=environ))
        raise ConfigurationError(
            "VAULT_ROLE_ID is set, but no secret id",
            hint="set VAULT_SECRET_ID_FILE, VAULT_SECRET_ID or VAULT_WRAPPED_SECRET_ID_FILE",
        )
    if path := env.get("VAULT_TOKEN_FILE"):
        return TokenFileAuth(path)
    if env.get("VAULT_TOKEN"):
        return TokenAuth(Source(variable="VAULT_TOKEN", environ=environ))
    if role := env.get("VAULT_JWT_ROLE"):
        if path := env.get("VAULT_JWT_FILE"):
            return JwtAuth(role, Source(file=path))
        if env.get("VAULT_ID_TOKEN"):
            return JwtAuth(role, Source(variable="VAULT_ID_TOKEN", environ=environ))
        return JwtAuth(role, audience=env.get("VAULT_JWT_AUDIENCE") or None, environ=environ)
    if role := env.get("VAULT_KUBERNETES_ROLE"):
        return KubernetesAuth(role)
    raise ConfigurationError(
        "nothing in the environment says how to log in to Vault",
        hint="set VAULT_ROLE_ID and VAULT_SECRET_ID_FILE, or VAULT_TOKEN_FILE",
    )
