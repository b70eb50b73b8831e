"""The autoencoder, trained from the KLT on for rate and distortion at all quality levels together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...levels import TRAINED_LEVELS, step_size
from ...nn.autoencoder import Autoencoder
from ...nn.weights import round_to_stored
from ..draft import Draft
from ..losses.rate import RateModel
from ..losses.spectral import distortion, level_offset
from .base import Job, TrainingStage


def rate_distortion(
    model: Autoencoder, rate: RateModel, mel: Tensor, level: Tensor, offset: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Bits per latent vector [B], weighted error per patch [B], and the loss.

    The multiplier of the error is that of a uniform quantiser at high rate, d bits / d error = 6 / (ln 2 step^2),
    so that the step sizes keep their meaning whatever the network learns.

    Args:
        mel: log-mels [B, T, n_mels].
        level: quality levels [B].
        offset: see `level_offset`.
    """
    step = step_size(level)
    latents = model.encode(mel)
    grid = step[:, None, None] * rate.gain[level].exp()[:, :, None]
    scaled = latents / grid
    rounded = scaled + (scaled.round() - scaled).detach()
    noisy = scaled + torch.rand_like(scaled) - 0.5
    bits = rate(noisy, rounded, level).sum(1).mean(1)
    decoded = model.decode(rounded * grid, step)
    error = distortion(decoded - offset, mel - offset).mean((1, 2)) * model.mean.numel()
    loss = (step**0.7 / 100 * (bits + 6 / math.log(2) / step**2 * error)).mean()
    return bits, error, loss


@dataclass(frozen=True, kw_only=True)
class TrainAutoencoder(TrainingStage):
    """Encoder, decoder and step scales, by bits and weighted error of log-mels.

    Attributes:
        hold: steps in which only the model of the rate learns, because the autoencoder has learned already.
    """

    kind = "autoencoder"
    changes = ("autoencoder", "step_scales")

    learning_rate: float = 1.5e-3
    hold: int = 0

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        model, step_scales = draft.require("autoencoder"), torch.from_numpy(draft.require("step_scales").copy())
        if not model.width:
            raise ValueError("the autoencoder has width 0: it is the KLT alone, which does not learn")
        rate = RateModel(model.scale)
        rate.gain.data = step_scales[:TRAINED_LEVELS].log()
        found = self.train(model, rate, draft, job)
        step_scales[:TRAINED_LEVELS] = rate.gain.detach().exp()
        step_scales[TRAINED_LEVELS:] = step_scales[TRAINED_LEVELS - 1]
        draft.step_scales = step_scales.half().float().numpy()
        round_to_stored(model)
        return found

    def train(self, model: Autoencoder, rate: RateModel, draft: Draft, job: Job) -> dict[str, float]:
        """Train both in place; returns held-out losses."""
        mel, windows = draft.mel, self.windows(job, draft.mel)
        offset, trainer = level_offset(mel), self.trainer(job, True in windows)

        def loss(step: int, held_out: bool) -> tuple[Tensor, dict[str, Tensor]]:
            model.requires_grad_(step >= self.hold)
            frames = mel.from_magnitudes(mel.spectrum(windows[held_out].batch(step, self.batch_size)).abs())
            level = torch.randint(TRAINED_LEVELS, (self.batch_size,))
            with trainer.autocast():
                bits, error, total = rate_distortion(model, rate, frames, level, offset)
            return total, {"bits": bits.mean(), "error": error.mean()}

        trainer.fit(nn.ModuleList([model, rate]), loss)
        return trainer.held_out_losses
