"""What the benchmark needs of a codec, and what one returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..metrics import Wave


class Missing(Exception):
    """A codec that cannot run here, and why."""


class CodecError(Exception):
    """A codec that failed on a clip."""


@dataclass
class Coded:
    """One clip through one codec.

    Attributes:
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


def number(value: float) -> str:
    """A bitrate as the name of a setting."""
    return f"{value:g}"


def nearest(bitrates: Sequence[float], supported: Sequence[float]) -> list[str]:
    """Those of the supported rates that are nearest to the ones asked for."""
    return [number(r) for r in sorted({min(supported, key=lambda s: abs(np.log(s / b))) for b in bitrates})]
