"""Audio -> packets: framing, latents, rate control, entropy coding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..format import container
from ..format.container import Packet
from ..format.entropy import encode_indices
from .gain import PEAK, SPECIAL, audible_energy, first_audible, gain_of, limit_gain
from .model import Model

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


def windows(blocks: Iterable[np.ndarray], size: int, pad: int, multiple: int) -> Iterator[np.ndarray]:
    """Cut a stream of blocks [C, n] into packets with the samples around them: [C, pad + size + pad].

    Both ends of the stream are reflected; the last packet is shorter, and reflected to a multiple of `multiple`,
    which is larger than `pad`.
    """
    held: np.ndarray | None = None  # from `pad` samples before the next packet on
    first = True
    for block in blocks:
        held = block if held is None else np.concatenate([held, block], 1)
        if first and held.shape[1] > pad:
            held = np.concatenate([held[:, pad:0:-1], held], 1)
            first = False
        while not first and held.shape[1] >= size + 2 * pad:
            yield held[:, : size + 2 * pad]
            held = held[:, size:]
    if held is None:
        return
    missing = -(held.shape[1] - (0 if first else pad)) % multiple
    held = np.pad(held, ((0, 0), (0, missing)), mode="symmetric")
    if first:
        held = np.concatenate([held[:, pad:0:-1], held], 1)
    held = np.concatenate([held, held[:, -2 : -pad - 2 : -1]], 1)
    while held.shape[1] > 2 * pad:
        yield held[:, : size + 2 * pad]
        held = held[:, size:]


class Encoder:
    """Makes packets of `packet_vectors` latent vectors with one model."""

    def __init__(self, model: Model, packet_vectors: int):
        self.model, self.packet_vectors = model, packet_vectors

    @torch.inference_mode()
    def analyze(self, blocks: Iterable[np.ndarray]) -> Iterator[Analysis]:
        """Waveform blocks [C, n] at the codec's rate -> packets of latents, one after the other."""
        mel, patch = self.model.mel, self.model.patch_samples
        for window in windows(blocks, self.packet_vectors * patch, mel.pad, patch):
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
            hops = (window.shape[1] - 2 * mel.pad) // mel.hop_length
            yield Analysis(hops, tuple(gains), latents, energies)

    def indices(self, packet: Analysis, level: int) -> np.ndarray:
        """Codebook indices of every channel of a packet, [C, N, latent_channels] int32; zeros where it is silent."""
        coded = iter([self.model.codebook.quantize(z, level)[1] for z in packet.latents])
        vectors = packet.hops // self.model.autoencoder.patch
        out = np.zeros((len(packet.gains), vectors, self.model.autoencoder.latent_channels), np.int32)
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
            size = 0.0
            for packet in packets:
                bits = sum(self.model.codebook.quantize(z, *settings[middle])[2] for z in packet.latents)
                size += 10 + 2 * len(packet.gains) + bits / 8 + 2  # record and duration; end of the coder
            low, high = (middle, high) if size <= budget else (low, middle - 1)
        return settings[low]

    def pack(self, packet: Analysis, index: int, level: int, fidelity: float) -> bytes:
        """The packet's record."""
        streams = [self.model.codebook.quantize(z, level, fidelity)[:2] for z in packet.latents]
        payload = encode_indices(streams, self.model.codebook.tables, level)
        gains = self._output_gains(packet, [indices for _, indices in streams], level)
        return container.pack_record(container.PACKET, Packet(packet.hops, gains, payload).pack(), index)

    def _output_gains(self, packet: Analysis, indices: list[np.ndarray], level: int) -> tuple[int, ...]:
        """Gains with which the decoded packet is as loud as the original.

        What is decoded is near the median, which has too little energy by as much as it has error. A gain raises what
        is quiet too, so TOLERANCE is left. More than MOST_CORRECTION, which the coarsest levels would need for some
        transients, is not made up for.
        """
        if not indices:
            return packet.gains
        magnitudes = self.model.decode_magnitudes(indices, level)
        first, energies = map(torch.tensor, zip(*packet.energies, strict=True))
        missing = 10 * np.log10((energies / audible_energy(magnitudes, first)).numpy())
        missing = np.sign(missing) * (np.abs(missing) - TOLERANCE).clip(0, MOST_CORRECTION)
        corrections = iter(np.rint(256 * missing).astype(int).tolist())
        return tuple(g if g in SPECIAL else limit_gain(g + next(corrections)) for g in packet.gains)
