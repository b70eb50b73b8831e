"""Parameters of the high band: from spectra to tracks, and from tracks to levels."""

from __future__ import annotations

import functools

import numpy as np

from ...format.parameters import DURATIONS, FIRST_HIGH_BAND, HIGH_BANDS, Track, units_of
from .segments import SEGMENT_BITS, choose_segments, choose_steps
from .spectra import CORE_BINS, HIGH_EDGES, band_sums

STEP = 3.0  # dB
NOISE_STEPS = 3
AUDIBLE = -80.0  # dB; a high band that stays below it is left out
FLOOR = -100.0  # dB; what is quieter is coded as that
DYNAMICS = 60.0  # dB below the loudest unit of a packet, where errors count least
FLATNESS = 0.25, 0.7  # spectral flatness of tones, and of noise
NOISE_WEIGHT = 0.3
OFF, MAX_LEVEL = -300.0, 20.0  # dB
WIDTHS = np.diff(HIGH_EDGES)


@functools.cache
def dct() -> np.ndarray:
    """Orthonormal DCT-II over the bands, [coefficients, bands]."""
    n = np.arange(HIGH_BANDS)
    matrix = np.cos(np.pi * (n + 0.5) * n[:, None] / HIGH_BANDS) * np.sqrt(2 / HIGH_BANDS)
    matrix[0] /= np.sqrt(2)
    return matrix


def unit_powers(powers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean powers [hops, bins] of the bins of the high band -> those of units, [units, bins] and [units, bands]."""
    starts = np.arange(units_of(len(powers))) * 4
    counts = np.diff(starts, append=len(powers))[:, None]
    bins = np.add.reduceat(powers, starts, 0) / counts
    return bins, band_sums(bins, HIGH_EDGES - HIGH_EDGES[0]) / WIDTHS


def audible(powers: np.ndarray) -> bool:
    """Whether there is something to hear above 8 kHz."""
    above = powers.copy()
    above[:, : CORE_BINS - HIGH_EDGES[0] + 1] = 0  # and what leaks there from below
    return bool(unit_powers(above)[1].max() > 10 ** (AUDIBLE / 10))


def fit_high_band(powers: np.ndarray, trade: float) -> Track:
    """The track of a channel of a packet.

    Args:
        powers: [hops, bins] of the high band.
        trade: see `choose_segments`.
    """
    bins, means = unit_powers(powers)
    levels = np.maximum(10 * np.log10(np.maximum(means, 1e-12)), FLOOR)
    logs = band_sums(np.log(np.maximum(bins, 1e-14)), HIGH_EDGES - HIGH_EDGES[0]) / WIDTHS
    flatness = (np.exp(logs) * WIDTHS).sum(1) / np.maximum((means * WIDTHS).sum(1), 1e-12)
    tonal, noisy = FLATNESS
    noise = NOISE_STEPS * np.clip((flatness - tonal) / (noisy - tonal), 0, 1)
    features = np.concatenate([noise[:, None], levels @ dct().T / STEP], 1)
    loud = np.clip(1 + (levels.max(1) - levels.max()) / DYNAMICS, 0.1, 1)[:, None]
    weights = loud * np.array([NOISE_WEIGHT] + [1.0] * HIGH_BANDS)
    durations = choose_segments(features, weights, SEGMENT_BITS + HIGH_BANDS, trade)
    return quantize(features, weights, durations, trade)


def quantize(features: np.ndarray, weights: np.ndarray, durations: np.ndarray, trade: float) -> Track:
    """Segments with the means of features [units, P], in steps."""
    starts = np.cumsum([0, *np.take(DURATIONS, durations)[:-1]])
    total = np.add.reduceat(weights, starts, 0)
    targets = np.add.reduceat(weights * features, starts, 0) / total
    values, before = list[np.ndarray](), np.array(FIRST_HIGH_BAND)
    for target, weight in zip(targets, total, strict=True):
        before = choose_steps(target, before, weight, trade)
        values.append(before)
    return Track(durations, np.array(values))


def levels_of(track: Track, hops: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels [hops, bands] in dB, and shares of noise [hops], of a packet's hops."""
    values = np.repeat(track.expand(units_of(hops)), 4, 0)[:hops]
    levels = STEP * values[:, 1:] @ dct()
    return np.clip(levels, OFF, MAX_LEVEL), values[:, 0].clip(0, NOISE_STEPS) / NOISE_STEPS
