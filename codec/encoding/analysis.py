"""Audio -> packets of latents, which wait for their quality to be chosen."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ...format import container
from ..audio.framing import Framer, Window
from ..dsp.loudness import PEAK, audible_energy, band_energy, gain_of, loud_parts
from ..model import Model

RAISE = 0.2  # nats by which the loud parts are raised to see what that does to latents


@dataclass
class Analysis:
    """A packet before quantisation.

    Attributes:
        hops: duration in units of 10 ms.
        gains: one per channel, as in `Packet`.
        latents: [C, N] for every channel that is neither silent nor a copy.
        energies: audible, of the STFT magnitudes that each of the latents stands for.
        band_energies: of the log-mels, see `gain.band_energy`.
        louder: [C, N] float16, how each of them changes when what is loud gets louder by a nat.
        targets: what is quantised in their place, once `loudness.raised` found it.
    """

    hops: int
    gains: list[int] = field(default_factory=list)
    latents: list[np.ndarray] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    band_energies: list[float] = field(default_factory=list)
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


class Analyzer:
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
        energies = audible_energy(magnitudes[:, :, own]).cpu().tolist()
        bands = band_energy(mel, frames[:, own]).cpu().tolist()
        for (packet, _), *found in zip(normalised, latents, energies, bands, strict=True):
            packet.latents.append(found[0])
            packet.energies.append(found[1])
            packet.band_energies.append(found[2])
