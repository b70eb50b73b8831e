"""The Karhunen-Loeve transform of log-mel patches: the linear part of the autoencoder. No gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...dsp.mel import LogMel
from ...levels import LEVELS
from ...nn.weights import round_to_stored
from ..data.audio_cache import AudioCache
from ..draft import Draft
from .base import HoursStage, Job

PATCH, CHANNELS = 16, 640  # unless the recipe says otherwise: frames of 10 ms in a latent vector, latent channels
HELD_OUT_HOURS = 0.1


def fit_klt(cache: AudioCache, mel: LogMel, patch: int, channels: int, hours: float = 2.8) -> dict[str, torch.Tensor]:
    """Mean, leading eigenvectors and standard deviations of patches, as `Autoencoder`'s buffers.

    Raises:
        ValueError: more channels than a patch has numbers, or no clip that is long enough.
    """
    size = patch * mel.n_mels
    if channels > size:
        raise ValueError(f"at most {size} latent channels with {mel.n_mels} bands, not {channels}")
    total, first, second = 0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for wave in cache.packets(patch * mel.hop_length, False, round(hours * 3600 * mel.sample_rate)):
        patches = mel(wave[None]).reshape(-1, size)
        total += len(patches)
        first += patches.sum(0, dtype=torch.float64)
        second += (patches.T @ patches).double()
    if not total:
        raise ValueError(f"no clip of at least {4 * patch * mel.hop_length / mel.sample_rate:g} s to fit on")
    mean = first / total
    variance, vectors = torch.linalg.eigh(second / total - mean[:, None] * mean)
    order = torch.arange(size - 1, size - channels - 1, -1)  # eigh sorts upwards
    return dict(
        mean=mean.float(),
        basis=vectors[:, order].T.float().contiguous(),
        scale=variance[order].clamp(min=4.0).sqrt().float(),
    )


@dataclass(frozen=True, kw_only=True)
class Klt(HoursStage):
    """A new autoencoder that starts as the KLT of the audio, with all step scales 1."""

    kind = "klt"
    changes = ("autoencoder", "step_scales")

    hours: float = 2.8

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        sizes = {"patch": PATCH, "latent_channels": CHANNELS, **draft.sizes.get("autoencoder", {})}
        klt = fit_klt(job.cache, draft.mel, sizes["patch"], sizes["latent_channels"], self.hours)
        draft.new("autoencoder", n_mels=draft.mel.n_mels, **sizes)
        autoencoder = draft.require("autoencoder")
        autoencoder.load_state_dict(klt, strict=False)
        round_to_stored(autoencoder.eval().requires_grad_(False))
        draft.step_scales = np.ones((LEVELS, autoencoder.latent_channels), np.float32)
        errors = []
        limit = round(HELD_OUT_HOURS * 3600 * draft.mel.sample_rate)
        for wave in job.cache.packets(autoencoder.patch * draft.mel.hop_length, True, limit):
            frames = draft.mel(wave[None])
            errors.append((autoencoder.decode(autoencoder.encode(frames), torch.ones(1)) - frames).square().mean())
        return {"squared_error": torch.stack(errors).mean().item()} if errors else {}
