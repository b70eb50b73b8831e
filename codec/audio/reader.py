"""Audio in, in blocks: files of any kind, pipes, and samples in memory."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from ..errors import AudioError
from .ffmpeg import FFmpegFile, UnknownFormat
from .resampling import resample
from .samples import as_samples, check_layout, check_samples
from .sndfile import BLOCK_SECONDS, SndFile, read_tags
from .suffixes import SIGNATURE_BYTES, guess_format
from .wav import WavSamples, read_wav_header

SPOOL_BYTES = 1 << 26  # of a pipe that are kept in memory


def spool(stream: BinaryIO, start: bytes = b"") -> BinaryIO:
    """A pipe, read to its end, as a file; `start` are bytes that were read before. In memory up to 64 MB."""
    file: Any = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 (whoever reads it lets it go)
    file.write(start)
    shutil.copyfileobj(stream, file)
    file.seek(0)
    return file


class AudioReader:
    """Audio from anywhere: a path, a binary file object or pipe, bytes of an audio file, or samples in memory.

    WAV is read by this package, to its end whatever its sizes say. Everything else goes to libsndfile, and to FFmpeg
    (through PyAV) where libsndfile does not know it or cannot reach its end.

    Args:
        source: samples as of `as_samples`; anything else is a file.
        sample_rate: of samples in memory, Hz.

    Attributes:
        sample_rate: Hz.
        channels: number of channels.
        samples: per channel, that are there.
        tags: of the file, as "NAME=value".
        truncated: the file ends before its own length, or parts of it do not decode.
        warnings: lines for a user; one explains `truncated`.

    Raises:
        AudioError: not audio, or empty; and while reading, samples that are not finite.
    """

    sample_rate: int
    channels: int
    samples: int
    _blocks: Callable[[], Iterator[np.ndarray]]

    def __init__(self, source: Any, sample_rate: int | None = None):
        self.truncated, self.warnings, self.tags = False, list[str](), list[str]()
        if isinstance(source, (str, os.PathLike)):
            file = open(source, "rb")  # noqa: SIM115 (open as long as the reader is)
            self._open(file if file.seekable() else spool(file), os.fsdecode(source))
        elif isinstance(source, (bytes, bytearray, memoryview)):
            self._open(io.BytesIO(source), "IN")
        elif hasattr(source, "read"):
            name = str(getattr(source, "name", "<>"))
            self._open(source if source.seekable() else spool(source), "IN" if name.startswith("<") else name)
        elif isinstance(source, (list, tuple)) or hasattr(source, "__array__"):
            if isinstance(sample_rate, bool) or not sample_rate:
                raise AudioError("samples need a sample rate in Hz")
            self._wave = as_samples(source)
            self._blocks = self._wave_blocks
            self.sample_rate, (self.channels, self.samples) = int(sample_rate), self._wave.shape
        else:
            raise AudioError(f"audio is a path, a file, bytes or samples, not {type(source).__name__}")
        if not self.samples:
            raise AudioError("empty: no samples")
        check_layout(self.channels, self.sample_rate)

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        """The samples at `sample_rate`, as float32 blocks [C, n]."""
        return resample(self._checked(), self.sample_rate, sample_rate, self.channels)

    def _checked(self) -> Iterator[np.ndarray]:
        for block in self._blocks():
            check_samples(block)
            yield np.ascontiguousarray(block)

    def _wave_blocks(self) -> Iterator[np.ndarray]:
        size = BLOCK_SECONDS * self.sample_rate
        return (self._wave[:, i : i + size] for i in range(0, self.samples, size))

    def _open(self, file: BinaryIO, name: str) -> None:
        """Choose who reads a file."""
        file.seek(0)
        start = file.read(SIGNATURE_BYTES)
        if not start:
            raise AudioError("not readable as audio: the file is empty")
        header, head = read_wav_header(file, start)
        if header is not None:
            self._open_wav(file, WavSamples(file, header), len(head))
            return
        kind, claimed, reason = guess_format(start), None, "its end cannot be reached."
        found: SndFile | FFmpegFile
        try:
            found = SndFile(file)
            if found.intact:
                self._take(found)
                return
            claimed = found.claimed
        except AudioError as error:
            reason = str(error)
        try:
            found = FFmpegFile(file, claimed)
        except ImportError as error:
            raise AudioError(
                f"not readable as audio: libsndfile does not read {kind or 'this format'}, and PyAV is not installed. "
                f"Either: pip install av; or: ffmpeg -i {shlex.quote(name)} -f wav - | aldm encode - OUT.aldm"
            ) from error
        except UnknownFormat as error:
            seems = f" (it begins like {kind})" if kind else ""
            raise AudioError(f"not readable as audio{seems}: libsndfile: {reason} FFmpeg: {error}.") from error
        self._take(found)

    def _take(self, found: SndFile | FFmpegFile) -> None:
        self.sample_rate, self.channels, self.samples = found.sample_rate, found.channels, found.samples
        self.truncated, self.warnings, self.tags = found.truncated, found.warnings, found.tags
        self._blocks = found.blocks

    def _open_wav(self, file: BinaryIO, sound: WavSamples, start: int) -> None:
        form, claimed = sound.header.form, sound.header.size
        there = file.seek(0, os.SEEK_END) - start
        self.sample_rate, self.channels = form.sample_rate, form.channels
        self.samples = sound.read = (there if claimed is None else min(claimed, there)) // form.frame_bytes
        self.truncated = claimed is not None and self.samples < claimed // form.frame_bytes
        self.warnings = [sound.shortfall] if self.truncated else []
        self.tags = read_tags(file)

        def blocks() -> Iterator[np.ndarray]:
            file.seek(start)
            return WavSamples(file, sound.header).blocks(BLOCK_SECONDS)

        self._blocks = blocks


def read_audio(file: Any, sample_rate: int) -> np.ndarray:
    """Whole file -> float32 [C, N] at `sample_rate`. Raises AudioError as `AudioReader` does."""
    return np.concatenate(list(AudioReader(file).blocks(sample_rate)), 1)
