"""Linear magnitudes from decoded log-mels, for Griffin-Lim: the network of a model folder's `vocoder/`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dsp.mel import LogMel
from ..settings import Ranges
from .layers import EMBEDDING, Configured, LevelEmbedding, ResidualBlock

STRIDE = 2  # frames per step of the convolutions
MAX_LOG_MAGNITUDE = 7.0  # nats; a magnitude of a normalised clip reaches about 4.9


class MagnitudeNet(Configured):
    """Log-mel [B, T, n_mels] and the quantiser's step -> log-magnitudes [B, T, n_fft // 2 + 1].

    Convolutions correct what the pseudo-inverse of the mel bands gives, which loses harmonics above 1 kHz and
    ignores quantisation. The correction starts at zero. What counts is the shape within the mel bands;
    their levels are then made those of the log-mel (`LogMel.magnitudes`).

    Args:
        mel: the front-end.
        width: channels.
        blocks: residual blocks; each sees `STRIDE` frames more to either side.
    """

    ranges: ClassVar[Ranges] = dict(width=(1, 8192), blocks=(0, 64))

    def __init__(self, mel: LogMel, width: int = 512, blocks: int = 3):
        super().__init__()
        self.config: dict[str, Any] = dict(width=width, blocks=blocks)
        self.mel = mel
        self.bins = mel.n_fft // 2 + 1
        self.level = LevelEmbedding()
        self.input = nn.Linear(STRIDE * mel.n_mels, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, EMBEDDING) for _ in range(blocks))
        self.output = nn.Linear(width, STRIDE * self.bins)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, mel: Tensor, step: Tensor) -> Tensor:
        """T is a multiple of STRIDE; step is [B]."""
        batch, frames, bands = mel.shape
        condition = self.level(step)
        h = self.input((mel.reshape(batch, frames // STRIDE, STRIDE * bands) + 5) / 3).transpose(1, 2)
        for block in self.blocks:
            h = block(h, condition)
        correction = self.output(F.gelu(h).transpose(1, 2)).float().reshape(batch, frames, self.bins)
        with torch.autocast(mel.device.type, enabled=False):
            rough = self.mel.pseudo_inverse(mel).log()
        return (rough + correction).clamp(max=MAX_LOG_MAGNITUDE)
