"""Parameters of the stereo image: from spectra to tracks, and from tracks to what mixes two channels out of one.

A band of two channels is described by their level difference, their coherence, and the phase between them. The mid
channel m is their sum with the phase undone, as loud as both together: |m|^2 = (|left|^2 + |right|^2) / 2. Back, with a
decorrelated copy d of it, left = a m + e d and right = (b m - e d) exp(-i phase), so that their sum is free of d.
(After parametric stereo, ISO/IEC 14496-3, 8.6.4, with the mixing of prediction from the sum.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...format.parameters import (
    DECORRELATED,
    DURATIONS,
    FIRST_STEREO,
    MAX_LEVEL_DIFFERENCE,
    PHASES,
    STEREO_BANDS,
    Stereo,
    Track,
    units_of,
)
from .segments import SEGMENT_BITS, choose_segments, choose_steps
from .spectra import band_sums, power

STEP = 2.0  # dB of a level difference
BALANCE_STEP = 0.125  # dB
SMALLEST = 1e-14  # power
DYNAMICS = 50.0  # dB below the loudest band of a packet, where errors do not count
PHASE_BANDS = 8  # up to 3.2 kHz; above, hearing takes phases for coherence, and only their sign is coded
BIAS = 0.1  # of the phase towards 0, where channels are not coherent
SEGMENT_BANDS_BITS = 6.0  # about what a segment takes besides its duration


class Products(NamedTuple):
    """Powers of two channels and the real and imaginary part of left times conjugated right: each [T, bands]."""

    left: np.ndarray
    right: np.ndarray
    real: np.ndarray
    imaginary: np.ndarray

    @property
    def cross(self) -> np.ndarray:
        """Complex [T, bands]."""
        return self.real + 1j * self.imaginary


def products(spectra: np.ndarray, edges: np.ndarray) -> Products:
    """Of spectra [2, T, bins], summed over bands."""
    left, right = spectra
    real = left.real * right.real + left.imag * right.imag
    imaginary = left.imag * right.real - left.real * right.imag
    return Products(*(band_sums(part, edges) for part in (power(left), power(right), real, imaginary)))


def phase_factor(p: Products) -> np.ndarray:
    """exp(i phase) of the left channel before the right one; 1 where they are not coherent."""
    cross = p.cross + BIAS * np.sqrt(p.left * p.right)
    size = np.abs(cross)
    return np.where(size > 0, cross / np.where(size > 0, size, 1), 1)


def fit_stereo(hops: Products, trade: float) -> Stereo | None:
    """Parameters of a packet; None: the channels are equal.

    Args:
        hops: [hops, STEREO_BANDS].
        trade: see `choose_segments`.
    """
    starts = np.arange(units_of(len(hops.left))) * 4
    units = Products(*(np.add.reduceat(part, starts, 0) for part in hops))
    if (hops.left == hops.real).all() and (hops.right == hops.real).all():
        return None
    loudest = 10 * np.log10(max(units.left.max(), units.right.max(), SMALLEST))
    louder = 10 * np.log10(np.maximum(np.maximum(units.left, units.right), SMALLEST))
    weights = np.clip(1 + (louder - loudest) / DYNAMICS, 0, 1)
    whole = _difference(units.left.sum(), units.right.sum())
    balance = int(np.clip(np.rint(whole / BALANCE_STEP), -128, 127))
    if (uniform := _uniform(units, weights, balance)) is not None:
        return Stereo(balance, _held(uniform, len(starts)))
    features = np.concatenate(
        [_level_steps(units, balance), _coherence_steps(units, phase_factor(units)), *_phase_features(units)], 1
    )
    coherent = np.abs(units.cross) / np.maximum(np.sqrt(units.left * units.right), SMALLEST)
    of_phase = weights * coherent**2
    durations = choose_segments(
        features, np.concatenate([weights, weights, of_phase, of_phase], 1), SEGMENT_BITS + SEGMENT_BANDS_BITS, trade
    )
    starts = np.cumsum([0, *np.take(DURATIONS, durations)[:-1]])
    segments = Products(*(np.add.reduceat(part, starts, 0) for part in units))
    weights, of_phase = np.add.reduceat(weights, starts, 0), np.add.reduceat(of_phase, starts, 0)
    levels = _level_steps(segments, balance)
    turns = np.angle(phase_factor(segments)) * PHASES / (2 * np.pi)
    turns[:, PHASE_BANDS:] = np.where(np.abs(turns[:, PHASE_BANDS:]) > PHASES / 4, PHASES / 2, 0)
    level, coherence, phase = np.array(FIRST_STEREO).reshape(3, STEREO_BANDS)
    values = list[np.ndarray]()
    for n in range(len(starts)):
        level = choose_steps(levels[n], level, weights[n], trade)
        near = phase + (turns[n] - phase + PHASES / 2) % PHASES - PHASES / 2  # the same phase, nearest to that before
        phase = choose_steps(near, phase, of_phase[n], trade)
        segment = Products(*(part[n] for part in segments))
        steps = _coherence_steps(segment, np.exp(2j * np.pi * phase / PHASES))
        coherence = choose_steps(steps, coherence, weights[n], trade)
        values.append(np.concatenate([level, coherence, phase]))
    track = Track(durations, np.array(values))
    return Stereo(balance, track)


def _uniform(units: Products, weights: np.ndarray, balance: int) -> np.ndarray | None:
    """Values that all audible bands of a packet have all the time, as those of scaled and inverted copies do."""
    whole = Products(*(part.sum(0) for part in units))
    phase = np.rint(np.angle(phase_factor(whole)) * PHASES / (2 * np.pi)) % PHASES
    coherence = _coherence_steps(whole, np.exp(2j * np.pi * phase / PHASES))
    values = np.rint([_level_steps(whole, balance), coherence, phase])[:, weights.max(0) > 0].astype(np.int64)
    if not values.shape[1] or (values != values[:, :1]).any() or values[1, 0]:
        return None
    return np.repeat(values[:, 0], STEREO_BANDS)


def _held(values: np.ndarray, units: int) -> Track:
    """A track of one vector."""
    longest = len(DURATIONS) - 1
    durations = np.full(-(-units // DURATIONS[-1]), longest)
    durations[-1] = np.searchsorted(DURATIONS, units - (len(durations) - 1) * DURATIONS[-1])
    return Track(durations, np.repeat(values[None], len(durations), 0))


def _difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Level of the left channel above the right one, dB."""
    return 10 * np.log10((left + SMALLEST) / (right + SMALLEST))


def _level_steps(p: Products, balance: int) -> np.ndarray:
    steps = (_difference(p.left, p.right) - BALANCE_STEP * balance) / STEP
    return np.clip(steps, -MAX_LEVEL_DIFFERENCE, MAX_LEVEL_DIFFERENCE)


def _coherence_steps(p: Products, phase: np.ndarray) -> np.ndarray:
    """Steps of the coherence that is left once the phase is undone."""
    both = np.sqrt(p.left * p.right)
    real = (p.cross * phase.conj()).real
    coherence = np.where(both > SMALLEST, real / np.maximum(both, SMALLEST), 1)
    return np.arccos(np.clip(coherence, 0, 1)) * (2 * DECORRELATED / np.pi)


def _phase_features(p: Products) -> tuple[np.ndarray, np.ndarray]:
    factor = phase_factor(p) * (PHASES / (2 * np.pi))
    return factor.real, factor.imag


def mixing_steps(values: np.ndarray) -> np.ndarray:
    """Values of segments within their limits: [N, 3, STEREO_BANDS] of levels, coherences, phases."""
    steps = values.reshape(len(values), 3, STEREO_BANDS).copy()
    steps[:, 0] = steps[:, 0].clip(-MAX_LEVEL_DIFFERENCE, MAX_LEVEL_DIFFERENCE)
    steps[:, 1] = steps[:, 1].clip(0, DECORRELATED)
    steps[:, 2] %= PHASES
    return steps


NEUTRAL = np.array([1, 1, 0, 1])[:, None] + np.zeros((1, STEREO_BANDS), np.complex128)


def mixing_of(stereo: Stereo, hops: int) -> np.ndarray:
    """What makes two channels of one, for each hop of a packet: [hops, 4, STEREO_BANDS] of a, b, e, exp(i phase)."""
    steps = mixing_steps(stereo.track.expand(units_of(hops)))
    levels, coherence = steps[:, 0], np.cos(np.pi / 2 * steps[:, 1] / DECORRELATED)
    ratio = 10 ** ((BALANCE_STEP * stereo.balance + STEP * levels) / 10)
    ratio = np.where(levels == MAX_LEVEL_DIFFERENCE, 1e30, np.where(levels == -MAX_LEVEL_DIFFERENCE, 0, ratio))
    left, right = 2 * ratio / (1 + ratio), 2 / (1 + ratio)
    common = coherence * np.sqrt(left * right)
    total = np.sqrt(2 + 2 * common)
    a, b = (left + common) / total, (right + common) / total
    other = np.sqrt(np.maximum(left - a**2, 0))
    mixing = np.stack([a, b, other, np.exp(2j * np.pi * steps[:, 2] / PHASES)], 1)
    return np.repeat(mixing, 4, 0)[:hops]
