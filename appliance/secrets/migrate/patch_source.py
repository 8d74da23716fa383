"""Patches reads of environment variables in Python code, by its syntax tree: sources and places.

One program in three files, in this order: patch_source.py, patch_find.py, patch_write.py.

Run by strongroom migrate as python3 -I -S. It reads one request a line from standard input and
writes one answer a line, both JSON; nothing of what it patches is run or imported.

request: {"source": base64, "names": [variables that were moved]}
answer:  {"patched": base64, or absent if nothing changes,
          "notes": [[line, what no patch covers]],
          "left": why the whole file was left alone,
          "old", "new": both sources without their texts, comments and defaults, to be shown}
"""

import ast
import base64
import codecs
import io
import json
import re
import sys
import tokenize
import warnings

MODULE = "strongroom_dagster.env"
ALIAS = "strongroom_env"
MASK = "\u2022\u2022\u2022"
CHANGES = ("pop", "setdefault", "update", "__setitem__", "__delitem__", "clear", "popitem")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class LeftAlone(Exception):
    """The file stays as it is."""


class Text:
    """A source and its places: ast counts bytes of UTF-8 in a line, a text counts characters."""

    def __init__(self, text):
        self.text = text
        self.lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line, column):
        before = self.lines[line - 1].encode("utf-8")[:column]
        return self.starts[line - 1] + len(before.decode("utf-8"))

    def span(self, node):
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)


def decode(data):
    """The encoding that the file declares (PEP 263), its mark, and its text."""
    mark = b""
    if data.startswith(codecs.BOM_UTF8):
        mark = codecs.BOM_UTF8
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        if mark:
            encoding = "utf-8"
        text = data[len(mark) :].decode(encoding)
        if text.encode(encoding) != data[len(mark) :]:
            raise LeftAlone("its text is not the same again in its encoding")
    except (SyntaxError, LookupError, UnicodeError):
        raise LeftAlone("its text is not in the encoding that it declares")
    return encoding, mark, text


def parse(text, data):
    version = "%d.%d" % sys.version_info[:2]
    try:
        tree = ast.parse(text)
        compile(data, "<file>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise LeftAlone("line %d is not what Python %s reads" % (error.lineno or 1, version))
    except (ValueError, RecursionError, MemoryError, OverflowError):
        raise LeftAlone("it is not what Python %s reads" % version)
    return tree


def key_of(subscript):
    key = subscript.slice
    return key.value if type(key).__name__ == "Index" else key  # before Python 3.9


def text_of(constant):
    return constant.value.decode("latin-1") if isinstance(constant.value, bytes) else constant.value
