"""Where a credential is read from, without ever showing it.

A credential is read at every login, so that one that was replaced is picked up without a restart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import AuthenticationError, ConfigurationError, SecretPicklingError
from .masked import Sensitive, hidden
from .settings import UNRESOLVED, VARIABLE, VISIBLE, is_env_var, quoted_path, variables_of

_BY_NAME = 'write Source(variable="…")'
_MOST_BYTES = 64 * 1024  # of a credential's file


@dataclass(frozen=True)
class Source:
    """Where one credential comes from: exactly one of a file, a variable or the value itself.

    Its errors name the file or the variable only if there is one of that name: whoever confuses
    the fields writes the credential itself there.

    Attributes:
        file: path; its content without surrounding white space.
        variable: name of an environment variable.
        value: the credential in memory. A client made with it cannot be pickled.
        environ: where the variable is looked up, instead of the process's environment. A client
            made with it cannot be pickled.
    """

    file: str | None = None
    variable: str | None = None
    value: Sensitive | None = None
    environ: Mapping[str, str] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "environ", hidden(self.environ))
        if sum(x is not None for x in (self.file, self.variable, self.value)) != 1:
            raise ConfigurationError(
                "a credential needs exactly one source", hint="a file, a variable or a value"
            )
        if self.file is not None and not isinstance(self.file, (str, os.PathLike)):
            raise ConfigurationError("a credential's file must be a path")
        if is_env_var(self.file):
            raise ConfigurationError(f"a credential's file: {UNRESOLVED}", hint=_BY_NAME)
        if self.value is not None and not isinstance(self.value, Sensitive):
            raise ConfigurationError(
                "a credential's value must be masked", hint="write Source.of(…)"
            )
        if self.variable is not None and not (
            type(self.variable) is str and VARIABLE.fullmatch(self.variable)
        ):
            raise ConfigurationError(
                "a credential's variable must be the name of an environment variable",
                hint="letters, digits and _ as a plain text: the name, not the value",
            )

    @classmethod
    def of(cls, value: str) -> Source:
        """The credential itself, masked from now on."""
        if not isinstance(value, str):
            raise ConfigurationError(f"a credential must be a text, not {type(value).__name__}")
        if is_env_var(value):
            raise ConfigurationError(f"a credential: {UNRESOLVED}", hint=_BY_NAME)
        return cls(value=Sensitive(value))

    def read(self, what: str) -> str:
        """The credential now.

        Args:
            what: is read, for the message.

        Raises:
            AuthenticationError: there is none, or it cannot be one.
        """
        found, where, fault = self._found()
        found = found.strip().removeprefix("\ufeff").strip()  # Windows puts a BOM into its files
        if not fault and not found:
            fault = "is empty"
        elif not fault and not found.isprintable():
            fault = "holds a line break or another control character within the credential"
        if fault:
            raise AuthenticationError(f"{what}: {where} {fault}")
        return found

    def read_token(self) -> str:
        """The credential now, which has to be a Vault token.

        Raises:
            AuthenticationError: as `read`, or it holds what no token holds.
        """
        found = self.read("token")
        if not VISIBLE.fullmatch(found):
            where = self._found()[1]
            raise AuthenticationError(f"token: {where} holds a space or another odd character")
        return found

    def __repr__(self) -> str:
        return f"Source({self._where()})"

    def _environ(self) -> Mapping[str, str]:
        return variables_of(self.environ)

    def _where(self) -> str:
        """For messages: names what it is only if that is there."""
        if self.value is not None:
            return "the value"
        if self.variable is not None:
            known = self.variable in self._environ() or self.variable.startswith("VAULT_")
            return f"environment variable {self.variable}" if known else "its environment variable"
        return quoted_path(str(self.file))

    def _found(self) -> tuple[str, str, str]:
        """The raw credential, where it was looked for, and what is wrong."""
        where = self._where()
        if self.value is not None:
            return self.value.reveal(), where, ""
        if self.variable is not None:
            found = self._environ().get(self.variable, "")
            if not isinstance(found, str):  # of a mapping that is no environment
                return "", where, f"is of type {type(found).__name__} and no text"
            return found, where, "" if found.strip() else "is not set or empty"
        path = str(self.file)
        try:
            with Path(path).open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                return "", where, f"is longer than {_MOST_BYTES} bytes"
            return content.decode("utf-8"), where, ""
        except UnicodeDecodeError:
            return "", where, "is not UTF-8 text"
        except ValueError:  # a NUL in the path
            return "", where, "cannot be read"
        except OSError as error:
            return "", where, f"cannot be read: {(error.strerror or 'unknown fault').lower()}"

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        if self.environ is not None:
            raise SecretPicklingError(
                "a credential that is read from a mapping cannot be pickled",
                hint="name a file, or a variable of the process",
            )
        return (type(self), (self.file, self.variable, self.value))
