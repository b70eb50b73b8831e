"""Scalar codebook: a uniform grid per latent channel, with a step for every quality level."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...format.entropy import Tables, decode_indices, encode_indices
from ..levels import step_size
from ..nn.predictor import Predictor
from .rdo import Quantized, ScalarEncoder, Shaper


@dataclass
class ScalarCodebook:
    """Quantises latents and counts their bits.

    Attributes:
        step_scales: [levels, C] float32, factors on the step of each level.
        tables: integer frequencies.
        predictor: its prediction of a vector is subtracted before quantisation; None: no prediction.
        shaper: noise shaping in the encoder; None: none.
    """

    step_scales: np.ndarray
    tables: Tables
    predictor: Predictor | None = None
    shaper: Shaper | None = None

    @property
    def levels(self) -> int:
        """Number of quality levels; the last is the finest."""
        return len(self.step_scales)

    def steps(self, level: int) -> np.ndarray:
        """Step of every channel [C]."""
        return step_size(level) * self.step_scales[level]

    def encoder(self) -> ScalarEncoder:
        """An object that chooses the indices of one file or stream."""
        return ScalarEncoder(self)

    def quantize(
        self, latents: np.ndarray, level: int, distortion_weight: float = 1.0, bits_ratio: float = 1.0
    ) -> Quantized:
        """Indices of latents [C, N] on their own; see `ScalarEncoder.quantize`."""
        return self.encoder().quantize(latents, level, distortion_weight, bits_ratio)

    def predictions(self, level: int) -> Generator[Any, np.ndarray, None]:
        """Coroutine: yields the prediction of a vector, receives the decoded vector. See `Predictor.predictions`."""
        if self.predictor is not None:
            yield from self.predictor.predictions(float(step_size(level)))
        while True:
            yield np.float32(0)

    def bits(self, classes: np.ndarray, indices: np.ndarray, level: int) -> float:
        """Bits of indices under the tables; those of escapes are estimated."""
        tables = self.tables
        symbols = np.clip(indices, -tables.limit, tables.limit) + tables.limit
        chosen = tables.choice[level][classes]
        escape_remainder = np.abs(indices[np.abs(indices) >= tables.limit]) - tables.limit
        transitions = tables.transitions[level] / tables.transitions[level].sum(1, keepdims=True)
        return float(
            tables.costs[chosen, symbols].sum()
            - np.log2(transitions[np.concatenate([[-1], classes[:-1]]), classes]).sum()
            + (4 + np.floor(np.log2(escape_remainder + 8.0))).sum()
        )

    def dequantize(self, indices: np.ndarray, level: int) -> np.ndarray:
        """Indices [N, C] -> latents [C, N] float32."""
        vectors = (indices * self.steps(level)).astype(np.float32)
        predictions = self.predictions(level)
        expected = next(predictions)
        for vector in vectors:
            vector += expected
            expected = predictions.send(vector)
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
