"""Shared by small experiments: one codec at one bitrate over clips, and Markdown tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click
import numpy as np

from .codecs import CodecError, Missing, make_codec
from .metrics import Wave, fit_length
from .sources import BenchError, domain_of, find_clips, load

Function = TypeVar("Function", bound=Callable[..., Any])

clips_argument = click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))


def codec_options(command: Function) -> Function:
    """Adds CLIPS, --codec and --bitrate, the arguments of `Experiment`."""
    codec = click.option("--codec", "spec", default="aldm", show_default=True, help="As in `aldm bench`.")
    bitrate = click.option("--bitrate", default=1.5, show_default=True, help="kbit/s.")
    return clips_argument(codec(bitrate(command)))


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Errors of codecs and clips end the command with one line."""
    try:
        yield
    except (BenchError, Missing, CodecError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def clips_in(sources: Sequence[Path]) -> list[Path]:
    """Audio files given, and those in folders given; see `find_clips`."""
    with readable_errors():
        return find_clips(sources)


class Experiment:
    """A codec at the setting nearest to a bitrate (kbit/s), and clips."""

    def __init__(self, clips: Sequence[Path], spec: str, bitrate: float):
        self._codec, self._clips = make_codec(spec), find_clips(clips)
        self._setting = self._codec.settings([bitrate])[0]

    def originals(self) -> Iterator[tuple[Path, str, Wave]]:
        """Path, kind of sound and samples of each clip."""
        for path in self._clips:
            yield path, domain_of(path, "music"), load(path)

    def run(self, wave: Wave) -> Wave:
        """A wave through the codec, as long as before."""
        with TemporaryDirectory() as folder:
            return fit_length(self._codec.run(wave, self._setting, Path(folder)).decoded, len(wave))


def table_head(*columns: str) -> str:
    """The first two lines of a Markdown table."""
    return table_row(*columns) + "\n" + "|---" * len(columns) + "|"


def table_row(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def mean_cells(rows: list[list[float]]) -> list[str]:
    """Means of columns over the values that are there; empty where there are none."""
    return ["" if np.isnan(column).all() else f"{np.nanmean(column):.3f}" for column in np.transpose(rows)]
