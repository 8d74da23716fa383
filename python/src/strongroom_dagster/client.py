"""`VaultSecrets`: reads from Vault that cost microseconds once they are cached.

The core of the package. It knows hvac and the engines; it does not know Dagster.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import hvac

from . import reads
from .adapter import adapter_for
from .answers import failure_of
from .auth import TokenManager
from .auth_env import auth_from_env
from .cache import Cache
from .clock import Clock, system_clock
from .database import DatabaseLease
from .errors import (
    ConfigurationError,
    InvalidResponseError,
    closed,
    without_frames,
)
from .handed_out import HvacSession, hvac_for
from .masked import ApiKey, SecretMapping
from .methods import AuthMethod
from .overlay import check_names, check_values, overlay
from .refs import Ref, check_text, parse_ref, path_ref
from .session import RetryingSession
from .settings import Settings, check_path, quoted_name
from .transport import Connections

#: At once in `get_many`; more would not be faster against one Vault.
_PARALLEL = 8

_clients: weakref.WeakSet[VaultSecrets] = weakref.WeakSet()


@dataclass(frozen=True)
class Stats:
    """What a client has done since it was made (or since its process was forked).

    Attributes:
        requests: HTTP requests sent, attempts that were repeated included.
        logins, renewals: of the token.
        cached: secrets in the cache now.
    """

    requests: int
    logins: int
    renewals: int
    cached: int


class VaultSecrets:
    """A client for one Vault and one identity. Safe for threads and for fork.

    Use it as a context manager, or call `close`, to revoke its token and leases at the end.

    Args:
        settings: where Vault is and how hard to try.
        auth: how to log in. The login happens at the first read.
        clock: replaced in tests.
    """

    def __init__(self, settings: Settings, auth: AuthMethod, *, clock: Clock | None = None) -> None:
        if not isinstance(settings, Settings):
            raise ConfigurationError(f"settings must be Settings, not {type(settings).__name__}")
        if not callable(getattr(auth, "login", None)):
            raise ConfigurationError(
                f"auth must be a way to log in, not {type(auth).__name__}",
                hint="AppRoleAuth, TokenFileAuth, JwtAuth, KubernetesAuth or TokenAuth",
            )
        self.settings = settings
        self._auth = auth
        self._clock = clock or system_clock()
        self._now = self._clock.now
        self._names: dict[str, Ref] = {}
        self._paths: dict[tuple[object, ...], Ref] = {}
        self._cache = Cache(
            self._clock,
            max_entries=settings.max_entries,
            deadline=settings.deadline,
            revalidate_deadline=settings.revalidate_deadline,
        )
        self._entries = self._cache.entries
        self._most_names = 2 * max(settings.max_entries, 5_000)
        self._leases: dict[tuple[str, float], DatabaseLease] = {}
        self._leases_lock = threading.RLock()
        self._closed = False
        self._mounts = reads.Mounts()
        self._tokens = TokenManager(auth, settings, self._clock, self._send)
        self._connections = Connections(settings)
        self._session = RetryingSession(settings, self._clock, self._connections)
        self._adapter = adapter_for(settings, self._session, self._tokens)
        # The hvac client that is handed out has a session of its own: what is set there does not
        # reach the reads.
        self._handed_out: dict[str, tuple[hvac.Client, HvacSession]] = {}
        _clients.add(self)

    @classmethod
    @without_frames()
    def from_env(cls, environ: Mapping[str, str] | None = None) -> VaultSecrets:
        """A client from the environment: see `Settings.from_env` and `auth_env.auth_from_env`."""
        return cls(Settings.from_env(environ), auth_from_env(environ))

    def _send(self, method: str, path: str, **keywords: Any) -> Any:
        return self._adapter.request(method, path, **keywords)

    # --- reads -----------------------------------------------------------------------------

    def get(self, name: str, field: str | None = None) -> str:
        """One value as text.

        Args:
            name: `database-url` or `api-keys/provider-a` in KV, under `{app}/{environment}/`;
                `/other-app/production/x` from the root of the mount; `apikey:provider-a` from
                the apikeys engine; `…#field` for one field.
            field: the field, where it is not in the name. Without one: the only field, or
                `value` (for an API key, `key`).

        Raises:
            SecretNotFoundError, FieldNotFoundError, AccessDeniedError, AuthenticationError:
                as they say.
            VaultUnavailableError: not cached, and Vault did not answer before the deadline.
        """
        try:
            ref = self._names.get(name)
        except TypeError:
            ref = None
        if ref is None:
            ref = self._parse(name)
        entry = self._entries.get(ref.key)
        if entry is None or self._now() >= entry.fresh_until:
            entry = self._load(ref)
        else:
            entry.used = True
        if field is None:
            field = ref.field
        elif ref.field is not None and field != ref.field:
            raise ConfigurationError(
                f"{quoted_name('name', name)} has a field, and another one is given"
            )
        return entry.value.text(field)  # type: ignore[no-any-return]

    def get_many(self, names: Iterable[str]) -> dict[str, str]:
        """Several values by name; what is not cached is read at the same time.

        Fields of one secret are of one version of it.

        Raises:
            StrongroomError: the first of what `get` raises for any of them.
        """
        if isinstance(names, (str, bytes)):
            raise ConfigurationError(
                "get_many: takes a list of names, and got a single text",
                hint='write get_many(["…"]), or get("…")',
            )
        if not isinstance(names, Iterable):
            raise ConfigurationError(f"get_many: a {type(names).__name__} must be a list of names")
        refs = {name: self._parse(name) for name in names}
        found: dict[Hashable, Any] = {}
        missing: dict[Hashable, Ref] = {}
        for ref in refs.values():
            entry = self._entries.get(ref.key)
            if entry is None or self._now() >= entry.fresh_until:
                missing[ref.key] = ref
            else:
                entry.used = True
                found[ref.key] = entry
        if len(missing) > 1 and self._tokens.token().uses == 0:  # one login, not one a thread
            found.update(self._load_together(missing))
        for key, ref in missing.items():
            if key not in found:
                found[key] = self._load(ref)
        return {name: found[ref.key].value.text(ref.field) for name, ref in refs.items()}

    def _load_together(self, missing: Mapping[Hashable, Ref]) -> dict[Hashable, Any]:
        """All that are missing, or nothing while the interpreter ends, which starts no threads."""
        with ThreadPoolExecutor(min(_PARALLEL, len(missing))) as pool:
            try:
                loads = [pool.submit(self._load, ref) for ref in missing.values()]
            except RuntimeError:
                return {}
            return {key: load.result() for key, load in zip(missing, loads, strict=True)}

    def kv(
        self, path: str, *, version: int | None = None, mount: str | None = None
    ) -> SecretMapping:
        """All fields of a KV v2 secret.

        Args:
            path: as the name in `get`.
            version: a version other than the current one.
            mount: of another KV v2 engine.
        """
        return self._cached("kv", path, version, mount)  # type: ignore[no-any-return]

    def api_key(self, name: str, *, version: int | None = None, mount: str | None = None) -> ApiKey:
        """An API key of the apikeys engine: the current version, or one still in grace."""
        return self._cached("apikey", name, version, mount)  # type: ignore[no-any-return]

    @without_frames()
    def wait_for_rotation(
        self, name: str, version: int | ApiKey, *, timeout: int = 60, mount: str | None = None
    ) -> ApiKey | None:
        """The API key as soon as it is another version than `version`: one long poll.

        Args:
            version: the key that you have, or its number. One that is deleted and made
                anew counts on.
            timeout: seconds, at most 60.

        Returns:
            The key, which is then in the cache; None if nothing changed in that time.
        """
        if isinstance(timeout, bool) or not isinstance(timeout, int) or not 1 <= timeout <= 60:
            raise ConfigurationError("timeout: must be from 1 to 60 whole seconds")
        if isinstance(version, bool) or not isinstance(version, (int, ApiKey)):
            raise ConfigurationError(
                f"version: a {type(version).__name__} must be a whole number or an ApiKey"
            )
        ref = path_ref("apikey", name, self.settings, mount=mount)
        return reads.wait_for_api_key(self, self._cache, ref, version, timeout)

    def database(
        self, role: str, *, min_ttl: float = 0.0, mount: str | None = None
    ) -> DatabaseLease:
        """Credentials of a database role, revoked when the `with` block ends.

        Args:
            role: of Vault's database engine.
            min_ttl: seconds for which credentials are good when they are handed out.
        """
        if mount is None:
            mount = self.settings.database_mount
        mount = check_path(check_text("mount", mount))
        role = check_path(check_text("role", role))
        new = DatabaseLease(
            f"{quote(mount)}/creds/{quote(role)}", self.call, self._tokens, self.settings,
            self._clock, min_ttl=min_ttl,
        )  # fmt: skip
        with self._leases_lock:
            self._check_open()
            return self._leases.setdefault((new.path, new.min_ttl), new)

    @property
    def hvac(self) -> hvac.Client:
        """hvac for everything else, with the same connections, retries and token. Not cached.

        It is one client, with an adapter and a session of its own: a login or a token that is set
        on it counts for it alone, until its token is set to None.
        """
        found = self._handed_out.get("hvac")
        if found is None:
            session = HvacSession(self.settings, self._clock, self._connections)
            made = (hvac_for(self.settings, session, self._tokens), session)
            found = self._handed_out.setdefault("hvac", made)
            if self._closed:
                found[1].shut()
        return found[0]

    @contextmanager
    def environment(self, variables: Mapping[str, str]) -> Iterator[None]:
        """Environment variables for a `with` block, for what takes its secret only from there.

            with vault.environment({"DBT_ENV_SECRET_PASSWORD": "warehouse#password"}):
                dbt.build()

        All are read before the first is set. At the end of the block each has its old value
        again. The environment is the whole process's: other threads see it too.

        Args:
            variables: the name of the secret, as in `get`, by variable.

        Raises:
            ConfigurationError: a key is no name of a variable, or a value holds a NUL byte.
            StrongroomError: what `get` raises for any of them.
        """
        with overlay.over(self._variables(variables)):
            yield

    @without_frames()
    def _variables(self, variables: Mapping[str, str]) -> dict[str, str]:
        if not isinstance(variables, Mapping):
            raise ConfigurationError(
                f"environment: a {type(variables).__name__} must be a mapping of variables to names"
            )
        names = dict(variables)  # looked at once: it may be changed meanwhile
        check_names(names)
        found = self.get_many(names.values())
        values = {variable: found[name] for variable, name in names.items()}
        check_values(values)
        return values

    def invalidate(self, name: str | None = None) -> None:
        """Forgets what is cached of one name, or everything.

        A read that begins afterwards asks Vault afterwards, whatever else is under way.
        """
        if name is None:
            self._cache.clear()
            return
        target = self._parse(name)
        self._cache.invalidate(lambda key: key[:3] == target.key[:3])

    @property
    def stats(self) -> Stats:
        """Counts for tests and for those who wonder."""
        return Stats(
            requests=self._session.requests_sent
            + sum(session.requests_sent for _, session in self._handed_out.values()),
            logins=self._tokens.logins,
            renewals=self._tokens.renewals,
            cached=len(self._entries),
        )

    # --- the way to Vault ---------------------------------------------------------------------

    def _parse(self, name: str) -> Ref:
        try:
            ref = self._names.get(name)
        except TypeError:
            ref = None
        if ref is None:
            ref = parse_ref(name, self.settings)
            if len(self._names) >= self._most_names:
                self._names.clear()
            self._names[name] = ref
        return ref

    def _cached(self, engine: str, name: str, version: int | None, mount: str | None) -> Any:
        key = (engine, name, version, mount)
        try:
            ref = self._paths.get(key)
        except TypeError:
            ref = None
        if ref is None:
            ref = path_ref(engine, name, self.settings, version, mount)
            if len(self._paths) >= self._most_names:
                self._paths.clear()
            self._paths[key] = ref
        return self._value(ref)

    def read_at(self, engine: str, mount: str, path: str) -> SecretMapping | ApiKey:
        """What is at a path as it is, whatever characters it holds; for `env`.

        Args:
            engine: `kv` or `apikey`.
        """
        return self._value(Ref(engine, check_path(mount), check_path(path)))  # type: ignore[no-any-return]

    def _value(self, ref: Ref) -> Any:
        entry = self._entries.get(ref.key)
        if entry is None or self._now() >= entry.fresh_until:
            entry = self._load(ref)
        else:
            entry.used = True
        return entry.value

    @without_frames()
    def _load(self, ref: Ref) -> Any:
        if ref.engine == "kv":
            fetch = functools.partial(reads.fetch_kv, self, ref, self._mounts)
        else:
            fetch = functools.partial(reads.fetch_api_key, self, ref)
        return self._cache.load(ref.key, fetch, ref.label)

    def now(self) -> float:
        """Seconds on the client's clock."""
        return self._now()

    def call(
        self,
        method: str,
        path: str,
        *,
        until: float,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        json: Any = None,
        idempotent: bool = False,
        allow_304: bool = False,
        read_timeout: float | None = None,
    ) -> dict[str, Any]:
        """One request with our errors instead of hvac's.

        Returns:
            The JSON object; an empty one for 204 and, where allowed, for 304.
        """
        keywords: dict[str, Any] = {"until": until, "idempotent": idempotent}
        if read_timeout is not None:
            keywords["read_timeout"] = read_timeout
        if params:
            keywords["params"] = params
        if json is not None:
            keywords["json"] = json
        answer = self._send(
            method, f"/v1/{path}", headers=headers, raise_exception=False, **keywords
        )
        if isinstance(answer, dict):
            return answer
        if not hasattr(answer, "status_code"):
            raise InvalidResponseError(f'vault\'s answer to "{path}" is JSON but no object')
        if answer.status_code == 204 or (answer.status_code == 304 and allow_304):
            return {}
        held = self._tokens.held
        raise failure_of(answer, path, [held.value.reveal()] if held is not None else [])

    # --- life -----------------------------------------------------------------------------

    def close(self) -> None:
        """Revokes leases and token, forgets the cache and closes the connections, for good.

        Whoever uses the client afterwards, a thread that was left behind for example, gets an
        error.
        """
        with self._leases_lock:
            self._closed = True
            leases, self._leases = list(self._leases.values()), {}
        self._cache.close()
        for lease in leases:
            lease.shut()
        self._tokens.close(self._now() + self.settings.revalidate_deadline)
        self._session.shut()
        for _, session in list(self._handed_out.values()):
            session.shut()

    def _check_open(self) -> None:
        if self._closed:
            raise closed()

    def __enter__(self) -> VaultSecrets:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _after_fork(self) -> None:
        """In the child: no lock or thread is shared with the parent; values stay.

        The connections see to themselves, in `transport` and `session`.
        """
        self._leases_lock = threading.RLock()
        self._cache.reset_after_fork()
        self._tokens.reset_after_fork()
        for lease in list(self._leases.values()):
            lease.reset_after_fork()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its settings and the sources of its credential: no token, no cache."""
        return (type(self), (self.settings, self._auth))

    def __repr__(self) -> str:
        host = urlsplit(self.settings.address).netloc or self.settings.address
        return f"VaultSecrets({host!r}, {self._auth.describe()}, cached={len(self._entries)})"


def _reset_clients() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_clients)
