"""Training of the predictor: on latents as they come out of a file, because it is in the loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..levels import step_size
from ..nn.predictor import Predictor
from ..quantization.scalar import ScalarCodebook, dead_zone
from .descent import Run

LENGTH = 16  # vectors of an example
LEAST_SCALE = 2.0  # of latents, for the network
RESOLUTION = 0.4  # steps; what is expected better than that saves nothing


@torch.no_grad()
def decoded(predictor: Predictor | None, latents: Tensor, step: Tensor, grid: Tensor) -> Tensor:
    """Latents [B, N, C] about as they come out of a file.

    Args:
        step: [B], the quantiser's step size.
        grid: [B, C], times the gains.
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
def coded(codebook: ScalarCodebook, latents: Tensor, levels: np.ndarray) -> Tensor:
    """Latents [B, C, N] about as they come out of a file at quality levels [B]."""
    if codebook.predictor is None:
        some = [codebook.decoded(z, int(q), 0.85) for z, q in zip(latents.numpy(), levels, strict=True)]
        return torch.from_numpy(np.stack(some))
    step = torch.from_numpy(step_size(levels).astype(np.float32))
    grid = step[:, None] * torch.from_numpy(codebook.gains[levels])
    return decoded(codebook.predictor, latents.transpose(1, 2), step, grid).transpose(1, 2).contiguous()


def _padded(latents: list[np.ndarray], batch: int = 256) -> Iterator[tuple[list[int], Tensor]]:
    """Latents [C, N] of clips, those of about equal length together: their numbers, and [B, N, C]."""
    order = sorted(range(len(latents)), key=lambda i: latents[i].shape[1])
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        yield some, torch.nn.utils.rnn.pad_sequence([torch.from_numpy(latents[i].T) for i in some], batch_first=True)


def residuals(predictor: Predictor, latents: list[np.ndarray], gains: np.ndarray, level: int) -> list[np.ndarray]:
    """What is left of latents [C, N] of clips after prediction at a quality level.

    Args:
        gains: [C], of that level.
    """
    out: list[np.ndarray] = [np.empty(0)] * len(latents)
    for some, clips in _padded(latents):
        step = torch.full((len(some),), float(step_size(level)))
        grid = (step[:, None] * torch.from_numpy(gains)).expand(-1, clips.shape[2])
        left = clips - predictor.expect(decoded(predictor, clips, step, grid), step)
        for i, clip in zip(some, left, strict=True):
            out[i] = clip[: latents[i].shape[1]].T.numpy()
    return out


def squared_error(codebook: ScalarCodebook, latents: list[np.ndarray], level: int) -> np.ndarray:
    """Mean squared error [C] of latents [C, N] of clips as they come out of a file."""
    total = torch.zeros(len(latents[0]), dtype=torch.float64)
    for some, clips in _padded(latents):
        found = coded(codebook, clips.transpose(1, 2), np.full(len(some), level)).transpose(1, 2)
        for i, apart in zip(some, found - clips, strict=True):
            total += apart[: latents[i].shape[1]].double().square().sum(0)
    return (total / sum(z.shape[1] for z in latents)).numpy()


def new_predictor(latents: list[np.ndarray]) -> Predictor:
    """One for latents [C, N] like these, which expects half of the last vector."""
    predictor = Predictor(len(latents[0]))
    deviation = np.sqrt(np.mean([np.square(z).mean(1) for z in latents], 0))
    predictor.scale = torch.from_numpy(np.maximum(LEAST_SCALE, deviation).astype(np.float32))
    return predictor


def train(
    predictor: Predictor,
    latents: list[np.ndarray],
    gains: np.ndarray,
    run: Run,
) -> None:
    """Train in place, for few bits at all quality levels; goes on from `predictor.pt`.

    Args:
        latents: [C, N] of clips.
        gains: [levels, C] of the codebook.
    """
    long = [i for i, z in enumerate(latents) if z.shape[1] >= LENGTH]
    if not long:
        raise ValueError(f"no clip of at least {LENGTH} latent vectors to fit on")
    ends = np.cumsum([latents[i].shape[1] for i in long])
    grids = torch.from_numpy(gains) * step_size(torch.arange(len(gains)))[:, None]
    predictor.requires_grad_(True)

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        random = np.random.default_rng([run.seed, step])
        clips = np.searchsorted(ends, random.integers(ends[-1], size=run.batch_size), "right")
        chosen = [latents[long[i]] for i in clips]
        starts = [random.integers(z.shape[1] - LENGTH + 1) for z in chosen]
        parts = [z[:, s : s + LENGTH].T for z, s in zip(chosen, starts, strict=True)]
        target = torch.from_numpy(np.stack(parts))
        level = torch.from_numpy(random.integers(len(gains), size=run.batch_size))
        size, grid = step_size(level).float(), grids[level].float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            before = decoded(predictor, target, size, grid)
            expected = predictor(*predictor.windows(before), size.repeat_interleave(LENGTH)).view(target.shape)
        # a Gaussian's bits at a given error; where the difference is within a step, nothing is to be gained
        bits = 0.5 * torch.log2(1 + ((target - expected) / (RESOLUTION * grid[:, None])) ** 2).sum(2).mean()
        return bits / 100, {"bits": bits}

    run.descend("predictor", predictor, loss, 1.5e-3, net=predictor.config, clips=len(latents))
