"""Analysis: audio -> packets of latents, before quantisation."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ...format import container
from ..audio.framing import Framer, Window
from ..audio.reader import AudioReader
from ..dsp.loudness import PEAK, gain_of
from ..fullband.encoder import ParametricEncoder
from ..stages import CodecModel
from ..values import LoudnessTarget

Progress = Callable[[float], None]  # called with the seconds of audio that are done


@dataclass
class AnalyzedChannel:
    """A channel of a packet that is neither silent nor a copy.

    Attributes:
        latents: [C, N].
        loudness: target for its level; None: the level is not adjusted.
        target: latents with compensated energy, which the base layer quantises instead.
    """

    latents: np.ndarray
    loudness: LoudnessTarget | None = None
    target: np.ndarray | None = None

    @property
    def base(self) -> np.ndarray:
        """The latents that the base layer quantises."""
        return self.latents if self.target is None else self.target


@dataclass
class AnalyzedPacket:
    """A packet before quantisation.

    Attributes:
        hops: duration in units of 10 ms.
        gains: one per channel, as in `Packet`.
        channels: those that are neither silent nor a copy.
        parameters: its high band and stereo records.
    """

    hops: int
    gains: list[int] = field(default_factory=list)
    channels: list[AnalyzedChannel] = field(default_factory=list)
    parameters: bytes = b""


class Spool:
    """Analysed packets, to be read again and again; those of a long file lie in a temporary file.

    Attributes:
        parameter_bytes: of their high band and stereo records.
    """

    IN_MEMORY = 1 << 25  # bytes; ten minutes have 14 MB for each channel

    def __init__(self, packets: Iterable[AnalyzedPacket] = ()):
        self._file = tempfile.SpooledTemporaryFile(self.IN_MEMORY)  # noqa: SIM115
        self._count = self.parameter_bytes = 0
        for packet in packets:
            self.append(packet)

    def append(self, packet: AnalyzedPacket) -> None:
        """Add one. All others have to be read to their end."""
        pickle.dump(packet, self._file)
        self._count += 1
        self.parameter_bytes += len(packet.parameters)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[AnalyzedPacket]:
        self._file.seek(0)
        for _ in range(self._count):
            yield pickle.load(self._file)


class Analyzer:
    """Makes packets of `packet_vectors` latent vectors, `packet_hops` units of 10 ms, with one model."""

    def __init__(self, model: CodecModel, packet_vectors: int):
        self.model, self.packet_vectors = model, packet_vectors
        self.packet_hops = packet_vectors * model.autoencoder.patch

    def framer(self) -> Framer:
        """For one stream of samples at the codec's rate."""
        model, mel, patch = self.model, self.model.mel, self.model.patch_samples
        behind, context = model.overlap * mel.hop_length, model.context * mel.hop_length
        return Framer(self.packet_vectors * patch, mel.pad, patch, behind, context)

    def spool(self, reader: AudioReader, parametric: ParametricEncoder, progress: Progress) -> Spool:
        """All packets of a reader, with their high band and stereo records."""
        packets, seconds = Spool(), reader.samples / reader.sample_rate
        for packet in self.analyze(parametric.blocks(reader)):
            packet.parameters = parametric.records(len(packets), packet.hops, packet.gains)
            packets.append(packet)
            progress(min(seconds, len(packets) * self.packet_hops / container.HOPS_PER_SECOND))
        return packets

    def analyze(self, blocks: Iterable[np.ndarray]) -> Iterator[AnalyzedPacket]:
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

    def analyze_windows(self, windows: Sequence[Window]) -> list[AnalyzedPacket]:
        """Samples of packets of equal shape with those around them, as `framer` gives them -> their latents."""
        mel, waiting = self.model.mel, list[tuple[AnalyzedPacket, np.ndarray]]()
        packets = []
        for samples, before, after in windows:
            own = slice(before // mel.hop_length, (samples.shape[1] - 2 * mel.pad - after) // mel.hop_length)
            packet = AnalyzedPacket(own.stop - own.start - self.model.overlap)
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
    def _transform(self, normalised: Sequence[tuple[AnalyzedPacket, np.ndarray]], own: slice) -> None:
        """Give packets the latents of their channels, all at once; `own` are their frames."""
        mel, waves = self.model.mel, np.stack([wave for _, wave in normalised])
        magnitudes = mel.spectrum(torch.from_numpy(waves).to(self.model.device)).abs()
        frames = mel.from_magnitudes(magnitudes)
        latents = self.model.encode_mel(frames, own).cpu().numpy()
        targets = self.model.loudness_targets(magnitudes, frames, latents, own)
        for (packet, _), channel, target in zip(normalised, latents, targets, strict=True):
            packet.channels.append(AnalyzedChannel(channel, target))
