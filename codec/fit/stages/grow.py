"""More latent channels for a trained model: the next eigenvectors of the KLT, and new weights of 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...diffusion.denoiser import Denoiser
from ...nn.autoencoder import Autoencoder
from ...nn.predictor import Predictor
from ..draft import Draft
from .base import HoursStage, Job
from .denoiser import measure_prior
from .klt import fit_klt
from .predictor import MIN_SCALE

LAST = 32  # channels whose mean new ones start with


def more_rows(state: dict[str, Tensor], name: str, count: int) -> None:
    """Zeros below a matrix, or behind a vector."""
    state[name] = torch.cat([state[name], state[name].new_zeros(count, *state[name].shape[1:])])


def more_columns(state: dict[str, Tensor], name: str, parts: int, before: int, count: int) -> None:
    """Zeros behind each of the first `parts` times `before` columns of a matrix [rows, columns, ...]."""
    known, rest = state[name][:, : parts * before], state[name][:, parts * before :]
    known = known.unflatten(1, (parts, before)).movedim(2, -1)
    state[name] = torch.cat([F.pad(known, (0, count)).movedim(-1, 2).flatten(1, 2), rest], 1)


def grow_autoencoder(old: Autoencoder, klt: dict[str, Tensor]) -> Autoencoder:
    """An autoencoder with as many channels as `klt` (of `fit_klt`); the old channels keep their weights.

    The new channels are those of a KLT of the same data, made orthogonal to the old ones.
    """
    channels = len(klt["basis"])
    new, state = Autoencoder(**{**old.config, "latent_channels": channels}), dict(old.state_dict())
    have, count = old.latent_channels, channels - old.latent_channels
    rows = klt["basis"][have:]
    rows = rows - rows @ old.basis.T @ old.basis
    orthogonal, signs = torch.linalg.qr(rows.T)
    state["basis"] = torch.cat([old.basis, orthogonal.T * signs.diagonal().sign()[:, None]])
    state["scale"] = torch.cat([old.scale, klt["scale"][have:]])
    if old.width:
        more_rows(state, "encoder_out.weight", count)
        more_rows(state, "encoder_out.bias", count)
        more_columns(state, "decoder_in.weight", 1, have, count)
    new.load_state_dict(state)
    return new.eval().requires_grad_(False)


def grow_predictor(old: Predictor, scale: Tensor) -> Predictor:
    """A predictor for as many channels as `scale` [C]; new channels are predicted like the last old ones."""
    have, count = len(old.direct), len(scale) - len(old.direct)
    new, state = Predictor(**{**old.config, "latent_channels": len(scale)}), dict(old.state_dict())
    state["scale"] = torch.cat([old.scale, scale[have:].clamp(min=MIN_SCALE)])
    state["direct"] = torch.cat([old.direct, old.direct[-LAST:].mean().expand(count)])
    more_columns(state, "inlet.weight", old.history, have, count)
    more_rows(state, "outlet.weight", count)
    more_rows(state, "outlet.bias", count)
    new.load_state_dict(state)
    return new.eval().requires_grad_(False)


def grow_denoiser(old: Denoiser, mean: Tensor, deviation: Tensor) -> Denoiser:
    """A denoiser with the prior of `measure_prior`; for the new channels it gives that alone."""
    have, count = len(old.mean), len(mean) - len(old.mean)
    new, state = Denoiser(**{**old.config, "latent_channels": len(mean)}), dict(old.state_dict())
    new.schedule, state["mean"], state["deviation"] = old.schedule, mean, deviation
    more_columns(state, "input.weight", 2, have, count)
    more_rows(state, "output.weight", count)
    more_rows(state, "output.bias", count)
    new.load_state_dict(state)
    return new.eval().requires_grad_(False)


def grow_step_scales(old: np.ndarray, channels: int) -> np.ndarray:
    """Factors on the steps [levels, channels] of [levels, C]."""
    new = np.repeat(old[:, -LAST:].mean(1, keepdims=True), channels - old.shape[1], 1)
    return np.concatenate([old, new], 1).astype(np.float16).astype(np.float32)


def reweigh(factors: np.ndarray, have: int) -> np.ndarray:
    """Factors on the step scales of a grown model, from those of `channel_step_factors` [channels].

    The first `have` channels had theirs before and get the square root. New ones get it too, times how much less they
    are heard than the last old ones.
    """
    new = np.sqrt(factors)
    new[have:] *= factors[have:] / factors[have - LAST : have].mean()
    return new


@dataclass(frozen=True, kw_only=True)
class Grow(HoursStage):
    """More latent channels for a trained model. Tables are removed: a later stage fits new ones.

    Attributes:
        latent_channels: how many there will be.
    """

    kind = "grow"
    changes = ("autoencoder", "step_scales", "predictor", "denoiser", "tables", "vector_codebook")

    hours: float = 2.8
    latent_channels: int

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        autoencoder, step_scales = draft.require("autoencoder"), draft.require("step_scales")
        have = autoencoder.latent_channels
        if self.latent_channels <= have:
            raise ValueError(
                f"the model has {have} latent channels; latent_channels must be more, not {self.latent_channels}"
            )
        klt = fit_klt(job.cache, draft.mel, autoencoder.patch, self.latent_channels, self.hours)
        draft.autoencoder = grow_autoencoder(autoencoder, klt)
        draft.step_scales = grow_step_scales(step_scales, self.latent_channels)
        draft.tables, draft.vector_codebook = None, None
        if draft.predictor is not None:
            draft.predictor = grow_predictor(draft.predictor, klt["scale"])
        if draft.denoiser is not None:
            draft.denoiser = grow_denoiser(draft.denoiser, *measure_prior(draft, draft.denoiser.levels, job.cache))
        return {}
