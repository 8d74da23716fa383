"""Reads .env files with the real python-dotenv.

Standard input: a JSON text per line, the content of a file. Standard output: for each of them
{"statements": [[name, value or null, faulty], ...], "values": {name: value or null}}.
"""

import json
import logging
import os
import sys
import tempfile

import dotenv
from dotenv.parser import parse_stream

logging.disable(logging.CRITICAL)
os.environ.clear()

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, ".env")
    for line in sys.stdin:
        with open(path, "wb") as file:
            file.write(json.loads(line).encode("utf-8"))
        # Through a file, as load_dotenv does: Python's text mode changes the ends of lines.
        with open(path, encoding="utf-8") as file:
            statements = [
                [b.key, b.value, b.error] for b in parse_stream(file) if b.error or b.key is not None
            ]
        values = dotenv.dotenv_values(path)
        print(json.dumps({"statements": statements, "values": values}))
