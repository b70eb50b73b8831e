"""Noise levels of the diffusion: a geometric series, so that as many steps go to small noise as to large."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..format.layer import MAX_TIMESTEPS

QUIETEST, LOUDEST = 0.3, 300.0  # noise of the first and the last timestep; latents have deviations of 0.4 to 62


def noise_levels() -> Tensor:
    """Standard deviation of the noise at every timestep [MAX_TIMESTEPS], in the units of the latents."""
    return torch.from_numpy(np.geomspace(QUIETEST, LOUDEST, MAX_TIMESTEPS)).float()


def schedule_config() -> dict[str, Any]:
    """Configuration of diffusers' DDIMScheduler for `noise_levels`."""
    alphas = 1 / (1 + np.geomspace(QUIETEST, LOUDEST, MAX_TIMESTEPS) ** 2)
    betas = 1 - alphas / np.concatenate([[1], alphas[:-1]])
    return dict(
        _class_name="DDIMScheduler",
        num_train_timesteps=MAX_TIMESTEPS,
        trained_betas=betas.tolist(),
        prediction_type="sample",
        timestep_spacing="trailing",
        clip_sample=False,
    )
