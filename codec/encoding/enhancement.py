"""Enhancement layers (DDCM) in the encoder: parameters, size, and picks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...format.layer import FIELDS, Layer
from ..diffusion.ddcm import DDCM, Sampler
from ..levels import COARSEST_STEP, step_size
from ..stages import Denoiser
from ..values import Latents
from .analysis import AnalyzedPacket

RECORD_BYTES = 8  # around the body of a record of up to 16 kB, and one to spare


def layer_setting(denoiser: Denoiser, ddcm: DDCM, level: int | None) -> Layer:
    """Parameters of an enhancement layer on a base layer of a level; None: without one.

    Raises:
        ValueError: the level leaves nothing to refine.
    """
    if level is None:
        return ddcm.layer(denoiser.fingerprint, None, denoiser.noise_range)
    if level >= denoiser.levels:
        raise ValueError(f"quality {level} leaves nothing to refine: the model's denoiser is for less")
    return ddcm.layer(denoiser.fingerprint, float(step_size(level)), denoiser.noise_range)


def layer_size(layer: Layer, packets: Iterable[AnalyzedPacket]) -> int:
    """Bytes of the records of the enhancement layers."""
    sizes = [layer.size(len(p.channels), p.channels[0].latents.shape[1]) for p in packets if p.channels]
    return sum(sizes) + RECORD_BYTES * len(sizes)


def fit_layer(budget: float, packets: Iterable[AnalyzedPacket], steps: int | None) -> DDCM:
    """The setting of the most bits whose enhancement layers take at most `budget` bytes, or of the fewest."""
    sizes = [sum(channel.latents.shape[1] for channel in p.channels) for p in packets if p.channels]
    vectors, fixed = sum(sizes), len(sizes) * (RECORD_BYTES + FIELDS.size + 1)
    return DDCM.fit(8 * (budget - fixed) / max(1, vectors), steps)


def enhance(
    denoiser: Denoiser,
    packets: Sequence[AnalyzedPacket],
    first: int,
    bases: Sequence[Tensor] | None,
    level: int,
    layer: Layer,
) -> tuple[list[bytes], list[Latents]]:
    """Enhancement layers of packets of equal duration, made together, and the latents that they lead to.

    Args:
        first: number of the first packet.
        bases: decoded latents of each packet's base layer [channels, C, N]; None: there is none.
        level: of that layer.
    """
    counts = [len(p.channels) for p in packets]
    if not sum(counts):
        return [b""] * len(packets), [Latents(torch.empty(0), 0.0)] * len(packets)
    target = torch.from_numpy(np.stack([channel.latents for p in packets for channel in p.channels]))
    numbers = np.concatenate([np.arange(count) + (n << 8) for n, count in enumerate(counts, first)])
    if bases is None:
        sampler = Sampler(denoiser, torch.zeros_like(target), -1, COARSEST_STEP, numbers)
    else:
        sampler = Sampler(denoiser, torch.cat(list(bases)), level, float(step_size(level)), numbers)
    layer, picks, ends = sampler.encode(layer, target)
    step = float(step_size(layer.level))
    packed = [layer.pack(p) for p in np.split(picks, np.cumsum(counts)[:-1])]
    return packed, [Latents(values, step) for values in ends.split(counts)]
