"""Names of secrets: `database-url`, `apikey:provider-a`, `kv:aws-credentials#access_key`."""

from __future__ import annotations

from .errors import ConfigurationError
from .settings import Settings, check_path


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
        if version is not None and version < 1:
            raise ConfigurationError(f"version: {version} must be 1 or more")
        self.engine = engine
        self.mount = mount
        self.path = path
        self.version = version
        self.field = field
        self.key = (engine, mount, path, version)

    @property
    def label(self) -> str:
        """For messages: engine, mount and path."""
        return f'{self.engine} "{self.mount}/{self.path}"'

    def __repr__(self) -> str:
        return f"Ref({self.label})"


def resolve(name: str, prefix: str) -> str:
    """The path under the mount: with the prefix, or without it for a name that starts with `/`."""
    return check_path(name[1:] if name.startswith("/") else prefix + name)


def parse_ref(name: str, settings: Settings) -> Ref:
    """Reads `[kv:|apikey:]NAME[#FIELD]`.

    Raises:
        ConfigurationError: an empty name, a bad path, or an empty field.
    """
    engine, rest = "kv", name
    for known in ("kv", "apikey"):
        if name.startswith(f"{known}:"):
            engine, rest = known, name[len(known) + 1 :]
    path, mark, field = rest.partition("#")
    if mark and not field:
        raise ConfigurationError(f'name "{name}" ends in "#" without a field')
    mount = settings.kv_mount if engine == "kv" else settings.apikeys_mount
    if not path:
        raise ConfigurationError(f'name "{name}" is empty')
    return Ref(engine, mount, resolve(path, settings.prefix), field=field or None)
