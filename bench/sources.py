"""The clips of a benchmark: finding them, their kind of sound, and their samples."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ..codec.audio.reader import AudioReader
from ..codec.audio.suffixes import READABLE
from ..codec.errors import AudioError
from .metrics import SAMPLE_RATE, Wave

DOMAINS = {"speech": "speech", "music": "music", "env": "environment", "environment": "environment"}
MAX_NAME = 200  # characters of a folder
SHORTEST = 0.5  # seconds; the metrics need some
MAX_RATE = 48000  # Hz of full-band clips, as ViSQOL has it


class BenchError(Exception):
    """The benchmark cannot run, and why."""


def find_clips(sources: Sequence[Path]) -> list[Path]:
    """Audio files given, and those in folders given (not deeper), sorted.

    Raises:
        BenchError: none, or two of the same name.
    """
    clips: list[Path] = []
    for source in sources:
        inside = sorted(p for p in source.iterdir() if p.suffix.lower() in READABLE) if source.is_dir() else [source]
        clips += inside
    if not clips:
        raise BenchError(f"no audio files in {', '.join(map(str, sources))}")
    names = [clip.stem for clip in clips]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BenchError(f"two clips are called {min(twice)}")
    return clips


def folder_name(clip: Path) -> str:
    """Name of a folder for a clip: its own, without what a file system or a link might not take."""
    name = quote(os.fsencode(clip.stem), "")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}-{zlib.crc32(name.encode()):08x}"


def domain_of(clip: Path, default: str) -> str:
    """Kind of sound, from the name up to the first "_" or "-" if that is one that we know."""
    return DOMAINS.get(clip.stem.replace("-", "_").split("_")[0].lower(), default)


def load(clip: Path) -> Wave:
    """A clip at 16 kHz and mono.

    Raises:
        BenchError: no audio, too short or silent.
    """
    with opened(clip) as reader:
        return checked(np.concatenate(list(reader.blocks(SAMPLE_RATE)), 1).mean(0), SAMPLE_RATE)


def load_fullband(clip: Path) -> tuple[Wave, int]:
    """A clip with its one or two channels [C, N], and its rate in Hz; a rate above 48 kHz is reduced to that.

    Raises:
        BenchError: no audio, too short, silent, or with more channels.
    """
    with opened(clip) as reader:
        rate = min(reader.sample_rate, MAX_RATE)
        if reader.channels > 2:
            raise BenchError(f"{reader.channels} channels; full-band clips have one or two")
        return checked(np.concatenate(list(reader.blocks(rate)), 1), rate), rate


@contextlib.contextmanager
def opened(clip: Path) -> Iterator[AudioReader]:
    """A clip's reader. Raises BenchError where it is no file, or not read to its end."""
    if not clip.is_file():
        raise BenchError("no file")  # a pipe would be waited for
    try:
        yield AudioReader(clip)
    except (OSError, AudioError) as error:
        raise BenchError(f"not readable audio: {error}") from error


def checked(wave: Wave, rate: int) -> Wave:
    """The samples [..., N] as float32, if they can be measured. Raises BenchError."""
    if wave.shape[-1] < SHORTEST * rate or not np.isfinite(wave).all() or not np.abs(wave).max() > 1e-4:
        raise BenchError(f"shorter than {SHORTEST} s, silent, or not finite")
    return wave.astype(np.float32)
