"""Loudness of packets: the gain that the bitstream stores, and the energy that decides it."""

from __future__ import annotations

import math

from torch import Tensor

from ..format.container import GAIN_COPY, GAIN_SILENT

SPECIAL = (GAIN_SILENT, GAIN_COPY)
PEAK = 0.5  # of a normalised packet, as in AudioLDM 2's training
SILENCE = 1e-5  # -100 dBFS, below the last bit of 16


def peak_of(gain: int) -> float:
    """Peak that a gain stands for: Q7.8 decibels, 0 is full scale, which is 1."""
    return float(10 ** (gain / 256 / 20))


def gain_of(peak: float) -> int:
    """Nearest gain of a peak, or silence."""
    return GAIN_SILENT if peak < SILENCE else limit_gain(round(256 * 20 * math.log10(peak)))


def limit_gain(gain: int) -> int:
    """The nearest gain that the bitstream holds and that is not a special one."""
    return max(-32000, min(32000, gain))


def audible_energy(magnitudes: Tensor) -> Tensor:
    """Energy of STFT magnitudes [B, n_fft // 2 + 1, T] without rumble below 60 Hz, which can outweigh all else: [B]."""
    return magnitudes[:, 4:].square().sum((1, 2)).clamp(min=1e-12)
