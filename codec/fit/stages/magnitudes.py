"""Magnitude network and the autoencoder's decoder, trained on quantised log-mels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...dsp.loudness import audible_energy
from ...levels import step_size
from ...stages import MAX_LOG_MEL
from ..draft import Draft
from ..losses.auditory_bands import auditory_bands
from ..losses.hearing import texture_error
from ..losses.spectral import level_offset, shape_error, weighted_error
from ..quantization import simulate_quantization
from .base import Job, TrainingStage

LEARNERS = ("decoder", "magnitude_net")


@dataclass(frozen=True, kw_only=True)
class TrainMagnitudes(TrainingStage):
    """The magnitude network, a new one if there is none, and the autoencoder's decoder. All else stays as it is.

    Attributes:
        train: which of both learn.
        losses: bins: log-magnitudes within mel bands; mel: log-mels; energy: the level of the whole (a weight of 0.1
            distorts what is loud, and lowered STOI); texture: like ViSQOL's similarity.
    """

    kind = "magnitudes"
    changes = ("autoencoder", "magnitude_net")
    default_losses: ClassVar[dict[str, float]] = dict(bins=1.0, mel=1.0, energy=0.02, texture=1.5)

    train: tuple[str, ...] = LEARNERS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train or set(self.train) - set(LEARNERS):
            raise ValueError(f"train must name some of {', '.join(LEARNERS)}, not {', '.join(self.train) or 'nothing'}")

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        mel, autoencoder, step_scales = draft.mel, draft.require("autoencoder"), draft.require("step_scales")
        if draft.magnitude_net is None:
            draft.new("magnitude_net")
        net = draft.require("magnitude_net")
        for name, parameter in autoencoder.named_parameters():
            parameter.requires_grad_("decoder" in self.train and name.startswith(("decoder", "level")))
        net.requires_grad_("magnitude_net" in self.train)
        windows, weights, offset = self.windows(job, mel), self.weights, level_offset(mel)
        trainer = self.trainer(job, True in windows)

        def loss(step: int, held_out: bool) -> tuple[Tensor, dict[str, Tensor]]:
            with torch.no_grad():
                exact = mel.spectrum(windows[held_out].batch(step, self.batch_size)).abs()
                frames = mel.from_magnitudes(exact)
                loud = audible_energy(exact)
                levels = np.random.default_rng([self.seed, step, 1]).integers(len(step_scales), size=self.batch_size)
                latents = simulate_quantization(draft.predictor, step_scales, autoencoder.encode(frames), levels)
                size = torch.from_numpy(step_size(levels).astype(np.float32))
            with trainer.autocast():
                decoded = autoencoder.decode(latents, size)
                estimate = net(decoded.clamp(max=MAX_LOG_MEL), size)
            found = {"bins": shape_error(mel, exact, estimate)}
            found["mel"] = weighted_error(decoded, frames, frames - offset, 0.5)
            # the median of levels has too little energy; the loudest bands compensate at the least cost
            magnitudes = mel.magnitudes(decoded.clamp(max=MAX_LOG_MEL), 1, estimate.exp())
            found["energy"] = (audible_energy(magnitudes) / loud).log().abs().mean()
            bands = (auditory_bands(mel, m) for m in (frames, decoded.clamp(max=MAX_LOG_MEL)))
            found["texture"] = texture_error(*bands).mean()
            return torch.stack([weights[name] * value for name, value in found.items()]).sum(), found

        trainer.fit(nn.ModuleList([autoencoder, net]), loss)
        return trainer.held_out_losses
