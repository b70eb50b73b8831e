"""Prediction of a latent vector from the decoded ones before it; only the difference is coded."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..settings import Ranges
from .layers import EMBEDDING, Configured, LevelEmbedding


class Predictor(Configured):
    """Predicts a latent vector from the decoded vectors before it, because sustained tones and steady noise repeat.

    The prediction is the last vector, each channel times a factor, plus the output of a network of residual blocks.

    Args:
        latent_channels: C, of the autoencoder.
        history: K, number of vectors before.
        width: of the network.
        blocks: residual blocks.
    """

    ranges: ClassVar[Ranges] = dict(latent_channels=(1, 8192), history=(1, 16), width=(1, 8192), blocks=(0, 64))
    scale: Tensor

    def __init__(self, latent_channels: int = 384, history: int = 2, width: int = 384, blocks: int = 2):
        super().__init__()
        self.config: dict[str, Any] = dict(latent_channels=latent_channels, history=history, width=width, blocks=blocks)
        self.history, self.width = history, width
        self.register_buffer("scale", torch.ones(latent_channels))  # latents are divided by it for the network
        self.direct = nn.Parameter(torch.full((latent_channels,), 0.5))
        self.level = LevelEmbedding()
        self.inlet = nn.Linear(history * (latent_channels + 1), width)
        self.film = nn.ModuleList(nn.Linear(EMBEDDING, 2 * width) for _ in range(blocks))
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.outer = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.outlet = nn.Linear(width, latent_channels)
        for last in (*self.outer, self.outlet):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, past: Tensor, known: Tensor, step: Tensor) -> Tensor:
        """[B, C].

        Args:
            past: [B, K, C] decoded latents, the latest one last; zeros where there is none.
            known: [B, K], 1, or 0 where there is none.
            step: [B], the quantiser's step size, which tells how much of the latents is noise.
        """
        x = self.inlet(torch.cat([(past / self.scale).flatten(1), known], 1))
        for (factor, shift), inner, outer in zip(self._conditions(step), self.inner, self.outer, strict=True):
            x = x + outer(F.gelu(inner(F.layer_norm(x, (self.width,)) * factor + shift)))
        return self.direct * past[:, -1] + self.scale * self.outlet(F.gelu(x)).float()

    def _conditions(self, step: Tensor) -> list[tuple[Tensor, ...]]:
        """Factor and shift [B, width] for every block."""
        condition = self.level(step)
        return [(1 + film(condition)).chunk(2, 1) for film in self.film]

    @torch.inference_mode()
    def predict(self, latents: Tensor, step: Tensor) -> Tensor:
        """Prediction of every vector of sequences [B, N, C] from those before it: [B, N, C]."""
        past, known = self.windows(latents)
        return self(past, known, step.repeat_interleave(latents.shape[1])).view(latents.shape)

    def predictions(self, step: float) -> Generator[np.ndarray, np.ndarray, None]:
        """Coroutine: yields the prediction of a vector [C], receives the decoded vector, and so on.

        `forward` for one vector, in as few operations as there can be, because each costs more than its arithmetic.
        """
        weights = {name: value.detach() for name, value in self.state_dict().items()}
        size, width = len(self.scale), (self.width,)
        with torch.inference_mode():
            conditions = [(factor[0], shift[0]) for factor, shift in self._conditions(torch.tensor([step]))]
            inlet, know = weights["inlet.weight"].split([self.history * size, self.history], 1)
            inlet = (inlet / self.scale.repeat(self.history)).contiguous()
            biases = [know[:, self.history - n :].sum(1) + weights["inlet.bias"] for n in range(self.history + 1)]
            outlet, direct = weights["outlet.weight"] * self.scale[:, None], weights["direct"]
            past, known = torch.zeros(self.history * size), 0
        while True:
            with torch.inference_mode():
                x = torch.addmv(biases[known], inlet, past)
                for n, condition in enumerate(conditions):
                    h = F.layer_norm(x, width, *condition)
                    h = F.gelu(torch.addmv(weights[f"inner.{n}.bias"], weights[f"inner.{n}.weight"], h))
                    x = torch.addmv(x + weights[f"outer.{n}.bias"], weights[f"outer.{n}.weight"], h)
                found = torch.addmv(self.scale * weights["outlet.bias"], outlet, F.gelu(x))
                expected = found.addcmul_(direct, past[-size:]).numpy()
            decoded = torch.from_numpy((yield expected))
            past, known = torch.cat([past[size:], decoded]), min(known + 1, self.history)

    def windows(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of `forward` for all vectors of sequences [B, N, C]: `past` [B * N, K, C] and `known` [B * N, K]."""
        batch, count, channels = latents.shape
        before = F.pad(latents, (0, 0, self.history, 0))[:, :-1]
        past = before.unfold(1, self.history, 1).transpose(2, 3).reshape(-1, self.history, channels)
        known = (torch.arange(count)[:, None] + torch.arange(self.history) >= self.history).float()
        return past, known.repeat(batch, 1)
