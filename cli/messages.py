"""Messages on standard error: results and notes (not with --quiet), warnings, and details (--verbose)."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from ..codec.audio.suffixes import readable
from ..codec.errors import AudioError, ModelError
from ..format.errors import FormatError

Function = TypeVar("Function", bound=Callable[..., Any])

KEY = "aldm.verbosity"  # -1 quiet, 0, 1 verbose
PROGRESS_SECONDS = 60.0  # of audio; shorter clips need no progress bar
PARTIAL = 3  # exit code: done, but the input was damaged or cut


def _level() -> int:
    context = click.get_current_context(silent=True)
    return context.meta.get(KEY, 0) if context else 0


def verbosity_options(command: Function) -> Function:
    """Adds --quiet and --verbose to a command."""

    def remember(value: int) -> Callable[[click.Context, click.Parameter, bool], None]:
        def callback(context: click.Context, _: click.Parameter, given: bool) -> None:
            if given:
                context.meta[KEY] = value

        return callback

    quiet = dict(is_flag=True, expose_value=False, callback=remember(-1), help="Print errors and warnings only.")
    verbose = dict(is_flag=True, expose_value=False, callback=remember(1), help="Print details.")
    return click.option("--quiet", **quiet)(click.option("--verbose", "-v", **verbose)(command))  # type: ignore[arg-type]


def say(message: str) -> None:
    """The result of a command, or a note; not with --quiet."""
    if _level() >= 0:
        click.echo(message, err=True)


def note(message: str) -> None:
    """A note for the user; not with --quiet."""
    say(f"note: {message}")


def warn(message: str) -> None:
    """A warning; always printed."""
    click.echo(f"warning: {message}", err=True)


def detail(message: str) -> None:
    """For --verbose."""
    if _level() > 0:
        click.echo(message, err=True)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors of the library inside the block name the file, and those of options exit with 2."""
    try:
        yield
    except (AudioError, FormatError) as error:
        raise click.ClickException(f"{printable(name)}: {one_line(error)}") from error
    except (ModelError, UnicodeError):
        raise
    except ValueError as error:
        raise WrongUsage(f"{printable(name)}: {one_line(error)}") from error


class WrongUsage(click.ClickException):
    """An error of one line with exit code 2."""

    exit_code = 2


def one_line(error: BaseException) -> str:
    """The message of an error, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(name: str) -> str:
    """A file's name for people: bytes that are not UTF-8 and control characters as escapes; `-` is standard input."""
    if name == "-":
        return "standard input"
    return readable(name)


def progress_bar(label: str, seconds: float) -> tuple[Any, Callable[[float], None]]:
    """A bar over seconds of audio, shown for long files on a terminal, and a function that takes what is done."""
    hidden = seconds < PROGRESS_SECONDS or not sys.stderr.isatty() or _level() < 0
    bar = click.progressbar(length=max(1, round(seconds)), label=label, file=sys.stderr, hidden=hidden)
    return bar, lambda done: bar.update(round(done) - bar.pos)


class Clock:
    """Measures the time of a command."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def speed(self, seconds: float) -> str:
        """For that much audio: "in 1.23 s, 31.2x real time"."""
        took = time.perf_counter() - self._started
        return f"in {took:.2f} s, {seconds / max(took, 1e-6):.1f}x real time"
