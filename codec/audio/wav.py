"""WAV from files and pipes: the same samples from both, even if the sizes in the header are wrong."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..errors import AudioError
from .pcm import SAMPLE_BYTES, Format, read_blocks

PCM, FLOAT, ALAW, MULAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE  # format tags
KINDS = {
    (PCM, 1): "u8", (PCM, 2): "s16", (PCM, 3): "s24", (PCM, 4): "s32",
    (FLOAT, 4): "f32", (FLOAT, 8): "f64", (MULAW, 1): "mulaw", (ALAW, 1): "alaw",
}  # fmt: skip
ENDLESS = 0xFFFFFFFF  # as a size: not known
PLACEHOLDERS = (
    range(0x7FFFF000 - 64, 0x80001000),
    range(0xFFFFF000, ENDLESS + 1),
)  # of sox, arecord, ffmpeg and others
MAX_CHUNK = 1 << 26  # bytes that are read in front of the samples


@dataclass(frozen=True)
class WavHeader:
    """Header of a WAV, as far as the samples need it.

    Attributes:
        form: layout of the samples.
        size: their bytes, as the file claims; None: it does not know.
    """

    form: Format
    size: int | None


def read_wav_header(stream: BinaryIO, start: bytes = b"") -> tuple[WavHeader | None, bytes]:
    """Read a stream up to its first sample.

    Args:
        start: bytes of it that were read already, up to 12.

    Returns:
        the header, or None if it is not WAV of a kind that this module reads; and all bytes that were read.
    """
    read = io.BytesIO()
    read.write(start)

    def take(count: int) -> bytes:
        data = stream.read(count) if count <= MAX_CHUNK else b""
        read.write(data)
        if len(data) < count:
            raise EOFError
        return data

    try:
        start += take(12 - len(start))
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return None, read.getvalue()
        fields = b""
        while True:
            name, size = struct.unpack("<4sI", take(8))
            if name == b"data":
                break
            chunk = take(size + size % 2)
            fields = chunk if name == b"fmt " else fields
    except EOFError:
        return None, read.getvalue()
    form = _parse_format(fields)
    (riff,) = struct.unpack_from("<I", start, 4)
    if any(size in some for some in PLACEHOLDERS) or (size == 0 and riff + 8 <= read.tell()):
        size = None  # written before anybody knew; a size of 0 is true only where chunks follow
    return None if form is None else WavHeader(form, size), read.getvalue()


def _parse_format(fields: bytes) -> Format | None:
    if len(fields) < 16:
        return None
    tag, channels, rate, _, frame, _ = struct.unpack_from("<HHIIHH", fields)
    if tag == EXTENSIBLE and len(fields) >= 26:
        (tag,) = struct.unpack_from("<H", fields, 24)
    sample = KINDS.get((tag, frame // channels if channels else 0))
    if sample is None or frame != channels * SAMPLE_BYTES[sample]:
        return None
    try:
        return Format(rate, channels, sample)
    except AudioError:
        return None


class WavSamples:
    """Samples behind a header, from a file or a pipe.

    Attributes:
        truncated: the stream ended before the samples that its header claims; known when all is read.
        read: samples per channel, so far.
    """

    def __init__(self, stream: BinaryIO, header: WavHeader):
        self._stream, self.header = stream, header
        self.truncated, self.read = False, 0

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        """Blocks [C, n] of that duration, as they come."""
        form, size = self.header.form, self.header.size
        for block in read_blocks(self._stream, form, seconds, size):
            self.read += block.shape[1]
            yield block
        self.truncated = size is not None and self.read < size // form.frame_bytes

    @property
    def shortfall(self) -> str:
        """Message about a truncated stream."""
        form, size = self.header.form, self.header.size or 0
        claimed = size // form.frame_bytes / form.sample_rate
        return f"ends early: {self.read / form.sample_rate:.2f} of {claimed:.2f} s are there"


def wav_header(sample_rate: int, channels: int, samples: int | None, sample: str = "s16") -> bytes:
    """Header of a WAV of "s16", "s24" or "f32"; one of unknown length, or too long for WAV, claims to be endless."""
    width = SAMPLE_BYTES[sample]
    frame = width * channels
    tag, more = (FLOAT, struct.pack("<H", 0)) if sample == "f32" else (PCM, b"")
    form = struct.pack("<HHIIHH", tag, channels, sample_rate, frame * sample_rate, frame, 8 * width) + more
    start = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    if sample == "f32":
        start += b"fact" + struct.pack("<II", 4, ENDLESS if samples is None else min(samples, ENDLESS))
    size = ENDLESS if samples is None else min(frame * samples, ENDLESS)
    total = min(size + len(start) + 8, ENDLESS)
    return b"RIFF" + struct.pack("<I", total) + start + b"data" + struct.pack("<I", size)
