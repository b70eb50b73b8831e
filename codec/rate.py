"""Rate control: the quality at which packets take as many bytes as they may."""

from __future__ import annotations

import math
from collections.abc import Callable

LEAST_FIDELITY, SPREAD = 1.0, 0.6  # these fidelities make sizes grow evenly from one level to the next
OCTAVE = 6.0  # levels that double the size, about
UNUSED = 0.012  # octaves below the bitrate that are near enough
RESOLUTION = 0.04  # levels


def setting(rate: float) -> tuple[int, float]:
    """Level and fidelity of a rate: the level, and between it and the next one a fidelity that grows."""
    level = int(rate)
    return level, LEAST_FIDELITY + SPREAD * (rate - level)


def slower(rate: float, excess: float) -> float:
    """A rate whose files are about that many times shorter, or the coarsest, 0."""
    return max(0.0, rate - OCTAVE * math.log2(excess) - RESOLUTION)


def fit_rate(size: Callable[[int, float], float], budget: float, finest: float, guess: float | None = None) -> float:
    """About the finest rate (see `setting`) with at most `budget` bytes, or the coarsest, 0.

    False position by the logarithm of the size; an end that stays weighs half the next time (Illinois).

    Args:
        size: level, fidelity -> bytes.
        finest: rate.
        guess: where to begin.
    """
    low, high = 0.0, finest
    at_low = at_high = math.inf  # log2 of size less what is wanted
    rate, below = high / 2 if guess is None else guess, None
    while True:
        excess = math.log2(size(*setting(rate)) / max(budget, 1))
        if -UNUSED < excess <= 0 or (rate == high and excess <= 0):
            return rate
        again, below = below == (excess <= 0), excess <= 0
        excess += UNUSED / 2
        if below:
            low, at_low, at_high = rate, excess, at_high / 2 if again else at_high
        else:
            high, at_high, at_low = rate, excess, at_low / 2 if again else at_low
        if high - low < RESOLUTION:
            return low
        if math.isinf(at_low + at_high):
            rate = min(max(rate - OCTAVE * excess, low), high)
        else:
            rate = low + (high - low) * min(max(at_low / (at_low - at_high), 0.02), 0.98)
