"""PCM sample formats: bytes to samples and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

import numpy as np

from ..errors import AudioError
from .samples import check_layout

SAMPLE_BYTES = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8, "mulaw": 1, "alaw": 1}


@dataclass(frozen=True)
class Format:
    """Layout of interleaved little-endian samples.

    Attributes:
        sample_rate: Hz.
        channels: 1 .. 255.
        sample: "u8", "s16", "s24", "s32", "f32", "f64", "mulaw" or "alaw", as ffmpeg names them.
    """

    sample_rate: int
    channels: int = 1
    sample: str = "s16"

    def __post_init__(self) -> None:
        if self.sample not in SAMPLE_BYTES:
            raise AudioError(f"no sample format {self.sample}; there are {', '.join(SAMPLE_BYTES)}")
        check_layout(self.channels, self.sample_rate)

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
        return self.channels * SAMPLE_BYTES[self.sample]

    def samples(self, data: bytes) -> np.ndarray:
        """Whole frames -> float32 [C, n], full scale 1."""
        if self.sample[0] == "f":
            flat: np.ndarray = np.frombuffer(data, f"<f{SAMPLE_BYTES[self.sample]}").astype(np.float32)
        elif self.sample in ("mulaw", "alaw"):
            flat = _g711(self.sample)[np.frombuffer(data, np.uint8)]
        elif self.sample == "u8":
            flat = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
        elif self.sample == "s16":
            flat = np.frombuffer(data, "<i2").astype(np.float32) / (1 << 15)
        else:
            wide = np.frombuffer(data, np.uint8).reshape(-1, SAMPLE_BYTES[self.sample])
            wide = np.pad(wide, ((0, 0), (4 - wide.shape[1], 0)))
            flat = wide.copy().view("<i4")[:, 0].astype(np.float32) / (1 << 31)
        return flat.reshape(-1, self.channels).T


@cache
def _g711(law: str) -> np.ndarray:
    """The 256 values of ITU-T G.711, as 16-bit samples of full scale 1."""
    code = np.arange(256)
    code = code ^ (0xFF if law == "mulaw" else 0x55)
    exponent, mantissa = code >> 4 & 7, code & 15
    if law == "mulaw":
        size, negative = ((2 * mantissa + 33 << exponent) - 33) * 4, code >= 128
    else:
        size = np.where(exponent, (2 * mantissa + 33 << np.maximum(exponent - 1, 0)), 2 * mantissa + 1) * 8
        negative = code < 128
    return (np.where(negative, -size, size) / 32768).astype(np.float32)


def read_blocks(stream: BinaryIO, form: Format, seconds: float = 0.1, size: int | None = None) -> Iterator[np.ndarray]:
    """Samples as they come, in float32 blocks [C, n] of that duration, to the end of the stream or of `size` bytes."""
    most = max(1, round(seconds * form.sample_rate)) * form.frame_bytes
    left = size
    while data := stream.read(most if left is None else min(most, left)):
        left = None if left is None else left - len(data)
        yield form.samples(data[: len(data) // form.frame_bytes * form.frame_bytes])


def interleave(block: np.ndarray, sample: str) -> np.ndarray:
    """Samples [C, n] -> [n, C]: "s16" as rounded int16, "s24" as rounded int32 of 24 bits, others as they are."""
    if sample not in ("s16", "s24"):
        return block.T
    full = 1 << 8 * SAMPLE_BYTES[sample] - 1
    whole = np.rint(block.T.astype(np.float64).clip(-1, 1 - 1 / full) * full)
    return whole.astype("<i2" if sample == "s16" else "<i4")


def to_bytes(block: np.ndarray, sample: str = "s16") -> bytes:
    """Samples [C, n] -> interleaved little-endian "s16", "s24" or "f32"."""
    whole = interleave(block, sample)
    if sample == "f32":
        return whole.astype("<f4").tobytes()
    return whole.tobytes() if sample == "s16" else whole[..., None].copy().view(np.uint8)[..., :3].tobytes()
