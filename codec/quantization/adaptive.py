"""Scalar codebook of a model that has no trained tables: a uniform grid for latents of unit variance."""

from __future__ import annotations

import numpy as np

from ...format.adaptive import LEVELS, LIMIT, State, costs, decode_adaptive, encode_adaptive
from ..levels import step_size
from .rdo import ERROR_BITS, Quantized, ScalarEncoder
from .scalar import ScalarCodebook

COARSEST_UNIT_VARIANCE = 8.0  # step of level 0, in standard deviations of the latents


class AdaptiveEncoder(ScalarEncoder):
    """Chooses indices under adaptive tables; there are no classes, and nothing is predicted."""

    rate_tolerance = 0.0  # estimates are exact

    codebook: AdaptiveCodebook

    def quantize(
        self, latents: np.ndarray, level: int, distortion_weight: float = 1.0, bits_ratio: float = 1.0
    ) -> Quantized:
        """Rate-distortion optimised indices; see `ScalarEncoder.quantize`. `bits_ratio` is 1."""
        indices, _ = self._choose(latents, level, distortion_weight)
        return Quantized(np.empty(0, np.int64), indices, self.codebook.dequantize(indices, level))

    def estimate(self, latents: np.ndarray, level: int, distortion_weight: float = 1.0) -> float:
        """How many bits `quantize` will need."""
        return self._choose(latents, level, distortion_weight)[1]

    def _choose(self, latents: np.ndarray, level: int, distortion_weight: float) -> tuple[np.ndarray, float]:
        """The better of the nearest index and the next one towards the running mean: [N, C], and their bits."""
        scaled = latents.T.astype(np.float64) / self.codebook.steps(level)
        indices = np.empty(scaled.shape, np.int64)
        state = State(self.codebook.channels, self.codebook.bands, level)
        table, rows, bits = costs(), np.arange(self.codebook.channels), 0.0
        for n, vector in enumerate(scaled):
            wanted = vector - state.centre
            near = np.rint(wanted).astype(np.int64)
            symbols = table[state.table]

            def cost(value: np.ndarray, symbols: np.ndarray = symbols, wanted: np.ndarray = wanted) -> np.ndarray:
                error = distortion_weight * ERROR_BITS * (wanted - value) ** 2
                return symbols[rows, np.clip(value, -LIMIT, LIMIT) + LIMIT] + error

            inward = near - np.sign(near)
            chosen = np.where(cost(inward) < cost(near), inward, near)
            size = np.abs(chosen)
            escaped = size[size >= LIMIT] - LIMIT
            bits += symbols[rows, np.clip(chosen, -LIMIT, LIMIT) + LIMIT].sum()
            bits += (4 + np.floor(np.log2(escaped + 8.0))).sum()
            indices[n] = chosen + state.centre
            state.update(indices[n])
        return indices.astype(np.int32), float(bits)


class AdaptiveCodebook(ScalarCodebook):
    """Quantises latents under adaptive tables, which need no training.

    Args:
        channels: of the latents.
        bands: neighbouring frequencies of which these are made.
    """

    def __init__(self, channels: int, bands: int):
        self.step_scales = np.full((LEVELS, channels), COARSEST_UNIT_VARIANCE / step_size(0), np.float32)
        self.channels, self.bands = channels, bands

    def encoder(self) -> AdaptiveEncoder:
        """An object that chooses the indices of one file or stream."""
        return AdaptiveEncoder(self)

    def pack(self, streams: list[tuple[np.ndarray, np.ndarray]], level: int) -> bytes:
        """Entropy-coded indices of the channels of a packet, as `quantize` gave them."""
        return encode_adaptive([indices for _, indices in streams], self.bands, level)

    def unpack(self, payload: bytes, count: int, vectors: int, level: int) -> list[np.ndarray]:
        """Inverse of `pack`: for each channel of the sound the indices [N, C].

        Raises:
            DamageError: the payload does not decode.
        """
        return decode_adaptive(payload, count, vectors, self.channels, self.bands, level)
