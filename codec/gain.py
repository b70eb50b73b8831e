"""Loudness of packets: the gain that the bitstream stores, and the energy that decides it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..format.container import GAIN_COPY, GAIN_SILENT

SPECIAL = (GAIN_SILENT, GAIN_COPY)
PEAK = 0.5  # of a normalised packet, as in AudioLDM 2's training
AUDIBLE = 4  # first bin of STFT magnitudes that is above rumble, 60 Hz
SILENCE = 1e-5  # -100 dBFS, below the last bit of 16
LOUD, EDGE = 1.5, 0.7  # nats; how far below its loudest band a packet is loud, and how softly that ends


def peak_of(gain: int) -> float:
    """Peak that a gain stands for: Q7.8 decibels, 0 is full scale, which is 1."""
    return float(10 ** (gain / 256 / 20))


def gain_of(peak: float) -> int:
    """Nearest gain of a peak, or silence."""
    return GAIN_SILENT if peak < SILENCE else limit_gain(round(256 * 20 * math.log10(peak)))


def limit_gain(gain: int) -> int:
    """The nearest gain that the bitstream holds and that is not a special one."""
    return max(-32000, min(32000, gain))


def first_audible(magnitudes: Tensor) -> Tensor:
    """Bin of STFT magnitudes [B, n_fft // 2 + 1, T] from which on their energy says how loud they are: [B].

    Rumble below 60 Hz can outweigh all else; where it does, the bins that it leaks into through the Hann window, up to
    90 Hz, are left out as well.
    """
    energy = magnitudes.square().sum(2)
    return torch.where(energy[:, :AUDIBLE].sum(1) > energy[:, AUDIBLE:].sum(1), AUDIBLE + 2, AUDIBLE)


def audible_energy(magnitudes: Tensor, first: Tensor) -> Tensor:
    """Energy of STFT magnitudes [B, n_fft // 2 + 1, T] from the bins `first` [B] on: [B]."""
    heard = torch.arange(magnitudes.shape[1], device=magnitudes.device) >= first[:, None]
    return (magnitudes.square().sum(2) * heard).sum(1).clamp(min=1e-12)


def loud_parts(mel: Tensor) -> Tensor:
    """Which parts of log-mels [B, T, n_mels] have the energy: from 0 to 1, the same shape."""
    return torch.sigmoid((mel - mel.amax((1, 2), keepdim=True) + LOUD) / EDGE)
