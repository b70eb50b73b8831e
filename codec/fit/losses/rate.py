"""Bits of quantised latents, differentiable: the rate in the autoencoder's rate-distortion loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...levels import TRAINED_LEVELS, step_size


class RateModel(nn.Module):
    """Bits of quantised latents: Laplace, scaled by level, channel and the magnitudes of the two latents before.

    Only training uses it; what the bitstream uses are integer tables with like contexts (`stages/tables.py`).
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
