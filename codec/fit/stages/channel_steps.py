"""Step scales of latent channels by the audibility of their errors, which the squared error of training ignores."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from ...dsp.mel import LogMel
from ...levels import step_size
from ...nn.autoencoder import Autoencoder
from ...quantization.rdo import dead_zone
from ..data.audio_cache import AudioCache
from ..draft import Draft
from ..losses.auditory_bands import auditory_bands
from ..losses.hearing import texture_error
from .base import Job, Stage
from .grow import reweigh

CLIPS, HELD_OUT_CLIPS = 300, 30
LEVELS = (24, 32)  # 1 and 2 to 3 kbit/s
EXPONENT = 0.25  # 1/2 would be best for textures alone, 0 for the squared error


def channel_step_factors(
    model: Autoencoder, mel: LogMel, cache: AudioCache, step_scales: np.ndarray, clips: int = CLIPS
) -> np.ndarray:
    """Factors [C] for the steps of the channels, about 1 for the first hundred.

    The texture error of decoded clips, as its quantiser leaves them, is differentiated by the amount of error in each
    channel: what a squared error costs there. The best step goes with its inverse square root; `EXPONENT` says how far.

    Args:
        step_scales: [levels, C].
    """
    slope, error = (torch.zeros(len(LEVELS), model.latent_channels) for _ in range(2))
    size = model.patch * mel.hop_length
    for wave in itertools.islice(cache.packets(size, False, len(cache.audio)), clips):
        with torch.no_grad():
            frames = mel(wave[None])
            latents, exact = model.encode(frames), auditory_bands(mel, frames)
        for i, level in enumerate(LEVELS):
            step = float(step_size(level))
            grid = torch.from_numpy(step_scales[level] * step)[:, None]
            wrong = dead_zone(latents / grid) * grid - latents
            amount = torch.ones(model.latent_channels, requires_grad=True)
            decoded = model.decode(latents + wrong * amount[:, None], torch.tensor([step]))
            (texture_error(exact, auditory_bands(mel, decoded)).sum() * len(wave)).backward()
            assert amount.grad is not None
            slope[i] += amount.grad
            error[i] += wrong[0].square().mean(1) * len(wave)
    weight = slope.clamp(min=0) / error.clamp(min=1e-9)
    weight = (weight / weight[:, :64].mean(1, keepdim=True)).mean(0).clamp(min=0.05)
    factors = weight**-EXPONENT
    return (factors / factors[:100].log().mean().exp()).numpy()


@torch.no_grad()
def texture(model: Autoencoder, mel: LogMel, cache: AudioCache, step_scales: np.ndarray) -> dict[str, float]:
    """Mean texture error of held-out clips as a quantiser with these step scales leaves them."""
    errors = []
    waves = cache.packets(model.patch * mel.hop_length, True, len(cache.audio))
    for wave in itertools.islice(waves, HELD_OUT_CLIPS):
        frames = mel(wave[None])
        latents, exact = model.encode(frames), auditory_bands(mel, frames)
        for level in LEVELS:
            step = float(step_size(level))
            grid = torch.from_numpy(step_scales[level] * step)[:, None]
            decoded = model.decode(dead_zone(latents / grid) * grid, torch.tensor([step]))
            errors.append(texture_error(exact, auditory_bands(mel, decoded)))
    return {"texture": torch.cat(errors).mean().item()} if errors else {}


@dataclass(frozen=True, kw_only=True)
class ChannelSteps(Stage):
    """Finer steps for channels whose errors are heard.

    Attributes:
        weighed_channels: the first channels, whose steps were made so before; they get the square root this time.
            Default: none.
    """

    kind = "channel_steps"
    changes = ("step_scales",)

    weighed_channels: int = 0

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        autoencoder, step_scales = draft.require("autoencoder"), draft.require("step_scales")
        factors = channel_step_factors(autoencoder, draft.mel, job.cache, step_scales)
        if self.weighed_channels:
            factors = reweigh(factors, self.weighed_channels)
        job.log.say(f"{self.name}: steps of the last channels times {factors[-32:].mean():.2f}")
        draft.step_scales = (step_scales * factors).astype(np.float16).astype(np.float32)
        return texture(autoencoder, draft.mel, job.cache, draft.step_scales)
