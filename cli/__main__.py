"""The `aldm` command as a process."""

import gc
import os
import sys

from .main import main


def run() -> None:
    """Run the command, and exit without the half second that Python takes to finalise torch."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a standard stream that the shell closed: files would get its number, and what is meant for it
    os.close(number)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    gc.set_threshold(100_000)  # torch's objects stay; scanning them takes long
    try:
        main()
    except SystemExit as end:
        if "torch" not in sys.modules or "ray" in sys.modules or isinstance(end.code, str):
            raise
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(end.code or 0)


if __name__ == "__main__":
    run()
