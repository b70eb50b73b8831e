"""The denoiser of latents, for refinement and DDCM."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...diffusion.denoiser import Denoiser
from ...diffusion.schedule import MAX_SIGMA, noise_levels
from ...levels import step_size
from ..data.audio_cache import AudioCache, encode_clips
from ..draft import Draft
from ..quantization import simulate_quantization, squared_error
from .base import Job, TrainingStage

LEVELS = 32  # quality levels of base layers that a new one is trained for; finer ones leave nothing to refine
NO_BASE_SHARE = 0.3  # share of the examples that have no base layer
MAX_NOISE_STEPS = 6  # steps of the quantiser; above this noise, only the base layer is informative
REPORTED = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # noise
REPORTED_LEVELS = (-1, 6, 12, 18, 24)  # of the base layer; -1: none


def measure_prior(draft: Draft, levels: int, cache: AudioCache, hours: float = 0.3) -> tuple[Tensor, Tensor]:
    """`Denoiser.mean` and `Denoiser.deviation`."""
    latents = encode_clips(draft.require("autoencoder"), draft.mel, cache, hours)
    every, step_scales = np.concatenate(latents, 1), draft.require("step_scales")
    some = latents[:: max(1, len(latents) // 60)]
    rows = [np.sqrt(squared_error(draft.predictor, step_scales, some, level)) for level in range(levels)]
    return torch.from_numpy(every.mean(1)), torch.from_numpy(np.stack([*rows, every.std(1)])).float()


def errors(denoiser: Denoiser, latents: Tensor, sigma: Tensor, base: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors per latent vector [B, N]: of latents [B, C, N] denoised, and [B, 1] what the prior expects."""
    step = torch.from_numpy(step_size(level.numpy()).astype(np.float32))
    guess = denoiser(latents + sigma[:, None, None] * torch.randn_like(latents), sigma, base, level, step)
    variance, noise = denoiser.prior(base, level, latents)[1], sigma[:, None, None] ** 2
    return ((guess - latents) ** 2).sum(1), (variance * noise / (variance + noise)).sum(1)


@torch.inference_mode()
def evaluate(draft: Draft, cache: AudioCache, say: Callable[[str], None], hours: float = 0.1) -> dict[str, float]:
    """Report what the prior is worth: error on held-out clips relative to that of the Gaussian prior alone."""
    trained = draft.require("denoiser")
    gaussian = copy.deepcopy(trained)
    for parameter in gaussian.output.parameters():
        parameter.zero_()
    clips = encode_clips(draft.require("autoencoder"), draft.mel, cache, hours, held_out=True)
    latents = [torch.from_numpy(z)[None] for z in clips]
    found: dict[str, float] = {}
    for level in [level for level in REPORTED_LEVELS if latents and level < trained.levels]:
        bases = [
            z if level < 0 else torch.from_numpy(draft.codebook().quantize(z[0].numpy(), level, 0.85).latents)[None]
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
            ratios.append(sums[0] / sums[1])
        name = f"base layer of level {level}" if level >= 0 else "no base layer"
        listed = ", ".join(f"{noise:g}: {ratio:.3f}" for noise, ratio in zip(REPORTED, ratios, strict=True))
        say(f"denoiser: {name}: error at noise of {listed} of that of the Gaussian prior")
        found[f"of_gaussian_{'without_base' if level < 0 else level}"] = float(np.mean(ratios))
    return found


@dataclass(frozen=True, kw_only=True)
class TrainDenoiser(TrainingStage):
    """The denoiser, a new one if there is none: squared error of latents, relative to that of the Gaussian prior."""

    kind = "denoiser"
    changes = ("denoiser",)

    learning_rate: float = 1.5e-3
    frames: int = 640

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        autoencoder, step_scales, mel = draft.require("autoencoder"), draft.require("step_scales"), draft.mel
        if draft.denoiser is None:
            draft.new("denoiser", latent_channels=autoencoder.latent_channels, levels=LEVELS)
            new = draft.require("denoiser")
            new.mean, new.deviation = measure_prior(draft, new.levels, job.cache)
        denoiser = draft.require("denoiser").requires_grad_(True)
        sigmas, windows = noise_levels(), self.windows(job, mel)
        trainer = self.trainer(job, True in windows)

        def loss(step: int, held_out: bool) -> tuple[Tensor, dict[str, Tensor]]:
            rng = np.random.default_rng([self.seed, step, 2])
            level = rng.integers(denoiser.levels, size=self.batch_size)
            level[rng.random(self.batch_size) < NO_BASE_SHARE] = -1
            farthest = np.where(level < 0, MAX_SIGMA, MAX_NOISE_STEPS * step_size(level))
            sigma = sigmas[torch.from_numpy(rng.integers(np.searchsorted(sigmas, farthest).clip(1)))]
            with torch.no_grad():
                waves = windows[held_out].batch(step, self.batch_size)
                latents = autoencoder.encode(mel.from_magnitudes(mel.spectrum(waves).abs()))
                base, based = latents.clone(), level >= 0
                if based.any():
                    base[based] = simulate_quantization(draft.predictor, step_scales, latents[based], level[based])
            with trainer.autocast():
                error, expected = errors(denoiser, latents, sigma, base, torch.from_numpy(level))
            error, alone = error / expected, torch.from_numpy(level < 0)
            means = {"without_base": error[alone].mean(), "with_base": error[~alone].mean()}
            return error.mean(), {name: mean.nan_to_num() for name, mean in means.items()}

        trainer.fit(denoiser, loss)
        return {**trainer.held_out_losses, **evaluate(draft, job.cache, job.log.say)}
