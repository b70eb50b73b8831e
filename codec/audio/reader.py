"""Audio in and out in blocks, through libsndfile and soxr."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import soundfile as sf
import soxr

from ...format.container import MAX_RATE
from ..errors import AudioError

BLOCK_SECONDS = 10
WRITE = 1 << 14  # samples that are transposed at once: a block of 255 channels takes 170 MB
TAGS = ("title", "artist", "album", "tracknumber", "date", "genre", "comment", "copyright", "license")  # of libsndfile
LOUDEST = 1e4


def length_at(samples: int, rate: int, new_rate: int) -> int:
    """How many samples a clip has after resampling: its duration, rounded up."""
    return -(-samples * new_rate // rate)


def check_samples(block: np.ndarray) -> None:
    """Raises AudioError for samples that are not finite, or absurdly loud."""
    if not np.isfinite(block).all():
        raise AudioError("audio with NaN or infinite samples")
    if np.abs(block).max(initial=0) > LOUDEST:
        raise AudioError(f"audio with samples beyond {LOUDEST:g} times full scale")


class Resampler:
    """Resamples a stream of blocks [C, n] of any size; the total length is `length_at` of theirs."""

    def __init__(self, rate: int, new_rate: int, channels: int):
        self.rate, self.new_rate, self.channels = rate, new_rate, channels
        same = rate == new_rate
        self._stream = None if same else soxr.ResampleStream(rate, new_rate, channels, dtype="float32")
        self._read = self._written = 0

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take samples, return those that are made by now."""
        if self._stream is None:
            return block
        self._read += block.shape[1]
        parts = [block[:, i : i + self.rate] for i in range(0, block.shape[1], self.rate)] or [block]
        out = np.concatenate([self._stream.resample_chunk(np.ascontiguousarray(p.T)).T for p in parts], 1)
        self._written += out.shape[1]
        return out

    def flush(self) -> np.ndarray:
        """The rest."""
        if self._stream is None:
            return np.zeros((self.channels, 0), np.float32)
        rest = self._stream.resample_chunk(np.zeros((0, self.channels), np.float32), last=True).T
        missing = max(0, length_at(self._read, self.rate, self.new_rate) - self._written)
        return np.pad(rest, ((0, 0), (0, max(0, missing - rest.shape[1]))))[:, :missing]


def resample(blocks: Iterable[np.ndarray], rate: int, new_rate: int, channels: int) -> Iterator[np.ndarray]:
    """Resample a stream of blocks [C, n], see `Resampler`."""
    resampler = Resampler(rate, new_rate, channels)
    for block in blocks:
        yield resampler.push(block)
    yield resampler.flush()


class AudioReader:
    """A file, path or binary file object that libsndfile reads, or samples in memory.

    Attributes:
        sample_rate: Hz.
        channels: number of channels.
        samples: per channel.

    Raises:
        AudioError: not audio, or empty; and while reading, samples that are not finite.
    """

    def __init__(self, source: Any, sample_rate: int | None = None):
        self._wave: np.ndarray | None = None
        if hasattr(source, "__array__"):
            if not sample_rate or sample_rate < 1:
                raise AudioError("samples need a sample rate in Hz")
            wave = np.atleast_2d(np.asarray(source))
            if wave.ndim != 2 or not np.issubdtype(wave.dtype, np.floating):
                raise AudioError(f"samples must be floating point [N] or [C, N], not {wave.dtype} {wave.shape}")
            self._wave = wave.astype(np.float32, copy=False)
            self.sample_rate, (self.channels, self.samples) = int(sample_rate), wave.shape
        else:
            try:
                self._file = sf.SoundFile(source)
            except (sf.LibsndfileError, TypeError) as error:
                raise AudioError(f"not readable as audio: {getattr(error, 'error_string', error)}") from error
            self.sample_rate, self.channels = self._file.samplerate, self._file.channels
            self.samples = self._file.frames
        if not self.samples:
            raise AudioError("empty: no samples")
        if self.channels > 255 or self.sample_rate > MAX_RATE:
            raise AudioError(
                f"{self.channels} channels at {self.sample_rate} Hz: at most 255 channels and {MAX_RATE} Hz"
            )

    @property
    def tags(self) -> list[str]:
        """What the file says of itself, as "NAME=value"."""
        if self._wave is not None:
            return []
        values = {name: getattr(self._file, name).strip("\0 ") for name in TAGS}
        return [f"{name.upper()}={value}" for name, value in values.items() if value]

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        """The samples at `sample_rate`, as float32 blocks [C, n]."""
        return resample(self._raw_blocks(), self.sample_rate, sample_rate, self.channels)

    def _raw_blocks(self) -> Iterator[np.ndarray]:
        size, done = BLOCK_SECONDS * self.sample_rate, 0
        while done < self.samples:
            if self._wave is not None:
                block = self._wave[:, done : done + size]
            else:
                try:
                    block = self._file.read(size, dtype="float32", always_2d=True).T
                except sf.LibsndfileError as error:
                    raise AudioError(f"damaged audio: {error.error_string}") from error
            if not block.shape[1]:
                raise AudioError(f"truncated audio: {done} of {self.samples} samples")
            check_samples(block)
            done += block.shape[1]
            yield np.ascontiguousarray(block)


def read_audio(file: Any, sample_rate: int) -> np.ndarray:
    """Whole file -> float32 [C, N] at `sample_rate`. Raises AudioError as `AudioReader` does."""
    return np.concatenate(list(AudioReader(file).blocks(sample_rate)), 1)


def write_audio(
    file: BinaryIO,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    channels: int,
    suffix: str,
    progress: Callable[[int], None] = lambda samples: None,
    tags: Iterable[str] = (),
) -> int:
    """Write blocks [C, n] as 16-bit PCM, or what is next to it in the format of `suffix`; count the samples.

    Args:
        file: seekable, binary.
        suffix: a file name's, such as ".wav" or ".flac"; "" is WAV.
        tags: "NAME=value"; those that the format can hold are written.

    Raises:
        AudioError: a format that libsndfile cannot write at this rate and number of channels.
    """
    kind = suffix.lstrip(".").upper() or "WAV"
    aliases = {"OGA": "OGG", "OPUS": "OGG", "AIF": "AIFF"}
    name = aliases.get(kind, kind)
    if name not in sf.available_formats():
        raise AudioError(f"cannot write {suffix} files; .wav and .flac always work")
    subtype = "OPUS" if kind == "OPUS" else "PCM_16" if sf.check_format(name, "PCM_16") else None
    count, guarded = 0, _Guard(file)
    try:
        with sf.SoundFile(guarded, "w", sample_rate, channels, subtype, format=name) as out:
            for tag, _, value in (text.partition("=") for text in tags):
                if tag.lower() in TAGS:
                    with contextlib.suppress(sf.LibsndfileError):  # not in this format
                        setattr(out, tag.lower(), value)
            for block in blocks:
                for start in range(0, block.shape[1], WRITE):
                    out.write(block[:, start : start + WRITE].T)
                count += block.shape[1]
                progress(count)
    except (sf.LibsndfileError, AssertionError) as error:  # soundfile asserts that all was written
        if guarded.error is None:
            reason = getattr(error, "error_string", "")
            raise AudioError(f"cannot write {channels} channels at {sample_rate} Hz as {suffix}: {reason}") from error
    if guarded.error is not None:
        raise guarded.error
    return count


class _Guard:
    """A file for libsndfile that keeps an OSError for later: callbacks from C cannot raise one."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.error: OSError | None = None
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            return 0
