"""Noise shaping: moves a vector's rounding errors from loud to quiet parts of the log-mel."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..nn.autoencoder import Autoencoder
from .rdo import Bits

EXPONENT = 0.4  # of magnitudes: how much more an error counts where they are larger
DYNAMIC_RANGE = 6.0  # nats below the loudest; what is quieter counts no less
POOL = 2  # frames that are taken together
CANDIDATES = 48  # indices of a vector that may change
MIN_GAIN_BITS = 0.5  # bits + error that a change has to gain: smaller gains are lost in later predictions
CHANGES = 64  # most that there are
REACH = 3  # most that one changes by


class NoiseShaper:
    """Changes indices, where that lowers bits + error, if errors of log-mels count more where it is loud.

    Each latent channel is a pattern over a patch's frames and bands, so that errors of many can cancel in some places
    at the cost of others: the idea of Atal and Schroeder (Predictive coding of speech signals and subjective error
    criteria, 1979), on a grid that is as fine everywhere. Greedy descent from the nearest grid points.

    Products of matrices are torch's: numpy's threads and torch's would wait for each other.

    Args:
        autoencoder: whose linear transform has the patterns.
    """

    def __init__(self, autoencoder: Autoencoder):
        self.patch = autoencoder.patch
        self._basis, self._mean = autoencoder.basis, autoencoder.mean

    @cached_property
    def patterns(self) -> Tensor:
        """Pattern of each channel in cells of POOL frames and a band, [C, cells]; about orthonormal."""
        with torch.inference_mode(False):  # kept
            frames = self._basis.unflatten(1, (self.patch // POOL, POOL, -1))
            return (frames.sum(2) / POOL**0.5).flatten(1)

    def weights(self, latents: np.ndarray) -> np.ndarray:
        """How much more an error of each cell counts than others do on average, for latents [C, N]: [N, cells]."""
        mean = self._mean.view(self.patch // POOL, POOL, -1).sum(1).flatten() / POOL**0.5
        cells = torch.addmm(mean, torch.from_numpy(latents).T, self.patterns).numpy()
        level = (cells - cells.max()) / POOL**0.5  # nats
        weights = np.exp(EXPONENT * level.clip(-DYNAMIC_RANGE))
        return weights / weights.mean() - 1

    def shape(
        self, scaled: np.ndarray, indices: np.ndarray, bits: Bits, weights: np.ndarray, error_bits: float
    ) -> np.ndarray:
        """Indices [C] that are better than those given.

        Args:
            scaled: [C] latents in steps.
            indices: [C], the best for errors that count the same everywhere.
            bits: what indices take, of some channels.
            weights: [cells], of this vector.
            error_bits: see `choose_indices`.
        """
        error, heard = torch.from_numpy((scaled - indices).astype(np.float32)), torch.from_numpy(weights)
        slope = error_bits * torch.addmv(error, self.patterns, heard * (error @ self.patterns)).numpy()
        toward = np.sign(slope).astype(np.int32)
        change = bits(indices + toward) - bits(indices) - 2 * np.abs(slope)
        some = np.argpartition(change, min(CANDIDATES, len(change)) - 1)[:CANDIDATES]
        patterns = self.patterns[some]
        metric = 2 * error_bits * ((patterns * heard) @ patterns.T).numpy()
        metric.ravel()[:: len(some) + 1] += 2 * error_bits
        slope = 2 * slope[some]
        reach = bits(indices[some] + np.arange(-REACH, REACH + 1)[:, None], some)  # bits of what is near
        place = np.full(len(some), REACH)
        around = metric.diagonal() / 2  # what error a step adds, either way
        taken = np.stack([reach[REACH - 1] - reach[REACH], reach[REACH + 1] - reach[REACH]]) + around
        gain = np.empty_like(taken)
        for _ in range(CHANGES):
            np.add(taken[0], slope, out=gain[0])
            np.subtract(taken[1], slope, out=gain[1])
            up, which = divmod(int(gain.argmin()), len(some))
            if gain[up, which] >= -MIN_GAIN_BITS:
                break
            if up:
                place[which] += 1
                slope -= metric[which]
            else:
                place[which] -= 1
                slope += metric[which]
            at, column = place[which], reach[:, which]
            taken[0, which] = column[at - 1] - column[at] + around[which] if at else np.inf
            taken[1, which] = column[at + 1] - column[at] + around[which] if at < 2 * REACH else np.inf
        indices = indices.copy()
        indices[some] += (place - REACH).astype(np.int32)
        return indices
