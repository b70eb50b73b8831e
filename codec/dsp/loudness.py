"""Loudness of packets: the gain that the bitstream stores, and the energy that decides it."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ...format.container import GAIN_COPY, GAIN_SILENT
from .mel import LogMel

SPECIAL = (GAIN_SILENT, GAIN_COPY)
PEAK = 0.5  # of a normalised packet, as in AudioLDM 2's training
SILENCE = 1e-5  # -100 dBFS, below the last bit of 16
LOUD_RANGE, LOUD_EDGE = 1.5, 0.7  # nats; how far below its loudest band a packet is loud, and how softly that ends


def peak_of(gain: int) -> float:
    """Peak that a gain stands for: Q7.8 decibels, 0 is full scale, which is 1."""
    return float(10 ** (gain / 256 / 20))


def gain_of(peak: float) -> int:
    """Nearest gain of a peak, or silence."""
    return GAIN_SILENT if peak < SILENCE else limit_gain(round(256 * 20 * math.log10(peak)))


def limit_gain(gain: int) -> int:
    """The nearest gain that the bitstream holds and that is not a special one."""
    return max(-32000, min(32000, gain))


@functools.cache
def audibility(bins: int, device: torch.device) -> Tensor:
    """Weights of the energy in STFT bins from 0 to 8 kHz for loudness: [bins], 0 to 1.

    The high-pass of ITU-R BS.1770 (second stage of table 2: 38.1 Hz, Q 0.5), because rumble can outweigh all else.
    """
    with torch.inference_mode(False):  # kept, and training uses it too
        s = 1j * torch.linspace(0, 8000, bins, dtype=torch.float64) / 38.13547
        return (s**2 / (s**2 + s / 0.5003270 + 1)).abs().square().float().to(device)


def audible_energy(magnitudes: Tensor) -> Tensor:
    """Energy of STFT magnitudes [B, n_fft // 2 + 1, T], weighted by audibility: [B]."""
    weights = audibility(magnitudes.shape[1], magnitudes.device)
    return (magnitudes.square().sum(2) @ weights).clamp(min=1e-12)


@functools.cache
def _band_audibility(mel: LogMel, device: torch.device) -> Tensor:
    """Weights of squared mel bands for loudness: their audible width, [n_mels]."""
    with torch.inference_mode(False):  # kept
        heard = mel.basis @ audibility(mel.n_fft // 2 + 1, torch.device("cpu"))
        return (heard / mel.basis.sum(1) / mel.basis.amax(1)).to(device)


def band_energy(mel: LogMel, log_mel: Tensor) -> Tensor:
    """About the audible energy of log-mels [B, T, n_mels], as if each band were flat: [B]; up to a factor."""
    return (2 * log_mel).exp().sum(1) @ _band_audibility(mel, log_mel.device)


def loud_parts(mel: Tensor) -> Tensor:
    """Weights, 0 to 1, that mark the parts of log-mels [B, T, n_mels] with most of the energy: the same shape."""
    return torch.sigmoid((mel - mel.amax((1, 2), keepdim=True) + LOUD_RANGE) / LOUD_EDGE)
