"""Unconditional generation as the DDCM picks that a file holds, or text to audio with an AudioLDM 2 checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.container import Header, Packet
from ..format.layer import Layer
from ..format.philox import normals, words
from .audioldm2.text import Condition, text_stack
from .audioldm2.unet import UNet
from .diffusion.ddcm import CODEBOOK, DDCM, GENERATE, Sampler, TimestepRange, picked_noise, split_blocks
from .dsp.loudness import PEAK, gain_of
from .encoding.enhancement import layer_setting
from .errors import ModelError
from .levels import COARSEST_STEP
from .stages import CodecModel
from .tags import without_reserved_tags as without_reserved_tags
from .values import DecodedLatents, Latents

STEPS = 200
GUIDANCE = 3.5
CANDIDATES = 64  # atoms of a codebook, of which the one that suits the prompt best is picked
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def generation_setting(steps: int = STEPS) -> DDCM:
    """DDCM for generated sound: picks for blocks of 0.64 s, about 14 bits a second for each step."""
    return DDCM(steps, codebook=256, block=16)


@torch.inference_mode()
def sample_latents(
    unet: UNet, prompt: str, negative: str, vectors: int, steps: int, seed: int, guidance: float, scheduler: str
) -> Tensor:
    """Latents [1, C, N] of a prompt: classifier-free guidance under one of diffusers' schedulers.

    Args:
        negative: what the sound shall not be.
        seed: of the noise that it starts from, and of schedulers that add some.
    """
    runtime = unet.runtime
    stack = text_stack(runtime.checkpoint, runtime.device, runtime.dtype)
    text, mask, sequence = stack.encode_prompt(prompt, runtime.device, 1, guidance > 1, negative_prompt=negative)
    conditioning = Condition(sequence, text, mask)
    del stack
    kind = getattr(importlib.import_module("diffusers"), SCHEDULERS[scheduler])
    sampler = kind.from_config(runtime.noise_schedule)
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


class Guided:
    """A denoiser that knows no prompt, and notes where one that does would rather go.

    Attributes:
        direction: from its last guess to the other's, [B, C, N].
    """

    def __init__(self, plain: UNet, prompted: UNet):
        self._plain, self._prompted = plain, prompted
        self.direction = torch.zeros(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def at(self, number: int) -> Guided:
        return self

    def __call__(self, *inputs: Tensor) -> Tensor:
        guess = self._plain(*inputs)
        self.direction = self._prompted(*inputs) - guess
        return guess


def generate_picks(
    unet: UNet, prompt: str, layer: Layer, index: int, vectors: int, seed: int, candidates: int
) -> tuple[np.ndarray, Tensor]:
    """Picks [1, blocks, steps - 1, 1] of packet `index`, and the latents [1, C, N] that they lead to.

    Compressed classifier-free guidance (Ohayon et al., ICML 2025): of some random atoms, up to the sign, the one that
    leads most from the guess without the prompt to that with it. A decoder needs no prompt.
    """
    guided: Any = Guided(UNet(unet.runtime), UNet(unet.runtime, prompt))
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


def _samples(model: CodecModel, seconds: float, seed: int) -> int:
    """Samples of so many seconds.

    Raises:
        ModelError: the model has no denoiser.
        ValueError: duration or seed out of range.
    """
    if model.denoiser is None:
        raise ModelError(f"model {model.name} has no denoiser")
    if not 0.01 <= seconds <= 3600:
        raise ValueError(f"0.01 to 3600 s, not {seconds:g}")
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"a seed is 0 to {(1 << 32) - 1}, not {seed}")
    return round(seconds * model.mel.sample_rate)


def generate_file(
    model: CodecModel,
    packet_vectors: int,
    seconds: float,
    seed: int,
    ddcm: DDCM | None,
    prompt: str | None,
    candidates: int | None,
    comments: Iterable[str],
) -> bytes:
    """See `Codec.generate`."""
    samples = _samples(model, seconds, seed)
    if candidates is not None and not 1 <= candidates <= 4096:
        raise ValueError(f"1 to 4096 candidates, not {candidates}")
    header = Header(
        sample_rate=model.mel.sample_rate,
        channels=1,
        samples=samples,
        quality=container.NO_BASE,
        packet_hops=packet_vectors * model.autoencoder.patch,
        model=model.fingerprint[:4],
        layers=True,
    )
    tags = [*model.tags(), *([] if prompt is None else [f"DESCRIPTION={prompt}"]), *without_reserved_tags(comments)]
    head = header.pack() + b"".join(map(container.pack_comment, tags))
    vectors = -(-samples // model.patch_samples)
    if prompt is None:
        assert model.denoiser is not None  # `_samples` made sure of it
        layer = layer_setting(model.denoiser, ddcm or DDCM(), None)
        return head + b"".join(random_records(model, layer, vectors, packet_vectors, seed))
    _text_unet(model, prompt)
    setting = ddcm or generation_setting()
    candidates = candidates or CANDIDATES
    return head + b"".join(generate_records(model, prompt, vectors, packet_vectors, seed, setting, candidates))


def synthesize(
    model: CodecModel,
    prompt: str,
    negative: str,
    seconds: float,
    steps: int,
    seed: int,
    guidance: float,
    scheduler: str,
) -> np.ndarray:
    """See `Codec.synthesize`."""
    samples, unet = _samples(model, seconds, seed), _text_unet(model, prompt)
    if scheduler not in SCHEDULERS:
        raise ValueError(f"no scheduler {scheduler}; there are {', '.join(SCHEDULERS)}")
    if not 1 <= steps <= 1000 or not 0 <= guidance <= 100:
        raise ValueError("1 to 1000 steps, and guidance of 0 to 100")
    vectors = -(-samples // model.patch_samples)
    latents = sample_latents(unet, prompt, negative, vectors, steps, seed, guidance, scheduler)
    renderer = model.renderer()
    with torch.inference_mode():
        frames = model.frames(DecodedLatents(Latents(latents, 0.0)))
        pieces = [renderer.push(frames), renderer.flush()]
    return torch.cat(pieces, 1)[:, :samples].cpu().numpy()


def _text_unet(model: CodecModel, prompt: str) -> UNet:
    """The model's UNet, which takes text.

    Raises:
        ModelError: it has none.
    """
    model.with_prompt([], prompt, 0)  # refuses where there is no text
    assert isinstance(model.denoiser, UNet)
    return model.denoiser


def random_records(model: CodecModel, layer: Layer, vectors: int, packet_vectors: int, seed: int) -> Iterator[bytes]:
    """Records of one channel that many latent vectors long, whose picks are random."""
    patch = model.autoencoder.patch
    for index, start in enumerate(range(0, vectors, packet_vectors)):
        hops = min(packet_vectors, vectors - start) * patch
        shape = layer.shape(1, model.vectors_of(hops))
        random = words(seed, GENERATE, index, np.zeros(1), int(np.prod(shape)))[0]
        yield from _records(layer, index, hops, (random >> (31 - layer.bits)).astype(np.int64).reshape(shape))


def _records(layer: Layer, index: int, hops: int, picks: np.ndarray) -> Iterator[bytes]:
    packet = Packet(hops, (gain_of(PEAK),), b"")
    yield container.pack_record(container.PACKET, packet.pack(), index)
    yield container.pack_record(container.LAYER, layer.pack(picks), index)


def generate_records(
    model: CodecModel, prompt: str, vectors: int, packet_vectors: int, seed: int, ddcm: DDCM, candidates: int
) -> Iterator[bytes]:
    """Records of one channel that many latent vectors long; every packet is generated for itself.

    Args:
        model: an `AudioLDM2` with a UNet.
    """
    unet, patch = _text_unet(model, prompt), model.autoencoder.patch
    bits = ddcm.codebook.bit_length() - 1
    level = unet.levels - 1
    layer = Layer(unet.fingerprint[:2], ddcm.seed, ddcm.steps, 0, ddcm.steps, ddcm.block, bits, 1, level)
    for index, start in enumerate(range(0, vectors, packet_vectors)):
        hops = min(packet_vectors, vectors - start) * patch
        picks, _ = generate_picks(unet, prompt, layer, index, model.vectors_of(hops), seed, candidates)
        yield from _records(layer, index, hops, picks)
