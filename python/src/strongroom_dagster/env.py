"""Environment variables that are read from Vault, so that code can move there in steps.

    from strongroom_dagster.env import environ, getenv

    url = environ["DATABASE_URL"]          # as os.environ["DATABASE_URL"]
    token = getenv("PROVIDER_A_TOKEN")     # as os.getenv("PROVIDER_A_TOKEN")

Which variable is which secret stands in a TOML file, `strongroom-env.toml`, that `strongroom
migrate` writes. What the process's own environment sets, and not to nothing, wins as it did before,
with one line on standard error; `STRONGROOM_ENV_PREFER=vault` turns that round. A variable that is
not in the file, or that Vault cannot give, is taken from the environment, with a warning; it is an
error only if it is not there either.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, overload

from .client import VaultSecrets
from .errors import ConfigurationError, SecretPicklingError, StrongroomError, without_frames
from .settings import check_path, quoted_name, quoted_path, variables_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Names the mapping file; without it the file is looked for in the working directory.
FILE_VARIABLE = "STRONGROOM_ENV_FILE"
DEFAULT_FILE = "strongroom-env.toml"
#: Which of both wins where the environment sets a variable that is mapped.
PREFER_VARIABLE = "STRONGROOM_ENV_PREFER"
PREFERENCES = ("environment", "vault")
FORMAT = 1
_KEYS = frozenset({"engine", "mount", "path", "field"})
#: What env(1) and shells take, with the dots and dashes that exist in the wild.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

log: logging.Logger = logging.getLogger("strongroom_dagster")

T = TypeVar("T")


class EnvironmentFallbackWarning(UserWarning):
    """A variable came from the environment although it should come from Vault."""


@dataclass(frozen=True)
class Variable:
    """Where one variable lives in Vault.

    Attributes:
        engine: `kv` (version 2) or `apikeys`.
        mount: of the engine.
        path: under the mount, from its root.
        field: of the secret; None for the only one, or `value` (an API key: `key`).
    """

    engine: str
    mount: str
    path: str
    field: str | None = None


@dataclass(frozen=True)
class EnvironmentMap:
    """A mapping file.

    Attributes:
        file: where it was read from.
        variables: by name.
    """

    file: Path
    variables: dict[str, Variable]

    @classmethod
    def read(cls, file: Path) -> EnvironmentMap:
        """Reads and checks a mapping file.

        Raises:
            ConfigurationError: it cannot be read, is no TOML, or holds faults; names all of them.
        """
        file, reason = Path(file), ""
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            reason = str(error).lower()
        except (ValueError, RecursionError):  # a NUL in its name; digits or brackets without end
            reason = "cannot be read"
        if reason:
            raise ConfigurationError(f"mapping {quoted_path(str(file))}: {reason}")
        problems: list[str] = []
        unknown = sorted(set(data) - {"format", "variables"})
        problems += [quoted_name("unknown key", name) for name in unknown]
        if type(data.get("format")) is not int or data["format"] != FORMAT:
            problems.append(f"format: must be {FORMAT}")
        tables = data.get("variables", {})
        if not isinstance(tables, dict):
            problems.append("variables: must be a table")
            tables = {}
        variables = {}
        for name, table in tables.items():
            found = _variable(name, table, problems)
            if found is not None:
                variables[name] = found
        if problems:
            raise ConfigurationError(
                f'mapping file "{file}": {"; ".join(problems)}', hint="see docs/dagster.md"
            )
        return cls(file, variables)


def _variable(name: str, table: Any, problems: list[str]) -> Variable | None:
    before = len(problems)
    where = f"variables.{name}"
    if not _NAME.fullmatch(name):
        where = quoted_name("variables: a key,", name)
        problems.append(f"{where} is no name for an environment variable")
    if not isinstance(table, dict):
        problems.append(f"{where}: must be a table")
        return None
    for key in sorted(set(table) - _KEYS):
        problems.append(f"{where}: {quoted_name('unknown key', key)}")
    for key, value in table.items():
        if key in _KEYS and (not isinstance(value, str) or not value):
            problems.append(f"{where}.{key}: must be a text that is not empty")
    engine = table.get("engine", "kv")
    if engine not in ("kv", "apikeys"):
        problems.append(f'{where}.engine: must be "kv" or "apikeys"')
    if "path" not in table:
        problems.append(f"{where}.path: is missing")
    mount = table.get("mount", "secret" if engine == "kv" else "apikeys")
    if len(problems) == before:
        for key, value in (("path", table["path"]), ("mount", mount)):
            try:
                check_path(value)
            except ConfigurationError as error:
                problems.append(f"{where}.{key}: {error.message}")
    if len(problems) > before:
        return None
    return Variable(engine, mount, table["path"], table.get("field"))


class VaultEnviron(Mapping[str, str]):
    """A read-only stand-in for `os.environ` that reads what is mapped from Vault.

    Args:
        mapping: the mapping file's content; None: looked for at first use.
        client: None: made from the environment at first use (`VaultSecrets.from_env`).
        environ: what to fall back to.
    """

    def __init__(
        self,
        mapping: EnvironmentMap | None = None,
        client: VaultSecrets | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._mapping = mapping
        self._client = client
        self._environ = variables_of(environ)
        self._lock = threading.RLock()
        _living[id(self)] = self
        self._warned: set[str] = set()
        self._said: set[str] = set()

    def reset_after_fork(self) -> None:
        """A new lock for the child, in which the thread that may hold the old one does not exist."""
        self._lock = threading.RLock()

    def mapping(self) -> EnvironmentMap:
        """The mapping that is in use; an empty one where there is no file.

        Raises:
            ConfigurationError: the file is named but missing, or malformed.
        """
        known = self._mapping
        if known is not None:
            return known
        with self._lock:
            if self._mapping is not None:
                return self._mapping
            named = self._environ.get(FILE_VARIABLE)
            file = Path(named or DEFAULT_FILE)
            if named or file.exists():
                self._mapping = EnvironmentMap.read(file)
                return self._mapping
            self._mapping = EnvironmentMap(file, {})
        log.warning(
            "no mapping file: %s is not in %s and %s is not set; "
            "every variable comes from the environment",
            DEFAULT_FILE,
            Path.cwd(),
            FILE_VARIABLE,
        )
        return EnvironmentMap(file, {})

    def _vault(self) -> VaultSecrets:
        with self._lock:
            if self._client is None:
                self._client = VaultSecrets.from_env(self._environ)
            return self._client

    def __getitem__(self, name: str) -> str:
        """The variable.

        Raises:
            KeyError: it is not mapped and not in the environment.
            StrongroomError: it is mapped, Vault did not give it, and it is not in the environment
                or empty there.
            ConfigurationError: `STRONGROOM_ENV_PREFER` is neither of both.
        """
        mapping = self.mapping()
        variable = mapping.variables.get(name)
        if variable is None:
            value = self._environ[name]
            self._warn(name, f'is not in "{mapping.file}"')
            return value
        own = self._own(name)
        if own:
            return own
        try:
            return self._read(variable)
        except StrongroomError as error:
            fallback = self._environ.get(name)
            if not fallback:
                raise
            self._warn(name, f"could not be read from Vault: {error.message}")
        return fallback

    def _own(self, name: str) -> str | None:
        """What the process's environment says of a mapped variable, if that wins."""
        prefer = self._environ.get(PREFER_VARIABLE) or PREFERENCES[0]
        if prefer not in PREFERENCES:
            raise ConfigurationError(f"{PREFER_VARIABLE}: must be {' or '.join(PREFERENCES)}")
        own = self._environ.get(name) if prefer == "environment" else None
        if own:
            self._say(name)
        return own

    def _say(self, name: str) -> None:
        """One line for each variable: what is stale would beat a rotation unseen."""
        with self._lock:
            if name in self._said:
                return
            self._said.add(name)
        if sys.stderr is not None:
            sys.stderr.write(
                f"strongroom: {name} comes from this process's environment and not from Vault "
                f"({PREFER_VARIABLE}=vault turns that round)\n"
            )

    @without_frames()
    def _read(self, variable: Variable) -> str:
        engine = "kv" if variable.engine == "kv" else "apikey"
        secret = self._vault().read_at(engine, variable.mount, variable.path)
        text = secret.text(variable.field)
        if "\0" in text:
            raise ConfigurationError(
                f'secret "{variable.mount}/{variable.path}" holds a NUL byte, '
                "which no environment variable can"
            )
        return text

    def _warn(self, name: str, why: str) -> None:
        with self._lock:
            if name in self._warned:
                return
            self._warned.add(name)
        warnings.warn(
            f"{name} {why}; its value was taken from the environment",
            EnvironmentFallbackWarning,
            stacklevel=_caller_level(),
        )

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self.mapping().variables, *self._environ])

    def __len__(self) -> int:
        return len(set(self.mapping().variables) | set(self._environ))

    def __contains__(self, name: object) -> bool:
        """Whether it is mapped or in the environment; does not ask Vault."""
        return name in self.mapping().variables or name in self._environ

    @overload
    def get(self, name: str, default: None = None) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    @overload
    def get(self, name: str, default: T) -> str | T: ...
    def get(self, name: str, default: object = None) -> object:
        """The variable, or the default if it is neither mapped nor in the environment."""
        try:
            return self[name]
        except KeyError:
            return default

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise SecretPicklingError("the environment is not to be pickled")

    def __repr__(self) -> str:
        return f"VaultEnviron({str(self.mapping().file)!r}, {len(self.mapping().variables)} mapped)"


#: All that are in use, for a fork: its child has none of the threads that may hold a lock.
_living: weakref.WeakValueDictionary[int, VaultEnviron] = weakref.WeakValueDictionary()


def _reset_after_fork() -> None:
    for one in list(_living.values()):
        one.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _caller_level() -> int:
    """`stacklevel` of the first frame outside of this module, seen from `_warn`."""
    level, frame = 1, inspect.currentframe()
    frame = frame.f_back if frame else None
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        level, frame = level + 1, frame.f_back
    return level


#: For the process: the file and the client come from its environment.
environ: VaultEnviron = VaultEnviron()


@overload
def getenv(name: str) -> str | None: ...
@overload
def getenv(name: str, default: str) -> str: ...
def getenv(name: str, default: str | None = None) -> str | None:
    """As `os.getenv`, from `environ`."""
    return environ.get(name, default)
