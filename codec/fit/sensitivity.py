"""Steps of latent channels by how much their errors are heard, for what the training's squared error does not know."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..dsp.mel import LogMel
from ..levels import step_size
from ..nn.autoencoder import Autoencoder
from ..quantization.scalar import dead_zone
from .dataset import AudioCache
from .perception import texture_error

CLIPS = 300
LEVELS = (24, 32)  # 1 and 2 to 3 kbit/s
EXPONENT = 0.25  # 1/2 would be best for textures alone, 0 for the squared error
TOP, BANDS, LOWEST = 24000.0, 32, 50.0  # Hz; ViSQOL's bank for audio
SMOOTH = 7  # frames of a Hann window: ViSQOL's windows are 80 ms


def auditory_bands(mel: LogMel, log_mel: Tensor) -> Tensor:
    """Log-mels [B, T, n_mels] -> powers in auditory bands every 20 ms, [B, bands, T / 2].

    Squared gains of gammatone filters of order 4 (Slaney, 1993; ViSQOL's spacing) at the bands' middle frequencies.
    """
    hz = torch.linspace(0, mel.sample_rate / 2, mel.n_fft // 2 + 1)
    middle, width = (mel.basis @ hz) / mel.basis.sum(1), 1 / mel.basis.amax(1)
    corner = 9.26449 * 24.7
    steps = torch.arange(1, BANDS + 1) / BANDS * math.log((LOWEST + corner) / (TOP + corner))
    centre = (TOP + corner) * torch.exp(steps) - corner
    centre = centre[centre < 1.1 * mel.fmax].flip(0)
    bandwidth = 1.019 * 24.7 * (4.37 * centre / 1000 + 1)
    gains = (1 + ((middle - centre[:, None]) / bandwidth[:, None]) ** 2) ** -4 * width
    power = torch.exp(2 * log_mel) @ (gains / gains.sum(1, keepdim=True)).T
    window = torch.hann_window(SMOOTH + 2, periodic=False)[1:-1]
    batch, frames, bands = power.shape
    smooth = F.conv1d(power.transpose(1, 2).reshape(-1, 1, frames), (window / window.sum())[None, None], stride=2)
    return smooth.view(batch, bands, -1)


def channel_gains(model: Autoencoder, mel: LogMel, cache: AudioCache, gains: np.ndarray) -> np.ndarray:
    """Factors [C] for the steps of the channels, about 1 for the first hundred.

    The texture error of decoded clips, as its quantiser leaves them, is differentiated by the amount of error in each
    channel: what a squared error costs there. The best step goes with its inverse square root; `EXPONENT` says how far.

    Args:
        gains: [levels, C] of the steps.
    """
    slope, error = (torch.zeros(len(LEVELS), model.latent_channels) for _ in range(2))
    size = model.patch * mel.hop_length
    for wave in itertools.islice(cache.packets(size, False, len(cache.audio)), CLIPS):
        with torch.no_grad():
            frames = mel(wave[None])
            latents, exact = model.encode(frames), auditory_bands(mel, frames)
        for i, level in enumerate(LEVELS):
            step = float(step_size(level))
            grid = torch.from_numpy(gains[level] * step)[:, None]
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
