"""Login with a JSON web token that whoever runs this process gives: GitHub Actions, GitLab CI, any
OpenID Connect issuer. No credential has to be stored for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from .answers import is_transient
from .errors import (
    AuthenticationError,
    ConfigurationError,
    SecretPicklingError,
    VaultUnavailableError,
)
from .masked import hidden
from .methods import Caller, check_mount, check_source, check_text, log_in
from .settings import variables_of
from .source import Source

_URL, _TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_TIMEOUT = (5.0, 30.0)  # seconds: to connect, to answer


@dataclass
class JwtAuth:
    """A JSON web token of somebody whom Vault's `jwt` login trusts.

    Attributes:
        role: of the login.
        token: its source, read at each login; GitLab's `id_tokens` sets a variable. None: GitHub
            Actions is asked for one, which the job's `permissions: id-token: write` allows.
        audience: what GitHub's token is for (`bound_audiences` of the role); None: the owner of
            the repository, as GitHub has it.
        mount: of the auth method.
        environ: where GitHub's variables are looked up, instead of the process's environment. A
            client made with it cannot be pickled.
    Source: https://developer.hashicorp.com/vault/docs/auth/jwt,
        https://docs.github.com/en/actions/reference/security/oidc,
        https://docs.gitlab.com/ci/secrets/id_token_authentication/
    """

    role: str = field(repr=False)
    token: Source | None = None
    audience: str | None = field(default=None, repr=False)
    mount: str = field(default="jwt", repr=False)
    environ: Mapping[str, str] | None = field(default=None, repr=False, compare=False)
    owns_token: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self.environ = hidden(self.environ)
        check_mount(self.mount)
        check_text("role", self.role)
        check_source("token", self.token, optional=True)
        if self.audience is not None:
            check_text("audience", self.audience)
        if self.token is not None and self.audience is not None:
            raise ConfigurationError(
                "audience is for the token that GitHub Actions is asked for",
                hint="whoever issues the given token sets its audience",
            )

    def login(self, caller: Caller) -> dict[str, Any]:
        given = self.token
        jwt = github_token(self.audience, self.environ) if given is None else given.read("JWT")
        return log_in(caller, self.mount, {"role": self.role, "jwt": jwt})

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        if self.environ is not None:
            raise SecretPicklingError(
                "a login that reads from a mapping cannot be pickled",
                hint="name a file, or a variable of the process",
            )
        return (type(self), (self.role, self.token, self.audience, self.mount))

    def describe(self) -> str:
        return "JWT"


def github_token(audience: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """A fresh token of the GitHub Actions job that this runs in.

    Raises:
        AuthenticationError: this is no such job, or GitHub refused.
        VaultUnavailableError: GitHub did not answer, or could not.
    """
    env = variables_of(environ)
    url, secret = env.get(_URL, ""), env.get(_TOKEN, "")
    if not url or not secret:
        raise AuthenticationError(
            f"JWT: {_URL} and {_TOKEN} are not set, and no token was given",
            hint="give the job `permissions: id-token: write`, or name the token's file or variable",
        )
    answer = _ask(_with_audience(url, audience), secret)
    if is_transient(answer.status_code):
        raise VaultUnavailableError(f"JWT: GitHub answered {answer.status_code}")
    try:
        token = answer.json().get("value") if answer.status_code == 200 else None
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not token:
        raise AuthenticationError(
            f"JWT: GitHub answered {answer.status_code} and no token",
            hint="does the job have `permissions: id-token: write`?",
        )
    return token


def _with_audience(url: str, audience: str | None) -> str:
    try:
        parts = urlsplit(url)
        safe = parts.scheme == "https" or parts.hostname in ("127.0.0.1", "localhost")
    except ValueError:
        safe = False
    if not safe:
        raise AuthenticationError(f"JWT: {_URL} is no https:// address")
    if audience is None:
        return url
    return url + ("&" if parts.query else "?") + f"audience={quote(audience, safe='')}"


def _ask(url: str, secret: str) -> requests.Response:
    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {secret}"  # a .netrc may not replace it
        return request

    try:
        return requests.get(url, auth=authorize, timeout=_TIMEOUT, allow_redirects=False)
    except (OSError, ValueError) as error:  # requests' own are an OSError, too
        fault = type(error).__name__  # its words may hold the URL
    raise VaultUnavailableError(
        f"JWT: GitHub did not answer: {fault}",
        hint="this request obeys HTTPS_PROXY and REQUESTS_CA_BUNDLE, if they are set",
    )
