"""Generation: files with random or text-guided DDCM picks, and text to audio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from ..format import container
from ..format.container import Header, Packet
from ..format.layer import Layer
from ..format.philox import words
from .diffusion.ddcm import DDCM, GENERATE
from .dsp.loudness import PEAK, gain_of
from .encoding.enhancement import layer_setting
from .errors import ModelError
from .stages import CodecModel
from .tags import without_reserved_tags
from .values import DecodedLatents, Latents

STEPS = 200
CANDIDATES = 64  # atoms of a codebook, of which the one that suits the prompt best is picked


def generation_setting(steps: int = STEPS) -> DDCM:
    """DDCM for generated sound: picks for blocks of 0.64 s, about 14 bits a second for each step."""
    return DDCM(steps, codebook=256, block=16)


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
    model.with_prompt([], prompt, 0)  # refuses where there is no text
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
    samples = _samples(model, seconds, seed)
    model.with_prompt([], prompt, 0)  # refuses where there is no text
    if not 1 <= steps <= 1000 or not 0 <= guidance <= 100:
        raise ValueError("1 to 1000 steps, and guidance of 0 to 100")
    vectors = -(-samples // model.patch_samples)
    latents = model.sample_latents(prompt, negative, vectors, steps, seed, guidance, scheduler)
    with torch.inference_mode():
        return model.synthesize(model.frames(DecodedLatents(Latents(latents, 0.0))))[:, :samples].cpu().numpy()


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
    """Records of one channel that many latent vectors long; every packet is generated for itself."""
    denoiser, patch = model.denoiser, model.autoencoder.patch
    assert denoiser is not None  # `_samples` made sure of it
    bits, level = ddcm.codebook.bit_length() - 1, denoiser.levels - 1
    layer = Layer(denoiser.fingerprint[:2], ddcm.seed, ddcm.steps, 0, ddcm.steps, ddcm.block, bits, 1, level)
    for index, start in enumerate(range(0, vectors, packet_vectors)):
        hops = min(packet_vectors, vectors - start) * patch
        picks = model.generate_picks(prompt, layer, index, model.vectors_of(hops), seed, candidates)
        yield from _records(layer, index, hops, picks)
