"""Losses between log-mels and between magnitudes, weighted for what is heard."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...dsp.mel import LogMel

FLOOR = -7.5  # nats; magnitudes below are as good as this
AUDIBLE = -6.0  # nats; log-mels of 64 ms windows that count half as much as loud ones: 7 nats below the peak


def level_offset(mel: LogMel) -> float:
    """How much lower this front-end's log-mels of a tone are than those of a window of 64 ms, in nats."""
    return math.log(mel.n_fft / mel.sample_rate / 0.064)


def weighted_error(decoded: Tensor, exact: Tensor, level: Tensor, least: float = 0.3) -> Tensor:
    """Absolute error of log-magnitudes or log-mels, weighted: what lies far below the peak counts less.

    Args:
        level: log-mels less `level_offset`; a band of a normalised clip reaches about 2.
        least: weight of the quietest.
    """
    weight = least + (1 - least) * torch.sigmoid(level - AUDIBLE)
    return (weight * (decoded - exact).abs()).mean()


def shape_error(mel: LogMel, exact: Tensor, estimate: Tensor) -> Tensor:
    """Error of log-magnitudes [B, T, bins] within mel bands; `exact` are magnitudes [B, bins, T].

    The network predicts the shape within bands alone, under exact levels. So noise is not estimated too low, as the
    median of its magnitudes would be.
    """
    frames = mel.from_magnitudes(exact)
    shape = mel.magnitudes(frames, 1, estimate.exp()).transpose(1, 2).clamp(min=1e-6).log()
    # of a flat spectrum, a mel band is lower than a bin by the width of a bin in Hz
    level = mel.interpolate(frames) + math.log(0.064)
    return weighted_error(shape, exact.transpose(1, 2).clamp(min=math.exp(FLOOR)).log(), level)


def distortion(decoded: Tensor, exact: Tensor) -> Tensor:
    """Squared error of log-mels, weighted for what is heard, and of loudness; both 1 e^2 or so for a small error e.

    Levels far below the peak, which lies at about +1, count less. The best guess under a squared error of logarithms
    has too little energy; loudness, which grows with the power 0.6 of sound pressure (Stevens, 1956), pulls it up.

    Args:
        decoded, exact: log-mels less `level_offset`.
    """
    weight = 0.4 + 0.6 * torch.sigmoid(exact - AUDIBLE)
    loudness = (torch.exp(0.6 * decoded.clamp(max=6)) - torch.exp(0.6 * exact)) / 0.6
    return 0.6 * weight * (decoded - exact) ** 2 + 0.5 * loudness**2
