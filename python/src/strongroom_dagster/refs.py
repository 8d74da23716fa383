"""Names of secrets: `database-url`, `apikey:provider-a`, `kv:aws-credentials#access_key`."""

from __future__ import annotations

from typing import Any

from .errors import ConfigurationError
from .settings import UNRESOLVED, Settings, check_path, is_env_var, quoted_name

#: How a name is read that holds no more than a path, by engine, and how one field of it.
_VERBS = {"kv": ("kv", '["{}"]'), "apikey": ("api_key", '.values["{}"]')}


class Ref:
    """Engine, mount, path, version and field of a secret, with its key in the cache."""

    __slots__ = ("engine", "field", "key", "mount", "path", "version")

    def __init__(
        self,
        engine: str,
        mount: str,
        path: str,
        version: int | None = None,
        field: str | None = None,
    ) -> None:
        if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
            raise ConfigurationError(f"version: a {type(version).__name__} must be a whole number")
        if version is not None and version < 1:
            raise ConfigurationError(f"version: {version} must be 1 or more")
        self.engine: str = engine
        self.mount: str = mount
        self.path: str = path
        self.version: int | None = version
        self.field: str | None = field
        self.key: tuple[str, str, str, int | None] = (engine, mount, path, version)

    @property
    def label(self) -> str:
        """For messages: engine, mount and path."""
        return f'{self.engine} "{self.mount}/{self.path}"'

    def __repr__(self) -> str:
        return f"Ref({self.label})"


def check_text(what: str, value: Any) -> str:
    """The argument, if it is a text.

    Raises:
        ConfigurationError: it is something else, or an `EnvVar` of Dagster's, which is a text
            but stands for another one.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{what}: a {type(value).__name__} must be a text")
    if is_env_var(value):
        raise ConfigurationError(
            f"{what}: {UNRESOLVED}",
            hint="give its value: EnvVar(…).get_value()",
        )
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ConfigurationError(f"{what}: holds half a character", hint="is it UTF-8?")
    return value


def resolve(name: str, prefix: str) -> str:
    """The path under the mount: with the prefix, or without it for a name that starts with `/`."""
    return check_path(name[1:] if name.startswith("/") else prefix + name)


def _split(name: str) -> tuple[str | None, str, str, str]:
    """The engine that is named, if one is, the path, `#` if it is there, and the field."""
    engine, rest = None, name
    for known in _VERBS:
        if name.startswith(f"{known}:"):
            engine, rest = known, name[len(known) + 1 :]
    return (engine, *rest.partition("#"))


def parse_ref(name: str, settings: Settings) -> Ref:
    """Reads `[kv:|apikey:]NAME[#FIELD]`.

    Raises:
        ConfigurationError: no text, an empty name, a bad path, or an empty field.
    """
    engine, path, mark, field = _split(check_text("name", name))
    if mark and not field:
        raise ConfigurationError(f'{quoted_name("name", name)} ends in "#" without a field')
    if not path:
        raise ConfigurationError(f"{quoted_name('name', name)} is empty")
    mount = settings.apikeys_mount if engine == "apikey" else settings.kv_mount
    return Ref(engine or "kv", mount, resolve(path, settings.prefix), field=field or None)


def path_ref(
    engine: str, name: str, settings: Settings, version: int | None = None, mount: str | None = None
) -> Ref:
    """Reads a name that is a path only, as `kv` and `api_key` take it.

    Raises:
        ConfigurationError: no text, a bad path, version or mount, or a name as `get` takes it:
            with an engine or a field; says what to write instead.
    """
    named, path, mark, field = _split(check_text("name", name))
    if named is not None or mark:
        verb, one = _VERBS[named or engine]
        instead = f'{verb}("{path}")' + (one.format(field) if field else "")
        shown = quoted_name("name", name)
        raise ConfigurationError(
            f"{shown}: this takes a path, without an engine and without a field",
            hint=f'write {instead}, or get("{name}")' if name in shown else "",
        )
    if mount is None:
        mount = settings.kv_mount if engine == "kv" else settings.apikeys_mount
    return Ref(
        engine, check_path(check_text("mount", mount)), resolve(path, settings.prefix), version
    )
