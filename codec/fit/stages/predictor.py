"""The predictor of latent vectors, trained on quantised latents: at the decoder it is in the loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...levels import step_size
from ...nn.predictor import Predictor
from ...nn.weights import round_to_stored
from ..data.audio_cache import encode_clips
from ..draft import Draft
from ..quantization import quantize_in_loop
from ..trainer import Trainer
from .base import Job, TrainingStage

LENGTH = 16  # vectors of an example
MIN_SCALE = 2.0  # of latents, for the network
RESOLUTION = 0.4  # steps; a smaller prediction error saves nothing
HELD_OUT_HOURS = 0.3


def scale_predictor(predictor: Predictor, latents: list[np.ndarray]) -> None:
    """Set the scale of a new predictor's inputs from latents [C, N]."""
    deviation = np.sqrt(np.mean([np.square(z).mean(1) for z in latents], 0))
    predictor.scale = torch.from_numpy(np.maximum(MIN_SCALE, deviation).astype(np.float32))


class Sequences:
    """Random stretches of LENGTH vectors of latents [C, N] of clips."""

    def __init__(self, latents: list[np.ndarray], seed: int):
        self.latents, self.seed = [z for z in latents if z.shape[1] >= LENGTH], seed
        if not self.latents:
            raise ValueError(f"no clip of at least {LENGTH} latent vectors to fit on")
        self.ends = np.cumsum([z.shape[1] for z in self.latents])

    def batch(self, step: int, size: int, levels: int) -> tuple[Tensor, Tensor]:
        """Latents [size, LENGTH, C] and quality levels [size]; a function of seed and step."""
        random = np.random.default_rng([self.seed, step])
        clips = np.searchsorted(self.ends, random.integers(self.ends[-1], size=size), "right")
        chosen = [self.latents[i] for i in clips]
        starts = [random.integers(z.shape[1] - LENGTH + 1) for z in chosen]
        parts = [z[:, s : s + LENGTH].T for z, s in zip(chosen, starts, strict=True)]
        return torch.from_numpy(np.stack(parts)), torch.from_numpy(random.integers(levels, size=size))


def train(predictor: Predictor, sequences: dict[bool, Sequences], step_scales: np.ndarray, trainer: Trainer) -> None:
    """Train in place, for few bits at all quality levels.

    Args:
        sequences: for training (False), and perhaps held out (True).
        step_scales: [levels, C] of the codebook.
    """
    grids = torch.from_numpy(step_scales) * step_size(torch.arange(len(step_scales)))[:, None]
    predictor.requires_grad_(True)

    def loss(step: int, held_out: bool) -> tuple[Tensor, dict[str, Tensor]]:
        target, level = sequences[held_out].batch(step, trainer.batch_size, len(step_scales))
        size, grid = step_size(level).float(), grids[level].float()
        with trainer.autocast():
            before = quantize_in_loop(predictor, target, size, grid)
            expected = predictor(*predictor.windows(before), size.repeat_interleave(LENGTH)).view(target.shape)
        # a Gaussian's bits at a given error; where the difference is within a step, nothing is to be gained
        bits = 0.5 * torch.log2(1 + ((target - expected) / (RESOLUTION * grid[:, None])) ** 2).sum(2).mean()
        return bits / 100, {"bits": bits}

    trainer.fit(predictor, loss)


@dataclass(frozen=True, kw_only=True)
class TrainPredictor(TrainingStage):
    """The predictor, a new one if there is none; tables are to be fitted after it.

    Attributes:
        batch_size: examples of 2.56 s.
        hours: of audio, at most, that it is trained on.
    """

    kind = "predictor"
    changes = ("predictor",)

    learning_rate: float = 1.5e-3
    batch_size: int = 192
    hours: float = 20.0

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        autoencoder, step_scales = draft.require("autoencoder"), draft.require("step_scales")
        latents = encode_clips(autoencoder, draft.mel, job.cache, self.hours)
        sequences = {False: Sequences(latents, self.seed)}
        held_out = encode_clips(autoencoder, draft.mel, job.cache, HELD_OUT_HOURS, held_out=True)
        if any(z.shape[1] >= LENGTH for z in held_out):
            sequences[True] = Sequences(held_out, self.seed)
        if draft.predictor is None:
            draft.new("predictor", latent_channels=autoencoder.latent_channels)
            scale_predictor(draft.require("predictor"), latents)
        trainer = self.trainer(job, True in sequences)
        train(draft.require("predictor"), sequences, step_scales, trainer)
        round_to_stored(draft.require("predictor"))
        return trainer.held_out_losses
