"""Environment variables that hold secrets while a `with` block runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .errors import ConfigurationError
from .settings import VARIABLE


class Overlay:
    """Layers over `os.environ`; blocks of several threads may end in any order.

    A variable has the value of the block that began last among those that run, and its old value,
    or none, after the last has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._before: dict[str, str | None] = {}
        self._layers: dict[str, list[tuple[object, str]]] = {}

    @contextmanager
    def over(self, values: Mapping[str, str]) -> Iterator[None]:
        """Sets the variables for the block."""
        layer = object()
        try:
            with self._lock:
                for name, value in values.items():
                    self._push(name, layer, value)
            yield
        finally:
            with self._lock:
                for name in values:
                    self._remove(name, layer)

    def reset_after_fork(self) -> None:
        """In the child: the lock may be held by a thread that is not there any more."""
        self._lock = threading.RLock()

    def _push(self, name: str, layer: object, value: str) -> None:
        layers = self._layers.setdefault(name, [])
        if not layers:
            self._before[name] = os.environ.get(name)
        layers.append((layer, value))
        os.environ[name] = value

    def _remove(self, name: str, layer: object) -> None:
        layers = self._layers.get(name, [])
        layers[:] = [entry for entry in layers if entry[0] is not layer]
        if layers:
            os.environ[name] = layers[-1][1]
            return
        if self._layers.pop(name, None) is None:
            return
        before = self._before.pop(name)
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


#: The process has one environment.
overlay: Overlay = Overlay()
os.register_at_fork(after_in_child=overlay.reset_after_fork)


def check_names(variables: Mapping[str, str]) -> None:
    """That the variables have names that every program understands.

    Raises:
        ConfigurationError: one has not.
    """
    for variable in variables:
        if not isinstance(variable, str) or not VARIABLE.fullmatch(variable):
            raise ConfigurationError(
                "environment: a key is no name of a variable (letters, digits and _)",
                hint='write it as {"VARIABLE": "name of the secret"}',
            )


def check_values(values: Mapping[str, str]) -> None:
    """That the values can be in an environment.

    Raises:
        ConfigurationError: one cannot; names its variable.
    """
    for variable, value in values.items():
        fault = "a NUL byte" if "\0" in value else ""
        try:
            os.fsencode(value)
        except UnicodeEncodeError:  # it holds the value
            fault = "a character"
        if fault:
            raise ConfigurationError(
                f"{variable}: holds {fault}, which no environment variable can"
            )
