"""Rate control: the quality at which packets take as many bytes as they may."""

from __future__ import annotations

import math
from collections.abc import Callable

FIDELITY = (0.8, 1.2)  # from a level on, up to RISE[0] and from RISE[1] on
RISE = (28, 42)
SPREAD = 0.6  # how much more it is before the next level: sizes grow evenly
UNUSED = 0.012  # octaves below the bitrate that are near enough
ROUGHLY = 0.06  # the same where it is not yet the end of it
RESOLUTION = 0.08  # levels


def setting(rate: float) -> tuple[int, float]:
    """Level and fidelity of a rate: the level, and between it and the next one a fidelity that grows."""
    level, up = int(rate), min(max((rate - RISE[0]) / (RISE[1] - RISE[0]), 0), 1)
    return level, (FIDELITY[0] + up * (FIDELITY[1] - FIDELITY[0])) * (1 + SPREAD * (rate - level))


def octave(rate: float) -> float:
    """How much finer a rate has about double the size."""
    return max(6.0, rate / 4)


def likely_rate(bits: float) -> float:
    """Where to begin to look, for so many bits a vector of sound as it mostly is, in a model's 640 channels."""
    return 44 + 6.4 * math.log2(bits / 960)


def slower(rate: float, excess: float) -> float:
    """A rate whose files are about that many times shorter, or the coarsest, 0."""
    return max(0.0, rate - octave(rate) * math.log2(excess) - RESOLUTION / 2)


def fit_rate(
    size: Callable[[int, float], float],
    budget: float,
    finest: float,
    guess: float | None = None,
    unused: float = UNUSED,
) -> tuple[float, float]:
    """About the finest rate (see `setting`) with at most `budget` bytes, or the coarsest, 0; and its bytes, if known.

    By the logarithm of the size: secants until there is one too large and one too small, then false position, where an
    end that stays weighs half the next time (Illinois).

    Args:
        size: level, fidelity -> bytes.
        finest: rate.
        guess: where to begin.
        unused: octaves below the budget that are near enough.
    """
    low, high = 0.0, finest
    at_low = at_high = math.inf  # log2 of size less what is wanted
    rate, below = high / 2 if guess is None else min(max(guess, low), high), None
    before, sizes = None, dict[float, float]()
    while True:
        sizes[rate] = size(*setting(rate))
        excess = math.log2(sizes[rate] / max(budget, 1))
        if -unused < excess <= 0 or (rate == high and excess <= 0):
            return rate, sizes[rate]
        again, below = below == (excess <= 0), excess <= 0
        excess += unused / 2
        if below:
            low, at_low, at_high = rate, excess, at_high / 2 if again else at_high
        else:
            high, at_high, at_low = rate, excess, at_low / 2 if again else at_low
        if high - low < RESOLUTION:
            return low, sizes.get(low, math.inf)
        if math.isinf(at_low + at_high):
            slope = octave(rate)
            if before and excess != before[1]:
                slope = min(max((rate - before[0]) / (excess - before[1]), slope / 2), 2 * slope)
            before = rate, excess
            rate = min(max(rate - slope * excess, low), high)
        else:
            rate = low + (high - low) * min(max(at_low / (at_low - at_high), 0.02), 0.98)
