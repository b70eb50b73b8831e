"""The `aldm` command: each subcommand parses, calls, reports. Heavy modules load inside the subcommands."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from .batch import batch
from .bench import analyze, bench
from .convert import convert
from .decode import decode
from .encode import encode
from .fit import fit, fit_checkpoint
from .generate import generate
from .info import info
from .messages import one_line
from .play import play

# Before torch is imported. Threads that wait by spinning make two commands at once on two cores three to ten times
# slower than one alone; threads that never spin make one alone half as slow again. GNU's OpenMP can spin for a few
# microseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


class Group(click.Group):
    """Turns the library's errors into one line on stderr and exit code 1; lists commands in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from error
        except MemoryError as error:
            raise click.ClickException("out of memory") from error
        except (click.exceptions.Exit, click.Abort):
            raise
        except RuntimeError as error:  # torch, when it gets no memory
            raise click.ClickException(str(error).splitlines()[0]) from error
        except ValueError as error:  # AudioError, FormatError, ModelError, and options out of range
            raise click.ClickException(one_line(error)) from error


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aldm")
def main() -> None:
    """Neural audio codec with a compact, versioned bitstream: 0.3 to 6 kbit/s.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the input was damaged or cut; its intact parts were taken.
    """
    for name in ("SIGTERM", "SIGHUP"):  # so that temporary files are removed
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, lambda received, _: sys.exit(128 + received))


for command in (encode, decode, play, convert, info, batch, bench, analyze, generate, fit, fit_checkpoint):
    main.add_command(command)
