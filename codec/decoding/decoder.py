"""Packets -> audio: one file or stream, packet by packet."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from ...format import container
from ...format.errors import DamageError
from ...format.parameters import HighBand, Stereo
from ...format.stream import Item, StreamReader
from ..audio.resampling import length_at, resample
from ..dsp.loudness import PEAK, peak_of
from ..fullband.spectra import FULL_RATE
from ..fullband.synthesis import ParametricDecoder
from ..stages import CodecModel
from ..torch_defaults import generator_with_torch_defaults, with_torch_defaults
from ..values import DecodedLatents, Frames
from .channels import Crossfade, LazyFrames, VocoderBank, map_unique
from .packets import DecodeOptions, PacketDecoder

Channel = tuple[int, float] | None  # number among the coded channels, and gain; None: silent
BLOCK_VALUES = 1 << 21  # of a block [C, n]: 8 MB
FOREVER = 1 << 62  # samples
EDGE = 48  # frames decoded before a start in the middle, so that its first sample is settled


class Decoder:
    """Decodes one file or stream with one model, packet by packet.

    Args:
        source: bytes; a buffered binary file object, which may be a pipe that is still being written; or a reader.

    Attributes:
        header: of the file.
        damage: a line for each thing that was missing or changed, as far as the file was read.
        decoded_packets: how many packets were decoded.
        refine: steps of diffusion that packets without an enhancement layer get; see `DecodeOptions`.

    Raises:
        FormatError: not an .aldm file, a newer version, or a damaged header.
        ModelError: the file needs another model, or a denoiser, which this one has not.
    """

    def __init__(self, model: CodecModel, source: bytes | BinaryIO | StreamReader, options: DecodeOptions):
        self.model, self.options = model, options
        self.reader = source if isinstance(source, StreamReader) else StreamReader(source)
        self.header, self.damage, self.decoded_packets = self.reader.header, self.reader.damage, 0
        self._packets = PacketDecoder(model, self.header, options)
        self.refine = self._packets.refine
        self._history: list[Tensor | None] = [None] * self.header.channels  # latents before the next packet
        self._parametric: ParametricDecoder | None = None

    def output_rate(self, original_rate: bool = False, rate: int | None = None) -> int:
        """Rate of the samples that `blocks` gives with these arguments, Hz.

        Raises:
            ValueError: a rate out of range.
        """
        core = self.model.mel.sample_rate
        if rate is not None:
            if isinstance(rate, bool) or not 1000 <= rate <= container.MAX_RATE:
                raise ValueError(f"a rate is 1000 to {container.MAX_RATE} Hz, not {rate}")
            return int(rate)
        own = original_rate or (self.header.parametric and self.header.sample_rate > core)
        return self.header.sample_rate if own else core

    @generator_with_torch_defaults
    def blocks(
        self,
        original_rate: bool = False,
        start: float = 0.0,
        duration: float | None = None,
        rate: int | None = None,
    ) -> Iterator[np.ndarray]:
        """The sound, or a part of it, as blocks [C, n], each as soon as its packet is read. To be called once.

        Args:
            original_rate: resample to the rate of what was encoded. Files with a high band always are.
            rate: another rate, Hz; at 16000 or less the high band is left out.
            start, duration: seconds; of a seekable file, only what they need is read.

        Raises:
            DamageError: nothing that can be decoded, or damage that `strict` refuses.
            ValueError: nothing there, or more than `max_duration`.
        """
        own, hop = self.model.mel.sample_rate, self.model.mel.hop_length
        rate = self.output_rate(original_rate, rate)
        begin, end = self._sample_range(rate, start, duration)
        first = max(0, begin * container.HOPS_PER_SECOND // rate - EDGE)
        last = math.inf if duration is None else -(-int(end) * container.HOPS_PER_SECOND // rate) + EDGE
        channels = self.header.channels
        piece = max(1, BLOCK_VALUES * own // (channels * max(rate, own)))
        blocks, made = self._synthesize(first, last, piece), own
        if self.header.parametric:
            made = own if rate <= own else FULL_RATE
            self._parametric = ParametricDecoder(channels, made, first)
            blocks = self._parametric.blocks(blocks)
        blocks = resample(blocks, made, rate, channels)
        offset, given = first * hop * rate // own, 0
        for block in trim(blocks, begin - offset, lambda: min(end, self._total_samples(rate)) - offset):
            given += block.shape[1]
            if given > self.options.max_duration * rate:  # counted, since a header can claim anything
                hours = self.options.max_duration / 3600
                raise ValueError(f"more than {hours:g} h of sound: a larger maximum duration allows it")
            yield block
        if not given:
            seconds = self.reader.hops / container.HOPS_PER_SECOND
            raise ValueError(f"nothing to decode from {start:g} s on: the file has {seconds:.2f} s")

    def length(
        self,
        original_rate: bool = False,
        start: float = 0.0,
        duration: float | None = None,
        rate: int | None = None,
    ) -> int | None:
        """How many samples `blocks` will give, if the file is whole; None: it does not say yet.

        Raises:
            ValueError: nothing there.
        """
        rate = self.output_rate(original_rate, rate)
        begin, end = self._sample_range(rate, start, duration)
        end = min(end, self._total_samples(rate))
        return int(end) - begin if self.reader.samples is not None else None

    def _total_samples(self, rate: int) -> float:
        """Samples of the whole file at a rate, as far as is known."""
        samples = self.reader.samples
        return math.inf if samples is None else length_at(samples, self.header.sample_rate, rate)

    def _sample_range(self, rate: int, start: float, duration: float | None) -> tuple[int, float]:
        """First sample of a part and the one behind its last."""
        total, finite = self._total_samples(rate), math.isfinite(start * rate) and math.isfinite(duration or 0)
        if not finite or start < 0 or round(start * rate) >= total:
            raise ValueError(f"nothing to decode from {start:g} s on: the file has {total / rate:.2f} s")
        begin = round(start * rate)
        return begin, math.inf if duration is None else begin + max(1, round(min(duration * rate, FOREVER)))

    def _synthesize(self, first: int, last: float, piece: int) -> Iterator[np.ndarray]:
        """Waveform blocks [C, n], n at most `piece`, of frames first .. last - 1, as far as there are packets."""
        size = self.header.packet_hops
        bank = VocoderBank(self.model, self.header.channels, piece)
        crossfade = Crossfade(self.model.overlap)
        missing, pushed = 0, False  # frames that wait for the next packet
        start = max(0, first - self.model.overlap) // size
        for item in self._items(max(0, start * size - self.model.context) // size):
            begin = item.number * size
            if begin >= last:
                break
            frames = self._frames(item, heard=item.number >= start)
            if item.number < start:
                continue
            hops = item.packet.hops if item.packet else size
            skip, stop = max(0, first - begin), int(min(hops, last - begin))
            frames = crossfade.join(frames, hops)
            if skip >= stop:
                continue
            if self._parametric:
                packet = None if frames is None else item.packet
                self._parametric.add(
                    hops, slice(skip, stop), packet, *(self.parameters(item) if packet else (None, None))
                )
            if frames is None:
                missing += stop - skip
                continue
            part = slice(skip, stop)
            frames = map_unique(lambda f, part=part: lambda: f().during(part), frames)
            yield from bank.fill(missing, frames)
            yield from bank.push(frames)
            missing, pushed = 0, True
        yield from bank.fill(missing, None)
        if pushed or missing:
            yield from bank.flush()

    def parameters(self, item: Item) -> tuple[HighBand | None, Stereo | None]:
        """What high band and stereo records say of a packet that is not missing; None where they do not decode."""
        found = list[Any]()
        for kind, record in ((container.HIGH_BAND, HighBand), (container.STEREO, Stereo)):
            try:
                body = item.parameters.get(kind)
                found.append(body and item.packet and record.parse(body, item.packet))
            except DamageError as error:
                found.append(None)
                self.damage.append(f"{self.reader.place(item.number)}: {error}")
                self._raise_on_damage()
        return found[0], found[1]

    def _items(self, first: int) -> Iterator[Item]:
        """Packets from number `first` on, and errors where damage ends it."""
        for item in self.reader.packets(first):
            self._raise_on_damage()
            yield item
        self._raise_on_damage(nothing=not self.reader.hops)

    def _raise_on_damage(self, nothing: bool = False) -> None:
        if self.damage and (self.options.strict or nothing):
            more = f" (and {len(self.damage) - 1} more)" if len(self.damage) > 1 else ""
            raise DamageError(f"damaged file: {self.damage[0]}{more}")

    @with_torch_defaults
    def latents(self, item: Item) -> DecodedLatents:
        """Latents of a packet's channels that are neither silent nor a copy.

        Raises:
            DamageError: the packet is missing, or does not decode.
        """

        def report(problem: DamageError) -> None:
            self.damage.append(f"{self.reader.place(item.number)}: {problem}")

        return self._packets.decode(item.packet, item.layer, item.number, self.reader.comments, report)

    def _frames(self, item: Item, heard: bool) -> list[LazyFrames] | None:
        """Frames of each group of channels; None if the packet is missing or does not decode.

        Equal groups next to each other share an object.

        Args:
            heard: False: it is only context for the next packet.
        """
        before, self._history = self._history, [None] * self.header.channels
        if item.packet is None:
            return None
        try:
            latents = self.latents(item)
        except DamageError as error:
            self.damage.append(f"{self.reader.place(item.number)}: {error}")
            self._raise_on_damage()
            return None
        self._raise_on_damage()
        self.decoded_packets += heard
        channels, histories = list[Channel](), list[Tensor | None]()
        for c, gain in enumerate(item.packet.gains):
            if gain == container.GAIN_COPY:
                channels.append(channels[-1])
                self._history[c] = self._history[c - 1]
            elif gain == container.GAIN_SILENT:
                channels.append(None)
            else:
                coded = len(histories)
                channels.append((coded, peak_of(gain) / PEAK))
                histories.append(before[c])
                values = latents.final.values[coded : coded + 1]
                self._history[c] = self.model.history(before[c], values, item.packet.hops)
        count, size = item.packet.hops + self.model.overlap, self.model.batch
        groups = [channels[first : first + size] for first in range(0, len(channels), size)]
        out: list[LazyFrames] = []
        for g, group in enumerate(groups):
            same = g and group == groups[g - 1]
            out.append(out[-1] if same else functools.partial(self._group, latents, histories, group, count))
        return out

    def _group(
        self, latents: DecodedLatents, histories: list[Tensor | None], channels: list[Channel], count: int
    ) -> Frames:
        """Frames of a group of channels, `count` of them each.

        Args:
            latents: of all channels that are coded.
            histories: latents before those of each coded channel.
        """
        rows = sorted({channel[0] for channel in channels if channel})
        made = self.model.frames(latents.rows(rows), [histories[row] for row in rows]) if rows else None
        silence = Frames.silence(1, self.model.frame_size, count, self.model.device)
        parts = [
            made.channel(rows.index(channel[0])).times(channel[1]) if made and channel else silence
            for channel in channels
        ]
        return Frames.stack(parts, 0)


def trim(blocks: Iterable[np.ndarray], begin: int, end: Callable[[], float]) -> Iterator[np.ndarray]:
    """Samples begin .. end() - 1 of a stream of blocks [C, n]; the end may be known as late as at the last block."""
    at = 0
    for block in blocks:
        stop = min(end() - at, block.shape[1])
        part = block[:, max(0, begin - at) : max(0, int(stop))]
        at += block.shape[1]
        if part.shape[1]:
            yield part
        if at >= end():
            return
