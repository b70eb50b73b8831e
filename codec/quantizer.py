"""Scalar codebook: a uniform grid per latent channel, with a step for every quality level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..format.entropy import Tables, decode_indices, encode_indices

if TYPE_CHECKING:
    from .predictor import Predictor
    from .shaping import NoiseShaper

LEVELS = 48
TRAINED_LEVELS = 40  # the finer ones take what the network learned for the last of these
COARSEST = 14.0  # step of level 0, in units of the latents; 8 levels halve it
# Bits that a squared error of one step is worth: a uniform quantiser at high rate has error step^2 / 12 and
# falls by a factor of four with every bit, so d bits / d (error / step^2) = 6 / ln 2.
ERROR_BITS = 6 / np.log(2)
CHUNK = 64  # vectors that the search takes at once
PATIENCE = 16.0  # bits that noise shaping is ahead by, which halve what an error counts there
DEAD_ZONE = 0.2  # how much further from zero than 1/2 an index begins, where no tables say what it costs


def step_size(level: Any) -> Any:
    """Step of a quality level (0 .. 47; number, array or tensor), before the gains of the channels."""
    return COARSEST * 2 ** (-level / 8)


def search_costs(scaled: np.ndarray, costs: np.ndarray, error_bits: float = ERROR_BITS) -> np.ndarray:
    """What each vector costs in bits and error when its indices are chosen best for each class.

    Args:
        scaled: [N, C] latents in steps.
        costs: [2 * limit + 1, C, classes] bits of the symbols; all classes side by side, where memory is read at once.
    Returns:
        [N, classes] bits + error_bits * squared error.
    """
    symbols, channels, classes = costs.shape
    limit = symbols // 2
    table, zero = costs.reshape(-1, classes), costs[limit]
    total = np.empty((len(scaled), classes), np.float32)
    for start in range(0, len(scaled), CHUNK):
        part = scaled[start : start + CHUNK]
        near = np.clip(np.rint(part), -limit, limit)
        rows, columns = np.nonzero(near)
        x, n = part[rows, columns], near[rows, columns]

        def cost(index: np.ndarray, x: np.ndarray = x, columns: np.ndarray = columns) -> np.ndarray:
            error = (error_bits * (x - index) ** 2).astype(np.float32)
            return table.take((index.astype(np.int64) + limit) * channels + columns, 0) + error[:, None]

        best = np.minimum(cost(n), cost(n - np.sign(n))) - zero.take(columns, 0)
        sums = np.zeros((len(rows) + 1, classes))
        np.cumsum(best, 0, out=sums[1:])
        ends = np.searchsorted(rows, np.arange(len(part) + 1))
        total[start : start + CHUNK] = sums[ends[1:]] - sums[ends[:-1]]
        total[start : start + CHUNK] += error_bits * (part**2 * (near == 0)).sum(1, keepdims=True)
    return total + zero.sum(0)


def choose_indices(
    scaled: np.ndarray, costs: np.ndarray, classes: np.ndarray, error_bits: float = ERROR_BITS
) -> np.ndarray:
    """Of the nearest index and the next one towards zero, the better in bits + error_bits * squared error.

    Args:
        scaled: [N, C] latents in steps.
        costs: [2 * limit + 1, C, classes] bits of the symbols.
        classes: [N].
    Returns:
        [N, C] int32.
    """
    limit = len(costs) // 2
    chosen = np.rint(scaled).astype(np.int32)
    rows, columns = np.nonzero(chosen)
    x, near = scaled[rows, columns], chosen[rows, columns]
    inward = near - np.sign(near)

    def cost(index: np.ndarray) -> np.ndarray:
        return costs[np.clip(index, -limit, limit) + limit, columns, classes[rows]] + error_bits * (x - index) ** 2

    chosen[rows, columns] = np.where(cost(inward) < cost(near), inward, near)
    return chosen


def dead_zone(scaled: Any) -> Any:
    """Nearest integers, but for a wider zone of zero, as rate-distortion optimisation makes it. Tensors."""
    return scaled.sign() * (scaled.abs() + (0.5 - DEAD_ZONE)).floor().clamp(min=0)


class Quantized(NamedTuple):
    """Latents as they are coded.

    Attributes:
        classes: [N].
        indices: [N, C].
        latents: [C, N] float32, as they come out of a file.
    """

    classes: np.ndarray
    indices: np.ndarray
    latents: np.ndarray


@dataclass
class ScalarCodebook:
    """Quantises latents and counts their bits.

    Attributes:
        gains: [levels, C] float32, factors on the step of each level.
        tables: integer frequencies.
        predictor: what it expects of a vector, by the ones before it, is taken off before quantising, if there is one.
        shaper: improves what an encoder chooses, if there is one.
    """

    gains: np.ndarray
    tables: Tables
    predictor: Predictor | None = None
    shaper: NoiseShaper | None = None

    @property
    def levels(self) -> int:
        """Number of quality levels; the last is the finest."""
        return len(self.gains)

    def steps(self, level: int) -> np.ndarray:
        """Step of every channel [C]."""
        return step_size(level) * self.gains[level]

    def quantize(self, latents: np.ndarray, level: int, fidelity: float = 1.0) -> Quantized:
        """Rate-distortion optimised indices.

        Args:
            latents: [C, N] float32.
            fidelity: weight of the error against the bits; below 1 it saves a few per cent of bits.
        """
        scale, error_bits = self.steps(level), fidelity * ERROR_BITS
        costs, class_bits = self._costs(level)
        weights = None if self.shaper is None else self.shaper.weights(latents)
        excess = 0.0

        def shaped(scaled: np.ndarray, indices: np.ndarray, n: int) -> np.ndarray:
            """Bits that this adds to vectors are saved in the next ones."""
            nonlocal excess
            if self.shaper is None or weights is None:
                return indices
            table, count = costs[:, :, classes[n]], error_bits * 2 ** -min(max(excess / PATIENCE, -1), 2)
            indices, more = self.shaper.shape(scaled, indices, table, weights[n], count)
            excess += more
            return indices

        if self.predictor is None:
            everything = (latents.T / scale).astype(np.float32)
            classes, indices = self._choose_all(everything, level, fidelity)
            indices = np.stack([shaped(*both, n) for n, both in enumerate(zip(everything, indices, strict=True))])
            return Quantized(classes, indices, self.dequantize(indices, level))
        classes, indices = np.empty(latents.shape[1], np.int64), np.empty(latents.T.shape, np.int32)
        decoded = np.empty(latents.T.shape, np.float32)
        walk = self.predictor.walk(float(step_size(level)))
        expected = next(walk)
        for n, vector in enumerate(latents.T):
            scaled = ((vector - expected) / scale)[None]
            total = search_costs(scaled, costs, error_bits)[0] + class_bits[classes[n - 1] if n else -1]
            classes[n] = total.argmin()
            indices[n] = choose_indices(scaled, costs, classes[n : n + 1], error_bits)[0]
            indices[n] = shaped(scaled[0], indices[n], n)
            decoded[n] = expected + (indices[n] * scale).astype(np.float32)  # as in `dequantize`, to the last bit
            expected = walk.send(decoded[n])
        return Quantized(classes, indices, np.ascontiguousarray(decoded.T))

    def estimate(self, latents: np.ndarray, level: int, fidelity: float = 1.0) -> float:
        """About how many bits `quantize` will need, in less time: expectations from latents as they will about be."""
        scaled = ((latents - self._expected(latents, level)).T / self.steps(level)).astype(np.float32)
        return self.bits(*self._choose_all(scaled, level, fidelity), level)

    def approximate(self, latents: np.ndarray, level: int) -> np.ndarray:
        """Latents [C, N] about as they come out of a file, in less time than `decoded` takes."""
        expected, scale = self._expected(latents, level), self.steps(level)[:, None]
        return (expected + dead_zone(torch.from_numpy((latents - expected) / scale)).numpy() * scale).astype(np.float32)

    @torch.inference_mode()
    def _expected(self, latents: np.ndarray, level: int) -> np.ndarray:
        """About what the predictor will expect of each of the latents [C, N]."""
        if self.predictor is None:
            return np.zeros_like(latents)
        scale, vectors = torch.from_numpy(self.steps(level)), torch.from_numpy(latents.T)
        expected, step = torch.zeros(1), torch.tensor([float(step_size(level))])
        for _ in range(2):
            decoded = expected + dead_zone((vectors - expected) / scale) * scale
            expected = self.predictor.expect(decoded[None], step)[0]
        return expected.numpy().T

    def _costs(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Bits of symbols [2 * limit + 1, C, classes], and of classes after others [classes + 1, classes]."""
        tables, counts = self.tables, self.tables.transitions[level]
        return tables.costs.T.take(tables.choice[level].T, 1), -np.log2(counts / counts.sum(1, keepdims=True))

    def _choose_all(self, scaled: np.ndarray, level: int, fidelity: float) -> tuple[np.ndarray, np.ndarray]:
        """Classes and indices of vectors [N, C] in steps, of which none depends on the indices of others."""
        costs, class_bits = self._costs(level)
        vector_costs = search_costs(scaled, costs, fidelity * ERROR_BITS)
        # the best path through the classes (Viterbi)
        path = vector_costs[0] + class_bits[-1]
        back = np.zeros((len(scaled), len(path)), np.int64)
        for n in range(1, len(scaled)):
            steps = path[:, None] + class_bits[:-1]
            back[n] = steps.argmin(0)
            path = steps.min(0) + vector_costs[n]
        classes = np.empty(len(scaled), np.int64)
        classes[-1] = path.argmin()
        for n in range(len(scaled) - 1, 0, -1):
            classes[n - 1] = back[n, classes[n]]
        return classes, choose_indices(scaled, costs, classes, fidelity * ERROR_BITS)

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
        return self.quantize(latents, level, fidelity).latents

    def dequantize(self, indices: np.ndarray, level: int) -> np.ndarray:
        """Indices [N, C] -> latents [C, N] float32."""
        differences = (indices * self.steps(level)).astype(np.float32)
        if self.predictor is not None:
            walk = self.predictor.walk(float(step_size(level)))
            expected = next(walk)
            for vector in differences:
                vector += expected
                expected = walk.send(vector)
        return np.ascontiguousarray(differences.T)

    def pack(self, streams: list[tuple[np.ndarray, np.ndarray]], level: int) -> bytes:
        """Entropy-coded classes and indices of the channels of a packet."""
        return encode_indices(streams, self.tables, level)

    def unpack(self, payload: bytes, count: int, vectors: int, level: int) -> list[np.ndarray]:
        """Inverse of `pack`: for each of `count` channels the indices [N, C].

        Raises:
            DamageError: the payload does not decode.
        """
        return [indices for _, indices in decode_indices(payload, count, vectors, self.tables, level)]
