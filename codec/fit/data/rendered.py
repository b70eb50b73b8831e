"""Training examples for the corrector: Griffin-Lim's output for quantised log-mels."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...dsp.loudness import audible_energy
from ...levels import step_size
from ...stages import MAX_LOG_MEL
from ...vocoders.griffin_lim import griffin_lim
from ..draft import Draft
from ..quantization import simulate_quantization
from .windows import Windows

GROUP = 8  # examples that are made together
GROUPS = 32  # that examples are drawn from: each is seen as often as a batch is larger than one example

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass
class Examples:
    """Waveforms of Griffin-Lim and originals [B, N], `pad` samples on either side; decoded log-mels; step sizes [B]."""

    rendered: Tensor
    original: Tensor
    mel: Tensor
    step: Tensor

    def take(self, picks: np.ndarray) -> Examples:
        return Examples(*(v[picks] for v in (self.rendered, self.original, self.mel, self.step)))

    @classmethod
    def join(cls, parts: list[Examples]) -> Examples:
        return cls(*(torch.cat([getattr(p, f) for p in parts]) for f in ("rendered", "original", "mel", "step")))


def target_magnitudes(
    draft: Draft, decoded: Tensor, step: Tensor, autocast: Autocast = contextlib.nullcontext
) -> tuple[Tensor | None, Tensor]:
    """Log-mels as decoded, step sizes [B] -> the magnitude network's output, and the magnitudes for Griffin-Lim."""
    if draft.magnitude_net is None:
        return None, draft.mel.magnitudes(decoded)
    with autocast():
        estimate = draft.magnitude_net(decoded, step)
    return estimate, draft.mel.magnitudes(decoded, 3, estimate.exp())


@torch.no_grad()
def make_examples(
    draft: Draft, wave: Tensor, rng: np.random.Generator, autocast: Autocast = contextlib.nullcontext
) -> Examples:
    """Examples from waveforms [B, N] at random qualities, fine ones more often than coarse."""
    mel, autoencoder, step_scales = draft.mel, draft.require("autoencoder"), draft.require("step_scales")
    latents = autoencoder.encode(mel.from_magnitudes(mel.spectrum(wave).abs()))
    levels = rng.integers(len(step_scales), size=(2, len(wave))).max(0)
    step = torch.from_numpy(step_size(levels).astype(np.float32))
    latents = simulate_quantization(draft.predictor, step_scales, latents, levels)
    decoded = autoencoder.decode(latents, step).clamp(max=MAX_LOG_MEL)
    _, target = target_magnitudes(draft, decoded, step, autocast)
    found = griffin_lim(target, mel)
    gain = (audible_energy(target) / audible_energy(mel.spectrum(found).abs())).clamp(0.25, 4).sqrt()
    return Examples(found * gain[:, None], wave, decoded, step)


class ExamplePool:
    """Batches from a pool of examples that is renewed slowly, because making them takes longer than a step."""

    def __init__(self, draft: Draft, windows: Windows, seed: int, autocast: Autocast):
        self.draft, self.windows, self.seed, self.autocast = draft, windows, seed, autocast
        self._groups: OrderedDict[int, Examples] = OrderedDict()

    def fresh(self, number: int) -> Examples:
        """GROUP examples that are a function of seed and number."""
        rng = np.random.default_rng([self.seed, number, 1])
        return make_examples(self.draft, self.windows.batch(number, GROUP), rng, self.autocast)

    def _group(self, number: int) -> Examples:
        if number not in self._groups:
            self._groups[number] = self.fresh(number)
            if len(self._groups) > GROUPS:
                self._groups.popitem(last=False)
        return self._groups[number]

    def batch(self, step: int, size: int) -> Examples:
        """Of the newest groups; one group more every GROUP steps."""
        newest = step // GROUP
        rng = np.random.default_rng([self.seed, step, 2])
        pool = [self._group(g) for g in range(max(0, newest - GROUPS + 1), newest + 1)]
        picks = rng.choice(len(pool) * GROUP, size, replace=False)
        return Examples.join([pool[p // GROUP].take(np.array([p % GROUP])) for p in picks])
