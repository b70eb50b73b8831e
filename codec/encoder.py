"""Audio -> packets: framing, latents, rate control, entropy coding."""

from __future__ import annotations

import math
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.container import Packet
from ..format.layer import FIELDS, Layer
from ..format.philox import words
from .diffusion import DDCM, GENERATE, Walk
from .framing import Framer, Window
from .gain import PEAK, SPECIAL, audible_energy, gain_of, limit_gain, loud_parts
from .model import Model
from .quantizer import COARSEST, step_size
from .vq import VectorCodebook

RECORD = 8  # bytes around the body of a record of up to 16 kB, and one to spare
BATCH = 8  # packets times channels that a diffusion takes at once
LEAST_FIDELITY, SPREAD = 1.0, 0.6  # these fidelities make sizes grow evenly from one level to the next
OCTAVE = 6.0  # levels that double the size, about
UNUSED = 0.012  # octaves below the bitrate that are near enough
RESOLUTION = 0.04  # levels
MOST_CORRECTION = 12  # dB
TOLERANCE = 0.2  # dB
RAISE = 0.2  # nats by which the loud parts are raised to see what that does to latents
MOST_RAISE = 0.6  # nats
MADE_UP = 0.5  # of the energy that is missing, by what is loud; the gain does the rest


def setting(rate: float) -> tuple[int, float]:
    """Level and fidelity of a rate: the level, and between it and the next one a fidelity that grows."""
    level = int(rate)
    return level, LEAST_FIDELITY + SPREAD * (rate - level)


def slower(rate: float, excess: float) -> float:
    """A rate whose files are about that many times shorter, or the coarsest, 0."""
    return max(0.0, rate - OCTAVE * math.log2(excess) - RESOLUTION)


@dataclass
class Analysis:
    """A packet before quantisation.

    Attributes:
        hops: duration in units of 10 ms.
        gains: one per channel, as in `Packet`.
        latents: [C, N] for every channel that is neither silent nor a copy.
        energies: audible, of the STFT magnitudes that each of the latents stands for.
        louder: [C, N] float16, how each of them changes when what is loud gets louder by a nat.
        targets: what is quantised in their place, once `Encoder.raised` found it.
    """

    hops: int
    gains: list[int] = field(default_factory=list)
    latents: list[np.ndarray] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    louder: list[np.ndarray] = field(default_factory=list)
    targets: list[np.ndarray] = field(default_factory=list)

    @property
    def base(self) -> list[np.ndarray]:
        """What the base layer quantises."""
        return self.targets or self.latents


class Spool:
    """Analysed packets, to be read again and again; those of a long file lie in a temporary file."""

    IN_MEMORY = 1 << 25  # bytes; ten minutes have 14 MB for each channel

    def __init__(self, packets: Iterable[Analysis] = ()):
        self._file = tempfile.SpooledTemporaryFile(self.IN_MEMORY)  # noqa: SIM115
        self._count = 0
        for packet in packets:
            self.append(packet)

    def append(self, packet: Analysis) -> None:
        """Add one. All others have to be read to their end."""
        pickle.dump(packet, self._file)
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Analysis]:
        self._file.seek(0)
        for _ in range(self._count):
            yield pickle.load(self._file)


class Encoder:
    """Makes packets of `packet_vectors` latent vectors with one model."""

    def __init__(self, model: Model, packet_vectors: int):
        self.model, self.packet_vectors = model, packet_vectors

    def framer(self) -> Framer:
        """For one stream of samples at the codec's rate."""
        model, mel, patch = self.model, self.model.mel, self.model.patch_samples
        behind, context = model.overlap * mel.hop_length, model.context * mel.hop_length
        return Framer(self.packet_vectors * patch, mel.pad, patch, behind, context)

    def analyze(self, blocks: Iterable[np.ndarray]) -> Iterator[Analysis]:
        """Waveform blocks [C, n] at the codec's rate -> packets of latents, one after the other."""
        group = list[Window]()
        for window in self._windows(blocks):
            if group and window.shape != group[0].shape:
                yield from self.analyze_windows(group)
                group = []
            group.append(window)
            if len(group) * len(window.samples) >= self.model.batch:
                yield from self.analyze_windows(group)
                group = []
        yield from self.analyze_windows(group)

    def _windows(self, blocks: Iterable[np.ndarray]) -> Iterator[Window]:
        framer = self.framer()
        for block in blocks:
            yield from framer.push(block)
        yield from framer.flush()

    def analyze_windows(self, windows: Sequence[Window]) -> list[Analysis]:
        """Samples of packets of equal shape with those around them, as `framer` gives them -> their latents."""
        mel, waiting = self.model.mel, list[tuple[Analysis, np.ndarray]]()
        packets = []
        for samples, before, after in windows:
            own = slice(before // mel.hop_length, (samples.shape[1] - 2 * mel.pad - after) // mel.hop_length)
            packet = Analysis(own.stop - own.start - self.model.overlap)
            packets.append(packet)
            for c, channel in enumerate(samples):
                if c and np.array_equal(channel, samples[c - 1]):
                    packet.gains.append(container.GAIN_COPY)
                    continue
                core = channel[mel.pad + before : len(channel) - mel.pad - after]
                peak = float(np.abs(core - core.mean()).max())
                packet.gains.append(gain_of(peak))
                if packet.gains[-1] == container.GAIN_SILENT:
                    continue
                waiting.append((packet, ((channel - core.mean()) * np.float32(PEAK / peak)).astype(np.float32)))
                if len(waiting) >= self.model.batch:
                    self._transform(waiting, own)
                    waiting.clear()
        if waiting:
            self._transform(waiting, own)
        return packets

    @torch.inference_mode()
    def _transform(self, normalised: Sequence[tuple[Analysis, np.ndarray]], own: slice) -> None:
        """Give packets the latents of their channels, all at once; `own` are their frames."""
        mel, waves = self.model.mel, np.stack([wave for _, wave in normalised])
        magnitudes = mel.spectrum(torch.from_numpy(waves).to(self.model.device)).abs()
        frames = mel.from_magnitudes(magnitudes)
        latents = self.model.encode_mel(frames, own).cpu().numpy()
        if self.model.corrects_loudness:
            raised = self.model.encode_mel(frames + RAISE * loud_parts(frames), own).cpu().numpy()
            for (packet, _), change in zip(normalised, raised - latents, strict=True):
                packet.louder.append((change / RAISE).astype(np.float16))
        magnitudes = magnitudes[:, :, own]
        energies = audible_energy(magnitudes).cpu().tolist()
        for (packet, _), mine, energy in zip(normalised, latents, energies, strict=True):
            packet.latents.append(mine)
            packet.energies.append(energy)

    def indices(self, packet: Analysis, level: int, vectors: VectorCodebook | None = None) -> np.ndarray:
        """Codebook indices of every channel of a packet, int32: [C, N, latent_channels], zeros where it is silent.

        With a vector codebook its codes, [C, N, groups]; silence is the codes of the quietest log-mel.
        """
        model = self.model
        count = packet.hops // model.autoencoder.patch
        if vectors is None:
            [raised] = self.raised([packet], level)
            coded = iter([model.codebook.quantize(z, level)[1][:count] for z in raised.base])
            silence = np.zeros((count, model.autoencoder.latent_channels), np.int32)
        else:
            coded = iter([vectors.quantize(z)[:count] for z in packet.latents])
            mel = torch.full((1, packet.hops, model.mel.n_mels), model.mel.floor)
            with torch.inference_mode():
                silence = vectors.quantize(model.autoencoder.encode(mel.to(model.device))[0].cpu().numpy())
        out = np.stack([silence] * len(packet.gains))
        for c, gain in enumerate(packet.gains):
            if gain == container.GAIN_COPY:
                out[c] = out[c - 1]
            elif gain != container.GAIN_SILENT:
                out[c] = next(coded)
        return out

    def fit_bitrate(self, budget: float, packets: Iterable[Analysis], guess: float | None = None) -> float:
        """About the finest rate (see `setting`) at which packets take at most `budget` bytes, or the coarsest, 0.

        False position by the logarithm of the size; an end that stays weighs half the next time (Illinois).
        """
        low, high = 0.0, self.model.codebook.levels - 1.0
        at_low = at_high = math.inf  # log2 of size less what is wanted
        rate, below = high / 2 if guess is None else guess, None
        while True:
            excess = math.log2(self.size(packets, *setting(rate)) / max(budget, 1))
            if -UNUSED < excess <= 0 or (rate == high and excess <= 0):
                return rate
            again, below = below == (excess <= 0), excess <= 0
            excess += UNUSED / 2
            if below:
                low, at_low, at_high = rate, excess, at_high / 2 if again else at_high
            else:
                high, at_high, at_low = rate, excess, at_low / 2 if again else at_low
            if high - low < RESOLUTION:
                return low
            if math.isinf(at_low + at_high):
                rate = min(max(rate - OCTAVE * excess, low), high)
            else:
                rate = low + (high - low) * min(max(at_low / (at_low - at_high), 0.02), 0.98)

    def size(self, packets: Iterable[Analysis], level: int, fidelity: float) -> float:
        """About how many bytes the records of the base layer take; level NO_BASE: what is left of them."""
        size = 0.0
        for packet in packets:
            size += 10 + 2 * len(packet.gains)  # record and duration
            if level != container.NO_BASE:
                size += sum(self.model.codebook.estimate(z, level, fidelity) for z in packet.base) / 8 + 2
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
        fidelity: float,
        layer: Layer | None = None,
        first: int = 0,
        own: bool = False,
    ) -> Iterator[bytes]:
        """Records of packets, from number `first` on.

        Args:
            level: quality; NO_BASE: the enhancement layer is all that there is.
            layer: setting of an enhancement layer.
            own: packets say their quality themselves.
        """
        group, most = list[Analysis](), max(BATCH, self.model.batch)
        for packet in packets:
            if group and (packet.hops != group[0].hops or len(group) * len(packet.gains) >= most):
                yield from self._pack(group, first, level, fidelity, layer, own)
                first, group = first + len(group), []
            group.append(packet)
        yield from self._pack(group, first, level, fidelity, layer, own)

    def _pack(
        self,
        packets: Sequence[Analysis],
        first: int,
        level: int,
        fidelity: float,
        layer: Layer | None,
        own: bool,
    ) -> Iterator[bytes]:
        """Records of packets of equal duration, from number `first` on."""
        model, based = self.model, level != container.NO_BASE
        streams = [[model.codebook.quantize(z, level, fidelity)[:2] for z in p.base] if based else [] for p in packets]
        step = float(step_size(level)) if based else COARSEST
        latents = [model.dequantize([q for _, q in s], level) if s else torch.empty(0) for s in streams]
        layers: Sequence[bytes | None] = [None] * len(packets)
        if layer is not None and packets:
            layers, ends, reached = self._enhance(packets, first, latents, level, step, layer)
            if not based:
                latents, step = ends, float(step_size(reached))
        gains = [tuple(packet.gains) for packet in packets]
        if model.corrects_loudness:
            gains = self._output_gains(packets, latents, step)
        for index, (packet, coded, told, body) in enumerate(zip(packets, streams, gains, layers, strict=True), first):
            payload = model.codebook.pack(coded, level) if coded else b""
            record = Packet(packet.hops, told, payload, level if own else None)
            yield container.pack_record(container.PACKET, record.pack(), index)
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

    def raised(self, packets: Iterable[Analysis], level: int, refined: bool = False) -> Iterator[Analysis]:
        """Packets whose targets are latents that are changed where it is loud, for the energy that a quality takes.

        What is decoded is near the median, which has too little energy by as much as it has error; the loudest parts
        make up for it at the least cost.

        Args:
            refined: they keep their latents as well, because a layer will refine what is quantised.
        """
        for packet in packets:
            if not packet.louder:
                yield packet
                continue
            about = [torch.from_numpy(self.model.codebook.approximate(z, level)) for z in packet.latents]
            ratios = zip(packet.energies, self._energies(about, float(step_size(level))), strict=True)
            missing = [MADE_UP * 0.5 * math.log(energy / decoded) for energy, decoded in ratios]
            targets = [
                exact + np.float32(min(max(nats, 0), MOST_RAISE)) * change
                for exact, change, nats in zip(packet.latents, packet.louder, missing, strict=True)
            ]
            latents = packet.latents if refined else targets
            yield replace(packet, louder=[], targets=targets, latents=latents)

    def _energies(self, latents: Sequence[Tensor], step: float) -> list[float]:
        """Audible energies of the STFT magnitudes that latents [C, N] decode to."""
        decoded = list[float]()
        for start in range(0, len(latents), self.model.batch):
            some = torch.stack(list(latents[start : start + self.model.batch]))
            decoded += audible_energy(self.model.decode_magnitudes(some, step)).cpu().tolist()
        return decoded

    def _output_gains(
        self, packets: Sequence[Analysis], latents: Sequence[Tensor], step: float
    ) -> list[tuple[int, ...]]:
        """Gains with which decoded packets are as loud as the originals.

        A gain raises what is quiet too, so TOLERANCE is left. More than MOST_CORRECTION, which the coarsest levels
        would need for some transients, is not made up for.
        """
        left = iter(self._energies([z for found in latents for z in found], step))
        out = []
        for packet in packets:
            gains = list(packet.gains)
            coded = [c for c, gain in enumerate(gains) if gain not in SPECIAL]
            for c, energy in zip(coded, packet.energies, strict=True):
                missing = 10 * math.log10(energy / next(left))
                correction = min(max(abs(missing) - TOLERANCE, 0), MOST_CORRECTION)
                gains[c] = limit_gain(gains[c] + round(256 * math.copysign(correction, missing)))
            out.append(tuple(gains))
        return out
