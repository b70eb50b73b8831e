"""Two channels -> their mid channel, in which nothing cancels."""

from __future__ import annotations

import numpy as np

from .spectra import CORE_RATE, CORE_STEREO_BANDS, STEREO_EDGES, Analysis, Context, Synthesis, moving_mean
from .stereo import Products, phase_factor, products

RADIUS = 8  # frames on either side, over which phases are found
EDGES = np.append(STEREO_EDGES[:CORE_STEREO_BANDS], 161)
WIDTHS = np.diff(EDGES)


class Downmix:
    """Blocks [2, n] of a stream at CORE_RATE -> blocks [1, n] of its mid channel, about 60 ms later.

    Each band is g (left + exp(i phase) right), as loud as both together. It is computed as half the sum and what is
    missing, so that equal channels come out bit by bit.

    Attributes:
        frames: products of all frames since they were last taken, [bands] each.
    """

    def __init__(self) -> None:
        self._analysis, self._synthesis = Analysis(CORE_RATE, 2), Synthesis(CORE_RATE, 1)
        self._context = Context(RADIUS, RADIUS)
        self._sum = np.zeros((1, 0), np.float32)
        self.frames = list[Products]()

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take samples; return those that are complete by now."""
        self._sum = np.concatenate([self._sum, 0.5 * (block[:1] + block[1:])], 1)
        return self._mix(self._analysis.push(block), False)

    def flush(self) -> np.ndarray:
        """The rest."""
        return self._mix(self._analysis.flush(), True)

    def _mix(self, spectra: np.ndarray, last: bool) -> np.ndarray:
        self.frames.append(products(spectra, EDGES))
        held = self._context.push(spectra, last)
        count = max(0, held.shape[1] - 2 * RADIUS)
        if not count:
            return np.zeros((1, 0), np.float32)
        around = Products(*moving_mean(np.stack(products(held, EDGES)), RADIUS))
        phase = phase_factor(around)
        both = around.left + around.right
        sum_power = both + 2 * (around.cross * phase.conj()).real
        gain = np.where(sum_power > 0, np.sqrt(0.5 * both / np.where(sum_power > 0, sum_power, 1)), 0.5)
        gain, phase = (np.repeat(part, WIDTHS, 1) for part in (gain.clip(0.5, 1), phase))
        left, right = held[:, RADIUS : RADIUS + count]
        middle, side = 0.5 * (left + right), 0.5 * (left - right)
        missing = (gain * (1 + phase) - 1) * middle + gain * (1 - phase) * side
        extra = self._synthesis.push(missing[None].astype(np.complex64))
        done = self._sum[:, : extra.shape[1]] + extra[:, : self._sum.shape[1]]
        self._sum = self._sum[:, extra.shape[1] :]
        return done
