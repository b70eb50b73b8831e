"""The vector codebook: k-means on latents, with soft assignment first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...levels import TRAINED_LEVELS
from ...quantization.vector import CODES, SIZE, VectorCodebook, channel_groups
from ..data.audio_cache import encode_clips
from ..draft import Draft
from .base import HoursStage, Job
from .denoiser import measure_prior

SOFT, HARD = 20, 10  # rounds
BATCH = 8192
HELD_OUT_HOURS = 0.1


def fit_codes(samples: Tensor, seed: int) -> Tensor:
    """Codes [CODES, SIZE] for samples [n, SIZE].

    Rounds of expectation and maximisation: the assignment is a softmax over squared distances whose temperature
    falls (deterministic annealing, Rose, Proc. IEEE 1998), and in the end the nearest code. A code that nothing is
    assigned to starts anew at a sample.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples), generator=generator)
    codes = samples[order.repeat(-(-CODES // len(order)))[:CODES]].clone()  # twice, if there are too few
    distance = torch.cdist(samples[:BATCH], codes).square().min(1).values.mean()  # typical, between neighbours
    for step in range(SOFT + HARD):
        sums, weights = torch.zeros(CODES, SIZE), torch.zeros(CODES)
        for batch in samples.split(BATCH):
            apart = torch.cdist(batch, codes).square()
            if step < SOFT:
                share = torch.softmax(-apart / (distance * 2.0 ** -(step / 4)), 1)
            else:
                share = torch.nn.functional.one_hot(apart.argmin(1), CODES).float()
            sums += share.T @ batch
            weights += share.sum(0)
        empty = weights < 1e-3
        codes = sums / weights.clamp(min=1e-3)[:, None]
        if empty.any():
            codes[empty] = samples[torch.randint(len(samples), (int(empty.sum()),), generator=generator)]
    return codes


def squared_error(codebook: VectorCodebook, latents: np.ndarray) -> float:
    """Of latents [C, N] as tokens, per vector."""
    return float(np.square(codebook.dequantize(codebook.quantize(latents), len(latents)) - latents).mean(1).sum())


def fit_vector_codebook(
    latents: list[np.ndarray], deviation: Tensor, groups: int, progress: Callable[[str], None]
) -> VectorCodebook:
    """Fit to latents.

    Args:
        latents: [C, N] per clip; many times CODES vectors in all, or the codebook is of little use.
        deviation: [levels, C], of the scalar codebook's error at each level.
        groups: tokens per latent vector; with C channels at most C / SIZE.
    """
    joined = np.concatenate(latents, 1)
    codes = []
    for number, channels in enumerate(channel_groups(groups)):
        codes.append(fit_codes(torch.from_numpy(joined[channels].T.copy()), number).half().float().numpy())
    codebook = VectorCodebook(np.stack(codes), 0)
    some = joined[:, :: max(1, joined.shape[1] // 5000)]
    error = squared_error(codebook, some)
    codebook.level = int(np.abs(np.log(deviation.square().sum(1).numpy()) - np.log(error)).argmin())
    progress(f"vector codebook: error {error:.1f} per latent vector, like level {codebook.level}")
    return codebook


@dataclass(frozen=True, kw_only=True)
class FitTokens(HoursStage):
    """The vector codebook.

    Attributes:
        tokens: per latent vector.
    """

    kind = "tokens"
    changes = ("vector_codebook",)

    tokens: int = 16

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        autoencoder = draft.require("autoencoder")
        if not 0 < self.tokens * SIZE <= autoencoder.latent_channels:
            raise ValueError(f"tokens must be 1 to {autoencoder.latent_channels // SIZE}, not {self.tokens}")
        denoiser = draft.denoiser
        deviation = denoiser.deviation if denoiser else measure_prior(draft, TRAINED_LEVELS, job.cache)[1]
        latents = encode_clips(autoencoder, draft.mel, job.cache, self.hours)
        draft.vector_codebook = fit_vector_codebook(latents, deviation[:-1], self.tokens, job.log.say)
        held_out = encode_clips(autoencoder, draft.mel, job.cache, HELD_OUT_HOURS, held_out=True)
        return {"squared_error": squared_error(draft.vector_codebook, np.concatenate(held_out, 1))} if held_out else {}
