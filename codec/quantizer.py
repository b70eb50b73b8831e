"""Scalar codebook: a uniform grid per latent channel, with a step for every quality level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..format.entropy import Tables, decode_indices, encode_indices

LEVELS = 48
TRAINED_LEVELS = 40  # the finer ones take what the network learned for the last of these
COARSEST = 14.0  # step of level 0, in units of the latents; 8 levels halve it
# Bits that a squared error of one step is worth: a uniform quantiser at high rate has error step^2 / 12 and
# falls by a factor of four with every bit, so d bits / d (error / step^2) = 6 / ln 2.
ERROR_BITS = 6 / np.log(2)


def step_size(level: Any) -> Any:
    """Step of a quality level (0 .. 47; number, array or tensor), before the gains of the channels."""
    return COARSEST * 2 ** (-level / 8)


def search_costs(scaled: np.ndarray, costs: np.ndarray, error_bits: float = ERROR_BITS) -> np.ndarray:
    """What each vector costs in bits and error when its indices are chosen best for each class.

    Args:
        scaled: [N, C] latents in steps.
        costs: [classes, C, 2 * limit + 1] bits of the symbols.
    Returns:
        [N, classes] bits + error_bits * squared error.
    """
    classes, _, symbols = costs.shape
    limit = symbols // 2
    near = np.clip(np.rint(scaled), -limit, limit)
    rows, columns = np.nonzero(near)
    x, n = scaled[rows, columns], near[rows, columns]
    flat = (columns * symbols + limit + n).astype(np.int64)
    inward = flat - np.sign(n).astype(np.int64)
    error = (error_bits * (x - n) ** 2).astype(np.float32)
    error_inward = (error_bits * (x - n + np.sign(n)) ** 2).astype(np.float32)
    ends = np.searchsorted(rows, np.arange(len(scaled) + 1))
    total = np.empty((len(scaled), classes), np.float32)
    for k, table in enumerate(costs):
        zero = table[:, limit]
        table = table.ravel()
        best = np.minimum(table.take(flat) + error, table.take(inward) + error_inward) - zero.take(columns)
        sums = np.concatenate([[0.0], np.cumsum(best, dtype=np.float64)])
        total[:, k] = sums[ends[1:]] - sums[ends[:-1]] + zero.sum()
    return total + (error_bits * (scaled**2 * (near == 0)).sum(1, keepdims=True)).astype(np.float32)


def choose_indices(scaled: np.ndarray, costs: np.ndarray, error_bits: float = ERROR_BITS) -> np.ndarray:
    """Of the nearest index and the next one towards zero, the better in bits + error_bits * squared error.

    Args:
        scaled: [N, C] latents in steps.
        costs: [N, C, 2 * limit + 1] bits of the symbols.
    Returns:
        [N, C] int32.
    """
    limit = costs.shape[2] // 2
    near = np.rint(scaled).astype(np.int64)
    inward = near - np.sign(near)

    def cost(index: np.ndarray) -> np.ndarray:
        bits = np.take_along_axis(costs, np.clip(index, -limit, limit)[..., None] + limit, 2)[..., 0]
        return bits + error_bits * (scaled - index) ** 2

    return np.where(cost(inward) < cost(near), inward, near).astype(np.int32)


@dataclass
class ScalarCodebook:
    """Quantises latents and counts their bits.

    Attributes:
        gains: [levels, C] float32, factors on the step of each level.
        tables: integer frequencies.
    """

    gains: np.ndarray
    tables: Tables

    @property
    def levels(self) -> int:
        """Number of quality levels; the last is the finest."""
        return len(self.gains)

    def steps(self, level: int) -> np.ndarray:
        """Step of every channel [C]."""
        return step_size(level) * self.gains[level]

    def quantize(self, latents: np.ndarray, level: int, fidelity: float = 1.0) -> tuple[np.ndarray, np.ndarray, float]:
        """Rate-distortion optimised indices.

        Args:
            latents: [C, N] float32.
            fidelity: weight of the error against the bits; below 1 it saves a few per cent of bits.
        Returns:
            classes [N], indices [N, C], and about how many bits they will take.
        """
        tables = self.tables
        scaled = latents.T / self.steps(level)
        costs = tables.costs[tables.choice[level]]
        vector_costs = search_costs(scaled, costs, fidelity * ERROR_BITS)
        step_bits = -np.log2(tables.transitions[level] / tables.transitions[level].sum(1, keepdims=True))
        # the best path through the classes (Viterbi)
        path = vector_costs[0] + step_bits[-1]
        back = np.zeros((len(scaled), len(path)), np.int64)
        for n in range(1, len(scaled)):
            steps = path[:, None] + step_bits[:-1]
            back[n] = steps.argmin(0)
            path = steps.min(0) + vector_costs[n]
        classes = np.empty(len(scaled), np.int64)
        classes[-1] = path.argmin()
        for n in range(len(scaled) - 1, 0, -1):
            classes[n - 1] = back[n, classes[n]]
        indices = choose_indices(scaled, costs[classes], fidelity * ERROR_BITS)
        return classes, indices, self.bits(classes, indices, level)

    def bits(self, classes: np.ndarray, indices: np.ndarray, level: int) -> float:
        """Bits of indices under the tables; what an escape adds is estimated."""
        tables = self.tables
        symbols = np.clip(indices, -tables.limit, tables.limit) + tables.limit
        chosen = tables.choice[level][classes]
        excess = np.abs(indices[np.abs(indices) >= tables.limit]) - tables.limit
        transitions = tables.transitions[level] / tables.transitions[level].sum(1, keepdims=True)
        return float(
            tables.costs[chosen, symbols].sum()
            - np.log2(transitions[np.concatenate([[-1], classes[:-1]]), classes]).sum()
            + (4 + np.floor(np.log2(excess + 8.0))).sum()
        )

    def decoded(self, latents: np.ndarray, level: int, fidelity: float = 1.0) -> np.ndarray:
        """Latents [C, N] as they come out of a file."""
        return self.dequantize(self.quantize(latents, level, fidelity)[1], level)

    def dequantize(self, indices: np.ndarray, level: int) -> np.ndarray:
        """Indices [N, C] -> latents [C, N] float32."""
        return np.ascontiguousarray((indices * self.steps(level)).T.astype(np.float32))

    def pack(self, streams: list[tuple[np.ndarray, np.ndarray]], level: int) -> bytes:
        """Entropy-coded classes and indices of the channels of a packet."""
        return encode_indices(streams, self.tables, level)

    def unpack(self, payload: bytes, count: int, vectors: int, level: int) -> list[np.ndarray]:
        """Inverse of `pack`: for each of `count` channels the indices [N, C].

        Raises:
            DamageError: the payload does not decode.
        """
        return [indices for _, indices in decode_indices(payload, count, vectors, self.tables, level)]
