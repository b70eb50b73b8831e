"""Rung 2: the autoencoder, trained from the KLT on for rate and distortion at all quality levels together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..autoencoder import Autoencoder
from ..quantizer import TRAINED_LEVELS, step_size
from .dataset import MelCache, is_validation


class RateModel(nn.Module):
    """Bits of quantised latents: Laplace, scaled by level, channel and the magnitudes of the two latents before.

    Only training uses it; what the bitstream uses are integer tables with like contexts (`tables.py`).
    """

    def __init__(self, scale: Tensor):
        super().__init__()
        steps = step_size(torch.arange(TRAINED_LEVELS))
        self.log_scale = nn.Parameter((0.7 * scale / steps[:, None] + 0.05).log())
        self.context = nn.Parameter(torch.zeros(len(scale), 4))
        self.gain = nn.Parameter(torch.zeros(TRAINED_LEVELS, len(scale)))

    def forward(self, noisy: Tensor, rounded: Tensor, level: Tensor) -> Tensor:
        """Bits per latent value; all [B, C, N], level [B]."""
        magnitude = rounded.detach().abs()
        last, before = F.pad(magnitude, (1, 0))[..., :-1], F.pad(magnitude, (2, 0))[..., :-2]
        near = F.avg_pool1d(last.transpose(1, 2), 9, 1, 4, count_include_pad=False).transpose(1, 2)
        everywhere = last.mean(1, keepdim=True).expand_as(last)
        features = torch.stack([last, before, near, everywhere], -1).log1p()
        log_scale = self.log_scale[level][:, :, None] + torch.einsum("bcnk,ck->bcn", features, self.context)
        inverse = torch.exp(-log_scale.clamp(-4, 6))
        x = noisy.abs()
        # integral of a Laplace density over [x - 1/2, x + 1/2]
        inside = 1 - torch.exp(-0.5 * inverse) * torch.cosh((x * inverse).clamp(max=0.5 * inverse))
        outside = -(x - 0.5).clamp(min=0) * inverse + torch.log1p(-torch.exp(-inverse)) - math.log(2)
        return torch.where(x < 0.5, -inside.clamp(min=1e-9).log(), -outside) / math.log(2)


class Windows:
    """Random windows of training frames, each clip inside at its own level, with spectral tilt and mixing."""

    def __init__(self, cache: MelCache, length: int, seed: int):
        self.cache, self.length, self.seed = cache, length, seed
        clips = [c for c in cache.clips if not is_validation(c[0])]
        self.starts = np.array([start for _, start, _ in clips])
        self.ends = np.cumsum([count for _, _, count in clips])

    def window(self, rng: np.random.Generator) -> Tensor:
        position = int(rng.integers(self.ends[-1] - self.length))
        parts: list[Tensor] = []
        missing = self.length
        clip = int(np.searchsorted(self.ends, position, "right"))
        while missing:
            offset = position - (self.ends[clip - 1] if clip else 0)
            count = min(missing, int(self.ends[clip]) - position)
            part = self.cache.crop(int(self.starts[clip] + offset), count)
            parts.append(part - (rng.uniform(0, 1.6) if parts else 0.0))  # down to -14 dB
            missing -= count
            position += count
            clip += 1
        window = torch.cat(parts)
        if rng.random() < 0.5:
            bands = np.linspace(0, math.pi, window.shape[1])
            tilt = sum(rng.normal(0, 0.25) * np.cos(k * bands) for k in (1, 2, 3))
            window = window + torch.from_numpy(np.asarray(tilt, np.float32))
        return window

    def batch(self, step: int, size: int) -> Tensor:
        """[size, length, n_mels]; a function of seed and step alone, so that a resumed run sees the same data."""
        rng = np.random.default_rng([self.seed, step])
        windows = []
        for _ in range(size):
            window = self.window(rng)
            if rng.random() < 0.2:  # magnitudes add, nearly
                window = torch.logaddexp(window, self.window(rng) - rng.uniform(0.3, 2.5))
            windows.append(window.clamp(min=self.cache.mel.floor))
        return torch.stack(windows)


def distortion(decoded: Tensor, mel: Tensor) -> Tensor:
    """Squared error of log-mels, weighted for what is heard, and of loudness; both 1 e^2 or so for a small error e.

    Levels far below the peak, which lies at about +1, count little. The best guess under a squared error of logarithms
    has too little energy; loudness, which grows with the power 0.6 of sound pressure (Stevens, 1956), pulls it up.
    """
    weight = 0.15 + 0.85 * torch.sigmoid(mel + 6)
    loudness = (torch.exp(0.6 * decoded.clamp(max=6)) - torch.exp(0.6 * mel)) / 0.6
    return 0.6 * weight * (decoded - mel) ** 2 + 0.5 * loudness**2


def loss_terms(model: Autoencoder, rate: RateModel, mel: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bits per latent vector [B], weighted error per patch [B], and the loss.

    The multiplier of the error is that of a uniform quantiser at high rate, d bits / d error = 6 / (ln 2 step^2),
    so that the step sizes keep their meaning whatever the network learns.
    """
    step = step_size(level)
    latents = model.encode(mel)
    grid = step[:, None, None] * rate.gain[level].exp()[:, :, None]
    scaled = latents / grid
    rounded = scaled + (scaled.round() - scaled).detach()
    noisy = scaled + torch.rand_like(scaled) - 0.5
    bits = rate(noisy, rounded, level).sum(1).mean(1)
    decoded = model.decode(rounded * grid, step)
    error = distortion(decoded, mel).mean((1, 2)) * model.mean.numel()
    loss = (step**0.7 / 100 * (bits + 6 / math.log(2) / step**2 * error)).mean()
    return bits, error, loss


def train(
    model: Autoencoder,
    cache: MelCache,
    folder: Path,
    steps: int,
    progress: Callable[[str], None],
    batch_size: int = 16,
    length: int = 384,
    learning_rate: float = 1.5e-3,
    seed: int = 0,
    checkpoint_every: int = 500,
) -> RateModel:
    """Train in place, under bfloat16 autocast; goes on from `folder/checkpoint.pt` when there is one.

    Returns the rate model, whose gains belong to the quantiser. Both are left with averaged weights (EMA).
    """
    rate = RateModel(model.scale)
    both = nn.ModuleList([model, rate])
    average = {k: v.detach().clone() for k, v in both.state_dict().items()}
    optimizer = torch.optim.AdamW(both.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    belongs_to = dict(model=model.config, frames=len(cache.peaks), clips=len(cache.clips), seed=seed)
    checkpoint, first = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["belongs_to"] != belongs_to:
            raise ValueError(f"{checkpoint} is of other data or options; remove it to start anew")
        both.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["step"]
        progress(f"resumed at step {first}")
    windows = Windows(cache, length, seed)
    sums, since, started = np.zeros(3), 0, time.monotonic()
    for step in range(first, steps):
        warm = min(1.0, (step + 1) / 300)
        lr = learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(1_000_003 * seed + step)
        mel = windows.batch(step, batch_size)
        level = torch.randint(TRAINED_LEVELS, (batch_size,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            bits, error, loss = loss_terms(model, rate, mel, level)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (step + 1) / (step + 10))
        for name, value in both.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        sums += [bits.mean().item(), error.mean().item(), loss.item()]
        since += 1
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            state = dict(model=both.state_dict(), optimizer=optimizer.state_dict(), average=average)
            state |= dict(step=step + 1, belongs_to=belongs_to)
            partial = checkpoint.with_suffix(".new")
            torch.save(state, partial)
            partial.replace(checkpoint)
        if since == 50 or step + 1 == steps:
            b, e, total = sums / since
            speed = since / (time.monotonic() - started)
            progress(f"step {step + 1}/{steps}  loss {total:.4f}  bits {b:.1f}  error {e:.1f}  {speed:.2f} steps/s")
            sums, since, started = np.zeros(3), 0, time.monotonic()
    both.load_state_dict(average)
    return rate
