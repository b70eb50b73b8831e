"""Autoencoder over log-mel patches: a fixed linear transform (KLT) plus a learned residual on either side."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...format.container import MAX_PACKET_HOPS
from ..settings import Ranges
from .layers import EMBEDDING, Configured, LevelEmbedding, ResidualBlock

HOP = 4  # frames per step of the finer convolutions


class Autoencoder(Configured):
    """Log-mel [B, T, n_mels] <-> latents [B, latent_channels, T / patch].

    With `width == 0` it is the KLT alone: block transform by the leading eigenvectors of the covariance of
    patches (`patch` frames x `n_mels` bands). Otherwise convolutions, local in time, add a correction to both
    directions; they start at zero, so training starts at the KLT.

    Args:
        n_mels: bands of the front-end.
        patch: frames per latent; T must be a multiple of it.
        latent_channels: leading KLT coefficients that are kept.
        width: channels of the convolutions at `patch` rate; half of it at the finer rate of `HOP` frames.
        blocks: residual blocks per rate.

    Raises:
        ValueError: packets are not a whole number of such patches.
    """

    ranges: ClassVar[Ranges] = dict(
        n_mels=(1, 512), patch=(HOP, 64), latent_channels=(1, 8192), width=(0, 8192), blocks=(1, 64)
    )
    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, n_mels: int, patch: int = 16, latent_channels: int = 384, width: int = 0, blocks: int = 3):
        super().__init__()
        if patch % HOP or MAX_PACKET_HOPS % patch:
            raise ValueError(f"patch is a power of two from {HOP} to 64, not {patch}")
        self.config: dict[str, Any] = dict(
            n_mels=n_mels, patch=patch, latent_channels=latent_channels, width=width, blocks=blocks
        )
        self.patch, self.latent_channels, self.width = patch, latent_channels, width
        self.register_buffer("mean", torch.zeros(patch * n_mels))
        self.register_buffer("basis", torch.zeros(latent_channels, patch * n_mels))
        self.register_buffer("scale", torch.ones(latent_channels))  # latents are divided by it for the network
        if not width:
            return
        fine, ratio = width // 2, patch // HOP
        self.encoder_in = nn.Linear(HOP * n_mels, fine)
        self.encoder_fine = nn.ModuleList(ResidualBlock(fine) for _ in range(blocks))
        self.encoder_down = nn.Conv1d(fine, width, ratio, ratio)
        self.encoder_coarse = nn.ModuleList(ResidualBlock(width) for _ in range(blocks - 1))
        self.encoder_out = nn.Conv1d(width, latent_channels, 1)
        self.level = LevelEmbedding()
        self.decoder_in = nn.Conv1d(latent_channels, width, 1)
        self.decoder_coarse = nn.ModuleList(ResidualBlock(width, EMBEDDING) for _ in range(blocks - 1))
        self.decoder_up = nn.ConvTranspose1d(width, fine, ratio, ratio)
        self.decoder_fine = nn.ModuleList(ResidualBlock(fine, EMBEDDING) for _ in range(blocks))
        self.decoder_out = nn.Linear(fine, HOP * n_mels)
        for last in (self.encoder_out, self.decoder_out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def encode(self, mel: Tensor) -> Tensor:
        """Log-mel [B, T, n_mels], T a multiple of `patch` -> latents [B, latent_channels, T / patch]."""
        batch, frames, bands = mel.shape
        with torch.autocast(mel.device.type, enabled=False):
            latents = (mel.reshape(batch, frames // self.patch, -1) - self.mean) @ self.basis.T
        latents = latents.transpose(1, 2)
        if self.width:
            h = self.encoder_in((mel.reshape(batch, frames // HOP, HOP * bands) + 5) / 3).transpose(1, 2)
            for block in self.encoder_fine:
                h = block(h)
            h = self.encoder_down(F.gelu(h))
            for block in self.encoder_coarse:
                h = block(h)
            latents = latents + 4 * self.encoder_out(F.gelu(h)).float()
        return latents

    def decode(self, latents: Tensor, step: Tensor) -> Tensor:
        """Dequantised latents [B, latent_channels, N] -> log-mel [B, N * patch, n_mels].

        Args:
            step: [B], the quantiser's step size, which tells how much of the latents is noise.
        """
        batch, _, blocks = latents.shape
        with torch.autocast(latents.device.type, enabled=False):
            mel = latents.transpose(1, 2) @ self.basis + self.mean
        mel = mel.reshape(batch, blocks * self.patch, -1)
        if self.width:
            condition = self.level(step)
            h = self.decoder_in(latents / self.scale[:, None])
            for block in self.decoder_coarse:
                h = block(h, condition)
            h = self.decoder_up(F.gelu(h))
            for block in self.decoder_fine:
                h = block(h, condition)
            correction = self.decoder_out(F.gelu(h).transpose(1, 2)).float()
            mel = mel + correction.reshape(mel.shape)
        return mel
