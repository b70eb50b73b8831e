"""Uncompressed samples through pipes: WAV whose length nobody knows yet, and raw. Files are read by `audio.py`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ...format.container import MAX_RATE
from ..errors import AudioError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags of WAV
ENDLESS = 0xFFFFFFFF  # as a size of WAV: not known
MOST_CHUNK = 1 << 26  # bytes that are skipped in front of the samples


@dataclass(frozen=True)
class Format:
    """Layout of interleaved little-endian samples.

    Attributes:
        sample_rate: Hz.
        channels: 1 .. 255.
        sample: "u8", "s16", "s24", "s32", "f32" or "f64", as ffmpeg and sox name them.
    """

    sample_rate: int
    channels: int = 1
    sample: str = "s16"

    def __post_init__(self) -> None:
        if self.sample not in ("u8", "s16", "s24", "s32", "f32", "f64"):
            raise AudioError(f"no sample format {self.sample}; there are u8, s16, s24, s32, f32, f64")
        if not 1 <= self.channels <= 255 or not 1 <= self.sample_rate <= MAX_RATE:
            raise AudioError(f"{self.channels} channels at {self.sample_rate} Hz: at most 255, and {MAX_RATE} Hz")

    @classmethod
    def parse(cls, text: str) -> Format:
        """RATE[:CHANNELS[:SAMPLE]], such as "16000" or "48000:2:f32".

        Raises:
            AudioError: anything else.
        """
        rate, *more = text.split(":")
        channels, *kind = more or ["1"]
        if not (rate.isdecimal() and channels.isdecimal()) or len(kind) > 1:
            raise AudioError(f"a raw format is RATE[:CHANNELS[:SAMPLE]], not {text}")
        return cls(int(rate), int(channels), *kind)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * int(self.sample[1:]) // 8

    def samples(self, data: bytes) -> np.ndarray:
        """Whole frames -> float32 [C, n], full scale 1."""
        if self.sample[0] == "f":
            flat: np.ndarray = np.frombuffer(data, f"<f{self.frame_bytes // self.channels}").astype(np.float32)
        elif self.sample == "u8":
            flat = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
        elif self.sample == "s16":
            flat = np.frombuffer(data, "<i2").astype(np.float32) / (1 << 15)
        else:
            wide = np.frombuffer(data, np.uint8).reshape(-1, int(self.sample[1:]) // 8)
            wide = np.pad(wide, ((0, 0), (4 - wide.shape[1], 0)))
            flat = wide.copy().view("<i4")[:, 0].astype(np.float32) / (1 << 31)
        return flat.reshape(-1, self.channels).T


def read_wav_header(stream: BinaryIO, start: bytes = b"") -> Format:
    """Read a stream up to its first sample.

    Args:
        start: up to 12 bytes of it that were read already.

    Raises:
        AudioError: not WAV, or of a kind other than PCM and float.
    """

    def take(count: int) -> bytes:
        data = stream.read(count)
        if len(data) < count:
            raise AudioError("not readable as audio: it ends within the header of a WAV")
        return data

    start += take(12 - len(start))
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        raise AudioError("not readable as audio: not a WAV stream")
    fields = b""
    while True:
        name, size = struct.unpack("<4sI", take(8))
        if name == b"data":
            break
        if size > MOST_CHUNK:
            raise AudioError("not readable as audio: a WAV with a huge chunk in front of the samples")
        chunk = take(size + size % 2)
        if name == b"fmt ":
            fields = chunk
    if len(fields) < 16:
        raise AudioError("not readable as audio: a WAV without a format")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", fields)
    if tag == EXTENSIBLE and len(fields) >= 26:
        (tag,) = struct.unpack_from("<H", fields, 24)
    if tag not in (PCM, FLOAT):
        raise AudioError(f"a WAV stream of kind {tag:#x}; PCM and float can be read from a pipe")
    return Format(rate, channels, f"{'f' if tag == FLOAT else 'u' if bits == 8 else 's'}{bits}")


def read_blocks(stream: BinaryIO, form: Format, seconds: float = 0.1) -> Iterator[np.ndarray]:
    """Samples as they come, in float32 blocks [C, n] of that duration, to the end of the stream."""
    size = max(1, round(seconds * form.sample_rate)) * form.frame_bytes
    while data := stream.read(size):
        yield form.samples(data[: len(data) // form.frame_bytes * form.frame_bytes])


def wav_header(sample_rate: int, channels: int, samples: int | None) -> bytes:
    """Header of a WAV of 16-bit samples; one of unknown length, or too long for WAV, claims to be endless."""
    size = ENDLESS if samples is None else min(2 * channels * samples, ENDLESS)
    total = ENDLESS if size > ENDLESS - 36 else size + 36
    form = struct.pack("<HHIIHH", PCM, channels, sample_rate, 2 * channels * sample_rate, 2 * channels, 16)
    return (
        b"RIFF"
        + struct.pack("<I", total)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
    )


def pcm16(block: np.ndarray) -> bytes:
    """Samples [C, n] -> interleaved 16-bit ones, as libsndfile rounds them."""
    return np.rint(block.T.clip(-1, 1 - 2**-15) * 32768).astype("<i2").tobytes()
