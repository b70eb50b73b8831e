"""Packets -> audio: indices, magnitudes, and the waveform through Griffin-Lim."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.errors import DamageError
from ..format.layer import MAX_STEPS, Layer
from ..format.stream import Item, StreamReader
from .audio import length_at, resample
from .conceal import Concealer, alike
from .diffusion import Walk
from .folder import ModelError
from .gain import AUDIBLE, PEAK, SPECIAL, audible_energy, peak_of
from .model import Model
from .quantizer import COARSEST, step_size

LAYERS = ("all", "base")
EDGE = 48  # frames that a decoder which starts in the middle hears before it, so that its first sample is settled


class Decoder:
    """Decodes one file or stream with one model, packet by packet.

    Args:
        source: bytes; a buffered binary file object, which may be a pipe that is still being written; or a reader.
        strict: refuse damage, instead of concealing damaged packets.
        layers: "all"; or "base": enhancement layers are ignored.
        refine: steps of diffusion for packets that have no enhancement layer. The finest qualities leave nothing to
            refine, and it becomes 0.
        prompt, from_step: another prompt than the file's for the steps of diffusion from that one on.

    Attributes:
        header: of the file.
        damage: a line for each thing that was missing or changed, as far as the file was read.
        decoded: how many packets were decoded.

    Raises:
        FormatError: not an .aldm file, a newer version, or a damaged header.
        ModelError: the file needs another model, or a denoiser, which this one has not.
    """

    def __init__(
        self,
        model: Model,
        source: bytes | BinaryIO | StreamReader,
        strict: bool = False,
        layers: str = "all",
        refine: int = 0,
        prompt: str | None = None,
        from_step: int = 0,
    ):
        if layers not in LAYERS:
            raise ValueError(f"no layers {layers}; there are {', '.join(LAYERS)}")
        if not 0 <= refine <= MAX_STEPS:
            raise ValueError(f"refinement takes 0 to {MAX_STEPS} steps, not {refine}")
        self.model, self.strict, self.layers, self.refine = model.prompted([], prompt, 0), strict, layers, refine
        self._prompt = prompt, from_step
        self.patch = model.autoencoder.patch
        self.reader = source if isinstance(source, StreamReader) else StreamReader(source)
        self.header, self.damage, self.decoded = self.reader.header, self.reader.damage, 0
        self._before: list[Tensor | None] = [None] * self.header.channels  # latents before the next packet
        if self.header.model != model.fingerprint[:4]:
            needed, have = self.header.model.hex(), model.fingerprint[:4].hex()
            raise ModelError(f"the file needs model {needed}; {model.name or 'this one'} is {have}")
        quality = self.header.quality
        self.based = quality != container.NO_BASE
        if not (quality < model.codebook.levels or quality >= container.OWN_QUALITY):
            raise DamageError("a quality that this model does not have")
        if self.header.packet_hops % self.patch:
            raise DamageError("a packet duration that this model does not have")
        if not self.based and layers == "base":
            raise ValueError("this file has no base layer")
        if model.denoiser is None and (refine or not self.based):
            raise ModelError(f"model {model.name} has no denoiser")
        if model.denoiser and model.denoiser.levels <= quality < container.OWN_QUALITY:
            self.refine = 0

    def blocks(
        self, original_rate: bool = False, start: float = 0.0, duration: float | None = None
    ) -> Iterator[np.ndarray]:
        """The sound, or a part of it, as blocks [C, n], each as soon as its packet is read. To be called once.

        Args:
            original_rate: resample to the rate of what was encoded.
            start, duration: seconds; of a seekable file, only what they need is read.

        Raises:
            DamageError: nothing that can be decoded, or damage that `strict` refuses.
            ValueError: nothing there.
        """
        own, hop = self.model.mel.sample_rate, self.model.mel.hop_length
        rate = self.header.sample_rate if original_rate else own
        begin, end = self._part(rate, start, duration)
        first = max(0, begin * container.HOPS_PER_SECOND // rate - EDGE)
        last = math.inf if duration is None else -(-int(end) * container.HOPS_PER_SECOND // rate) + EDGE
        blocks = resample(self._synthesize(first, last), own, rate, self.header.channels)
        offset, nothing = first * hop * rate // own, True
        for block in cut(blocks, begin - offset, lambda: min(end, self._whole(rate)) - offset):
            nothing = False
            yield block
        if nothing:
            seconds = self.reader.hops / container.HOPS_PER_SECOND
            raise ValueError(f"nothing to decode from {start:g} s on: the file has {seconds:.2f} s")

    def length(self, original_rate: bool = False, start: float = 0.0, duration: float | None = None) -> int | None:
        """How many samples `blocks` will give, if the file is whole; None: it does not say yet.

        Raises:
            ValueError: nothing there.
        """
        rate = self.header.sample_rate if original_rate else self.model.mel.sample_rate
        begin, end = self._part(rate, start, duration)
        end = min(end, self._whole(rate))
        return int(end) - begin if self.reader.samples is not None else None

    def _whole(self, rate: int) -> float:
        """Samples of the whole file at a rate, as far as is known."""
        samples = self.reader.samples
        return math.inf if samples is None else length_at(samples, self.header.sample_rate, rate)

    def _part(self, rate: int, start: float, duration: float | None) -> tuple[int, float]:
        """First sample of a part and the one behind its last."""
        if not all(map(math.isfinite, (start, duration or 0))) or start < 0 or round(start * rate) >= self._whole(rate):
            raise ValueError(f"nothing to decode from {start:g} s on: the file has {self._whole(rate) / rate:.2f} s")
        begin = round(start * rate)
        return begin, math.inf if duration is None else begin + max(1, round(duration * rate))

    def _synthesize(self, first: int, last: float) -> Iterator[np.ndarray]:
        """Waveform blocks [C, n] of frames first .. last - 1, as far as there are packets."""
        size, channels = self.header.packet_hops, self.header.channels
        vocoders, concealer = Vocoders(self.model, channels), Concealer(self.model.frame_size, channels)
        missing, pushed = 0, False  # frames that wait for the next packet
        behind: list[Tensor] | None = None  # what the packet before says of this one's first hops
        start = max(0, first - self.model.overlap) // size
        for item in self._items(max(0, start * size - self.model.context) // size):
            begin = item.number * size
            if begin >= last:
                break
            magnitudes = self._magnitudes(item, heard=item.number >= start)
            if item.number < start:
                continue
            hops = item.packet.hops if item.packet else size
            skip, stop = max(0, first - begin), int(min(hops, last - begin))
            if magnitudes is not None and self.model.overlap:
                magnitudes = alike(crossfade, behind, magnitudes) if behind else magnitudes
                behind = alike(lambda m, hops=hops: m[:, hops:], magnitudes)
            if skip >= stop:
                continue
            if magnitudes is None:
                behind = None
                missing += stop - skip
                continue
            magnitudes = alike(lambda m, skip=skip, stop=stop: m[:, skip:stop], magnitudes)
            for gap in concealer.fill(missing, magnitudes):
                yield vocoders.push(gap)
            yield vocoders.push(magnitudes)
            concealer.follow(magnitudes)
            missing, pushed = 0, True
        for gap in concealer.fill(missing, None):
            yield vocoders.push(gap)
        if pushed or missing:
            yield vocoders.flush()

    def _items(self, first: int) -> Iterator[Item]:
        """Packets from number `first` on, and errors where damage ends it."""
        for item in self.reader.packets(first):
            self._refuse()
            yield item
        self._refuse(nothing=not self.reader.hops)

    def _refuse(self, nothing: bool = False) -> None:
        if self.damage and (self.strict or nothing):
            more = f" (and {len(self.damage) - 1} more)" if len(self.damage) > 1 else ""
            raise DamageError(f"damaged file: {self.damage[0]}{more}")

    def latents(self, item: Item) -> list[tuple[Tensor, float]]:
        """Latents [C, latent_channels, N] of a packet's channels that are neither silent nor a copy, and their step.

        The step is that of a quantiser which leaves as much error.

        Returns:
            those of the base layer, if there is one, and those at the end of a diffusion, if there is one.

        Raises:
            DamageError: the packet is missing, or does not decode.
        """
        model, packet, index = self.model.prompted(self.reader.comments, *self._prompt), item.packet, item.number
        if packet is None or packet.hops % self.patch:
            raise DamageError("damaged packet: missing, or not a whole number of latent vectors")
        level = self.header.quality if packet.quality is None else packet.quality
        if self.based and level >= model.codebook.levels:
            raise DamageError("damaged packet: a quality that this model does not have")
        coded, vectors = sum(gain not in SPECIAL for gain in packet.gains), model.vectors_of(packet.hops)
        if not coded:
            return []
        found = []
        base, step = torch.zeros(coded, model.autoencoder.latent_channels, vectors), COARSEST
        if self.based:
            streams = model.codebook.unpack(packet.payload, coded, vectors, level)
            base, step = model.dequantize(streams, level), float(step_size(level))
            found.append((base, step))
        picked = self._layer(item, level, coded, vectors)
        refine = self.refine if model.denoiser and self.based and level < model.denoiser.levels else 0
        if model.denoiser is not None and (picked or refine):
            numbers = np.arange(coded) + (index << 8)
            walk = Walk(model.denoiser, base, level if self.based else -1, step, numbers)
            if picked:
                found.append((walk.decode(*picked), float(step_size(picked[0].level))))
            else:
                found.append((walk.refine(refine), step))
        if not found:
            raise DamageError("damaged packet: no layer that can be used")
        return found

    def _layer(self, item: Item, level: int, coded: int, vectors: int) -> tuple[Layer, np.ndarray] | None:
        """The enhancement layer of a packet, if there is one that can be used."""
        if item.layer is None or self.layers == "base":
            return None
        try:
            layer, picks = Layer.parse(item.layer, coded, vectors)
            if self.model.denoiser is None or layer.denoiser != self.model.denoiser_fingerprint[:2]:
                raise DamageError("enhancement layer of another denoiser")
            if self.based and level >= self.model.denoiser.levels:
                raise DamageError("enhancement layer on a quality that the denoiser does not know")
        except DamageError as error:
            if self.strict:
                raise
            self.damage.append(f"packet {item.number}: {error}")
            return None
        return layer, picks

    def _magnitudes(self, item: Item, heard: bool = True) -> list[Tensor] | None:
        """What the vocoder takes, [frame_size, T], of each channel; None if the packet is missing or does not decode.

        Those of a channel that equals the one before are the same object.

        Args:
            heard: whether it is more than context of the next packet; if not, there are none.
        """
        before, self._before = self._before, [None] * self.header.channels
        if item.packet is None:
            return None
        try:
            latents = self.latents(item)
        except DamageError as error:
            self.damage.append(f"packet {item.number}: {error}")
            self._refuse()
            return None
        self.decoded += heard
        out: list[Tensor] = []
        silence, coded = torch.zeros(self.model.frame_size, item.packet.hops + self.model.overlap), 0
        for c, gain in enumerate(item.packet.gains):
            if gain == container.GAIN_COPY:
                out.extend(out[-1:])
                self._before[c] = self._before[c - 1]
            elif gain == container.GAIN_SILENT:
                out.append(silence)
            else:
                mine = [(z[coded : coded + 1], step) for z, step in latents]
                if heard:
                    out.append(self._synthesis(mine, before[c])[0] * (peak_of(gain) / PEAK))
                self._before[c] = self._context(before[c], mine[-1][0], item.packet.hops)
                coded += 1
        return out if heard else None

    def _context(self, before: Tensor | None, latents: Tensor, hops: int) -> Tensor | None:
        """The last latents up to the end of a packet, as many as the model wants to hear before the next one."""
        if not self.model.context:
            return None
        own = latents[:, :, : hops // self.patch]
        both = own if before is None else torch.cat([before, own], 2)
        return both[:, :, -(self.model.context // self.patch) :]

    def _synthesis(self, latents: list[tuple[Tensor, float]], before: Tensor | None = None) -> Tensor:
        """Frames of what `latents` found; after a diffusion from a base layer, they are as loud as that layer's.

        Args:
            before: latents of the packet before, which the model hears too.
        """
        if before is not None:
            frames = self.model.frames(torch.cat([before, latents[-1][0]], 2), latents[-1][1])
            return frames[:, :, before.shape[2] * self.patch :]
        if len(latents) == 1 or not self.model.corrects_loudness:
            return self.model.frames(*latents[-1])
        magnitudes = self.model.decode_magnitudes(*latents[-1])
        first = torch.full((len(magnitudes),), AUDIBLE)
        wanted = audible_energy(self.model.decode_magnitudes(*latents[0]), first)
        louder = (wanted / audible_energy(magnitudes, first)).sqrt()[:, None, None]
        return self.model.framed(magnitudes * louder, latents[-1][1])


class Vocoders:
    """A vocoder for every channel; equal channels are made once, for as long as they are equal."""

    def __init__(self, model: Model, channels: int):
        first = model.vocoder()
        self._channels = [first] * channels

    @torch.inference_mode()
    def push(self, magnitudes: list[Tensor]) -> np.ndarray:
        """Take frames [frame_size, T] of every channel; return the waveforms [C, N] that are settled by now."""
        before = list(self._channels)
        for c in range(1, len(before)):
            if before[c] is before[c - 1]:
                same = magnitudes[c] is magnitudes[c - 1]
                self._channels[c] = self._channels[c - 1] if same else copy.copy(before[c])
        return self._run(lambda c, vocoder: vocoder.push(magnitudes[c][None]))

    @torch.inference_mode()
    def flush(self) -> np.ndarray:
        """The rest, behind what was pushed."""
        return self._run(lambda c, vocoder: vocoder.flush())

    def _run(self, job: Callable[[int, Any], Tensor]) -> np.ndarray:
        waves: list[np.ndarray] = []
        for c, vocoder in enumerate(self._channels):
            made = c and vocoder is self._channels[c - 1]
            waves.append(waves[-1] if made else job(c, vocoder)[0].numpy())
        return np.stack(waves)


def crossfade(before: Tensor, packet: Tensor) -> Tensor:
    """A packet [..., T] whose first frames come from what the one before says of them [..., V].

    In their middle half, it goes over from one account to the other: neither knows well how it ends.
    """
    count = before.shape[-1]
    weight = ((torch.arange(count) + 0.5 - count / 4) / (count / 2)).clamp(0, 1)
    return torch.cat([torch.lerp(before, packet[..., :count], weight), packet[..., count:]], -1)


def cut(blocks: Iterable[np.ndarray], begin: int, end: Callable[[], float]) -> Iterator[np.ndarray]:
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
