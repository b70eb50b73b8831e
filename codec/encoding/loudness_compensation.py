"""Loudness compensation: high-energy bins compensate for energy lost in quantisation, gains for the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..dsp.loudness import SPECIAL, band_energy, limit_gain
from ..levels import step_size
from ..quantization.rdo import ScalarEncoder
from ..stages import CodecModel
from .analysis import AnalyzedChannel, AnalyzedPacket

MAX_RAISE = 0.6  # nats
MAX_CORRECTION = 12  # dB
TOLERANCE = 0.2  # dB


def compensate_energy(
    model: CodecModel, quantizer: ScalarEncoder, packets: Iterable[AnalyzedPacket], level: int, refined: bool = False
) -> Iterator[AnalyzedPacket]:
    """Packets whose targets are latents with the loud parts raised, by the energy that quantisation removes.

    Decoded log-mels are near the median, which has too little energy. The loudest parts compensate for the loss
    of mel bands, at the least cost; the gain corrects the loss within bands.

    Args:
        refined: they keep their latents as well, because a layer will refine what is quantised.
    """
    step = float(step_size(level))

    def compensated(channel: AnalyzedChannel) -> AnalyzedChannel:
        if channel.loudness is None:
            return channel
        about = torch.from_numpy(quantizer.approximate(channel.latents, level))[None]
        decoded = band_energy(model.mel, model.decode_mel(about, step)).item()
        missing = 0.5 * math.log(channel.loudness.band_energy / decoded)
        target = channel.latents + np.float32(min(max(missing, 0), MAX_RAISE)) * channel.loudness.gradient
        return replace(channel, target=target, latents=channel.latents if refined else target)

    for packet in packets:
        yield replace(packet, channels=list(map(compensated, packet.channels)))


def output_gains(
    model: CodecModel, packets: Sequence[AnalyzedPacket], latents: Sequence[Tensor], step: float
) -> list[tuple[int, ...]]:
    """Gains with which packets that decode to these latents [C, N] are as loud as the originals.

    A gain raises what is quiet too, so TOLERANCE is left. More than MAX_CORRECTION, which the coarsest levels
    would need for some transients, is not compensated.

    Args:
        latents: of all channels that are neither silent nor a copy.
    """
    channels = [channel for packet in packets for channel in packet.channels]
    matched = [z for channel, z in zip(channels, latents, strict=True) if channel.loudness is not None]
    decoded = list[float]()
    for start in range(0, len(matched), model.batch):
        decoded += model.decoded_energy(torch.stack(matched[start : start + model.batch]), step).cpu().tolist()
    left, out = iter(decoded), []
    for packet in packets:
        gains = list(packet.gains)
        coded = [c for c, gain in enumerate(gains) if gain not in SPECIAL]
        for c, channel in zip(coded, packet.channels, strict=True):
            if channel.loudness is not None:
                missing = 10 * math.log10(channel.loudness.energy / next(left))
                correction = min(max(abs(missing) - TOLERANCE, 0), MAX_CORRECTION)
                gains[c] = limit_gain(gains[c] + round(256 * math.copysign(correction, missing)))
        out.append(tuple(gains))
    return out
