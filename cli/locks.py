"""Advisory locks on files: they end with the process, however it ends."""

from __future__ import annotations

import contextlib
import sys
from typing import IO, Any


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file for this process, unless another one has. On Windows, nothing is locked."""
    if sys.platform == "win32":
        return True
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
