"""The VAE of an AudioLDM 2 checkpoint: the codec's transform."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dsp.mel import LogMel
from ..errors import ModelError
from ..settings import Ranges, check_ranges
from .checkpoint import Checkpoint
from .loading import load_network

STD_LIMIT = 10.0  # standard deviation of the posterior in units of the prior's; what is above it is an error
RANGES: Ranges = dict(latent_channels=(1, 64), scaling_factor=(1e-4, 1e4))


class Vae:
    """diffusers' AutoencoderKL as the codec sees it: log-mel [B, T, n_mels] <-> latents [B, latent_channels, N].

    The latents have unit variance, the network's channels one after the other, each with its frequencies.

    Args:
        posterior: 0: the posterior's mode; 1: a sample of it; between: as much of its deviation.
        std_limit: largest deviation of the posterior that is believed.
    """

    def __init__(self, checkpoint: Checkpoint, mel: LogMel, device: str, dtype: torch.dtype, posterior: float = 0.0,
                 std_limit: float = STD_LIMIT):  # fmt: skip
        config = checkpoint.config("vae")
        blocks, self.scaling = config.get("block_out_channels"), config.get("scaling_factor", 0.18215)
        sizes = [config.get(name) for name in ("in_channels", "out_channels")]
        if sizes != [1, 1] or not isinstance(blocks, list) or not 1 <= len(blocks) <= 5:
            raise ModelError(f"vae/ of {checkpoint.name} is not one of 16 kHz log-mels")
        try:
            check_ranges({"latent_channels": config.get("latent_channels"), "scaling_factor": self.scaling}, RANGES)
        except ValueError as error:
            raise ModelError(f"vae/ of {checkpoint.name} does not load: {error}") from error
        self.patch = 2 ** (len(blocks) - 1)
        self.bands, self.channels = mel.n_mels // self.patch, config["latent_channels"]
        self.latent_channels = self.channels * self.bands
        if not 0 <= posterior <= 1 or not std_limit > 0:
            raise ValueError("the posterior's share is 0 to 1, the limit of its deviation above 0")
        self.n_mels, self.posterior, self.std_limit = mel.n_mels, posterior, std_limit
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        if dtype == torch.float16 and config.get("force_upcast", True):
            dtype = torch.float32  # its activations leave the range of float16
        self.network, plenty = load_network(AutoencoderKL, checkpoint, "vae", device, dtype)
        self.device, self.dtype = device, dtype
        if not plenty:
            self.network.enable_slicing()

    @torch.inference_mode()
    def encode(self, mel: Tensor) -> Tensor:
        """Log-mel [B, T, n_mels], T a multiple of `patch` -> latents [B, latent_channels, T / patch]."""
        if mel.ndim != 3 or mel.shape[2] != self.n_mels or mel.shape[1] % self.patch:
            raise ValueError(f"log-mel is [B, T, {self.n_mels}] with T a multiple of {self.patch}, not {[*mel.shape]}")
        posterior = self.network.encode(mel[:, None].to(self.device, self.dtype)).latent_dist
        latents = posterior.mean.float()
        if self.posterior:
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
            deviation = posterior.std.float().clamp(max=self.std_limit)
            latents = latents + self.posterior * deviation * noise
        return self.flatten(latents * self.scaling).cpu()

    @torch.inference_mode()
    def decode(self, latents: Tensor, step: Tensor) -> Tensor:
        """Latents [B, latent_channels, N] -> log-mel [B, N * patch, n_mels]; the quantiser's step has no effect."""
        parted = self.unflatten(latents).to(self.device, self.dtype) / self.scaling
        return self.network.decode(parted).sample[:, 0].float()

    def flatten(self, parted: Tensor) -> Tensor:
        """[B, channels, N, bands] -> [B, latent_channels, N]."""
        return parted.transpose(2, 3).flatten(1, 2)

    def unflatten(self, latents: Tensor) -> Tensor:
        """[B, latent_channels, N] -> [B, channels, N, bands]."""
        return latents.unflatten(1, (self.channels, self.bands)).transpose(2, 3)
