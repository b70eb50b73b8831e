"""Text to latents with the UNet of an AudioLDM 2 checkpoint: directly, or as the DDCM picks that a file holds."""

from __future__ import annotations

import importlib

import numpy as np
import torch
from torch import Tensor

from ...format.layer import Layer
from ...format.philox import normals, words
from ..diffusion.ddcm import CODEBOOK, GENERATE, Sampler, TimestepRange, picked_noise, split_blocks
from ..levels import COARSEST_STEP
from .text import Condition, text_stack
from .unet import UNet, UNetRuntime

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}


@torch.inference_mode()
def sample_latents(
    unet: UNet, prompt: str, negative: str, vectors: int, steps: int, seed: int, guidance: float, scheduler: str
) -> Tensor:
    """Latents [1, C, N] of a prompt: classifier-free guidance under one of diffusers' schedulers.

    Args:
        negative: what the sound shall not be.
        seed: of the noise that it starts from, and of schedulers that add some.
        scheduler: a key of `SCHEDULERS`.

    Raises:
        ValueError: no such scheduler.
    """
    if scheduler not in SCHEDULERS:
        raise ValueError(f"no scheduler {scheduler}; there are {', '.join(SCHEDULERS)}")
    runtime = unet.runtime
    stack = text_stack(runtime.checkpoint, runtime.device, runtime.dtype)
    text, mask, sequence = stack.encode_prompt(prompt, runtime.device, 1, guidance > 1, negative_prompt=negative)
    conditioning = Condition(sequence, text, mask)
    del stack
    sampler = getattr(importlib.import_module("diffusers"), SCHEDULERS[scheduler]).from_config(runtime.noise_schedule)
    sampler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    shape = (1, runtime.vae.channels, vectors, runtime.vae.bands)
    sample = torch.randn(shape, generator=generator) * sampler.init_noise_sigma
    extra = {"generator": generator} if scheduler == "ddim" else {}
    for timestep in sampler.timesteps:
        inputs = sampler.scale_model_input(sample, timestep)
        noise = runtime.noise(inputs.expand(len(sequence), *shape[1:]), timestep, conditioning)
        if guidance > 1:
            noise = noise[:1] + guidance * (noise[1:] - noise[:1])
        sample = sampler.step(noise, timestep, sample, **extra).prev_sample
    return runtime.vae.flatten(sample)


class GuidedUNet(UNet):
    """A denoiser without a prompt that also keeps the direction in which a prompt would lead.

    Attributes:
        direction: from the last guess to that with the prompt, [B, C, N].
    """

    def __init__(self, runtime: UNetRuntime, prompt: str):
        super().__init__(runtime)
        self._prompted = UNet(runtime, prompt)
        self.direction = torch.zeros(0)

    def __call__(self, noisy: Tensor, sigma: Tensor, base: Tensor, level: Tensor, step: Tensor) -> Tensor:
        guess = super().__call__(noisy, sigma, base, level, step)
        self.direction = self._prompted(noisy, sigma, base, level, step) - guess
        return guess


def generate_picks(
    unet: UNet, prompt: str, layer: Layer, index: int, vectors: int, seed: int, candidates: int
) -> tuple[np.ndarray, Tensor]:
    """Picks [1, blocks, steps - 1, 1] of packet `index`, and the latents [1, C, N] that they lead to.

    Compressed classifier-free guidance (Ohayon et al., ICML 2025): of some random atoms, up to the sign, the one that
    leads most from the guess without the prompt to that with it. A decoder needs no prompt.
    """
    guided = GuidedUNet(unet.runtime, prompt)
    channels = unet.runtime.vae.latent_channels
    sampler = Sampler(guided, torch.zeros(1, channels, vectors), -1, COARSEST_STEP, np.array([index << 8]))
    picks: list[np.ndarray] = []

    def noise(step: int, guess: Tensor) -> Tensor:
        wanted = split_blocks(guided.direction, layer.span)[0]
        random = words(seed, GENERATE, step, np.array([index]), len(wanted) * candidates)[0]
        among = (random >> (32 - layer.bits) if layer.bits else 0 * random).astype(np.int64).reshape(len(wanted), -1)
        numbers, place = np.unique(among, return_inverse=True)
        atoms = torch.from_numpy(normals(layer.seed, CODEBOOK, step, numbers, wanted.shape[1])).float()
        scores = (wanted @ atoms.T).gather(1, torch.from_numpy(place.reshape(among.shape)))
        best = scores.abs().argmax(1, keepdim=True).numpy()
        sign = np.take_along_axis(scores.numpy(), best, 1) < 0
        picks.append((2 * np.take_along_axis(among, best, 1) + sign)[None])
        return picked_noise(layer, step, picks[-1], channels, vectors)

    end = sampler.run(TimestepRange(layer.schedule, layer.first, layer.steps), layer.seed, noise)
    return np.stack(picks, 2), end
