"""Powers in auditory bands from log-mels, as ViSQOL's filters would see them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...dsp.mel import LogMel

MAX_HZ, BANDS, MIN_HZ = 24000.0, 32, 50.0  # Hz; ViSQOL's bank for audio
SMOOTH = 7  # frames of a Hann window: ViSQOL's windows are 80 ms


def auditory_bands(mel: LogMel, log_mel: Tensor) -> Tensor:
    """Log-mels [B, T, n_mels] -> powers in auditory bands every 20 ms, [B, bands, T / 2].

    Squared gains of gammatone filters of order 4 (Slaney, 1993; ViSQOL's spacing) at the bands' middle frequencies.
    """
    hz = torch.linspace(0, mel.sample_rate / 2, mel.n_fft // 2 + 1)
    middle, width = (mel.basis @ hz) / mel.basis.sum(1), 1 / mel.basis.amax(1)
    corner = 9.26449 * 24.7
    steps = torch.arange(1, BANDS + 1) / BANDS * math.log((MIN_HZ + corner) / (MAX_HZ + corner))
    centre = (MAX_HZ + corner) * torch.exp(steps) - corner
    centre = centre[centre < 1.1 * mel.fmax].flip(0)
    bandwidth = 1.019 * 24.7 * (4.37 * centre / 1000 + 1)
    gains = (1 + ((middle - centre[:, None]) / bandwidth[:, None]) ** 2) ** -4 * width
    power = torch.exp(2 * log_mel) @ (gains / gains.sum(1, keepdim=True)).T
    window = torch.hann_window(SMOOTH + 2, periodic=False)[1:-1]
    batch, frames, bands = power.shape
    smooth = F.conv1d(power.transpose(1, 2).reshape(-1, 1, frames), (window / window.sum())[None, None], stride=2)
    return smooth.view(batch, bands, -1)
