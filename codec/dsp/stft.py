"""Overlap-add of STFT frames, and gains that glide from one piece of a stream to the next."""

from __future__ import annotations

import torch
from torch import Tensor


def overlap_add(frames: Tensor, hop: int, window: Tensor) -> Tensor:
    """Sum of frames [B, T, n] times a window [n], at distances of `hop`: [B, (T - 1) * hop + n]."""
    batch, count, size = frames.shape
    parts = -(-size // hop)
    total = frames.new_zeros(batch, count + parts - 1, hop)
    for part, (piece, weights) in enumerate(zip(frames.split(hop, 2), window.split(hop), strict=True)):
        total[:, part : part + count, : len(weights)].addcmul_(piece, weights)
    return total.view(batch, -1)[:, : (count - 1) * hop + size]


def window_sum(count: int, hop: int, window: Tensor) -> Tensor:
    """Overlap-added windows of so many frames, [1, N]; large enough to divide by."""
    return overlap_add(window.expand(1, count, -1), hop, window).clamp(min=1e-2)


def ramp(count: int, like: Tensor) -> Tensor:
    """So many numbers from 0 to 1, on the device that `like` is on."""
    return torch.linspace(0, 1, count, device=like.device)


def glide(wave: Tensor, before: Tensor | None, gain: Tensor) -> Tensor:
    """A piece [C, N] of a stream times a gain [C, 1] that begins at the piece's before; None: there was none."""
    return wave * torch.lerp(gain if before is None else before, gain, ramp(wave.shape[1], wave))
