"""Packets of latents -> records of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...format import container
from ...format.container import Packet
from ...format.layer import Layer
from ..errors import ModelError
from ..levels import step_size
from ..stages import CodecModel, Denoiser
from .analysis import AnalyzedPacket, Spool
from .enhancement import enhance, fit_layer, layer_setting, layer_size
from .loudness_compensation import compensate_energy, output_gains
from .rate_control import BUDGET_MARGIN, COARSE_TOLERANCE, RESOLUTION, OperatingPoint, RateController
from .settings import EncodeSettings

BATCH = 8  # packets times channels that a diffusion takes at once

Gains = dict[int, tuple[int, ...]]  # of the channels of packets, by their numbers


class EncodePlan(NamedTuple):
    """How a file is coded.

    Attributes:
        packets: with the targets of the base layer.
        point: quality of the base layer; None: there is none.
        layer: setting of an enhancement layer; None: there is none.
    """

    packets: Spool
    point: OperatingPoint | None
    layer: Layer | None


class Encoder:
    """Makes records of analysed packets with one model, for one file or stream.

    Attributes:
        rate: the rate controller.
    """

    def __init__(self, model: CodecModel):
        self.model = model
        self.quantizer = model.codebook.encoder()
        self.rate = RateController(self.quantizer, model.codebook.levels)

    @property
    def _denoiser(self) -> Denoiser:
        if self.model.denoiser is None:
            raise ModelError(f"model {self.model.name} has no denoiser")
        return self.model.denoiser

    def plan(self, packets: Spool, budget: float, settings: EncodeSettings) -> EncodePlan:
        """How packets are coded in about `budget` bytes; where there are both layers, half of it is for each."""
        level, both = settings.level, settings.layers == "both"
        if settings.layers == "ddcm":
            return EncodePlan(packets, None, self._plan_layer(packets, budget, None, settings))
        if level is not None:
            fixed = OperatingPoint.fixed(level)
            packets = Spool(self.compensated(packets, level, both))
            return EncodePlan(packets, fixed, self._plan_layer(packets, budget, fixed, settings) if both else None)
        share = budget / 2 if both else budget
        guess = self.rate.search(share, packets, tolerance=COARSE_TOLERANCE)
        packets = Spool(self.compensated(packets, guess.level, both))
        if not both:
            return EncodePlan(packets, self.rate.search(BUDGET_MARGIN * budget, packets, guess.rate), None)
        ddcm = settings.ddcm or fit_layer(share, packets, settings.steps)
        budget -= layer_size(layer_setting(self._denoiser, ddcm, self.model.default_quality), packets)
        point = self.rate.search(BUDGET_MARGIN * budget, packets, guess.rate)
        rate = min(point.rate, self._denoiser.levels - RESOLUTION)
        point = OperatingPoint.at(rate, point.bits_ratio)
        return EncodePlan(packets, point, layer_setting(self._denoiser, ddcm, point.level))

    def _plan_layer(
        self, packets: Spool, budget: float, base: OperatingPoint | None, settings: EncodeSettings
    ) -> Layer:
        """Setting of an enhancement layer that takes what a base layer leaves of a budget."""
        ddcm = settings.ddcm or fit_layer(budget - self.rate.size(packets, base), packets, settings.steps)
        return layer_setting(self._denoiser, ddcm, base and base.level)

    def compensated(
        self, packets: Iterable[AnalyzedPacket], level: int, refined: bool = False
    ) -> Iterator[AnalyzedPacket]:
        """Packets with targets that compensate for the energy lost at a level; see `compensate_energy`."""
        return compensate_energy(self.model, self.quantizer, packets, level, refined)

    def records(
        self,
        packets: Iterable[AnalyzedPacket],
        point: OperatingPoint | None,
        layer: Layer | None = None,
        *,
        first: int = 0,
        own_quality: bool = False,
        gains: Gains | None = None,
    ) -> Iterator[bytes]:
        """Records of packets, from number `first` on, with those that describe their high band and stereo image.

        Args:
            point: quality; None: the enhancement layer is all that there is.
            layer: setting of an enhancement layer.
            own_quality: packets say their quality themselves.
            gains: output gains by packet, where they are known; missing ones are added.
        """
        gains = {} if gains is None else gains
        group, most = list[AnalyzedPacket](), max(BATCH, self.model.batch)
        for packet in packets:
            if group and (packet.hops != group[0].hops or len(group) * len(packet.gains) >= most):
                yield from self._pack(group, first, point, layer, own_quality, gains)
                first, group = first + len(group), []
            group.append(packet)
        yield from self._pack(group, first, point, layer, own_quality, gains)

    def _pack(
        self,
        packets: Sequence[AnalyzedPacket],
        first: int,
        point: OperatingPoint | None,
        layer: Layer | None,
        own_quality: bool,
        known: Gains,
    ) -> Iterator[bytes]:
        """Records of packets of equal duration, from number `first` on."""
        payloads, latents, step = [b""] * len(packets), list[Tensor](), 0.0
        if point is not None:
            payloads, latents = self._quantize(packets, point)
            step = float(step_size(point.level))
        bodies: Sequence[bytes | None] = [None] * len(packets)
        if layer is not None and packets:
            bases, level = (None, 0) if point is None else (latents, point.level)
            bodies, ends = enhance(self._denoiser, packets, first, bases, level, layer)
            if point is None:
                latents, step = [end.values for end in ends], ends[0].step
        numbers = range(first, first + len(packets))
        if not known.keys() >= set(numbers):
            flat = [z for channels in latents for z in channels]
            known.update(zip(numbers, output_gains(self.model, packets, flat, step), strict=True))
        quality = point.level if point is not None and own_quality else None
        for index, packet, payload, body in zip(numbers, packets, payloads, bodies, strict=True):
            if packet.parameters:
                yield packet.parameters
            record = Packet(packet.hops, known[index], payload, quality)
            yield container.pack_record(container.PACKET, record.pack(), index)
            if body is not None and packet.channels:
                yield container.pack_record(container.LAYER, body, index)

    def _quantize(self, packets: Sequence[AnalyzedPacket], point: OperatingPoint) -> tuple[list[bytes], list[Tensor]]:
        """Payloads of packets, and their decoded latents [channels, C, N]."""
        payloads, latents = list[bytes](), list[Tensor]()
        for packet in packets:
            found = [self.quantizer.quantize(channel.base, *point[1:]) for channel in packet.channels]
            streams = [(q.classes, q.indices) for q in found]
            payloads.append(self.model.codebook.pack(streams, point.level) if found else b"")
            latents.append(torch.from_numpy(np.stack([q.latents for q in found])) if found else torch.empty(0))
        return payloads, latents
