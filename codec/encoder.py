"""Audio -> packets: framing, latents, rate control, entropy coding."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.container import Packet
from ..format.layer import FIELDS, Layer
from ..format.philox import words
from .diffusion import DDCM, GENERATE, Walk
from .gain import PEAK, SPECIAL, audible_energy, first_audible, gain_of, limit_gain
from .model import Model
from .quantizer import COARSEST, step_size
from .vq import VectorCodebook

RECORD = 8  # bytes around the body of a record of up to 16 kB, and one to spare
BATCH = 8  # packets times channels that a diffusion takes at once
FIDELITIES = (0.7, 0.8, 0.9, 1.0)  # spread the sizes between one level and the next evenly
MOST_CORRECTION = 12  # dB
TOLERANCE = 0.2  # dB


@dataclass
class Analysis:
    """A packet before quantisation.

    Attributes:
        hops: duration in units of 10 ms.
        gains: one per channel, as in `Packet`.
        latents: [C, N] for every channel that is neither silent nor a copy.
        energies: (first bin, energy) of the STFT magnitudes that each of the latents stands for.
    """

    hops: int
    gains: tuple[int, ...]
    latents: list[np.ndarray]
    energies: list[tuple[int, float]]


def windows(blocks: Iterable[np.ndarray], size: int, pad: int, multiple: int, behind: int = 0) -> Iterator[np.ndarray]:
    """Cut a stream of blocks [C, n] into packets with the samples around them: [C, pad + size + behind + pad].

    Both ends of the stream are reflected; the last packet is shorter, and reflected to a multiple of `multiple`,
    which is larger than `pad`.
    """
    whole = size + behind + 2 * pad
    held: np.ndarray | None = None  # from `pad` samples before the next packet on
    first = True
    for block in blocks:
        held = block if held is None else np.concatenate([held, block], 1)
        if first and held.shape[1] > pad:
            held = np.concatenate([held[:, pad:0:-1], held], 1)
            first = False
        while not first and held.shape[1] >= whole:
            yield held[:, :whole]
            held = held[:, size:]
    if held is None:
        return
    missing = -(held.shape[1] - (0 if first else pad)) % multiple
    held = np.pad(held, ((0, 0), (0, missing + behind)), mode="symmetric")
    if first:
        held = np.concatenate([held[:, pad:0:-1], held], 1)
    held = np.concatenate([held, held[:, -2 : -pad - 2 : -1]], 1)
    while held.shape[1] > behind + 2 * pad:
        yield held[:, :whole]
        held = held[:, size:]


class Encoder:
    """Makes packets of `packet_vectors` latent vectors with one model."""

    def __init__(self, model: Model, packet_vectors: int):
        self.model, self.packet_vectors = model, packet_vectors

    @torch.inference_mode()
    def analyze(self, blocks: Iterable[np.ndarray]) -> Iterator[Analysis]:
        """Waveform blocks [C, n] at the codec's rate -> packets of latents, one after the other."""
        mel, patch = self.model.mel, self.model.patch_samples
        behind = self.model.overlap * mel.hop_length
        for window in windows(blocks, self.packet_vectors * patch, mel.pad, patch, behind):
            gains: list[int] = []
            waves = []
            for c, channel in enumerate(window):
                if c and np.array_equal(channel, window[c - 1]):
                    gains.append(container.GAIN_COPY)
                    continue
                core = channel[mel.pad : -mel.pad]
                centred = channel - core.mean()
                peak = float(np.abs(core - core.mean()).max())
                gains.append(gain_of(peak))
                if gains[-1] != container.GAIN_SILENT:
                    waves.append(centred * np.float32(PEAK / peak))
            latents, energies = [], []
            if waves:
                magnitudes = mel.spectrum(torch.from_numpy(np.stack(waves).astype(np.float32))).abs()
                latents = list(self.model.autoencoder.encode(mel.from_magnitudes(magnitudes)).numpy())
                first = first_audible(magnitudes)
                energies = list(zip(first.tolist(), audible_energy(magnitudes, first).tolist(), strict=True))
            hops = (window.shape[1] - 2 * mel.pad) // mel.hop_length - self.model.overlap
            yield Analysis(hops, tuple(gains), latents, energies)

    def indices(self, packet: Analysis, level: int, vectors: VectorCodebook | None = None) -> np.ndarray:
        """Codebook indices of every channel of a packet, int32: [C, N, latent_channels], zeros where it is silent.

        With a vector codebook its codes, [C, N, groups]; silence is the codes of the quietest log-mel.
        """
        model = self.model
        count = packet.hops // model.autoencoder.patch
        if vectors is None:
            coded = iter([model.codebook.quantize(z, level)[1][:count] for z in packet.latents])
            silence = np.zeros((count, model.autoencoder.latent_channels), np.int32)
        else:
            coded = iter([vectors.quantize(z)[:count] for z in packet.latents])
            mel = torch.full((1, packet.hops, model.mel.n_mels), model.mel.floor)
            with torch.inference_mode():
                silence = vectors.quantize(model.autoencoder.encode(mel)[0].numpy())
        out = np.stack([silence] * len(packet.gains))
        for c, gain in enumerate(packet.gains):
            if gain == container.GAIN_COPY:
                out[c] = out[c - 1]
            elif gain != container.GAIN_SILENT:
                out[c] = next(coded)
        return out

    def fit_bitrate(self, budget: float, packets: list[Analysis]) -> tuple[int, float]:
        """Finest level and fidelity whose packets take at most `budget` bytes, or the coarsest."""
        settings = [(level, fidelity) for level in range(self.model.codebook.levels) for fidelity in FIDELITIES]
        low, high = 0, len(settings) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.size(packets, *settings[middle]) <= budget else (low, middle - 1)
        return settings[low]

    def size(self, packets: list[Analysis], level: int, fidelity: float) -> float:
        """About how many bytes the records of the base layer take; level NO_BASE: what is left of them."""
        size = 0.0
        for packet in packets:
            size += 10 + 2 * len(packet.gains)  # record and duration
            if level != container.NO_BASE:
                size += sum(self.model.codebook.quantize(z, level, fidelity)[2] for z in packet.latents) / 8 + 2
        return size

    def layer(self, ddcm: DDCM, level: int) -> Layer:
        """Parameters of an enhancement layer on a base layer of a level, or NO_BASE."""
        denoiser = self.model.denoiser
        assert denoiser is not None  # the caller made sure of it
        if level == container.NO_BASE:
            return ddcm.layer(denoiser.fingerprint, None, denoiser.plan)
        if level >= denoiser.levels:
            raise ValueError(f"quality {level} leaves nothing to refine: the model's denoiser is for less")
        return ddcm.layer(denoiser.fingerprint, float(step_size(level)), denoiser.plan)

    def layer_size(self, layer: Layer, packets: list[Analysis]) -> int:
        """Bytes of the records of the enhancement layers."""
        sizes = [layer.size(len(p.latents), self.model.vectors_of(p.hops)) for p in packets if p.latents]
        return sum(sizes) + RECORD * len(sizes)

    def fit_layer(self, budget: float, packets: list[Analysis], steps: int | None) -> DDCM:
        """The setting of the most bits whose enhancement layers take at most `budget` bytes, or of the fewest."""
        coded = [p for p in packets if p.latents]
        vectors = sum(len(p.latents) * self.model.vectors_of(p.hops) for p in coded)
        fixed = len(coded) * (RECORD + FIELDS.size + 1)
        return DDCM.fit(8 * (budget - fixed) / max(1, vectors), steps)

    def records(
        self, packets: list[Analysis], level: int, fidelity: float, layer: Layer | None = None
    ) -> Iterator[bytes]:
        """Records of packets, with an enhancement layer on request; level NO_BASE: the layer is all that there is."""
        first = 0
        for _, same in itertools.groupby(packets, lambda packet: packet.hops):
            group = list(same)
            size = max(1, BATCH // len(group[0].gains))
            for start in range(0, len(group), size):
                yield from self._pack(group[start : start + size], first + start, level, fidelity, layer)
            first += len(group)

    def _pack(
        self, packets: Sequence[Analysis], first: int, level: int, fidelity: float, layer: Layer | None
    ) -> Iterator[bytes]:
        """Records of packets of equal duration, from number `first` on."""
        model, based = self.model, level != container.NO_BASE
        streams = [
            [model.codebook.quantize(z, level, fidelity)[:2] for z in p.latents] if based else [] for p in packets
        ]
        step = float(step_size(level)) if based else COARSEST
        latents = [model.dequantize([q for _, q in s], level) if s else torch.empty(0) for s in streams]
        layers: Sequence[bytes | None] = [None] * len(packets)
        if layer is not None:
            layers, ends, reached = self._enhance(packets, first, latents, level, step, layer)
            if not based:
                latents, step = ends, float(step_size(reached))
        for index, (packet, coded, decoded, body) in enumerate(
            zip(packets, streams, latents, layers, strict=True), first
        ):
            payload = model.codebook.pack(coded, level) if coded else b""
            gains = packet.gains
            if len(decoded) and model.corrects_loudness:
                gains = self._output_gains(packet, model.decode_magnitudes(decoded, step))
            yield container.pack_record(container.PACKET, Packet(packet.hops, gains, payload).pack(), index)
            if body is not None and packet.latents:
                yield container.pack_record(container.LAYER, body, index)

    def generate(self, vectors: int, seed: int, ddcm: DDCM) -> Iterator[bytes]:
        """Records of one channel that many latent vectors long, whose picks are random."""
        layer = self.layer(ddcm, container.NO_BASE)
        for index, start in enumerate(range(0, vectors, self.packet_vectors)):
            count = min(self.packet_vectors, vectors - start)
            shape = layer.shape(1, self.model.vectors_of(count * self.model.autoencoder.patch))
            random = words(seed, GENERATE, index, np.zeros(1), int(np.prod(shape)))[0]
            picks = (random >> (31 - layer.bits)).astype(np.int64).reshape(shape)
            packet = Packet(count * self.model.autoencoder.patch, (gain_of(PEAK),), b"")
            yield container.pack_record(container.PACKET, packet.pack(), index)
            yield container.pack_record(container.LAYER, layer.pack(picks), index)

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

    def _output_gains(self, packet: Analysis, magnitudes: Tensor) -> tuple[int, ...]:
        """Gains with which the decoded packet is as loud as the original.

        What is decoded is near the median, which has too little energy by as much as it has error. A gain raises what
        is quiet too, so TOLERANCE is left. More than MOST_CORRECTION, which the coarsest levels would need for some
        transients, is not made up for.
        """
        first, energies = map(torch.tensor, zip(*packet.energies, strict=True))
        missing = 10 * np.log10((energies / audible_energy(magnitudes, first)).numpy())
        missing = np.sign(missing) * (np.abs(missing) - TOLERANCE).clip(0, MOST_CORRECTION)
        corrections = iter(np.rint(256 * missing).astype(int).tolist())
        return tuple(g if g in SPECIAL else limit_gain(g + next(corrections)) for g in packet.gains)
