"""Scalar codebook: a uniform grid per latent channel, with a step for every quality level."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...format.entropy import Tables, decode_indices, encode_indices
from ..levels import step_size

if TYPE_CHECKING:
    from ..nn.predictor import Predictor
    from .noise_shaping import NoiseShaper

Bits = Callable[..., np.ndarray]  # of indices, and which channels they are

# Bits that a squared error of one step is worth: a uniform quantiser at high rate has error step^2 / 12 and
# falls by a factor of four with every bit, so d bits / d (error / step^2) = 6 / ln 2.
ERROR_BITS = 6 / np.log(2)
CHUNK = 64  # vectors that the search takes at once
PATIENCE = 16.0  # bits, and a third of a vector: so much more than was estimated halves what an error counts
STIFF = 6.0  # octaves more that an error has to count for an octave more of bits, about
LEAD = 0.1  # octaves less, for what noise shaping takes, about
DEAD_ZONE = 0.2  # how much further from zero than 1/2 an index begins, where no tables say what it costs


class ClassCosts(NamedTuple):
    """What symbols take in every class; all classes side by side, where memory is read at once.

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
        """What vectors cost in bits and error when their indices are chosen best for each class.

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
    slack: ClassVar[float] = 0.07  # octaves that sizes may be asked to differ by from estimates

    def __post_init__(self) -> None:
        # a search for a bitrate comes back to the same packets and levels
        self._class_costs = functools.lru_cache(2)(self._class_costs)  # type: ignore[method-assign]
        self._expected_of = functools.lru_cache(16)(self._expected_of)  # type: ignore[method-assign]

    def forget(self) -> None:
        """Drop what was kept of latents that will not come again."""
        self._expected_of.cache_clear()  # type: ignore[attr-defined]

    @property
    def levels(self) -> int:
        """Number of quality levels; the last is the finest."""
        return len(self.gains)

    def steps(self, level: int) -> np.ndarray:
        """Step of every channel [C]."""
        return step_size(level) * self.gains[level]

    def quantize(self, latents: np.ndarray, level: int, fidelity: float = 1.0, ratio: float = 1.0) -> Quantized:
        """Rate-distortion optimised indices.

        Vector by vector, an error counts more or less, so that they take as many bits as is asked for.

        Args:
            latents: [C, N] float32.
            fidelity: weight of the error against the bits; below 1 it saves a few per cent of bits.
            ratio: how many times the bits that `estimate` says they shall take; within `slack` octaves of 1.
        """
        scale, error_bits = self.steps(level), fidelity * ERROR_BITS
        classes, draft = self._choose_all(self._scaled(latents, level), level, fidelity)
        wanted = ratio * self._bits(level, classes)(draft).sum(1)
        weights = None if self.shaper is None else self.shaper.weights(latents)
        indices, decoded = np.empty(latents.T.shape, np.int32), np.empty(latents.T.shape, np.float32)
        walk, excess = self._walk(level), 0.0
        expected = next(walk)
        for n, vector in enumerate(latents.T):
            scaled, bits = ((vector - expected) / scale).astype(np.float32), self._bits(level, classes[n])
            lower = LEAD - STIFF * np.log2(ratio) + excess / (PATIENCE + wanted[n] / 3)
            count = error_bits * 2 ** -min(max(lower, -1), 1)
            indices[n] = choose_indices(scaled, bits, count)
            if self.shaper is not None and weights is not None:
                indices[n] = self.shaper.shape(scaled, indices[n], bits, weights[n], count)
            excess += bits(indices[n]).sum() - wanted[n]
            decoded[n] = expected + (indices[n] * scale).astype(np.float32)  # as in `dequantize`, to the last bit
            expected = walk.send(decoded[n])
        return Quantized(classes, indices, np.ascontiguousarray(decoded.T))

    def estimate(self, latents: np.ndarray, level: int, fidelity: float = 1.0) -> float:
        """About how many bits `quantize` will need, in less time: expectations from latents as they will about be."""
        return self.bits(*self._choose_all(self._scaled(latents, level), level, fidelity), level)

    def approximate(self, latents: np.ndarray, level: int) -> np.ndarray:
        """Latents [C, N] about as they come out of a file, in less time than `decoded` takes."""
        expected, scale = self._expected(latents, level), self.steps(level)[:, None]
        return (expected + dead_zone(torch.from_numpy((latents - expected) / scale)).numpy() * scale).astype(np.float32)

    def _scaled(self, latents: np.ndarray, level: int) -> np.ndarray:
        """About what is quantised of latents [C, N], in steps: [N, C]."""
        return ((latents - self._expected(latents, level)).T / self.steps(level)).astype(np.float32)

    def _walk(self, level: int) -> Generator[Any, np.ndarray, None]:
        """What is expected of the vectors, see `Predictor.walk`."""
        if self.predictor is not None:
            yield from self.predictor.walk(float(step_size(level)))
        while True:
            yield np.float32(0)

    def _expected(self, latents: np.ndarray, level: int) -> np.ndarray:
        """About what the predictor will expect of each of the latents [C, N]."""
        return self._expected_of(latents.astype(np.float32).tobytes(), level) if self.predictor else 0 * latents

    @torch.inference_mode()
    def _expected_of(self, latents: bytes, level: int) -> np.ndarray:
        assert self.predictor is not None
        scale = torch.from_numpy(self.steps(level))
        vectors = torch.frombuffer(bytearray(latents), dtype=torch.float32).view(len(scale), -1).T
        expected, step = torch.zeros(1), torch.tensor([float(step_size(level))])
        for _ in range(2):
            decoded = expected + dead_zone((vectors - expected) / scale) * scale
            expected = self.predictor.expect(decoded[None], step)[0]
        return expected.numpy().T

    def _class_costs(self, level: int) -> ClassCosts:
        return ClassCosts.of(self.tables.costs[self.tables.choice[level]], self.tables.transitions[level])

    def _choose_all(self, scaled: np.ndarray, level: int, fidelity: float) -> tuple[np.ndarray, np.ndarray]:
        """Classes and indices of vectors [N, C] in steps, of which none depends on the indices of others."""
        costs = self._class_costs(level)
        vector_costs = costs.search(scaled, fidelity * ERROR_BITS)
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
        return classes, choose_indices(scaled, self._bits(level, classes), fidelity * ERROR_BITS)

    def _bits(self, level: int, classes: np.ndarray) -> Bits:
        """Bits of indices [..., C] of vectors of these classes [...], or of some of their channels."""
        tables, costs = self.tables, self.tables.costs.ravel()
        first = tables.choice[level][classes].astype(np.int64) * (2 * tables.limit + 1) + tables.limit

        def bits(indices: np.ndarray, channels: Any = slice(None)) -> np.ndarray:
            clipped = np.minimum(np.maximum(indices, -tables.limit), tables.limit)
            return costs.take(first[..., channels] + clipped)

        return bits

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
        vectors = (indices * self.steps(level)).astype(np.float32)
        walk = self._walk(level)
        expected = next(walk)
        for vector in vectors:
            vector += expected
            expected = walk.send(vector)
        return np.ascontiguousarray(vectors.T)

    def pack(self, streams: list[tuple[np.ndarray, np.ndarray]], level: int) -> bytes:
        """Entropy-coded classes and indices of the channels of a packet."""
        return encode_indices(streams, self.tables, level)

    def unpack(self, payload: bytes, count: int, vectors: int, level: int) -> list[np.ndarray]:
        """Inverse of `pack`: for each of `count` channels the indices [N, C].

        Raises:
            DamageError: the payload does not decode.
        """
        return [indices for _, indices in decode_indices(payload, count, vectors, self.tables, level)]
