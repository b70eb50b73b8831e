"""Simulated quantisation for training: batches, without rate-distortion search and noise shaping."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..levels import step_size
from ..nn.predictor import Predictor
from ..quantization.rdo import dead_zone


@torch.no_grad()
def quantize_in_loop(predictor: Predictor | None, latents: Tensor, step: Tensor, grid: Tensor) -> Tensor:
    """Latents [B, N, C] after simulated quantisation, with the predictor in the loop.

    Args:
        step: [B], the quantiser's step size.
        grid: [B, C], times the step scales.
    """
    if predictor is None:
        return dead_zone(latents / grid[:, None]) * grid[:, None]
    out = latents.new_zeros(latents.shape)
    past, known = latents.new_zeros(len(latents), predictor.history, latents.shape[2]), None
    for n in range(latents.shape[1]):
        known = (torch.arange(predictor.history) >= predictor.history - n).float().expand(len(latents), -1)
        expected = predictor(past, known, step)
        out[:, n] = expected + dead_zone((latents[:, n] - expected) / grid) * grid
        past = torch.cat([past[:, 1:], out[:, n, None]], 1)
    return out


@torch.no_grad()
def simulate_quantization(
    predictor: Predictor | None, step_scales: np.ndarray, latents: Tensor, levels: np.ndarray
) -> Tensor:
    """Latents [B, C, N] after simulated quantisation at quality levels [B].

    Args:
        step_scales: [levels, C].
    """
    step = torch.from_numpy(step_size(levels).astype(np.float32))
    grid = step[:, None] * torch.from_numpy(step_scales[levels])
    return quantize_in_loop(predictor, latents.transpose(1, 2), step, grid).transpose(1, 2).contiguous()


def padded(latents: list[np.ndarray], batch: int = 256) -> Iterator[tuple[list[int], Tensor]]:
    """Latents [C, N] of clips, those of about equal length together: their numbers, and [B, N, C]."""
    order = sorted(range(len(latents)), key=lambda i: latents[i].shape[1])
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        yield some, torch.nn.utils.rnn.pad_sequence([torch.from_numpy(latents[i].T) for i in some], batch_first=True)


def residuals(predictor: Predictor, latents: list[np.ndarray], step_scales: np.ndarray, level: int) -> list[np.ndarray]:
    """Prediction residuals of latents [C, N] of clips at a quality level.

    Args:
        step_scales: [C], of that level.
    """
    out: list[np.ndarray] = [np.empty(0)] * len(latents)
    for some, clips in padded(latents):
        step = torch.full((len(some),), float(step_size(level)))
        grid = (step[:, None] * torch.from_numpy(step_scales)).expand(-1, clips.shape[2])
        left = clips - predictor.predict(quantize_in_loop(predictor, clips, step, grid), step)
        for i, clip in zip(some, left, strict=True):
            out[i] = clip[: latents[i].shape[1]].T.numpy()
    return out


def squared_error(
    predictor: Predictor | None, step_scales: np.ndarray, latents: list[np.ndarray], level: int
) -> np.ndarray:
    """Mean squared error [C] of simulated quantisation for latents [C, N] of clips."""
    total = torch.zeros(len(latents[0]), dtype=torch.float64)
    for some, clips in padded(latents):
        found = simulate_quantization(
            predictor, step_scales, clips.transpose(1, 2), np.full(len(some), level)
        ).transpose(1, 2)
        for i, apart in zip(some, found - clips, strict=True):
            total += apart[: latents[i].shape[1]].double().square().sum(0)
    return (total / sum(z.shape[1] for z in latents)).numpy()
