"""All that an error shows, for tests that look for a secret in it."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any


def everything(error: BaseException) -> str:
    """What an error, its causes and contexts and their parts show."""
    shown = "".join(traceback.format_exception(error))
    todo: list[Any] = [error]
    seen: list[Any] = []
    while todo:
        item = todo.pop()
        if item is None or any(item is other for other in seen):
            continue
        seen.append(item)
        shown += f" {item!r} {item!s} {getattr(item, '__dict__', '')}"
        if isinstance(item, BaseException):
            todo += [*item.args, item.__cause__, item.__context__]
    return shown


def kept(error: BaseException) -> str:
    """The local variables of its frames, its causes' and contexts' too, as an error tracker would
    keep them; but not those of the tests."""
    tests = str(Path(__file__).resolve().parents[1])
    found = []
    todo = [traceback.TracebackException.from_exception(error, capture_locals=True)]
    while todo:
        one = todo.pop()
        for frame in one.stack:
            if not frame.filename.startswith(tests):
                found.append(f"{frame.filename} {frame.name} {frame.locals}")
        todo += [other for other in (one.__cause__, one.__context__) if other is not None]
    return "\n".join(found)
