"""Secret values that do not show themselves in `repr`, logs, tracebacks or pickles.

They are ordinary values once you ask for one (`secret["password"]`, `key.key`): a `str` that
has left these objects can no longer be masked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from .errors import FieldNotFoundError, SecretPicklingError

MASK = "****"


def as_text(value: Any) -> str:
    """A field as text: strings as they are, everything else as JSON (`5432`, `true`, `{"a": 1}`)."""
    return value if isinstance(value, str) else json.dumps(value)


class Masked:
    """Base of objects that refuse to be pickled or copied into one."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise SecretPicklingError(
            f"refused to pickle a {type(self).__name__}: that would write a secret out of memory",
            hint="pass the name of the secret on and read it where it is needed",
        )


class SecretMapping(Masked, Mapping[str, Any]):
    """The fields of one version of a secret: a read-only mapping with a masked `repr`.

    Attributes:
        path: where it came from, mount and path.
        version: its version in Vault (KV v2 and apikeys), counted from 1.
        created_time: RFC 3339, as Vault gave it; empty if it gave none.
    """

    __slots__ = ("_data", "_default", "created_time", "path", "version")

    def __init__(
        self, data: Mapping[str, Any], *, path: str, version: int = 0, created_time: str = ""
    ) -> None:
        self._data = dict(data)
        self.path = path
        self.version = version
        self.created_time = created_time
        if len(self._data) == 1:
            self._default: str | None = as_text(next(iter(self._data.values())))
        elif "value" in self._data:
            self._default = as_text(self._data["value"])
        else:
            self._default = None

    def text(self, field: str | None = None) -> str:
        """One field as text.

        Without `field`: the only field, or the one called `value`.

        Raises:
            FieldNotFoundError: no such field, or several and none called `value`.
        """
        if field is None:
            if self._default is not None:
                return self._default
            names = ", ".join(sorted(self._data)) or "none"
            raise FieldNotFoundError(
                f'secret "{self.path}" has no single field',
                hint=f"name one of its fields: {names}",
            )
        try:
            return as_text(self._data[field])
        except KeyError:
            pass
        names = ", ".join(sorted(self._data)) or "none"
        raise FieldNotFoundError(
            f'secret "{self.path}" has no field "{field}"', hint=f"its fields: {names}"
        )

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name!r}: '{MASK}'" for name in self._data)
        return f"SecretMapping({self.path!r}, version={self.version}, {{{fields}}})"

    __str__ = __repr__


class ApiKey(Masked):
    """One version of an API key from the `apikeys` engine.

    Attributes:
        key: the key itself; of a key with several named values, the single or `key` one.
        values: all its named values.
        name: its name under the mount.
        version, etag, state: as the engine says.
        created_time, last_rotated_time, next_rotation_time: RFC 3339, empty where unknown.
        cache_ttl: seconds, counted from before the request, for which the engine promises that
            this key is accepted by its provider.
        ttl: seconds after which a reader should look again.
        warnings: what Vault said beside the answer (a manual key that is due, for example).
    """

    __slots__ = (
        "cache_ttl",
        "created_time",
        "etag",
        "last_rotated_time",
        "name",
        "next_rotation_time",
        "state",
        "ttl",
        "values",
        "version",
        "warnings",
    )

    def __init__(
        self,
        *,
        name: str,
        values: SecretMapping,
        version: int,
        etag: str = "",
        state: str = "",
        created_time: str = "",
        last_rotated_time: str = "",
        next_rotation_time: str = "",
        cache_ttl: float = 0.0,
        ttl: float = 0.0,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.values = values
        self.version = version
        self.etag = etag
        self.state = state
        self.created_time = created_time
        self.last_rotated_time = last_rotated_time
        self.next_rotation_time = next_rotation_time
        self.cache_ttl = cache_ttl
        self.ttl = ttl
        self.warnings = warnings

    @property
    def key(self) -> str:
        """The key itself.

        Raises:
            FieldNotFoundError: it has several named values and none called `key`; use `values`.
        """
        return self.values.text("key" if "key" in self.values else None)

    def text(self, field: str | None = None) -> str:
        """One of its named values; without a name, `key`."""
        return self.key if field is None else self.values.text(field)

    def __repr__(self) -> str:
        return f"ApiKey({self.name!r}, version={self.version}, state={self.state!r}, key='{MASK}')"

    __str__ = __repr__


class Credentials(Masked):
    """A database user and its password, valid until its lease ends.

    Attributes:
        username: of the database user that Vault created.
        password: its password.
        lease_id: of the lease; not a secret in itself.
    """

    __slots__ = ("lease_id", "password", "username")

    def __init__(self, username: str, password: str, lease_id: str) -> None:
        self.username = username
        self.password = password
        self.lease_id = lease_id

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password='{MASK}')"

    __str__ = __repr__


class Sensitive(Masked):
    """One string that must not show: a token, a secret id, a wrapping token."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The string itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Sensitive('{MASK}')"

    __str__ = __repr__
