"""Noise levels of the diffusion: a geometric series, so that as many steps go to small noise as to large."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...format.layer import MAX_TIMESTEPS

MIN_SIGMA, MAX_SIGMA = 0.3, 300.0  # noise of the first and the last timestep; latents have deviations of 0.4 to 62


def noise_levels() -> Tensor:
    """Standard deviation of the noise at every timestep [MAX_TIMESTEPS], in the units of the latents."""
    return torch.from_numpy(np.geomspace(MIN_SIGMA, MAX_SIGMA, MAX_TIMESTEPS)).float()


def schedule_config() -> dict[str, Any]:
    """Configuration of diffusers' DDIMScheduler for `noise_levels`."""
    alphas = 1 / (1 + np.geomspace(MIN_SIGMA, MAX_SIGMA, MAX_TIMESTEPS) ** 2)
    betas = 1 - alphas / np.concatenate([[1], alphas[:-1]])
    return dict(
        _class_name="DDIMScheduler",
        num_train_timesteps=MAX_TIMESTEPS,
        trained_betas=betas.tolist(),
        prediction_type="sample",
        timestep_spacing="trailing",
        clip_sample=False,
    )


class NoiseRange:
    """Where diffusions with a denoiser begin and end: standard deviations of the noise, in the units of the latents."""

    min_sigma = MIN_SIGMA
    BASE = 2.0, 0.2  # DDCM on a base layer, in steps of its quantiser
    REFINE = 4.0, 0.25  # without picks, in steps of the quantiser

    def position(self, noise: float) -> float:
        """The timestep that has so much noise: 0 .. 1 from the first to the last."""
        return math.log(noise / MIN_SIGMA) / math.log(MAX_SIGMA / MIN_SIGMA)

    def without_base(self, bits: float) -> tuple[float, float]:
        """First and last noise of DDCM without a base layer, for so many bits per latent vector.

        With few bits, it starts at more noise and stops earlier.
        """
        return (100.0 if bits < 40 else 50.0), 30 * bits**-0.6

    def on_base(self, step: float) -> tuple[float, float]:
        """First and last noise of DDCM on a base layer with that step."""
        return self.BASE[0] * step, self.BASE[1] * step

    def refinement(self, step: float) -> tuple[float, float]:
        """First and last noise of a refinement without picks, on a base layer with that step."""
        return self.REFINE[0] * step, max(self.REFINE[1] * step, MIN_SIGMA)


NOISE_RANGE = NoiseRange()  # of the package's own denoisers
