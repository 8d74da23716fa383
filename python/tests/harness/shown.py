"""All that an error shows, for tests that look for a secret in it."""

from __future__ import annotations

import traceback
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
