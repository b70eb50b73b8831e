"""Rate-distortion optimised choice of indices for a scalar codebook."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ...format.entropy import Tables
from ..levels import step_size
from ..nn.predictor import Predictor

Bits = Callable[..., np.ndarray]  # of indices, and which channels they are

# Bits that a squared error of one step is worth: a uniform quantiser at high rate has error step^2 / 12 and
# falls by a factor of four with every bit, so d bits / d (error / step^2) = 6 / ln 2.
ERROR_BITS = 6 / np.log(2)
CHUNK = 64  # vectors that the search takes at once
FEEDBACK_BITS = 16.0  # and a third of a vector's: so many bits above the estimate halve what an error counts
RATE_STIFFNESS = 6.0  # octaves more that an error has to count for an octave more of bits, about
SHAPING_OFFSET = 0.1  # octaves less, for the bits that noise shaping adds, about
DEAD_ZONE = 0.2  # how much further from zero than 1/2 an index begins, where no tables say what it costs
MAX_CACHED_PREDICTIONS = 16  # packets times levels: a search for a bitrate comes back to the same ones
MAX_CACHED_COSTS = 2  # levels


class ClassCosts(NamedTuple):
    """Bits of symbols in every class; classes are the last axis, so that memory is read in order.

    Attributes:
        zeros: [classes] bits of a vector of zeros.
        symbols: [2 * limit + 1, C, classes] bits more than a zero takes.
        transitions: [classes + 1, classes] bits of a class after the vector's before; the last row is for the first.
    """

    zeros: Tensor
    symbols: Tensor
    transitions: np.ndarray

    @classmethod
    def of(cls, costs: np.ndarray, counts: np.ndarray) -> ClassCosts:
        """From costs [classes, C, 2 * limit + 1] and frequencies of transitions."""
        table = torch.from_numpy(np.ascontiguousarray(costs.T))
        zeros = table[len(table) // 2].clone()
        return cls(zeros.sum(0), table.sub_(zeros), -np.log2(counts / counts.sum(1, keepdims=True)))

    def search(self, scaled: np.ndarray, error_bits: float = ERROR_BITS) -> np.ndarray:
        """Cost of vectors in bits and error, with the best indices for each class.

        Args:
            scaled: [N, C] latents in steps.
        Returns:
            [N, classes] bits + error_bits * squared error, but for a number that is the same for all classes.
        """
        symbols, channels, classes = self.symbols.shape
        table, limit = self.symbols.view(-1, classes), symbols // 2
        total = self.zeros.repeat(len(scaled), 1)
        for start in range(0, len(scaled), CHUNK):
            part = torch.from_numpy(scaled[start : start + CHUNK])
            near = part.round().clamp_(-limit, limit)
            rows, columns = near.nonzero(as_tuple=True)
            near, inward = near[rows, columns], near[rows, columns].sign()
            farther = error_bits * (1 + 2 * inward * (part[rows, columns] - near))
            symbol = (near.long() + limit) * channels + columns
            best = table.index_select(0, symbol)
            symbol -= inward.long() * channels
            torch.minimum(best, table.index_select(0, symbol).add_(farther[:, None]), out=best)
            total[start : start + CHUNK].index_add_(0, rows, best)
        return total.numpy()


def choose_indices(scaled: np.ndarray, bits: Bits, error_bits: float = ERROR_BITS) -> np.ndarray:
    """Of the nearest index and the next one towards zero, the better in bits + error_bits * squared error.

    Args:
        scaled: [..., C] latents in steps.
        bits: what indices [..., C] take.
    Returns:
        [..., C] int32.
    """
    near = np.rint(scaled).astype(np.int32)
    inward = near - np.sign(near)
    farther = error_bits * (np.square(scaled - inward) - np.square(scaled - near))
    return np.where(bits(inward) + farther < bits(near), inward, near)


def dead_zone(scaled: Any) -> Any:
    """Nearest integers, but for a wider zone of zero, as rate-distortion optimisation makes it. Tensors."""
    return scaled.sign() * (scaled.abs() + (0.5 - DEAD_ZONE)).floor().clamp(min=0)


class Quantized(NamedTuple):
    """Latents as they are coded.

    Attributes:
        classes: [N].
        indices: [N, C].
        latents: [C, N] float32, as decoded.
    """

    classes: np.ndarray
    indices: np.ndarray
    latents: np.ndarray


class Shaper(Protocol):
    """Improves chosen indices; see `NoiseShaper`."""

    def weights(self, latents: np.ndarray) -> np.ndarray: ...
    def shape(
        self, scaled: np.ndarray, indices: np.ndarray, bits: Bits, weights: np.ndarray, error_bits: float
    ) -> np.ndarray: ...


class Codebook(Protocol):
    """Interface between a `ScalarEncoder` and its codebook; see `ScalarCodebook`."""

    tables: Tables
    predictor: Predictor | None
    shaper: Shaper | None

    def steps(self, level: int) -> np.ndarray: ...
    def predictions(self, level: int) -> Generator[Any, np.ndarray, None]: ...
    def bits(self, classes: np.ndarray, indices: np.ndarray, level: int) -> float: ...


class ScalarEncoder:
    """Quantises the latents of one encode with a scalar codebook.

    Caches the intermediate results of a search for a bitrate; one object serves one file or stream.

    Attributes:
        rate_tolerance: octaves by which `bits_ratio` can steer sizes away from estimates.
    """

    rate_tolerance = 0.07

    def __init__(self, codebook: Codebook):
        self.codebook = codebook
        self._costs = dict[int, ClassCosts]()
        self._expectations = dict[tuple[bytes, int], np.ndarray]()

    def quantize(
        self, latents: np.ndarray, level: int, distortion_weight: float = 1.0, bits_ratio: float = 1.0
    ) -> Quantized:
        """Rate-distortion optimised indices.

        Vector by vector, the weight of errors is steered so that the target bits are met.

        Args:
            latents: [C, N] float32.
            distortion_weight: of the error against the bits (1 / lambda); below 1 it saves a few per cent of bits.
            bits_ratio: target bits relative to `estimate`; within `rate_tolerance` octaves of 1.
        """
        codebook = self.codebook
        scale, error_bits, shaper = codebook.steps(level), distortion_weight * ERROR_BITS, codebook.shaper
        classes, draft = self._choose_all(self._scaled(latents, level), level, distortion_weight)
        wanted = bits_ratio * self._bits(level, classes)(draft).sum(1)
        weights = None if shaper is None else shaper.weights(latents)
        indices, decoded = np.empty(latents.T.shape, np.int32), np.empty(latents.T.shape, np.float32)
        predictions, bit_debt = codebook.predictions(level), 0.0
        expected = next(predictions)
        for n, vector in enumerate(latents.T):
            scaled, bits = ((vector - expected) / scale).astype(np.float32), self._bits(level, classes[n])
            lower = SHAPING_OFFSET - RATE_STIFFNESS * np.log2(bits_ratio) + bit_debt / (FEEDBACK_BITS + wanted[n] / 3)
            count = error_bits * 2 ** -min(max(lower, -1), 1)
            indices[n] = choose_indices(scaled, bits, count)
            if shaper is not None and weights is not None:
                indices[n] = shaper.shape(scaled, indices[n], bits, weights[n], count)
            bit_debt += bits(indices[n]).sum() - wanted[n]
            decoded[n] = expected + (indices[n] * scale).astype(np.float32)  # as in `dequantize`, to the last bit
            expected = predictions.send(decoded[n])
        return Quantized(classes, indices, np.ascontiguousarray(decoded.T))

    def estimate(self, latents: np.ndarray, level: int, distortion_weight: float = 1.0) -> float:
        """Estimate of the bits that `quantize` takes, in less time: with predictions from roughly quantised latents."""
        chosen = self._choose_all(self._scaled(latents, level), level, distortion_weight)
        return self.codebook.bits(*chosen, level)

    def approximate(self, latents: np.ndarray, level: int) -> np.ndarray:
        """Roughly quantised latents [C, N], in less time than `quantize` takes."""
        expected, scale = self._expected(latents, level), self.codebook.steps(level)[:, None]
        return (expected + dead_zone(torch.from_numpy((latents - expected) / scale)).numpy() * scale).astype(np.float32)

    def _scaled(self, latents: np.ndarray, level: int) -> np.ndarray:
        """Estimate of the prediction residuals of latents [C, N], in steps: [N, C]."""
        return ((latents - self._expected(latents, level)).T / self.codebook.steps(level)).astype(np.float32)

    def _expected(self, latents: np.ndarray, level: int) -> np.ndarray:
        """Estimate of the predictions of latents [C, N]."""
        if self.codebook.predictor is None:
            return 0 * latents
        key = latents.astype(np.float32).tobytes(), level
        if key not in self._expectations:
            if len(self._expectations) == MAX_CACHED_PREDICTIONS:
                del self._expectations[next(iter(self._expectations))]
            self._expectations[key] = self._predict(latents.astype(np.float32), level)
        return self._expectations[key]

    @torch.inference_mode()
    def _predict(self, latents: np.ndarray, level: int) -> np.ndarray:
        assert self.codebook.predictor is not None
        scale, vectors = torch.from_numpy(self.codebook.steps(level)), torch.from_numpy(latents).T
        expected, step = torch.zeros(1), torch.tensor([float(step_size(level))])
        for _ in range(2):
            decoded = expected + dead_zone((vectors - expected) / scale) * scale
            expected = self.codebook.predictor.predict(decoded[None], step)[0]
        return expected.numpy().T

    def _class_costs(self, level: int) -> ClassCosts:
        if level not in self._costs:
            if len(self._costs) == MAX_CACHED_COSTS:
                del self._costs[next(iter(self._costs))]
            tables = self.codebook.tables
            self._costs[level] = ClassCosts.of(tables.costs[tables.choice[level]], tables.transitions[level])
        return self._costs[level]

    def _choose_all(self, scaled: np.ndarray, level: int, distortion_weight: float) -> tuple[np.ndarray, np.ndarray]:
        """Classes and indices of vectors [N, C] in steps, of which none depends on the indices of others."""
        costs = self._class_costs(level)
        vector_costs = costs.search(scaled, distortion_weight * ERROR_BITS)
        # the best path through the classes (Viterbi)
        path = vector_costs[0] + costs.transitions[-1]
        back = np.zeros((len(scaled), len(path)), np.int64)
        for n in range(1, len(scaled)):
            steps = path[:, None] + costs.transitions[:-1]
            back[n] = steps.argmin(0)
            path = steps.min(0) + vector_costs[n]
        classes = np.empty(len(scaled), np.int64)
        classes[-1] = path.argmin()
        for n in range(len(scaled) - 1, 0, -1):
            classes[n - 1] = back[n, classes[n]]
        return classes, choose_indices(scaled, self._bits(level, classes), distortion_weight * ERROR_BITS)

    def _bits(self, level: int, classes: np.ndarray) -> Bits:
        """Bits of indices [..., C] of vectors of these classes [...], or of some of their channels."""
        tables, costs = self.codebook.tables, self.codebook.tables.costs.ravel()
        first = tables.choice[level][classes].astype(np.int64) * (2 * tables.limit + 1) + tables.limit

        def bits(indices: np.ndarray, channels: Any = slice(None)) -> np.ndarray:
            clipped = np.minimum(np.maximum(indices, -tables.limit), tables.limit)
            return costs.take(first[..., channels] + clipped)

        return bits
