"""Packets -> audio: indices, magnitudes, and the waveform through Griffin-Lim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.entropy import decode_indices
from ..format.errors import DamageError
from ..format.layer import MAX_STEPS, Layer
from ..format.stream import read_stream
from .audio import length_at, resample
from .diffusion import Walk
from .folder import ModelError
from .gain import AUDIBLE, PEAK, SPECIAL, audible_energy, peak_of
from .model import Model
from .quantizer import COARSEST, step_size
from .vocoder import Vocoder

LAYERS = ("all", "base")
EDGE = 10  # frames that a decoder which starts in the middle hears before it, so that its first sample is settled


class Decoder:
    """Decodes one file with one model.

    Args:
        strict: refuse damage, instead of silence in the place of damaged packets.
        layers: "all"; or "base": enhancement layers are ignored.
        refine: steps of diffusion for packets that have no enhancement layer. The finest qualities leave nothing to
            refine, and it becomes 0.

    Attributes:
        header: of the file.
        damage: a line for each thing that was missing or changed; packets that do not decode add theirs later.
        decoded: how many packets were decoded.

    Raises:
        FormatError: not an .aldm file, a newer version, or damage that leaves nothing or `strict` refuses.
        ModelError: the file needs another model, or a denoiser, which this one has not.
    """

    def __init__(self, model: Model, data: bytes, strict: bool = False, layers: str = "all", refine: int = 0):
        if layers not in LAYERS:
            raise ValueError(f"no layers {layers}; there are {', '.join(LAYERS)}")
        if not 0 <= refine <= MAX_STEPS:
            raise ValueError(f"refinement takes 0 to {MAX_STEPS} steps, not {refine}")
        self.model, self.strict, self.layers, self.refine = model, strict, layers, refine
        self.patch = model.autoencoder.patch
        self._stream = read_stream(data)
        self.header, self.damage, self.decoded = self._stream.header, self._stream.damage, 0
        if self.header.model != model.fingerprint[:4]:
            needed, have = self.header.model.hex(), model.fingerprint[:4].hex()
            raise ModelError(f"the file needs model {needed}; {model.name or 'this one'} is {have}")
        self.based = self.header.quality != container.NO_BASE
        if (self.based and self.header.quality >= model.codebook.levels) or self.header.packet_hops % self.patch:
            raise DamageError("header fields that this model does not know: quality or packet duration")
        if not self.based and layers == "base":
            raise ValueError("this file has no base layer")
        if model.denoiser is None and (refine or not self.based):
            raise ModelError(f"model {model.name} has no denoiser")
        if model.denoiser and self.header.quality >= model.denoiser.levels:
            self.refine = 0
        if self.damage and (strict or not self._stream.packets):
            more = f" (and {len(self.damage) - 1} more)" if len(self.damage) > 1 else ""
            raise DamageError(f"damaged file: {self.damage[0]}{more}")

    def blocks(self, original_rate: bool, start: float, duration: float | None) -> Iterator[np.ndarray]:
        """The sound, or a part of it, as blocks [C, n].

        Args:
            original_rate: resample to the rate of what was encoded.
            start, duration: seconds.

        Raises:
            ValueError: nothing there.
        """
        own, hop = self.model.mel.sample_rate, self.model.mel.hop_length
        rate = self.header.sample_rate if original_rate else own
        whole = length_at(self._stream.hops * hop, own, rate)
        if self._stream.samples is not None:
            whole = min(whole, length_at(self._stream.samples, self.header.sample_rate, rate))
        if not all(map(math.isfinite, (start, duration or 0))) or not 0 <= round(start * rate) < whole:
            raise ValueError(f"nothing to decode from {start:g} s on: the file has {whole / rate:.2f} s")
        begin = round(start * rate)
        end = whole if duration is None else min(whole, begin + max(1, round(duration * rate)))
        first = max(0, begin * container.HOPS_PER_SECOND // rate - EDGE)
        last = min(self._stream.hops, -(-end * container.HOPS_PER_SECOND // rate) + EDGE)
        blocks = resample(self._synthesize(first, last), own, rate, self.header.channels)
        return cut(blocks, begin - first * hop * rate // own, end - begin)

    def _synthesize(self, first: int, last: int) -> Iterator[np.ndarray]:
        """Waveform blocks [C, n] of frames first .. last - 1; equal and silent channels are made once."""
        size = self.header.packet_hops
        numbers = range(first // size, (last - 1) // size + 1)
        packets = [p for i in numbers if (p := self._stream.packets.get(i))]
        sources: list[int | None] = []  # for each channel, the one that it always equals; None: silence
        for c in range(self.header.channels):
            gains = {packet.gains[c] for packet in packets}
            if gains <= {container.GAIN_COPY} and c:
                sources.append(sources[-1])
            else:
                sources.append(None if gains <= {container.GAIN_SILENT} else c)
        made = sorted({c for c in sources if c is not None}) or [0]
        order = torch.tensor([made.index(c) if c is not None else len(made) for c in sources])
        vocoder = Vocoder(self.model.mel, self.model.corrector)

        def pieces() -> Iterator[Tensor]:
            for i in numbers:
                part = slice(max(0, first - i * size), last - i * size)
                magnitudes, gain, step = (v[made] for v in self._magnitudes(i))
                hops = torch.ones(magnitudes.shape[2])
                yield from vocoder.push(*(v[..., part] for v in (magnitudes, gain * hops, step * hops)))
            yield from vocoder.flush()

        with torch.inference_mode():
            for wave in pieces():
                yield torch.cat([wave, torch.zeros_like(wave[:1])])[order].numpy()

    def latents(self, index: int) -> list[tuple[Tensor, float]]:
        """Latents [C, latent_channels, N] of a packet's channels that are neither silent nor a copy, and their step.

        The step is that of a quantiser which leaves as much error.

        Returns:
            those of the base layer, if there is one, and those at the end of a diffusion, if there is one.

        Raises:
            DamageError: the packet is missing, or does not decode.
        """
        model, level = self.model, self.header.quality
        packet = self._stream.packets.get(index)
        if packet is None or packet.hops % self.patch:
            raise DamageError("damaged packet: missing, or not a whole number of latent vectors")
        coded, vectors = sum(gain not in SPECIAL for gain in packet.gains), packet.hops // self.patch
        if not coded:
            return []
        found = []
        base, step = torch.zeros(coded, model.autoencoder.latent_channels, vectors), COARSEST
        if self.based:
            streams = decode_indices(packet.payload, coded, vectors, model.codebook.tables, level)
            base, step = model.dequantize([indices for _, indices in streams], level), float(step_size(level))
            found.append((base, step))
        picked = self._layer(index, coded, vectors)
        if model.denoiser is not None and (picked or self.refine):
            numbers = np.arange(coded) + (index << 8)
            walk = Walk(model.denoiser, base, level if self.based else -1, step, numbers)
            if picked:
                found.append((walk.decode(*picked), float(step_size(picked[0].level))))
            elif self.based:
                found.append((walk.refine(self.refine), step))
        if not found:
            raise DamageError("damaged packet: no layer that can be used")
        return found

    def _layer(self, index: int, coded: int, vectors: int) -> tuple[Layer, np.ndarray] | None:
        """The enhancement layer of a packet, if there is one that can be used."""
        body = self._stream.layers.get(index)
        if body is None or self.layers == "base":
            return None
        try:
            layer, picks = Layer.parse(body, coded, vectors)
            if self.model.denoiser is None or layer.denoiser != self.model.denoiser_fingerprint[:2]:
                raise DamageError("enhancement layer of another denoiser")
            if self.based and self.header.quality >= self.model.denoiser.levels:
                raise DamageError("enhancement layer on a quality that the denoiser does not know")
        except DamageError as error:
            if self.strict:
                raise
            self.damage.append(f"packet {index}: {error}")
            return None
        return layer, picks

    def _magnitudes(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """STFT magnitudes [C, n_fft // 2 + 1, T] of a packet, silence if it is missing or does not decode.

        Returns:
            them, the gains in them and the quantiser's step, both [C, 1].
        """
        packet = self._stream.packets.get(index)
        hops = packet.hops if packet else self.header.packet_hops
        out = torch.zeros(self.header.channels, self.model.mel.n_fft // 2 + 1, hops)
        scale = torch.ones(self.header.channels, 1)
        step = torch.full_like(scale, COARSEST)
        if packet is None:
            return out, scale, step
        try:
            latents = self.latents(index)
        except DamageError as error:
            if self.strict:
                raise
            self.damage.append(f"packet {index}: {error}")
            return out, scale, step
        self.decoded += 1
        found = iter(self._synthesis(latents) if latents else ())
        for c, gain in enumerate(packet.gains):
            if gain == container.GAIN_COPY:
                out[c], scale[c] = out[c - 1], scale[c - 1]
            elif gain != container.GAIN_SILENT:
                scale[c] = peak_of(gain) / PEAK
                out[c] = next(found) * scale[c]
        if latents:
            step[:] = latents[-1][1]
        return out, scale, step

    def _synthesis(self, latents: list[tuple[Tensor, float]]) -> Tensor:
        """Magnitudes of what `latents` found; after a diffusion from a base layer, they are as loud as that layer's."""
        magnitudes = self.model.decode_magnitudes(*latents[-1])
        if len(latents) == 1:
            return magnitudes
        first = torch.full((len(magnitudes),), AUDIBLE)
        wanted = audible_energy(self.model.decode_magnitudes(*latents[0]), first)
        return magnitudes * (wanted / audible_energy(magnitudes, first)).sqrt()[:, None, None]


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
