"""Rung 5: the denoiser of latents, for refinement and DDCM."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.schedule import LOUDEST, noise_levels
from ..levels import step_size
from ..model import Model
from .dataset import AudioCache, Windows, encode_clips
from .descent import Run
from .predictor import coded, squared_error

ALONE = 0.3  # share of the examples that have no base layer
FARTHEST = 6  # steps of the quantiser; from noise of more than that on, a walk knows only what the base layer says
REPORTED = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # noise


def measure_prior(model: Model, levels: int, cache: AudioCache, hours: float = 0.3) -> tuple[Tensor, Tensor]:
    """`Denoiser.mean` and `Denoiser.deviation`."""
    latents = encode_clips(model.autoencoder, model.mel, cache, hours)
    every = np.concatenate(latents, 1)
    some = latents[:: max(1, len(latents) // 60)]
    rows = [np.sqrt(squared_error(model.codebook, some, level)) for level in range(levels)]
    return torch.from_numpy(every.mean(1)), torch.from_numpy(np.stack([*rows, every.std(1)])).float()


def errors(denoiser: Denoiser, latents: Tensor, sigma: Tensor, base: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors per latent vector [B, N]: of latents [B, C, N] denoised, and [B, 1] what the prior expects."""
    step = torch.from_numpy(step_size(level.numpy()).astype(np.float32))
    guess = denoiser(latents + sigma[:, None, None] * torch.randn_like(latents), sigma, base, level, step)
    variance, noise = denoiser.prior(base, level, latents)[1], sigma[:, None, None] ** 2
    return ((guess - latents) ** 2).sum(1), (variance * noise / (variance + noise)).sum(1)


@torch.inference_mode()
def evaluate(model: Model, cache: AudioCache, progress: Callable[[str], None], hours: float = 0.1) -> None:
    """Report what the prior is worth: error on held-out clips relative to that of the Gaussian prior alone."""
    assert model.denoiser is not None
    trained, gaussian = model.denoiser, copy.deepcopy(model.denoiser)
    for parameter in gaussian.output.parameters():
        parameter.zero_()
    latents = [torch.from_numpy(z)[None] for z in encode_clips(model.autoencoder, model.mel, cache, hours, True)]
    for level in [level for level in (-1, 6, 12, 18, 24) if latents and level < trained.levels]:
        bases = [
            z if level < 0 else torch.from_numpy(model.codebook.decoded(z[0].numpy(), level, 0.85))[None]
            for z in latents
        ]
        ratios = []
        for noise in REPORTED:
            sums = np.zeros(2)
            for number, (exact, base) in enumerate(zip(latents, bases, strict=True)):
                for item, denoiser in enumerate((trained, gaussian)):
                    torch.manual_seed(number)
                    error, _ = errors(denoiser, exact, torch.tensor([noise]), base, torch.tensor([level]))
                    sums[item] += float(error.sum())
            ratios.append(f"{noise:g}: {sums[0] / sums[1]:.3f}")
        name = f"base layer of level {level}" if level >= 0 else "no base layer"
        progress(f"denoiser: {name}: error at noise of {', '.join(ratios)} of that of the Gaussian prior")


def train(
    model: Model,
    cache: AudioCache,
    run: Run,
    length: int = 640,
    levels: int = 32,
    width: int = 160,
    learning_rate: float = 1.5e-3,
) -> None:
    """Train `model.denoiser`, a new one if there is none; goes on from `denoiser.pt`.

    The loss is the squared error of the latents, relative to that of the Gaussian prior at the same noise.

    Args:
        length: frames of an example.
        levels: quality levels of base layers that it is trained for; finer ones leave nothing to refine.
    """
    denoiser = model.denoiser or Denoiser(model.autoencoder.latent_channels, levels, width)
    if model.denoiser is None:
        denoiser.mean, denoiser.deviation = measure_prior(model, levels, cache)
    model.denoiser = denoiser.requires_grad_(True)
    sigmas = noise_levels()
    windows = Windows(cache, model.mel, length, run.seed)

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng([run.seed, step, 2])
        level = rng.integers(denoiser.levels, size=run.batch_size)
        level[rng.random(run.batch_size) < ALONE] = -1
        farthest = np.where(level < 0, LOUDEST, FARTHEST * step_size(level))
        sigma = sigmas[torch.from_numpy(rng.integers(np.searchsorted(sigmas, farthest).clip(1)))]
        with torch.no_grad():
            frames = model.mel.from_magnitudes(model.mel.spectrum(windows.batch(step, run.batch_size)).abs())
            latents = model.autoencoder.encode(frames)
            base = latents.clone()
            based = level >= 0
            if based.any():
                base[based] = coded(model.codebook, latents[based], level[based])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            error, expected = errors(denoiser, latents, sigma, base, torch.from_numpy(level))
        error, alone = error / expected, torch.from_numpy(level < 0)
        return error.mean(), {"alone": error[alone].mean().nan_to_num(), "based": error[~alone].mean().nan_to_num()}

    run.descend("denoiser", denoiser, loss, learning_rate, net=denoiser.config, data=cache.size)
