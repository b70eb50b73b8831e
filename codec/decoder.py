"""Packets -> audio: which packets there are, what is in them, and the waveform through the vocoder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.container import Header, Packet
from ..format.entropy import decode_indices
from ..format.errors import DamageError
from .audio import length_at, resample
from .folder import ModelError
from .gain import PEAK, SPECIAL, peak_of
from .griffin_lim import GriffinLim
from .model import Model

SILENT_MEL = -30.0  # natural log: nothing, for a 16-bit file
EDGE_SECONDS = 0.1  # what a decoder that starts in the middle hears before it, so that its first sample is settled


@dataclass
class Report:
    """What a decoder met.

    Attributes:
        packets: how many were decoded.
        damage: a line for each stretch of bytes or packet that could not be used.
    """

    packets: int = 0
    damage: list[str] = field(default_factory=list)


class Decoder:
    """Decodes one file with one model.

    Args:
        strict: refuse damage, instead of silence in the place of damaged packets.

    Attributes:
        header: of the file.
        report: what was damaged; packets that do not decode are added while decoding.

    Raises:
        FormatError: not an .aldm file, a newer version, or damage that leaves nothing or `strict` refuses.
        ModelError: the file needs another model.
    """

    def __init__(self, model: Model, data: bytes, strict: bool = False):
        self.model, self.strict = model, strict
        self.header = Header.parse(data)
        if self.header.model != model.fingerprint[:4]:
            needed, have = self.header.model.hex(), model.fingerprint[:4].hex()
            raise ModelError(f"the file needs model {needed}; {model.name or 'this one'} is {have}")
        self._size = self.header.packet_hops * model.mel.sample_rate // container.HOPS_PER_SECOND  # samples of a packet
        if self.header.quality >= model.codebook.levels or self._size % model.patch_samples:
            raise DamageError("header fields that this model does not know: quality or packet duration")
        self.report = Report()
        self._packets: dict[int, Packet] = {}
        self._read(data)
        if self.report.damage and (strict or not self._packets):
            more = f" (and {len(self.report.damage) - 1} more)" if len(self.report.damage) > 1 else ""
            raise DamageError(f"damaged file: {self.report.damage[0]}{more}")
        if not self._packets:
            raise DamageError("nothing to decode: no packets")

    def _read(self, data: bytes) -> None:
        """Collect the whole packets, and find how long the sound is: `_total` samples at the codec's rate."""
        rate, damage = self.model.mel.sample_rate, self.report.damage
        self._samples = self.header.samples
        self._total, broken_end = 0, False
        for record in container.read_records(data):
            if isinstance(record, DamageError):
                damage.append(str(record))
                broken_end = True
            elif record.kind == container.END and self._samples is None:
                self._samples = int.from_bytes(record.body[:5], "little")
            elif record.kind == container.PACKET:
                try:
                    packet = Packet.parse(record.body, self.header.channels)
                    if packet.vectors * self.model.patch_samples > self._size:
                        raise DamageError("longer than the header allows")
                except DamageError as error:
                    damage.append(f"packet {record.index}: {error}")
                    continue
                self._packets[record.index] = packet
                self._total = record.index * self._size + packet.vectors * self.model.patch_samples
                broken_end = False
        if missing := [i for i in range(max(self._packets, default=-1)) if i not in self._packets]:
            damage.append(f"{len(missing)} missing packets, the first is number {missing[0]}")
        if self._samples is not None:
            expected = length_at(self._samples, self.header.sample_rate, rate)
            if self._total < expected:
                damage.append(f"ends at {self._total / rate:.2f} of {expected / rate:.2f} s")
                if broken_end:  # the packet that the last damage took: silence in its place
                    self._total = (-(-self._total // self._size) + 1) * self._size
            self._total = min(self._total, expected)

    def blocks(self, original_rate: bool, start: float, duration: float | None) -> Iterator[np.ndarray]:
        """The sound, or a part of it, as blocks [C, n].

        Args:
            original_rate: resample to the rate of what was encoded.
            start, duration: seconds.

        Raises:
            ValueError: nothing there.
        """
        own = self.model.mel.sample_rate
        rate = self.header.sample_rate if original_rate else own
        whole = length_at(self._total, own, rate)
        if original_rate and self._samples is not None:
            whole = min(whole, self._samples)
        begin = round(start * rate)
        end = whole if duration is None else min(whole, begin + round(duration * rate))
        if not 0 <= begin < end:
            raise ValueError(f"nothing to decode from {start:g} s on: the file has {whole / rate:.2f} s")
        first = int(max(0.0, begin / rate - EDGE_SECONDS) * own) // self._size
        last = min((self._total - 1) // self._size, int((end / rate + EDGE_SECONDS) * own) // self._size)
        mels = (self._mel(i) for i in range(first, last + 1))
        skip = begin - first * self._size * rate // own
        return cut(resample(self._synthesize(mels), own, rate, self.header.channels), skip, end - begin)

    @torch.inference_mode()
    def _mel(self, index: int) -> Tensor:
        """Log-mel [C, T, n_mels] of a packet; silence if it is missing or does not decode."""
        patch = self.model.autoencoder.patch
        vectors = -(-min(self._size, self._total - index * self._size) // self.model.patch_samples)
        out = torch.full((self.header.channels, vectors * patch, self.model.mel.n_mels), SILENT_MEL)
        packet, level = self._packets.get(index), self.header.quality
        if packet is None:
            return out
        coded = sum(gain not in SPECIAL for gain in packet.gains)
        try:
            streams = decode_indices(packet.payload, coded, packet.vectors, self.model.codebook.tables, level)
        except DamageError as error:
            if self.strict:
                raise
            self.report.damage.append(f"packet {index}: {error}")
            return out
        self.report.packets += 1
        decoded = iter(self.model.decode_indices([indices for _, indices in streams], level) if streams else ())
        for c, gain in enumerate(packet.gains):
            if gain == container.GAIN_COPY:
                out[c] = out[c - 1]
            elif gain != container.GAIN_SILENT:
                mel = next(decoded)[: vectors * patch] + math.log(peak_of(gain) / PEAK)
                out[c, : len(mel)] = mel
        return out

    @torch.inference_mode()
    def _synthesize(self, mels: Iterable[Tensor]) -> Iterator[np.ndarray]:
        vocoder = GriffinLim(self.model.mel)
        for mel in mels:
            for wave in vocoder.push(mel):
                yield wave.numpy()
        for wave in vocoder.flush():
            yield wave.numpy()


def cut(blocks: Iterable[np.ndarray], skip: int, count: int) -> Iterator[np.ndarray]:
    """Drop `skip` samples of a stream of blocks [C, n], then pass `count` on."""
    for block in blocks:
        drop = min(skip, block.shape[1])
        skip -= drop
        block = block[:, drop : drop + count]
        count -= block.shape[1]
        if block.shape[1]:
            yield block
        if not count:
            return
