"""Loudness of what is coded: what is loud makes up for energy that a quantiser takes, and gains for the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..dsp.loudness import SPECIAL, audible_energy, band_energy, limit_gain
from ..levels import step_size
from ..model import Model
from .analysis import Analysis

MOST_RAISE = 0.6  # nats
MOST_CORRECTION = 12  # dB
TOLERANCE = 0.2  # dB


def raised(model: Model, packets: Iterable[Analysis], level: int, refined: bool = False) -> Iterator[Analysis]:
    """Packets whose targets are latents that are changed where it is loud, for the energy that a quality takes.

    What is decoded is near the median, which has too little energy by as much as it has error; the loudest parts
    make up for what mel bands lose of it at the least cost. What is lost within them is left to the gain.

    Args:
        refined: they keep their latents as well, because a layer will refine what is quantised.
    """
    step = float(step_size(level))
    for packet in packets:
        if not packet.louder:
            yield packet
            continue
        targets = []
        for latents, change, energy in zip(packet.latents, packet.louder, packet.band_energies, strict=True):
            about = torch.from_numpy(model.codebook.approximate(latents, level))[None]
            decoded = band_energy(model.mel, model.decode_mel(about, step)).item()
            missing = 0.5 * math.log(energy / decoded)
            targets.append(latents + np.float32(min(max(missing, 0), MOST_RAISE)) * change)
        yield replace(packet, louder=[], targets=targets, latents=packet.latents if refined else targets)


def output_gains(
    model: Model, packets: Sequence[Analysis], latents: Sequence[Tensor], step: float
) -> list[tuple[int, ...]]:
    """Gains with which packets that decode to these latents [C, N] are as loud as the originals.

    A gain raises what is quiet too, so TOLERANCE is left. More than MOST_CORRECTION, which the coarsest levels
    would need for some transients, is not made up for.

    Args:
        latents: of all channels that are neither silent nor a copy.
    """
    decoded = list[float]()
    for start in range(0, len(latents), model.batch):
        decoded += decoded_energy(model, torch.stack(list(latents[start : start + model.batch])), step).cpu().tolist()
    left, out = iter(decoded), []
    for packet in packets:
        gains = list(packet.gains)
        coded = [c for c, gain in enumerate(gains) if gain not in SPECIAL]
        for c, energy in zip(coded, packet.energies, strict=True):
            missing = 10 * math.log10(energy / next(left))
            correction = min(max(abs(missing) - TOLERANCE, 0), MOST_CORRECTION)
            gains[c] = limit_gain(gains[c] + round(256 * math.copysign(correction, missing)))
        out.append(tuple(gains))
    return out


@torch.inference_mode()
def decoded_energy(model: Model, latents: Tensor, step: float) -> Tensor:
    """Audible energy of what latents [B, C, N] decode to: [B].

    Magnitudes are found for the louder half of the vectors only, where nearly all energy is, and what they have more
    than flat bands would, all get: that is .03 to .07 dB (RMS) off, and takes half of the time.
    """
    mel = model.decode_mel(latents, step)
    vectors = mel.unflatten(1, (-1, model.autoencoder.patch))  # [B, N, frames, n_mels]
    energy = band_energy(model.mel, vectors.flatten(0, 1)).view(vectors.shape[:2])
    loudest = energy.topk((energy.shape[1] + 1) // 2).indices.sort().values
    some = vectors.gather(1, loudest[..., None, None].expand(-1, -1, *vectors.shape[2:])).flatten(1, 2)
    found = audible_energy(model.magnitudes(some, torch.full((len(some),), step, device=some.device)))
    return found * energy.sum(1) / energy.gather(1, loudest).sum(1)
