"""Rung 2: the autoencoder, trained from the KLT on for rate and distortion at all quality levels together."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dsp.mel import LogMel
from ..levels import TRAINED_LEVELS, step_size
from ..nn.autoencoder import Autoencoder
from .dataset import AudioCache, Windows
from .descent import Run


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


def distortion(decoded: Tensor, mel: Tensor) -> Tensor:
    """Squared error of log-mels, weighted for what is heard, and of loudness; both 1 e^2 or so for a small error e.

    Levels far below the peak, which lies at about +1, count less. The best guess under a squared error of logarithms
    has too little energy; loudness, which grows with the power 0.6 of sound pressure (Stevens, 1956), pulls it up.
    """
    weight = 0.4 + 0.6 * torch.sigmoid(mel + 6)
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
    rate: RateModel,
    cache: AudioCache,
    mel: LogMel,
    run: Run,
    length: int = 384,
    hold: int = 0,
) -> None:
    """Train both in place, under bfloat16 autocast; goes on from `autoencoder.pt` when there is one.

    Args:
        length: frames of a training example.
        hold: steps in which only the rate model learns, because the autoencoder has learned already.
    """
    windows = Windows(cache, mel, length, run.seed)

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        model.requires_grad_(step >= hold)
        frames = mel.from_magnitudes(mel.spectrum(windows.batch(step, run.batch_size)).abs())
        level = torch.randint(TRAINED_LEVELS, (run.batch_size,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            bits, error, total = loss_terms(model, rate, frames, level)
        return total, {"bits": bits.mean(), "error": error.mean()}

    both = nn.ModuleList([model, rate])
    run.descend("autoencoder", both, loss, 1.5e-3, net=model.config, data=cache.size, hold=hold)
