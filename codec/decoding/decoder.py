"""Packets -> audio: indices, magnitudes, and the waveform through Griffin-Lim."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ...format import container
from ...format.errors import DamageError
from ...format.layer import MAX_STEPS, Layer
from ...format.stream import Item, StreamReader
from ..audio.reader import length_at, resample
from ..diffusion.ddcm import Walk
from ..dsp.loudness import PEAK, SPECIAL, audible_energy, peak_of
from ..errors import ModelError
from ..levels import COARSEST_STEP, step_size
from ..model import Model
from .channels import Frames, Voices, alike, held

LAYERS = ("all", "base")
Channel = tuple[int, float] | None  # which of those that are coded, and what it is multiplied by; None: silent
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
        size = self.header.packet_hops
        voices = Voices(self.model, self.header.channels)
        missing, pushed = 0, False  # frames that wait for the next packet
        behind: list[Tensor] | None = None  # what the packet before says of this one's first hops
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
            if frames is not None and self.model.overlap:
                made = alike(lambda f: f(), frames)
                made = alike(crossfade, behind, made) if behind else made
                behind = alike(lambda m, hops=hops: m[..., hops:], made)
                frames = alike(held, made)
            if skip >= stop:
                continue
            if frames is None:
                behind = None
                missing += stop - skip
                continue
            frames = alike(lambda f, skip=skip, stop=stop: lambda: f()[..., skip:stop], frames)
            yield from voices.fill(missing, frames)
            yield voices.push(frames)
            missing, pushed = 0, True
        yield from voices.fill(missing, None)
        if pushed or missing:
            yield voices.flush()

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
        base, step = torch.zeros(coded, model.autoencoder.latent_channels, vectors), COARSEST_STEP
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
            self.damage.append(f"{self.reader.place(item.number)}: {error}")
            return None
        return layer, picks

    def _frames(self, item: Item, heard: bool) -> list[Frames] | None:
        """What the vocoders take, of each group of channels; None if the packet is missing or does not decode.

        That of a group that equals the one before is the same object.

        Args:
            heard: whether it is more than context of the next packet.
        """
        before, self._before = self._before, [None] * self.header.channels
        if item.packet is None:
            return None
        try:
            latents = self.latents(item)
        except DamageError as error:
            self.damage.append(f"{self.reader.place(item.number)}: {error}")
            self._refuse()
            return None
        self.decoded += heard
        channels, contexts = list[Channel](), list[Tensor | None]()
        for c, gain in enumerate(item.packet.gains):
            if gain == container.GAIN_COPY:
                channels.append(channels[-1])
                self._before[c] = self._before[c - 1]
            elif gain == container.GAIN_SILENT:
                channels.append(None)
            else:
                coded = len(contexts)
                channels.append((coded, peak_of(gain) / PEAK))
                contexts.append(before[c])
                self._before[c] = self._context(before[c], latents[-1][0][coded : coded + 1], item.packet.hops)
        count, size = item.packet.hops + self.model.overlap, self.model.batch
        groups = [channels[first : first + size] for first in range(0, len(channels), size)]
        out: list[Frames] = []
        for g, group in enumerate(groups):
            same = g and group == groups[g - 1]
            out.append(out[-1] if same else functools.partial(self._group, latents, contexts, group, count))
        return out

    def _group(
        self, latents: list[tuple[Tensor, float]], contexts: list[Tensor | None], channels: list[Channel], count: int
    ) -> Tensor:
        """Frames of a group of channels [C, frame_size, count], of what `latents` found for all that are coded.

        Args:
            contexts: latents before those of each coded channel.
        """
        out = torch.zeros(len(channels), self.model.frame_size, count, device=self.model.device)
        rows = sorted({channel[0] for channel in channels if channel})
        if rows:
            if self.model.context:  # not as long for each
                each = [self._synthesis([(z[[row]], step) for z, step in latents], contexts[row]) for row in rows]
                made = torch.cat(each)
            else:
                made = self._synthesis([(z[rows], step) for z, step in latents])
            for c, channel in enumerate(channels):
                if channel:
                    out[c] = made[rows.index(channel[0])] * channel[1]
        return out

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
        wanted = audible_energy(self.model.decode_magnitudes(*latents[0]))
        louder = (wanted / audible_energy(magnitudes)).sqrt()[:, None, None]
        return self.model.framed(magnitudes * louder, latents[-1][1])


def crossfade(before: Tensor, packet: Tensor) -> Tensor:
    """A packet [..., T] whose first frames come from what the one before says of them [..., V].

    In their middle half, it goes over from one account to the other: neither knows well how it ends.
    """
    count = before.shape[-1]
    weight = ((torch.arange(count, device=before.device) + 0.5 - count / 4) / (count / 2)).clamp(0, 1)
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
