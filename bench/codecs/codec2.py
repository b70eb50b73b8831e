"""Codec 2 through its programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..metrics import SAMPLE_RATE, Wave
from .base import Coded, nearest
from .commands import program, resample, run_command


class Codec2:
    """Codec 2 through its c2enc and c2dec: speech at 8 kHz, headerless packets."""

    MODES: ClassVar = {0.7: "700C", 1.2: "1200", 1.3: "1300", 1.6: "1600", 2.4: "2400", 3.2: "3200"}

    name = "codec2"
    identity = ""

    def __init__(self) -> None:
        self.encoder, self.decoder = program("c2enc"), program("c2dec")

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return nearest(bitrates, list(self.MODES))

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        import soxr

        source, bits, out = (folder / name for name in ("in.raw", "bits", "out.raw"))
        (soxr.resample(wave, SAMPLE_RATE, 8000).clip(-1, 1) * 32767).astype("<i2").tofile(source)
        mode = self.MODES[float(setting)]
        encode_seconds, encode_memory = run_command([self.encoder, mode, str(source), str(bits)])
        decode_seconds, decode_memory = run_command([self.decoder, mode, str(bits), str(out)])
        decoded = np.fromfile(out, "<i2").astype(np.float32) / np.float32(32768)
        memory = max(encode_memory, decode_memory)
        decoded = resample(decoded, 8000, SAMPLE_RATE, len(wave))
        return Coded(decoded, bits.stat().st_size, encode_seconds, decode_seconds, 0, memory)
