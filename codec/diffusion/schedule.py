"""Noise levels of the diffusion: a geometric series, so that as many steps go to small noise as to large."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...format.layer import MAX_TIMESTEPS
from ..settings import Ranges, check_ranges

CHOICES: dict[str, tuple[Any, ...]] = dict(  # of diffusers' schedulers, besides numbers; their defaults come first
    beta_schedule=("linear", "scaled_linear"),
    prediction_type=("epsilon", "sample"),
    timestep_spacing=("leading", "trailing", "linspace"),
    clip_sample=(True, False),
    set_alpha_to_one=(True, False),
    skip_prk_steps=(False, True),
    rescale_betas_zero_snr=(False,),
    thresholding=(False,),
)
RANGES: Ranges = dict(
    num_train_timesteps=(MAX_TIMESTEPS, MAX_TIMESTEPS),
    beta_start=(1e-6, 0.1),
    beta_end=(1e-6, 0.1),
    clip_sample_range=(0.01, 1e3),
    steps_offset=(0, 1),
)
MIN_LOG_ALPHA = math.log(1e-7)  # of the last timestep
SCHEDULER = "DDIMScheduler"
# for walks whose guesses are latents
OWN_SCHEDULE: dict[str, Any] = dict(prediction_type="sample", timestep_spacing="trailing", clip_sample=False)
MIN_SIGMA, MAX_SIGMA = 0.3, 300.0  # noise of the first and the last timestep; latents have deviations of 0.4 to 62


def noise_levels() -> Tensor:
    """Standard deviation of the noise at every timestep [MAX_TIMESTEPS], in the units of the latents."""
    return torch.from_numpy(np.geomspace(MIN_SIGMA, MAX_SIGMA, MAX_TIMESTEPS)).float()


def schedule_config() -> dict[str, Any]:
    """Configuration of diffusers' DDIMScheduler for `noise_levels`."""
    alphas = 1 / (1 + np.geomspace(MIN_SIGMA, MAX_SIGMA, MAX_TIMESTEPS) ** 2)
    betas = 1 - alphas / np.concatenate([[1], alphas[:-1]])
    return dict(
        num_train_timesteps=MAX_TIMESTEPS,
        trained_betas=betas.tolist(),
        **OWN_SCHEDULE,
    )


def check_schedule(config: Mapping[str, Any], **required: Any) -> dict[str, Any]:
    """Settings of diffusers' schedulers, of a folder's configuration; what else is in there is left out.

    Args:
        required: what settings must be.

    Raises:
        ValueError: a setting has another type, is out of range, or is not as required.
    """
    known = (*CHOICES, *RANGES, "trained_betas")
    kept = {name: value for name, value in config.items() if name in known and value is not None}
    for name, choices in CHOICES.items():
        value = kept.get(name, choices[0])
        if value not in choices or value != required.get(name, value):
            raise ValueError(f"{name} of the schedule is {value!r:.40}, not {required.get(name, choices)}")
    check_ranges({name: value for name, value in kept.items() if name in RANGES}, RANGES)
    start, end = kept.get("beta_start", 1e-4), kept.get("beta_end", 0.02)
    power = 2 if kept.get("beta_schedule") == "scaled_linear" else 1
    betas = np.linspace(start ** (1 / power), end ** (1 / power), MAX_TIMESTEPS) ** power
    if (trained := kept.get("trained_betas")) is not None:
        right = isinstance(trained, list) and len(trained) == MAX_TIMESTEPS
        if not right or not all(isinstance(beta, float) and 0 < beta < 1 for beta in trained):
            raise ValueError(f"trained_betas are not {MAX_TIMESTEPS} numbers between 0 and 1")
        betas = np.array(trained)
    if np.log1p(-betas).sum() < MIN_LOG_ALPHA:
        raise ValueError("the schedule has too much noise")
    return kept


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
