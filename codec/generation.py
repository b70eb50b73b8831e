"""Sound of nobody's making, as the DDCM picks that a file holds, or by a text with an AudioLDM 2 checkpoint."""

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
from .diffusion.ddcm import CODEBOOK, DDCM, GENERATE, Walk, Way, picked_noise, split_blocks
from .dsp.loudness import PEAK, gain_of
from .encoding.encoder import Encoder
from .errors import ModelError
from .levels import COARSEST_STEP
from .tags import without_reserved_tags as without_reserved_tags

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
    weights = unet.weights
    stack = text_stack(weights.checkpoint, weights.device, weights.dtype)
    text, mask, sequence = stack.encode_prompt(prompt, weights.device, 1, guidance > 1, negative_prompt=negative)
    told = Condition(sequence, text, mask)
    del stack
    config = {k: v for k, v in weights.checkpoint.config("scheduler").items() if not k.startswith("_")}
    walk = getattr(importlib.import_module("diffusers"), SCHEDULERS[scheduler]).from_config(config)
    walk.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    shape = (1, weights.vae.channels, vectors, weights.vae.bands)
    sample = torch.randn(shape, generator=generator) * walk.init_noise_sigma
    extra = {"generator": generator} if scheduler == "ddim" else {}
    for timestep in walk.timesteps:
        inputs = walk.scale_model_input(sample, timestep)
        noise = weights.noise(inputs.expand(len(sequence), *shape[1:]), timestep, told)
        if guidance > 1:
            noise = noise[:1] + guidance * (noise[1:] - noise[:1])
        sample = walk.step(noise, timestep, sample, **extra).prev_sample
    return weights.vae.flatten(sample)


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
    guided: Any = Guided(UNet(unet.weights), UNet(unet.weights, prompt))
    channels = unet.weights.vae.latent_channels
    walk = Walk(guided, torch.zeros(1, channels, vectors), -1, COARSEST_STEP, np.array([index << 8]))
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

    end = walk.run(Way(layer.schedule, layer.first, layer.steps), layer.seed, noise)
    return np.stack(picks, 2), end


def _samples(model: Any, seconds: float, seed: int) -> int:
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
    encoder: Encoder,
    seconds: float,
    seed: int,
    ddcm: DDCM | None,
    prompt: str | None,
    candidates: int | None,
    comments: Iterable[str],
) -> bytes:
    """See `Codec.generate`."""
    model, count = encoder.model, encoder.packet_vectors
    samples = _samples(model, seconds, seed)
    if candidates is not None and not 1 <= candidates <= 4096:
        raise ValueError(f"1 to 4096 candidates, not {candidates}")
    header = Header(
        sample_rate=model.mel.sample_rate,
        channels=1,
        samples=samples,
        quality=container.NO_BASE,
        packet_hops=count * model.autoencoder.patch,
        model=model.fingerprint[:4],
        layers=True,
    )
    tags = [*model.tags(), *([] if prompt is None else [f"DESCRIPTION={prompt}"]), *without_reserved_tags(comments)]
    head = header.pack() + b"".join(map(container.pack_comment, tags))
    vectors = -(-samples // model.patch_samples)
    if prompt is None:
        layer = encoder.layer(ddcm or DDCM(), container.NO_BASE)
        return head + b"".join(random_records(model, layer, vectors, count, seed))
    model.prompted([], prompt, 0)  # refuses where there is no text
    setting = ddcm or generation_setting()
    return head + b"".join(generate_records(model, prompt, vectors, count, seed, setting, candidates or CANDIDATES))


def synthesize(
    model: Any, prompt: str, negative: str, seconds: float, steps: int, seed: int, guidance: float, scheduler: str
) -> np.ndarray:
    """See `Codec.synthesize`."""
    samples = _samples(model, seconds, seed)
    model.prompted([], prompt, 0)
    if scheduler not in SCHEDULERS:
        raise ValueError(f"no scheduler {scheduler}; there are {', '.join(SCHEDULERS)}")
    if not 1 <= steps <= 1000 or not 0 <= guidance <= 100:
        raise ValueError("1 to 1000 steps, and guidance of 0 to 100")
    vectors = -(-samples // model.patch_samples)
    latents = sample_latents(model.denoiser, prompt, negative, vectors, steps, seed, guidance, scheduler)
    vocoder = model.vocoder()
    with torch.inference_mode():
        pieces = [vocoder.push(model.frames(latents, 0.0)), vocoder.flush()]
    return torch.cat(pieces, 1)[:, :samples].cpu().numpy()


def random_records(model: Any, layer: Layer, vectors: int, packet_vectors: int, seed: int) -> Iterator[bytes]:
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
    model: Any, prompt: str, vectors: int, packet_vectors: int, seed: int, ddcm: DDCM, candidates: int
) -> Iterator[bytes]:
    """Records of one channel that many latent vectors long; every packet is generated for itself.

    Args:
        model: an `AudioLDM2` with a UNet.
    """
    unet, patch = model.denoiser, model.autoencoder.patch
    bits = ddcm.codebook.bit_length() - 1
    level = unet.levels - 1
    layer = Layer(unet.fingerprint[:2], ddcm.seed, ddcm.steps, 0, ddcm.steps, ddcm.block, bits, 1, level)
    for index, start in enumerate(range(0, vectors, packet_vectors)):
        hops = min(packet_vectors, vectors - start) * patch
        picks, _ = generate_picks(unet, prompt, layer, index, model.vectors_of(hops), seed, candidates)
        yield from _records(layer, index, hops, picks)
