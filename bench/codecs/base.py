"""What the benchmark needs of a codec, and what one returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ..metrics import SAMPLE_RATE, Wave


class Missing(Exception):
    """A codec that cannot run here, and why."""


class CodecError(Exception):
    """A codec that failed on a clip."""


@dataclass
class Coded:
    """One clip through one codec.

    Attributes:
        decoded: [N] at 16 kHz, or [C, N] at the clip's rate from `run_fullband`.
        size: bytes on disk, headers included; None for a ceiling, which writes nothing.
        container_bytes: of these, what belongs to a general container (Ogg).
        memory: peak resident bytes of the program that coded, where that is a program of its own.
    """

    decoded: Wave
    size: int | None
    encode_seconds: float
    decode_seconds: float
    container_bytes: int = 0
    memory: int | None = None


class AudioCodec(Protocol):
    """What the benchmark needs of a codec; made anew in every worker process."""

    name: str
    identity: str  # changes whenever old results are of no use

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        """Names of the settings to run for the kbit/s that were asked for."""

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        """Code 16 kHz mono samples; `folder` is empty and for temporary files. Raises CodecError."""


@runtime_checkable
class FullBandCodec(Protocol):
    """A codec that also takes clips as they are."""

    def run_fullband(self, wave: Wave, rate: int, setting: str, folder: Path) -> Coded:
        """Code samples [C, N] at `rate` Hz; what is decoded has the same rate, in time with the original."""


def run_fullband(codec: AudioCodec, wave: Wave, rate: int, setting: str, folder: Path) -> Coded:
    """As `FullBandCodec` does; a codec that is none gets the mean of the channels at 16 kHz and returns one channel."""
    import soxr

    if isinstance(codec, FullBandCodec):
        return codec.run_fullband(wave, rate, setting, folder)
    coded = codec.run(soxr.resample(wave.mean(0), rate, SAMPLE_RATE), setting, folder)
    return replace(coded, decoded=soxr.resample(coded.decoded, SAMPLE_RATE, rate)[None])


def number(value: float) -> str:
    """A bitrate as the name of a setting."""
    return f"{value:g}"


def nearest(bitrates: Sequence[float], supported: Sequence[float]) -> list[str]:
    """Those of the supported rates that are nearest to the ones asked for."""
    return [number(r) for r in sorted({min(supported, key=lambda s: abs(np.log(s / b))) for b in bitrates})]
