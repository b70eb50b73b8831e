"""Vector codebook: latents as a few tokens per vector, for language models. The bitstream does not use it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CODES, SIZE = 1024, 8  # codes of a codebook, latent channels of a code


def channel_groups(groups: int) -> np.ndarray:
    """Latent channels of every group [groups, SIZE], dealt back and forth: each has some of the important ones."""
    rows = np.arange(groups * SIZE).reshape(SIZE, groups)
    rows[1::2] = rows[1::2, ::-1].copy()
    return rows.T


@dataclass
class VectorCodebook:
    """A product of vector quantisers: the leading latent channels in groups of SIZE, each with a codebook.

    Attributes:
        codes: [groups, CODES, SIZE] float32.
        level: quality level of the scalar codebook with as much error.
    """

    codes: np.ndarray
    level: int

    def quantize(self, latents: np.ndarray) -> np.ndarray:
        """Latents [C, N] -> the nearest codes [N, groups] int32, 0 .. CODES - 1."""
        parts = latents[channel_groups(len(self.codes))].transpose(0, 2, 1)  # [groups, N, SIZE]
        distances = np.square(self.codes).sum(2)[:, None] - 2 * parts @ self.codes.transpose(0, 2, 1)
        return np.ascontiguousarray(distances.argmin(2).T.astype(np.int32))

    def dequantize(self, tokens: np.ndarray, channels: int) -> np.ndarray:
        """Tokens [N, groups] -> latents [channels, N] float32, zero in channels without a group.

        Raises:
            ValueError: of another shape, or out of range.
        """
        if tokens.ndim != 2 or tokens.shape[1] != len(self.codes) or tokens.min(initial=0) < 0:
            raise ValueError(f"tokens are [N, {len(self.codes)}], 0 to {CODES - 1}, not {tokens.shape}")
        if tokens.max(initial=0) >= CODES:
            raise ValueError(f"tokens are 0 to {CODES - 1}, not {tokens.max()}")
        latents = np.zeros((channels, len(tokens)), np.float32)
        for channel, codes, chosen in zip(channel_groups(len(self.codes)), self.codes, tokens.T, strict=True):
            latents[channel] = codes[chosen].T
        return latents
