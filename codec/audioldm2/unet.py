"""The UNet of an AudioLDM 2 checkpoint as the codec's denoiser, and its conditioning by text."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...format.adaptive import LEVELS
from ..diffusion.schedule import OWN_SCHEDULE, NoiseRange, check_schedule
from ..errors import ModelError
from ..levels import step_size
from ..quantization.adaptive import COARSEST_UNIT_VARIANCE
from .checkpoint import Checkpoint
from .loading import load_network
from .text import Condition, embed
from .vae import Vae

STEP = COARSEST_UNIT_VARIANCE / float(step_size(0))  # of a base layer's step in the latents' units
ERROR = 12**-0.5  # deviation of a uniform quantiser's error, in steps
TOKENS = 8  # of the sequence that GPT-2 makes of a prompt
CONDITION = "codec/condition.safetensors"  # of a folder whose fixed condition is its own


class UnitVarianceNoiseRange(NoiseRange):
    """For latents of unit variance under the schedule of a checkpoint.

    Args:
        sigmas: [1000], standard deviation of the noise at every timestep, rising.
    """

    def __init__(self, sigmas: np.ndarray):
        self._logs = np.log(sigmas)
        self.min_sigma, self.max_sigma = float(sigmas[0]), float(sigmas[-1])

    def position(self, noise: float) -> float:
        return float(np.interp(np.log(noise), self._logs, np.linspace(0, 1, len(self._logs))))

    def without_base(self, bits: float) -> tuple[float, float]:
        # To: as much error as an ideal code of so many bits leaves in 128 values. From: what settles on the whole; with
        # an ideal denoiser of white latents, 3 would leave 10 to 25 % less error at high rates, and 20 as much more.
        return min(8.0, self.max_sigma), max(self.min_sigma, 2 ** (-bits / 128))

    def on_base(self, step: float) -> tuple[float, float]:
        error = quantiser_error(step)  # with more fresh noise than this, few picks make it worse than the base alone
        return 1.1 * error, 0.5 * error

    def refinement(self, step: float) -> tuple[float, float]:
        """From a little more noise than the quantiser's error, which the UNet takes for a part of it."""
        error = quantiser_error(step)
        return 1.2 * error, max(self.min_sigma, 0.25 * error)


def quantiser_error(step: float) -> float:
    """Deviation of the error that a base layer leaves in latents of unit variance."""
    return min(1.0, ERROR * STEP * step)


def load_condition(file: Path) -> Condition:
    """A folder's own condition.

    Raises:
        ModelError: it does not parse, or is none.
    """
    try:
        found = Condition(**load_file(file))
    except (OSError, SafetensorError, TypeError) as error:
        raise ModelError(f"{file} does not load: {error}") from error
    dimensions = [len(part) == 1 and part.ndim for part in found]
    if dimensions != [3, 3, 2] or not all(bool(part.isfinite().all()) for part in found):
        raise ModelError(f"{file} is no condition of one clip, or not finite")
    return found


class UNetRuntime:
    """A checkpoint's UNet with its schedule and conditioning; each part loads when it is first used.

    Args:
        vae: whose latents it knows.
        device, dtype: where it runs, and with what numbers.
    """

    def __init__(self, checkpoint: Checkpoint, vae: Vae, device: str, dtype: torch.dtype):
        self.checkpoint, self.vae, self.device, self.dtype = checkpoint, vae, device, dtype
        self._conditions: dict[str | None, Condition] = {}

    @property
    def noise_schedule(self) -> dict[str, Any]:
        """Of diffusers' schedulers, as the checkpoint has it.

        Raises:
            ModelError: it does not parse, is out of range, or not for a network that predicts noise.
        """
        config = self.checkpoint.config("scheduler")
        try:
            return check_schedule(config, prediction_type="epsilon")
        except ValueError as error:
            raise ModelError(f"scheduler/ of {self.checkpoint.name} does not load: {error}") from error

    @functools.cached_property
    def schedule(self) -> dict[str, Any]:
        """Of diffusers' DDIMScheduler, for walks whose guesses are latents."""
        return self.noise_schedule | OWN_SCHEDULE

    @functools.cached_property
    def sigmas(self) -> Tensor:
        """Standard deviation of the noise at every timestep [1000], in the latents' units."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        alphas = DDIMScheduler.from_config(self.schedule).alphas_cumprod
        return ((1 - alphas) / alphas).sqrt()

    @functools.cached_property
    def noise_range(self) -> UnitVarianceNoiseRange:
        return UnitVarianceNoiseRange(self.sigmas.double().numpy())

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """Over `unet/`, the schedule, and the fixed condition of a folder that has its own."""
        for sub in ("unet", "scheduler"):
            self.checkpoint.part(sub)
        files = ["unet/config.json", *self.checkpoint.weights("unet"), "scheduler/scheduler_config.json"]
        return self.checkpoint.fingerprint(*files, *([CONDITION] if self._own_condition else []))

    @functools.cached_property
    def network(self) -> Any:
        """diffusers' AudioLDM2UNet2DConditionModel."""
        from diffusers.pipelines.audioldm2.modeling_audioldm2 import AudioLDM2UNet2DConditionModel

        if self.checkpoint.config("unet").get("in_channels") != self.vae.channels:
            raise ModelError(f"unet/ of {self.checkpoint.name} is not one for the latents of its vae/")
        network, plenty = load_network(AudioLDM2UNet2DConditionModel, self.checkpoint, "unet", self.device, self.dtype)
        self.batch = 8 if plenty and self.device != "cpu" else 1
        if not plenty:
            network.set_attention_slice("auto")
        return network

    @property
    def _own_condition(self) -> bool:
        return (self.checkpoint.root / CONDITION).is_file()

    def condition(self, prompt: str | None) -> Condition:
        """Conditioning by a prompt; None: the fixed one.

        Version 1 of that is zeros for GPT-2's sequence, as in the training of the unconditional case, and one token of
        zeros for T5's; or what is in the file CONDITION of the folder.
        """
        if prompt not in self._conditions:
            if prompt is not None:
                found = embed(self.checkpoint, prompt, self.device, self.dtype)
            elif self._own_condition:
                found = load_condition(self.checkpoint.root / CONDITION)
            else:
                sizes = self.network.config.cross_attention_dim
                _, sequence, text = sizes[0] if isinstance(sizes[0], list | tuple) else sizes
                found = Condition(torch.zeros(1, TOKENS, sequence), torch.zeros(1, 1, text), torch.ones(1, 1))
            self._conditions[prompt] = Condition(*(part.to(self.device) for part in found))
        return self._conditions[prompt]

    @torch.inference_mode()
    def noise(self, sample: Tensor, timestep: Any, conditioning: Condition) -> Tensor:
        """Noise that the UNet predicts in samples of the diffusion: both [B, channels, N, bands], on the CPU, float32.

        Args:
            conditioning: one for all samples, or one for each.
        """
        network, parts = self.network, []
        whole = [part.to(self.device).expand(len(sample), *part.shape[1:]) for part in conditioning]
        for some, *about in zip(sample.split(self.batch), *(part.split(self.batch) for part in whole), strict=True):
            sequence, text, mask = about
            answer = network(
                some.to(self.device, self.dtype),
                timestep,
                encoder_hidden_states=sequence.to(self.dtype),
                encoder_hidden_states_1=text.to(self.dtype),
                encoder_attention_mask_1=mask,
            ).sample
            parts.append(answer.float().cpu())
        return torch.cat(parts)


@dataclass
class UNet:
    """Noisy latents -> the best guess of the latents, with the interface of `Denoiser`.

    The UNet was not trained with a base layer: the quantiser's error counts as part of the noise, and guesses stay
    within a quantiser step of the base layer.

    Attributes:
        runtime: of the network.
        prompt: what conditions it; None: the fixed condition.
        edit: another prompt for the steps from `from_step` on.
    """

    runtime: UNetRuntime
    prompt: str | None = None
    edit: str | None = None
    from_step: int = 0

    levels = LEVELS

    @property
    def schedule(self) -> dict[str, Any]:
        return self.runtime.schedule

    @property
    def noise_range(self) -> UnitVarianceNoiseRange:
        return self.runtime.noise_range

    @property
    def fingerprint(self) -> bytes:
        return self.runtime.fingerprint

    @property
    def deviation(self) -> Tensor:
        """Of the error at each level, about, and last of latents: [levels + 1, latent_channels]."""
        errors = [quantiser_error(float(step_size(level))) for level in range(self.levels)]
        return torch.tensor([*errors, 1.0])[:, None].expand(-1, self.runtime.vae.latent_channels)

    def for_step(self, number: int) -> UNet:
        """The denoiser of that step."""
        return self if self.edit is None or number < self.from_step else replace(self, prompt=self.edit, edit=None)

    def start(self, base: Tensor, level: Tensor, step: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of what a diffusion starts from where the noise has that variance; else as for a call."""
        if int(level[0]) < 0:
            return torch.zeros_like(base), (1 + noise).sqrt()
        error = quantiser_error(float(step[0]))
        return base, (noise - error**2).clamp(min=0).sqrt()

    def __call__(self, noisy: Tensor, sigma: Tensor, base: Tensor, level: Tensor, step: Tensor) -> Tensor:
        """Latents with noise of standard deviation sigma -> latents, both [B, C, N].

        Args:
            sigma: [B], of a timestep, the same for all.
            base: [B, C, N], the base layer's latents; ignored where level [B] is -1.
            step: [B], as `step_size` gives it.
        """
        runtime = self.runtime
        timestep = int((runtime.sigmas - sigma[0]).abs().argmin())
        sample = runtime.vae.unflatten(noisy / (1 + sigma[0] ** 2).sqrt())
        noise = runtime.noise(sample, timestep, runtime.condition(self.prompt))
        guess = noisy - sigma[0] * runtime.vae.flatten(noise)
        if int(level[0]) >= 0:
            reach = STEP * float(step[0])
            guess = guess.clamp(base - reach, base + reach)
        return guess
