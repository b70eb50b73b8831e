"""Sound in the place of packets that are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .mel import LogMel

CONTEXT = 32  # frames on either side that are listened to
PIECE = 1024  # frames that are filled at once


def alike(function: Callable[[Tensor], Tensor], channels: list[Tensor]) -> list[Tensor]:
    """What a function makes of each channel; neighbours that are the same object stay one."""
    out: list[Tensor] = []
    for c, channel in enumerate(channels):
        out.append(out[-1] if c and channel is channels[c - 1] else function(channel))
    return out


class Concealer:
    """Fills gaps in a stream of magnitudes from what is on either side."""

    def __init__(self, mel: LogMel, channels: int):
        self.bins = mel.n_fft // 2 + 1
        self._before = [torch.zeros(self.bins, 1)] * channels

    def follow(self, magnitudes: list[Tensor]) -> None:
        """Hear the packet before a gap, if one comes: magnitudes [n_fft // 2 + 1, T] of every channel."""
        self._before = alike(lambda m: m[:, -CONTEXT:].clone(), magnitudes)

    def fill(self, frames: int, after: list[Tensor] | None) -> Iterator[list[Tensor]]:
        """Magnitudes of a gap, in pieces."""
        for start in range(0, frames, PIECE):
            count = min(PIECE, frames - start)
            yield alike(lambda m, count=count: torch.zeros(self.bins, count), self._before)  # type: ignore[misc]
