"""Names of outputs: derived from the input where none is given, and checked."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..codec.audio.suffixes import ALDM, READABLE, WRITABLE


def output_name(source: str, target: str | None, suffix: str) -> str:
    """OUT of a command: as given; in a folder, or beside the input if nothing is given, the input's name with `suffix`.

    Raises:
        click.UsageError: the input is a pipe, which has no name.
    """
    if target is not None and not (os.path.isdir(target) or target.endswith(os.sep)):
        return target
    if source == "-" or source.startswith(("/dev/", "/proc/")):
        raise click.UsageError("IN is a pipe: name OUT too")
    path = Path(source)
    name = path.with_suffix(suffix) if path.suffix.lower() in READABLE | {ALDM} else path.with_name(path.name + suffix)
    return str(name if target is None else Path(target) / name.name)


def check_encoded_name(target: str, source: str) -> None:
    """Raises click.UsageError where OUT of an encoder looks like another kind of file."""
    suffix = Path(target).suffix.lower()
    if target != "-" and suffix in READABLE:
        raise click.UsageError(
            f"OUT is {target}, but the encoder writes {ALDM} files. To encode several files: "
            f"aldm batch IN... --out FOLDER. To hear {source} as it would be coded: aldm convert IN OUT"
        )


def check_sound_name(target: str) -> None:
    """Raises click.UsageError where no format of sound has the suffix of OUT."""
    suffix = Path(target).suffix.lower()
    if suffix and suffix not in WRITABLE and not target.startswith(("/dev/", "/proc/")):
        known = " ".join(sorted(WRITABLE))
        raise click.UsageError(
            f"cannot write {suffix} files; there are {known}. Others through ffmpeg: "
            f"aldm decode IN - | ffmpeg -i - OUT{suffix}"
        )
