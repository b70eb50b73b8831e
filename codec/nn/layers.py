"""Building blocks that the networks share."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..levels import TRAINED_LEVELS, step_size
from ..settings import Ranges

EMBEDDING = 64  # channels of a quality level's embedding


class Configured(nn.Module):
    """A network of a model folder, made from numbers in a JSON file.

    Attributes:
        ranges: of these numbers.
    """

    ranges: ClassVar[Ranges]


class LevelEmbedding(nn.Sequential):
    """Step sizes of the quantiser [B] -> embedding [B, EMBEDDING]: how much of what follows is noise."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, EMBEDDING), nn.GELU(), nn.Linear(EMBEDDING, EMBEDDING), nn.GELU())

    def forward(self, step: Tensor) -> Tensor:
        log_step = step.clamp(min=step_size(TRAINED_LEVELS - 1)).log()[:, None]
        return super().forward(torch.cat([log_step, log_step**2 / 2], 1))


class ResidualBlock(nn.Module):
    """x + W2 gelu(W1 * x), optionally scaled and shifted by a condition vector (FiLM)."""

    def __init__(self, channels: int, condition: int = 0):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)
        self.out = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.film = nn.Linear(condition, 2 * channels) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        if self.film is not None:
            scale, shift = self.film(condition)[..., None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return x + self.out(F.gelu(h))
