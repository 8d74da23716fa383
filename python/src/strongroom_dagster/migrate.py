"""`python -m strongroom_dagster.migrate` starts `strongroom migrate`, with the same arguments.

The migration itself is in the one program `strongroom`; this is for those who look for it here.
`STRONGROOM_BIN` names the program where it is not in the path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

PROGRAM_VARIABLE = "STRONGROOM_BIN"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it and waits.

    Args:
        arguments: of `strongroom migrate`; by default those of this process.

    Returns:
        Its exit code (0 done, 1 failed, 2 usage, 3 check failed, 4 needs the operator); 2 if the
        program is not there.
    """
    wanted = os.environ.get(PROGRAM_VARIABLE) or "strongroom"
    program = shutil.which(wanted)
    if program is None:
        sys.stderr.write(
            f'the program "{wanted}" was not found\n'
            f"hint: put strongroom into PATH, or its path into {PROGRAM_VARIABLE}\n"
        )
        return 2
    given = sys.argv[1:] if arguments is None else arguments
    done = subprocess.run([program, "migrate", *given], check=False)  # noqa: S603
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


if __name__ == "__main__":
    sys.exit(main())
