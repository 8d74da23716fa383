"""Secret values that do not show themselves in `repr`, logs, tracebacks or pickles.

They are ordinary values once you ask for one (`secret["password"]`, `key.key`): a `str` that
has left these objects can no longer be masked. All who read a secret share these objects, so they
are read-only all the way down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from .errors import ConfigurationError, FieldNotFoundError, SecretPicklingError
from .settings import quoted_name

MASK = "****"
_MOST_DIGITS = 4000  # of a whole number; Python makes one of up to 4,300


def as_text(value: Any) -> str:
    """A field as text: a text as it is, nothing for null, everything else as JSON.

    The JSON is what Vault has (`5432`, `true`, `1.10`), of a tree compact and with its names in
    order. `strongroom env` does the same.
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_json(k)}:{_json(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, Number):
        return value.text
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


class Number(float):
    """A number as Vault has it, for `1.10` is another text than `1.1`.

    Attributes:
        text: as it stands in the JSON.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text: str = text

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return (float, (float(self),))


def _whole(text: str) -> int | Number:
    return int(text) if text != "-0" and len(text) <= _MOST_DIGITS else Number(text)


#: For what reads JSON (`json.loads`, `requests.Response.json`): numbers as Vault has them.
AS_VAULT_HAS_THEM: dict[str, Any] = {"parse_float": Number, "parse_int": _whole}


class Masked:
    """Base of objects that refuse to be pickled or copied into one."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise SecretPicklingError(
            f"refused to pickle a {type(self).__name__}: that would write a secret out of memory",
            hint="pass the name of the secret on and read it where it is needed",
        )

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(2)
        raise AssertionError("unreachable")


class Fixed(Masked):
    """Base of masked objects whose attributes do not change once they are made."""

    __slots__ = ()

    def _fill(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is read-only: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is read-only: {name} cannot be deleted")


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("a secret is read-only; change a copy of it: copy.deepcopy(…)")


class _FixedList(list[Any]):
    """A list inside of a secret: a list for everybody who only looks at it."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return (list, (list(self),))


class _FixedDict(dict[str, Any]):
    """An object inside of a secret."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return (dict, (dict(self),))


def _fixed(value: Any) -> Any:
    """A read-only copy of a JSON value, so that even who gets around that changes a copy."""
    if isinstance(value, (list, tuple)):
        return _FixedList([_fixed(item) for item in value])
    if isinstance(value, Mapping):
        return _FixedDict({name: _fixed(item) for name, item in value.items()})
    return value


def same_version(one: SecretMapping | ApiKey, other: SecretMapping | ApiKey) -> bool:
    """Whether two values are one version of one secret.

    Its number does not tell: a secret that was deleted and made anew counts from 1 again.
    """
    return one is other or (
        bool(one.created_time)
        and (one.version, one.created_time) == (other.version, other.created_time)
    )


class SecretMapping(Fixed, Mapping[str, Any]):
    """The fields of one version of a secret: a read-only mapping with a masked `repr`.

    Attributes:
        path: where it came from, mount and path.
        version: its version in Vault (KV v2 and apikeys), counted from 1.
        created_time: RFC 3339, as Vault gave it; empty if it gave none.
    """

    __slots__ = ("_data", "_default", "created_time", "path", "version")
    path: str
    version: int
    created_time: str
    _data: dict[str, Any]
    _default: str | None

    def __init__(
        self, data: Mapping[str, Any], *, path: str, version: int = 0, created_time: str = ""
    ) -> None:
        kept = dict(_fixed(data))
        default = None
        if len(kept) == 1:
            default = as_text(next(iter(kept.values())))
        elif "value" in kept:
            default = as_text(kept["value"])
        self._fill(
            _data=kept, _default=default, path=path, version=version, created_time=created_time
        )

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
        if not isinstance(field, str):
            raise ConfigurationError(f"field: a {type(field).__name__} must be a text")
        try:
            return as_text(self._data[field])
        except KeyError:
            pass
        names = ", ".join(sorted(self._data)) or "none"
        raise FieldNotFoundError(
            f'secret "{self.path}" has no {quoted_name("field", field)}',
            hint=f"its fields: {names}",
        )

    def __getitem__(self, key: str) -> Any:
        return _fixed(self._data[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name!r}: '{MASK}'" for name in self._data)
        return f"SecretMapping({self.path!r}, version={self.version}, {{{fields}}})"

    __str__ = __repr__


class ApiKey(Fixed):
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
        "_key",
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

    name: str
    values: SecretMapping
    version: int
    etag: str
    state: str
    created_time: str
    last_rotated_time: str
    next_rotation_time: str
    cache_ttl: float
    ttl: float
    warnings: tuple[str, ...]
    _key: str | None  # made once: it is what every cached read asks for

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
        try:
            key = values.text("key" if "key" in values else None)
        except FieldNotFoundError:
            key = None
        self._fill(
            _key=key,
            name=name,
            values=values,
            version=version,
            etag=etag,
            state=state,
            created_time=created_time,
            last_rotated_time=last_rotated_time,
            next_rotation_time=next_rotation_time,
            cache_ttl=cache_ttl,
            ttl=ttl,
            warnings=warnings,
        )

    @property
    def key(self) -> str:
        """The key itself.

        Raises:
            FieldNotFoundError: it has several named values and none called `key`; use `values`.
        """
        return self._key if self._key is not None else self.values.text()

    def text(self, field: str | None = None) -> str:
        """One of its named values; without a name, `key`."""
        if field is None and self._key is not None:
            return self._key
        return self.key if field is None else self.values.text(field)

    def __repr__(self) -> str:
        return f"ApiKey({self.name!r}, version={self.version}, state={self.state!r}, key='{MASK}')"

    __str__ = __repr__


class Credentials(Fixed):
    """A database user and its password, valid until its lease ends.

    Attributes:
        username: of the database user that Vault created.
        password: its password.
        lease_id: of the lease; not a secret in itself.
    """

    __slots__ = ("lease_id", "password", "username")
    username: str
    password: str
    lease_id: str

    def __init__(self, username: str, password: str, lease_id: str) -> None:
        self._fill(username=username, password=password, lease_id=lease_id)

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password='{MASK}')"

    __str__ = __repr__


class Sensitive(Fixed):
    """One string that must not show: a token, a secret id, a wrapping token."""

    __slots__ = ("_value",)
    _value: str

    def __init__(self, value: str) -> None:
        self._fill(_value=value)

    def reveal(self) -> str:
        """The string itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Sensitive('{MASK}')"

    __str__ = __repr__


class Variables(Fixed, Mapping[str, str]):
    """A mapping that is given in place of the environment: read as it is now, and not shown."""

    __slots__ = ("_given",)
    _given: Mapping[str, str]

    def __init__(self, given: Mapping[str, str]) -> None:
        self._fill(_given=given)

    def __getitem__(self, key: str) -> str:
        return self._given[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __repr__(self) -> str:
        return f"Variables('{MASK}')"

    __str__ = __repr__


def hidden(environ: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """The same without its values in `vars`, `dataclasses.asdict` and the like."""
    return Variables(environ) if isinstance(environ, Mapping) else environ
