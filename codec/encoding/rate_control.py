"""Rate control: finds the quality at which packets meet a budget, and re-encodes those that overshoot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..quantization.rdo import ScalarEncoder
from .analysis import AnalyzedPacket

DISTORTION_WEIGHT = (0.8, 1.2)  # up to level WEIGHT_LEVELS[0], and from WEIGHT_LEVELS[1] on
WEIGHT_LEVELS = (28, 42)
WEIGHT_SPREAD = 0.6  # how much more it is before the next level: sizes grow evenly
RATE_TOLERANCE = 0.012  # octaves below the bitrate that are near enough
COARSE_TOLERANCE = 0.06  # the same in a first search
RESOLUTION = 0.08  # levels
BUDGET_MARGIN = 0.997  # share of the budget that is aimed at: overshoot costs another encode
RECORD_BYTES, PAYLOAD_BYTES = 10, 2  # of a packet besides gains and coded bits: record and duration; padding


class OperatingPoint(NamedTuple):
    """A quality between two levels.

    Attributes:
        rate: level, and in its fraction the extra weight of errors; 0: the coarsest.
        level, distortion_weight, bits_ratio: see `ScalarEncoder.quantize`.
    """

    rate: float
    level: int
    distortion_weight: float = 1.0
    bits_ratio: float = 1.0

    @classmethod
    def at(cls, rate: float, bits_ratio: float = 1.0) -> OperatingPoint:
        """Of a rate: its level, and between it and the next one a weight of errors that grows."""
        level, up = int(rate), min(max((rate - WEIGHT_LEVELS[0]) / (WEIGHT_LEVELS[1] - WEIGHT_LEVELS[0]), 0), 1)
        low, high = DISTORTION_WEIGHT
        return cls(rate, level, (low + up * (high - low)) * (1 + WEIGHT_SPREAD * (rate - level)), bits_ratio)

    @classmethod
    def fixed(cls, level: int) -> OperatingPoint:
        """A requested level, whatever it takes."""
        return cls(0.0, level)

    def coarser(self, overshoot: float, tolerance: float) -> OperatingPoint:
        """One for that many times fewer bytes.

        Args:
            tolerance: octaves that the quantiser can be steered by at the same rate.
        """
        bits_ratio = BUDGET_MARGIN * self.bits_ratio / overshoot
        if overshoot < 2 ** (tolerance / 2) and bits_ratio > 2 ** (-2 * tolerance):
            return self._replace(bits_ratio=bits_ratio)
        rate = max(0.0, self.rate - levels_per_octave(self.rate) * math.log2(overshoot) - RESOLUTION / 2)
        return OperatingPoint.at(rate, self.bits_ratio)


def levels_per_octave(rate: float) -> float:
    """Levels that about double the size, at a rate."""
    return max(6.0, rate / 4)


def typical_rate(bits: float) -> float:
    """A typical rate for so many bits per vector of 640 channels: where a search begins."""
    return 44 + 6.4 * math.log2(bits / 960)


class RateController:
    """Meets a budget with one quantiser, for a file or a packet of a stream.

    Args:
        quantizer: of this encode.
        levels: that there are.
    """

    def __init__(self, quantizer: ScalarEncoder, levels: int):
        self.quantizer, self.levels = quantizer, levels

    def size(self, packets: Iterable[AnalyzedPacket], point: OperatingPoint | None) -> float:
        """Estimated bytes of the records of the base layer; None: of packets without one."""
        size = 0.0
        for packet in packets:
            size += RECORD_BYTES + 2 * len(packet.gains)
            if point is not None:
                level, weight = point.level, point.distortion_weight
                bits = sum(self.quantizer.estimate(channel.base, level, weight) for channel in packet.channels)
                size += bits / 8 + PAYLOAD_BYTES
        return size

    def search(
        self,
        budget: float,
        packets: Iterable[AnalyzedPacket],
        guess: float | None = None,
        tolerance: float = RATE_TOLERANCE,
    ) -> OperatingPoint:
        """The finest point at which the records of the base layer take about `budget` bytes, or the coarsest.

        Args:
            packets: read again and again.
            guess: rate to begin at.
            tolerance: octaves below the budget that are near enough; at least the quantiser's, which steers within it.
        """
        steerable = self.quantizer.rate_tolerance
        if guess is None and steerable:
            vectors = sum(channel.base.shape[1] for packet in packets for channel in packet.channels)
            guess = typical_rate(8 * max(budget, 1) / max(vectors, 1))
        rate, size = fit_rate(
            lambda rate: self.size(packets, OperatingPoint.at(rate)),
            budget * 2 ** (steerable / 2),
            self.levels - 1.0,
            guess,
            max(tolerance, steerable),
        )
        within = 2**-steerable <= budget / size <= 2**steerable
        return OperatingPoint.at(rate, budget / size if within else 1.0)

    def encode_within(
        self, point: OperatingPoint, budget: float, encode: Callable[[OperatingPoint], bytes], steer: bool = True
    ) -> bytes:
        """Output of `encode` at a point, or at coarser ones until it takes at most `budget` bytes.

        Args:
            steer: first steer the quantiser to a few bits less, at the same rate.
        """
        while True:
            data = encode(point)
            overshoot = len(data) / budget
            if overshoot <= 1 or point.rate == 0:
                return data
            point = point.coarser(overshoot, self.quantizer.rate_tolerance if steer else 0.0)


def fit_rate(
    size: Callable[[float], float], budget: float, finest: float, guess: float | None, tolerance: float
) -> tuple[float, float]:
    """About the finest rate with at most `budget` bytes, or the coarsest, 0; and its bytes, or inf.

    By the logarithm of the size: secants until there is one too large and one too small, then false position, where an
    end that stays weighs half the next time (Illinois).

    Args:
        size: rate -> bytes.
        finest: rate.
        guess: where to begin.
        tolerance: octaves below the budget that are near enough.
    """
    low, high = 0.0, finest
    at_low = at_high = math.inf  # log2 of size less what is wanted
    rate, below = high / 2 if guess is None else min(max(guess, low), high), None
    before, sizes = None, dict[float, float]()
    while True:
        sizes[rate] = size(rate)
        log_overshoot = math.log2(sizes[rate] / max(budget, 1))
        if -tolerance < log_overshoot <= 0 or (rate == high and log_overshoot <= 0):
            return rate, sizes[rate]
        again, below = below == (log_overshoot <= 0), log_overshoot <= 0
        log_overshoot += tolerance / 2
        if below:
            low, at_low, at_high = rate, log_overshoot, at_high / 2 if again else at_high
        else:
            high, at_high, at_low = rate, log_overshoot, at_low / 2 if again else at_low
        if high - low < RESOLUTION:
            return low, sizes.get(low, math.inf)
        if math.isinf(at_low + at_high):
            slope = levels_per_octave(rate)
            if before and log_overshoot != before[1]:
                slope = min(max((rate - before[0]) / (log_overshoot - before[1]), slope / 2), 2 * slope)
            before = rate, log_overshoot
            rate = min(max(rate - slope * log_overshoot, low), high)
        else:
            rate = low + (high - low) * min(max(at_low / (at_low - at_high), 0.02), 0.98)
