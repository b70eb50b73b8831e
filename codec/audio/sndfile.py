"""Reads audio through libsndfile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile as sf

from ..errors import AudioError

TAGS = ("title", "artist", "album", "tracknumber", "date", "genre", "comment", "copyright", "license")
BLOCK_SECONDS = 10
MAX_SAMPLES = 1 << 48  # samples; more is no length but a sign that it is unknown
OGG_TAIL = 1 << 16  # bytes: a page of Ogg is no longer
LAST_PAGE = 4  # flag of an Ogg page


class SndFile:
    """A file that libsndfile opens.

    Attributes:
        sample_rate, channels, samples: of the file; samples per channel, as it claims.
        intact: its last sample can be read.
        truncated, warnings, tags: as of `FFmpegFile`.

    Raises:
        AudioError: libsndfile does not know it.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        with self._open() as sound:
            self.sample_rate, self.channels, self.samples = sound.samplerate, sound.channels, sound.frames
            self.tags = _tags(sound)
            self.intact = self.samples < MAX_SAMPLES and (not self.samples or _has_end(sound))
        self.warnings, self.truncated = list[str](), _ogg_is_cut(file)
        if self.truncated:
            self.warnings.append(f"ends early, after {self.samples / self.sample_rate:.2f} s: its last page is missing")

    @property
    def claimed(self) -> float | None:
        """Seconds that the file says it has, if it does."""
        return self.samples / self.sample_rate if 0 < self.samples < MAX_SAMPLES else None

    def blocks(self) -> Iterator[np.ndarray]:
        """The samples, float32 blocks [C, n]."""
        done = 0
        with self._open() as sound:
            while done < self.samples:
                try:
                    block = sound.read(BLOCK_SECONDS * self.sample_rate, dtype="float32", always_2d=True).T
                except sf.LibsndfileError as error:
                    raise AudioError(f"damaged audio at {done / self.sample_rate:.2f} s: {_reason(error)}") from error
                if not block.shape[1]:
                    raise AudioError(f"truncated audio: {done} of {self.samples} samples")
                done += block.shape[1]
                yield block

    def _open(self) -> sf.SoundFile:
        self._file.seek(0)
        try:
            return sf.SoundFile(self._file)
        except (sf.LibsndfileError, TypeError) as error:
            raise AudioError(_reason(error)) from error


def read_tags(file: BinaryIO) -> list[str]:
    """Tags of a file, as "NAME=value"; none if libsndfile does not know it."""
    with contextlib.suppress(AudioError):
        return SndFile(file).tags
    return []


def _tags(sound: sf.SoundFile) -> list[str]:
    values = {name: getattr(sound, name).strip("\0 ") for name in TAGS}
    return [f"{name.upper()}={value}" for name, value in values.items() if value]


def _has_end(sound: sf.SoundFile) -> bool:
    with contextlib.suppress(sf.LibsndfileError):
        sound.seek(sound.frames - 1)
        return len(sound.read(1)) == 1
    return False


def _ogg_is_cut(file: BinaryIO) -> bool:
    """Whether a file is Ogg without a last page."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return False
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - OGG_TAIL))
    tail = file.read()
    at = tail.rfind(b"OggS")
    return at >= 0 and len(tail) > at + 5 and not tail[at + 5] & LAST_PAGE


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip()
