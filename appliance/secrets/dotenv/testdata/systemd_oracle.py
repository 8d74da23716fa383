"""Reads files as systemd reads EnvironmentFile=, with systemd's own functions.

libsystemd-shared, which every systemd brings along, exports load_env_file and
strv_env_clean_with_callback: what exec_context_load_environment calls. The argument is the library.

Standard input: a JSON text per line, the content of a file. Standard output: for each of them
{"values": {name: value}, "error": bool, "dropped": number of assignments that systemd refuses}.
"""

import ctypes
import json
import os
import sys
import tempfile

library = ctypes.CDLL(sys.argv[1])
strings = ctypes.POINTER(ctypes.c_char_p)
library.load_env_file.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(strings)]
library.load_env_file.restype = ctypes.c_int
library.strv_env_clean_with_callback.argtypes = [strings, ctypes.c_void_p, ctypes.c_void_p]
library.strv_env_clean_with_callback.restype = strings


def pairs(array):
    """The texts of a NULL-terminated array."""
    i = 0
    while array and array[i] is not None:
        yield array[i].decode("utf-8")
        i += 1


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "file").encode()
    for line in sys.stdin:
        with open(path, "wb") as file:
            file.write(json.loads(line).encode("utf-8"))
        found = strings()
        error = library.load_env_file(None, path, ctypes.byref(found)) < 0
        values, dropped = {}, 0
        if not error and found:
            before = len(list(pairs(found)))
            kept = list(pairs(library.strv_env_clean_with_callback(found, None, None)))
            dropped = before - len(kept)
            values = dict(pair.split("=", 1) for pair in kept)
        print(json.dumps({"values": values, "error": error, "dropped": dropped}))
