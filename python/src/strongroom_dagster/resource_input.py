"""What is given to `VaultSecretsResource`: how its fields are described, and the checks.

No message quotes a value: whoever confuses two fields writes a secret into the wrong one.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Hashable, Mapping
from dataclasses import fields
from typing import Any

import dagster as dg
from pydantic import BaseModel, Field

from .errors import ConfigurationError
from .settings import VARIABLE, Settings

#: Credentials that may only be named, never given: argument -> the field that holds its name.
BY_NAME = {name: f"{name}_variable" for name in ("secret_id", "wrapped_secret_id", "token", "jwt")}

_IntEnvVar: type = type(dg.EnvVar.int("NAME"))  # Dagster does not export the class
_DEFAULTS = {field.name: field.default for field in fields(Settings)}
#: Dagster masks such a field in its UI; `repr` leaves it out.
_SECRET: dict[str, Any] = {"repr": False, "json_schema_extra": {"dagster__is_secret": True}}


def setting(name: str, description: str) -> Any:
    """A field with the default of `Settings`."""
    return Field(default=_DEFAULTS[name], description=description)


def hidden(description: str, default: str | None = None) -> Any:
    """A field that should hold no secret, but one may land there."""
    return Field(default=default, description=description, **_SECRET)


def named(purpose: str) -> Any:
    """A field for the name of an environment variable."""
    return hidden(f"name of the environment variable that {purpose}")


def checked(
    cls: type[BaseModel], given: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """The values for the fields of `cls`, of what was given to it by name.

    Args:
        own: fields that are checked here; those of a subclass are pydantic's.

    Raises:
        ConfigurationError: an unknown name, a wrong type, a credential instead of its name.
    """
    known = {field.alias or name: field for name, field in cls.model_fields.items()}
    values: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for name, value in given.items():
        if name in BY_NAME:
            if value is not None:
                _put(values, BY_NAME[name], _named_credential(name, value))
            continue
        if name not in known:
            raise _unknown(name, [*known, *BY_NAME])
        if name in _DEFAULTS and _is_env_var(value) and _read_by_us(name):
            variables[name] = _variable(name, _name_of(value))
        elif name == "from_variables":
            _check_variables(value)
            variables = {**value, **variables}
        else:
            if name in own or name == "environment":
                _check(name, value, str(known[name].annotation), known[name].default)
            _put(values, name, value)
    if variables:
        values["from_variables"] = variables
    return values


def from_variables(variables: Mapping[str, str]) -> dict[str, Any]:
    """The settings that are read from environment variables, by field.

    Raises:
        ConfigurationError: one is not set, or not of the field's type.
    """
    return {field: _parsed(field, os.environ.get(name, "")) for field, name in variables.items()}


def unresolved(resource: BaseModel) -> list[str]:
    """The fields that hold an `EnvVar`, which stands for a value and is none."""
    return [name for name, value in resource if _is_env_var(value)]


def told_apart(value: Any) -> Hashable:
    """What tells a configuration from others. Its `repr` does not: it leaves out, or masks, what
    is not to be shown."""
    if isinstance(value, BaseModel):
        return (type(value), *((name, told_apart(inner)) for name, inner in value))
    if isinstance(value, Mapping):
        return tuple(sorted((repr(name), told_apart(inner)) for name, inner in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(map(told_apart, value))
    if value is None or type(value) in (str, int, float, bool):
        return repr(value)
    return value.__repr__  # type: ignore[no-any-return]  # equal for the same object only, which it holds


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    if values.get(name) is not None and value is not None:
        raise ConfigurationError(f"{name}: is given twice")
    if value is not None or name not in values:
        values[name] = value


def _named_credential(name: str, value: Any) -> str:
    if not isinstance(value, dg.EnvVar):
        raise ConfigurationError(
            f"{name}: a literal would be shown in the Dagster UI",
            hint=f'use EnvVar("…"), or {name}_file with a path',
        )
    return _variable(name, value.env_var_name)


def _unknown(name: str, known: list[str]) -> ConfigurationError:
    close = difflib.get_close_matches(name, known, 1)
    return ConfigurationError(
        f'unknown field "{name}"' if name.isidentifier() and close else "unknown field",
        hint=f'did you mean "{close[0]}"?' if close else f"there are: {', '.join(sorted(known))}",
    )


def _read_by_us(field: str) -> bool:
    """Whether an `EnvVar` of the field is resolved here: Dagster knows no source of a float, and
    shows what it has resolved."""
    return not isinstance(_DEFAULTS[field], (str, type(None))) or field == "proxy"


def _is_env_var(value: Any) -> bool:
    return isinstance(value, (dg.EnvVar, _IntEnvVar))


def _name_of(value: Any) -> str:
    return str(value.env_var_name if isinstance(value, dg.EnvVar) else value.name)


def _variable(field: str, name: Any) -> str:
    if type(name) is not str or not VARIABLE.fullmatch(name):
        raise ConfigurationError(
            f"{field}: takes the name of an environment variable",
            hint="letters, digits and _ as a plain text: neither a value nor an EnvVar",
        )
    return name


def _check_variables(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ConfigurationError("from_variables: must be a mapping of fields to variables")
    for field, name in value.items():
        if field not in _DEFAULTS or not _read_by_us(field):
            raise ConfigurationError(
                "from_variables: names a field that cannot come from a variable this way",
                hint=f"there are: {', '.join(filter(_read_by_us, sorted(_DEFAULTS)))}",
            )
        _variable(f"from_variables.{field}", name)


def _check(name: str, value: Any, kind: str, default: Any) -> None:
    """That a value is of its field's type, for the types that this package's fields have."""
    if name.endswith("_variable") and value is not None:
        _variable(name, value)
    elif value is None and default is None:
        pass
    elif "str" in kind and "dict" not in kind:
        if not isinstance(value, str):
            raise _wrong(name, "a text", value)
        if isinstance(value, dg.EnvVar):
            _variable(name, value.env_var_name)
        if name == "proxy" and "@" in value:
            raise ConfigurationError(
                "proxy: a user and password would be shown in the Dagster UI",
                hint='use proxy=EnvVar("…")',
            )
        if name == "address" and "@" in value:
            raise ConfigurationError("address: must not hold a user or password")
    elif kind == "<class 'bool'>":
        if not isinstance(value, bool):
            raise _wrong(name, "True or False", value)
    elif kind in ("<class 'float'>", "<class 'int'>"):
        allowed = (int, float) if "float" in kind else int
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise _wrong(
                name, "a number of seconds" if "float" in kind else "a whole number", value
            )


def _wrong(name: str, what: str, value: Any) -> ConfigurationError:
    return ConfigurationError(f"{name}: must be {what}, not {type(value).__name__}")


def _parsed(field: str, text: str) -> Any:
    default = _DEFAULTS[field]
    if not text.strip():
        raise ConfigurationError(f"{field}: its environment variable is not set or empty")
    if isinstance(default, bool):
        known = {"true": True, "1": True, "false": False, "0": False}
        if text.strip().lower() not in known:
            raise ConfigurationError(f"{field}: its environment variable must be true or false")
        return known[text.strip().lower()]
    if default is None:
        return text.strip()
    try:
        return int(text) if isinstance(default, int) else float(text)
    except ValueError:
        pass  # the error would quote it
    kind = "a whole number" if isinstance(default, int) else "a number of seconds"
    raise ConfigurationError(f"{field}: its environment variable must be {kind}")
