"""Packets of latents -> records of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...format import container
from ...format.container import Packet
from ...format.layer import FIELDS, Layer
from ..diffusion.ddcm import DDCM, Walk
from ..levels import COARSEST_STEP, step_size
from .analysis import Analysis, Analyzer, Spool
from .loudness_compensation import output_gains, raised
from .rate_control import RESOLUTION, ROUGHLY, UNUSED, fit_rate, likely_rate, setting, slower

RECORD = 8  # bytes around the body of a record of up to 16 kB, and one to spare
SURE = 0.997  # of the budget: what is too long has to be coded again
BATCH = 8  # packets times channels that a diffusion takes at once

Gains = dict[int, tuple[int, ...]]  # of the channels of packets, by their numbers


class Plan(NamedTuple):
    """How a file is coded.

    Attributes:
        rate: 0 where nothing can be coarser.
        level, fidelity, ratio: of the base layer; see `ScalarCodebook.quantize`.
        layer: setting of an enhancement layer.
    """

    packets: Spool
    rate: float
    level: int
    fidelity: float
    ratio: float
    layer: Layer | None

    def coarser(self, excess: float, slack: float) -> Plan:
        """One for files that are about that many times shorter; `slack` as of the codebook."""
        if excess < 2 ** (slack / 2):
            return self._replace(ratio=SURE * self.ratio / excess)
        rate = slower(self.rate, excess)
        level, fidelity = setting(rate)
        return self._replace(rate=rate, level=level, fidelity=fidelity)


class Encoder(Analyzer):
    """Analyses audio, and makes records of it, with one model."""

    def fit_bitrate(
        self, budget: float, packets: Iterable[Analysis], guess: float | None = None, unused: float = UNUSED
    ) -> tuple[float, float]:
        """The rate at which the records of the base layer take at most `budget` bytes, and the ratio, see `Plan`."""
        codebook = self.model.codebook
        slack = codebook.slack
        if guess is None and slack:
            vectors = sum(self.model.vectors_of(packet.hops) * len(packet.base) for packet in packets)
            guess = likely_rate(8 * max(budget, 1) / max(vectors, 1))
        most, finest = budget * 2 ** (slack / 2), codebook.levels - 1.0
        rate, size = fit_rate(lambda *at: self.size(packets, *at), most, finest, guess, max(unused, slack))
        return rate, budget / size if 2**-slack <= budget / size <= 2**slack else 1.0

    def size(self, packets: Iterable[Analysis], level: int, fidelity: float) -> float:
        """About how many bytes the records of the base layer take; level NO_BASE: what is left of them."""
        size = 0.0
        for packet in packets:
            size += 10 + 2 * len(packet.gains)  # record and duration
            if level != container.NO_BASE:
                size += sum(self.model.codebook.estimate(z, level, fidelity) for z in packet.base) / 8 + 2
        return size

    def plan(
        self, packets: Spool, layers: str, budget: float, level: int | None, ddcm: DDCM | None, steps: int | None
    ) -> Plan:
        """How packets are coded in about `budget` bytes.

        Args:
            layers: "base", "both", or "ddcm".
            level: of the base layer; None: what the budget, or half of it where there are both layers, allows.
            ddcm: setting of the enhancement layer; None: what meets the budget, in so many `steps`.
        """
        self.model.codebook.forget()
        rate, layer, quality = 0.0, None, self.model.default_quality if level is None else level
        if layers == "ddcm":
            quality = container.NO_BASE
        else:
            if level is None:
                rate, _ = self.fit_bitrate(budget if layers == "base" else budget / 2, packets, unused=ROUGHLY)
            packets = Spool(raised(self.model, packets, int(rate) if level is None else level, layers == "both"))
        if layers != "base":
            if quality == container.NO_BASE or level is not None:
                budget -= self.size(packets, quality, 1.0)
            if ddcm is None:
                share = budget / 2 if quality != container.NO_BASE and level is None else budget
                ddcm = self.fit_layer(share, packets, steps)
            layer = self.layer(ddcm, quality)
            budget -= self.layer_size(layer, packets)
        if level is not None or quality == container.NO_BASE:
            return Plan(packets, 0.0, quality, 1.0, 1.0, layer)
        rate, ratio = self.fit_bitrate(SURE * budget, packets, rate)
        if layers == "both" and self.model.denoiser is not None:
            rate = min(rate, self.model.denoiser.levels - RESOLUTION)
        return Plan(packets, rate, *setting(rate), ratio, self.layer(ddcm, int(rate)) if ddcm else None)

    def layer(self, ddcm: DDCM, level: int) -> Layer:
        """Parameters of an enhancement layer on a base layer of a level, or NO_BASE."""
        denoiser = self.model.denoiser
        assert denoiser is not None  # the caller made sure of it
        if level == container.NO_BASE:
            return ddcm.layer(denoiser.fingerprint, None, denoiser.plan)
        if level >= denoiser.levels:
            raise ValueError(f"quality {level} leaves nothing to refine: the model's denoiser is for less")
        return ddcm.layer(denoiser.fingerprint, float(step_size(level)), denoiser.plan)

    def layer_size(self, layer: Layer, packets: Iterable[Analysis]) -> int:
        """Bytes of the records of the enhancement layers."""
        sizes = [layer.size(len(p.latents), self.model.vectors_of(p.hops)) for p in packets if p.latents]
        return sum(sizes) + RECORD * len(sizes)

    def fit_layer(self, budget: float, packets: Iterable[Analysis], steps: int | None) -> DDCM:
        """The setting of the most bits whose enhancement layers take at most `budget` bytes, or of the fewest."""
        sizes = [len(p.latents) * self.model.vectors_of(p.hops) for p in packets if p.latents]
        vectors, fixed = sum(sizes), len(sizes) * (RECORD + FIELDS.size + 1)
        return DDCM.fit(8 * (budget - fixed) / max(1, vectors), steps)

    def records(
        self,
        packets: Iterable[Analysis],
        level: int,
        fidelity: float = 1.0,
        ratio: float = 1.0,
        layer: Layer | None = None,
        first: int = 0,
        own: bool = False,
        gains: Gains | None = None,
    ) -> Iterator[bytes]:
        """Records of packets, from number `first` on.

        Args:
            level: quality; NO_BASE: the enhancement layer is all that there is.
            fidelity, ratio: see `ScalarCodebook.quantize`.
            layer: setting of an enhancement layer.
            own: packets say their quality themselves.
            gains: what they are at about this quality, if that is known; if not, they are put there.
        """
        group, most = list[Analysis](), max(BATCH, self.model.batch)
        for packet in packets:
            if group and (packet.hops != group[0].hops or len(group) * len(packet.gains) >= most):
                yield from self._pack(group, first, level, fidelity, ratio, layer, own, gains)
                first, group = first + len(group), []
            group.append(packet)
        yield from self._pack(group, first, level, fidelity, ratio, layer, own, gains)

    def _pack(
        self,
        packets: Sequence[Analysis],
        first: int,
        level: int,
        fidelity: float,
        ratio: float,
        layer: Layer | None,
        own: bool,
        known: Gains | None,
    ) -> Iterator[bytes]:
        """Records of packets of equal duration, from number `first` on."""
        model, based = self.model, level != container.NO_BASE
        step = float(step_size(level)) if based else COARSEST_STEP
        streams, latents = list[list[tuple[np.ndarray, np.ndarray]]](), list[Tensor]()
        for packet in packets:
            found = [model.codebook.quantize(z, level, fidelity, ratio) for z in packet.base] if based else []
            streams.append([(classes, indices) for classes, indices, _ in found])
            latents.append(torch.from_numpy(np.stack([z for *_, z in found])) if found else torch.empty(0))
        layers: Sequence[bytes | None] = [None] * len(packets)
        if layer is not None and packets:
            layers, ends, reached = self._enhance(packets, first, latents, level, step, layer)
            if not based:
                latents, step = ends, float(step_size(reached))
        known = {} if known is None else known
        numbers = range(first, first + len(packets))
        if not model.corrects_loudness:
            known.update(zip(numbers, (tuple(packet.gains) for packet in packets), strict=True))
        elif not known.keys() >= set(numbers):
            flat = [z for channels in latents for z in channels]
            known.update(zip(numbers, output_gains(model, packets, flat, step), strict=True))
        for index, packet, coded, body in zip(numbers, packets, streams, layers, strict=True):
            payload = model.codebook.pack(coded, level) if coded else b""
            record = Packet(packet.hops, known[index], payload, level if own else None)
            yield container.pack_record(container.PACKET, record.pack(), index)
            if body is not None and packet.latents:
                yield container.pack_record(container.LAYER, body, index)

    def _enhance(
        self, packets: Sequence[Analysis], first: int, bases: list[Tensor], level: int, step: float, layer: Layer
    ) -> tuple[list[bytes], list[Tensor], int]:
        """Enhancement layers of packets of equal duration, made together; the latents they lead to, and their level."""
        denoiser = self.model.denoiser
        assert denoiser is not None  # the caller made sure of it
        counts = [len(p.latents) for p in packets]
        if not sum(counts):
            return [b""] * len(packets), bases, layer.level
        target = torch.from_numpy(np.stack([z for p in packets for z in p.latents]))
        numbers = np.concatenate([np.arange(count) + (n << 8) for n, count in enumerate(counts, first)])
        based = level != container.NO_BASE
        base = torch.cat(bases) if based else torch.zeros_like(target)
        walk = Walk(denoiser, base, level if based else -1, step, numbers)
        layer, picks, ends = walk.encode(layer, target)
        borders = np.cumsum(counts)[:-1]
        return [layer.pack(p) for p in np.split(picks, borders)], list(ends.split(counts)), layer.level
