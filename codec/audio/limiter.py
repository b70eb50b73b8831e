"""A look-ahead peak limiter: lowers sound beyond full scale for some 20 ms, instead of clipping it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

REACH_SECONDS = 0.01  # the gain at a sample follows those so far before and after it, twice over
SLICE = 1 << 14  # samples at once: a block of 255 channels takes 170 MB


class Limiter:
    """Keeps a stream of blocks [C, n] within full scale; one that is within it already passes unchanged.

    The gain is the least that any sample within REACH needs, averaged over REACH on either side: it moves smoothly, and
    is never above what a sample needs.

    Attributes:
        peak: the largest magnitude that came in.
    """

    def __init__(self, sample_rate: int):
        self._reach = max(1, round(REACH_SECONDS * sample_rate))
        self._needed = np.ones(2 * self._reach)  # gains, from 2 * reach samples before `_held` on
        self._held: np.ndarray | None = None
        self.peak = 0.0

    @property
    def reduction(self) -> float:
        """Decibels by which the loudest sample was beyond full scale; 0: nothing was changed."""
        return max(0.0, 20 * math.log10(max(self.peak, 1e-9)))

    def blocks(self, source: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The stream, 20 ms later; as long as it was."""
        for block in source:
            for at in range(0, block.shape[1], SLICE):
                part = block[:, at : at + SLICE]
                loudest = np.maximum(part.max(0), -part.min(0))
                self.peak = max(self.peak, float(loudest.max()))
                yield from self._push(part, 1 / np.maximum(loudest.astype(np.float64), 1))
        if self._held is not None:
            yield from self._push(self._held[:, :0], np.ones(2 * self._reach))

    def _push(self, part: np.ndarray, needed: np.ndarray) -> Iterator[np.ndarray]:
        held = part if self._held is None else np.concatenate([self._held, part], 1)
        self._needed = np.concatenate([self._needed, needed])
        count = len(self._needed) - 4 * self._reach
        if count > 0:
            out = held[:, :count]
            if self._needed.min() < 1:
                out = out * self._gains(self._needed).astype(np.float32)
            yield out
            held, self._needed = held[:, count:], self._needed[count:]
        self._held = held

    def _gains(self, needed: np.ndarray) -> np.ndarray:
        """Gains for all but the first and last 2 * reach."""
        window, size, least = 2 * self._reach + 1, 1, needed
        while 2 * size <= window:  # minimum over a window, by doubling
            least, size = np.minimum(least[:-size], least[size:]), 2 * size
        if window > size:
            least = np.minimum(least[: len(least) - (window - size)], least[window - size :])
        total = np.concatenate([[0], np.cumsum(1 - least)])
        return 1 - (total[window:] - total[:-window]) / window
