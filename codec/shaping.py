"""Noise shaping: of a vector's rounding errors, those that add up where it is loud are moved to where it is quiet."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .autoencoder import Autoencoder

EXPONENT = 0.3  # of magnitudes: how much more an error counts where they are larger
RANGE = 6.0  # nats below the loudest; what is quieter counts no less
POOL = 2  # frames that are taken together
CANDIDATES = 96  # indices of a vector that may change
CHANGES = 64  # most of them that do; there are 4 at .75 kbit/s, 30 at 6
STEPS = np.array([[-1], [0], [1]], np.int32)


class NoiseShaper:
    """Changes indices by one, where that lowers bits + error, if errors of log-mels count more where it is loud.

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
        """What each channel does to cells of POOL frames and a band, [C, cells]; about orthonormal."""
        with torch.inference_mode(False):  # kept
            frames = self._basis.unflatten(1, (self.patch // POOL, POOL, -1))
            return (frames.sum(2) / POOL**0.5).flatten(1)

    def weights(self, latents: np.ndarray) -> np.ndarray:
        """How much more an error of each cell counts than others do on average, for latents [C, N]: [N, cells]."""
        mean = self._mean.view(self.patch // POOL, POOL, -1).sum(1).flatten() / POOL**0.5
        cells = torch.addmm(mean, torch.from_numpy(latents).T, self.patterns).numpy()
        level = (cells - cells.max()) / POOL**0.5  # nats
        weights = np.exp(EXPONENT * level.clip(-RANGE))
        return weights / weights.mean() - 1

    def shape(
        self, scaled: np.ndarray, indices: np.ndarray, costs: np.ndarray, weights: np.ndarray, error_bits: float
    ) -> tuple[np.ndarray, float]:
        """Indices [C] that are better than those given, and how many more bits they take.

        Args:
            scaled: [C] latents in steps.
            indices: [C], the best for errors that count the same everywhere.
            costs: [2 * limit + 1, C] bits of the symbols.
            weights: [cells], of this vector.
            error_bits: see `choose_indices`.
        """
        limit = len(costs) // 2

        def bits(index: np.ndarray, channels: np.ndarray) -> np.ndarray:
            return costs[np.minimum(np.maximum(index, -limit), limit) + limit, channels]

        error, heard = torch.from_numpy((scaled - indices).astype(np.float32)), torch.from_numpy(weights)
        slope = error_bits * torch.addmv(error, self.patterns, heard * (error @ self.patterns)).numpy()
        every, toward = np.arange(len(indices)), np.sign(slope).astype(np.int32)
        change = bits(indices + toward, every) - bits(indices, every) - 2 * np.abs(slope)
        some = np.argpartition(change, min(CANDIDATES, len(change)) - 1)[:CANDIDATES]
        patterns = self.patterns[some]
        metric = error_bits * ((patterns * heard) @ patterns.T).numpy()
        chosen = indices[some]
        near = bits(chosen + STEPS, some)
        begin = near[1].sum()
        # error, and bits, that a step down or up adds
        more = metric.diagonal() + error_bits - 2 * STEPS[::2] * slope[some]
        gain = near[::2] - near[1] + more
        for _ in range(CHANGES):
            way, place = divmod(int(gain.argmin()), len(some))
            if gain[way, place] >= 0:
                break
            step = 2 * way - 1
            chosen[place] += step
            near[:, place] = bits(chosen[place] + STEPS[:, 0], some[place])
            change = 2 * step * metric[place]
            change[place] += 2 * step * error_bits
            more[0] -= change
            more[1] += change
            gain[0] -= change
            gain[1] += change
            gain[:, place] = near[::2, place] - near[1, place] + more[:, place]
        indices = indices.copy()
        indices[some] = chosen
        return indices, float(near[1].sum() - begin)
