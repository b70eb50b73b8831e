"""Denoiser of latents, for diffusion: the network of a model folder's `unet/`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..levels import COARSEST_STEP, LEVELS
from ..nn.layers import EMBEDDING, Configured, LevelEmbedding, ResidualBlock
from ..settings import Ranges
from .schedule import NOISE_RANGE, schedule_config

NO_BASE_STEP = 2 * COARSEST_STEP  # in the place of a step where there is no base layer


class Denoiser(Configured):
    """Noisy latents and the base layer's latents -> an estimate of the latents.

    The guess is the posterior mean under a Gaussian prior, around the base layer's latents with the variance of their
    error, or without a base layer around the mean of all latents with theirs; a small UNet in time adds to it, in
    units of the posterior's standard deviation (preconditioning as in Karras et al., NeurIPS 2022, section 5). It
    starts at zero, so training starts at the Gaussian prior.

    Args:
        latent_channels: of the autoencoder.
        levels: quality levels of the base layer that it was trained with.
        width: channels of the convolutions.
        blocks: residual blocks on either side of the UNet.

    Attributes:
        fingerprint: of its files.
        mean: [C], of latents.
        deviation: [levels + 1, C], standard deviations of the error of each level's latents; last those of latents.
    """

    ranges: ClassVar[Ranges] = dict(latent_channels=(1, 8192), levels=(1, LEVELS), width=(1, 8192), blocks=(0, 64))
    noise_range = NOISE_RANGE
    fingerprint = bytes(32)
    mean: Tensor
    deviation: Tensor

    def __init__(self, latent_channels: int, levels: int, width: int = 160, blocks: int = 2):
        super().__init__()
        self.config: dict[str, Any] = dict(latent_channels=latent_channels, levels=levels, width=width, blocks=blocks)
        self.levels = levels
        self.schedule = schedule_config()  # of diffusers' DDIMScheduler
        self.register_buffer("mean", torch.zeros(latent_channels))
        self.register_buffer("deviation", torch.ones(levels + 1, latent_channels))
        self.noise, self.step = LevelEmbedding(), LevelEmbedding()
        self.input = nn.Conv1d(2 * latent_channels, width, 1)
        self.before = nn.ModuleList(ResidualBlock(width, EMBEDDING) for _ in range(blocks))
        self.down = nn.Conv1d(width, width, 2, 2)
        self.middle = nn.ModuleList(ResidualBlock(width, EMBEDDING) for _ in range(blocks))
        self.up = nn.ConvTranspose1d(width, width, 2, 2)
        self.after = nn.ModuleList(ResidualBlock(width, EMBEDDING) for _ in range(blocks))
        self.output = nn.Conv1d(width, latent_channels, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def prior(self, base: Tensor | None, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the Gaussian prior, [B, C, N] and [B, C, 1].

        Args:
            base: [B, C, N], dequantised latents; rows whose level is -1 are ignored.
            level: [B] int, quality of the base layer, or -1: none.
            like: [B, C, N], for the shape.
        """
        mean = self.mean[:, None].expand_as(like)
        if base is not None:
            mean = torch.where(level[:, None, None] < 0, mean, base)
        return mean, self.deviation[level].square()[..., None]

    def start(self, base: Tensor, level: Tensor, step: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of what a diffusion starts from, at noise of that variance; else as for `forward`."""
        mean, variance = self.prior(base, level, base)
        return mean, (variance + noise).sqrt()

    def for_step(self, number: int) -> Denoiser:
        """The denoiser of that step."""
        return self

    def forward(self, noisy: Tensor, sigma: Tensor, base: Tensor | None, level: Tensor, step: Tensor) -> Tensor:
        """Latents with noise of standard deviation sigma -> latents, both [B, C, N].

        Args:
            noisy: [B, C, N], in the units of the autoencoder.
            sigma: [B].
            base, level: as for `prior`.
            step: [B], the quantiser's step; ignored where level is -1.
        """
        mean, variance = self.prior(base, level, noisy)
        total = variance + sigma[:, None, None] ** 2
        inputs = torch.cat(
            [(noisy - mean) * total.rsqrt(), (mean - self.mean[:, None]) / self.deviation[-1][:, None]], 1
        )
        condition = self.noise(sigma) + self.step(torch.where(level < 0, NO_BASE_STEP, step))
        h = self.input(F.pad(inputs, (0, noisy.shape[2] % 2)))
        for block in self.before:
            h = block(h, condition)
        low = self.down(F.gelu(h))
        for block in self.middle:
            low = block(low, condition)
        h = h + self.up(F.gelu(low))
        for block in self.after:
            h = block(h, condition)
        correction = self.output(F.gelu(h))[..., : noisy.shape[2]].float()
        guess = mean + variance / total * (noisy - mean)
        return guess + (variance / total).sqrt() * sigma[:, None, None] * correction
