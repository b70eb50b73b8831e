"""The codec: audio -> log-mel -> latents -> indices -> .aldm, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.container import Header, Packet
from ..format.entropy import decode_indices, encode_indices
from ..format.errors import DamageError
from .audio import AudioError, AudioReader, length_at, resample
from .folder import ModelError
from .griffin_lim import GriffinLim
from .model import Model
from .quantizer import step_size

Progress = Callable[[float], None]  # told the seconds of audio that are done

PACKET_SECONDS = 10.24
FIDELITIES = (0.7, 0.8, 0.9, 1.0)  # spread the sizes between one level and the next evenly
SILENT_MEL = -30.0  # natural log: nothing, for a 16-bit file
EDGE_SECONDS = 0.1  # what a decoder that starts in the middle hears before it, so that its first sample is settled


@dataclass
class Analysis:
    """A packet before quantisation.

    Attributes:
        vectors: latent vectors per channel.
        gains: one per channel, as in `Packet`.
        latents: [C, N] for every channel that is neither silent nor a copy.
        energies: of the STFT magnitudes that each of the latents stands for.
    """

    vectors: int
    gains: tuple[int, ...]
    latents: list[np.ndarray]
    energies: list[float]


@dataclass
class Report:
    """What a decoder met.

    Attributes:
        packets: how many were decoded.
        damage: a line for each stretch of bytes or packet that could not be used.
    """

    packets: int = 0
    damage: list[str] = field(default_factory=list)


def audible_energy(magnitudes: Tensor) -> Tensor:
    """Energy of STFT magnitudes [B, n_fft // 2 + 1, T] without rumble below 60 Hz, which can outweigh all else: [B]."""
    return magnitudes[:, 4:].square().sum((1, 2)).clamp(min=1e-12)


def peak_of(gain: int) -> float:
    """Peak that a packet's gain stands for: Q7.8 decibels, 0 is full scale."""
    return float(10 ** (gain / 256 / 20))


def gain_of(peak: float) -> int:
    """Nearest gain of a peak, or silence below -100 dBFS."""
    return container.GAIN_SILENT if peak < 1e-5 else limit_gain(round(256 * 20 * math.log10(peak)))


def limit_gain(gain: int) -> int:
    """The nearest gain that the bitstream holds and that is not one of the special ones."""
    return max(-32000, min(32000, gain))


class Codec:
    """Encoder and decoder of one model.

    Args:
        model: loaded by `from_pretrained`.
        packet_seconds: duration of a packet, 2 to 10.24 s, made a multiple of the model's patch.
    """

    def __init__(self, model: Model, packet_seconds: float = PACKET_SECONDS):
        self.model = model
        self.sample_rate = model.mel.sample_rate
        self._patch_samples = model.autoencoder.patch * model.mel.hop_length
        if not 2 <= packet_seconds <= PACKET_SECONDS:
            raise ValueError(f"packets last 2 to {PACKET_SECONDS} s, not {packet_seconds}")
        self._packet_vectors = int(packet_seconds * self.sample_rate / self._patch_samples)

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Codec:
        """The codec of an embedded model (by name; None is the default) or of a model folder.

        Raises:
            ModelError: no such model, or one that does not load.
        """
        return cls(Model.from_pretrained(model), **options)

    @property
    def packet_seconds(self) -> float:
        """Duration of every packet but the last."""
        return self._packet_vectors * self._patch_samples / self.sample_rate

    @property
    def levels(self) -> int:
        """Number of quality levels: `quality` is 0 .. levels - 1."""
        return self.model.codebook.levels

    # -- encoder ---------------------------------------------------------------------------------------------

    def encode(
        self,
        source: Any,
        sample_rate: int | None = None,
        *,
        bitrate: float | None = None,
        quality: int | None = None,
        comments: Iterable[str] = (),
        progress: Progress = lambda seconds: None,
    ) -> bytes:
        """Audio -> the bytes of an .aldm file.

        Args:
            source: samples [N] or [C, N] (array or tensor, floating point, full scale 1), or a path or binary
                file object that libsndfile reads.
            sample_rate: of samples in memory, Hz.
            bitrate: kbit/s that the whole file stays under, by choice of the quality; at least one level is
                always written, so a bitrate below that of level 0 is exceeded.
            quality: level, 0 .. levels - 1, instead of a bitrate. Default: the model's.
            comments: "NAME=value" strings stored in the file.

        Raises:
            AudioError: no usable audio.
            ValueError: a quality or bitrate out of range.
        """
        if bitrate is not None and quality is not None:
            raise ValueError("give a bitrate or a quality, not both")
        if bitrate is not None and not bitrate > 0:
            raise ValueError(f"a bitrate is above 0 kbit/s, not {bitrate}")
        level = self.model.default_quality if quality is None else quality
        fidelity = 1.0
        if not 0 <= level < self.levels:
            raise ValueError(f"this model has quality 0 to {self.levels - 1}, not {level}")
        reader = source if isinstance(source, AudioReader) else AudioReader(source, sample_rate)
        packets = []
        for packet in self.analyze(reader.blocks(self.sample_rate)):
            packets.append(packet)
            progress(min(len(packets) * self.packet_seconds, reader.samples / reader.sample_rate))
        extra = b"".join(container.pack_record(container.COMMENT, c.encode()) for c in comments)
        if bitrate is not None:
            budget = bitrate * 1000 / 8 * reader.samples / reader.sample_rate - container.HEADER_SIZE - len(extra)
            level, fidelity = self._fit_bitrate(budget, packets)
        header = Header(
            sample_rate=reader.sample_rate,
            channels=reader.channels,
            samples=reader.samples,
            quality=level,
            packet_hops=self._packet_vectors * self._patch_samples * container.HOPS_PER_SECOND // self.sample_rate,
            model=self.model.fingerprint[:4],
        )
        records = [self._pack(packet, index, level, fidelity) for index, packet in enumerate(packets)]
        return header.pack() + extra + b"".join(records)

    def tokens(self, source: Any, sample_rate: int | None = None, *, quality: int | None = None) -> Tensor:
        """Codebook indices of audio, for training on them.

        Returns:
            int32 [C, N, latent_channels]: a vector for every 160 ms, most important coefficients first. Every
            packet is normalised by its own peak, as in a file; silent channels are all zero.
        """
        level = self.model.default_quality if quality is None else quality
        reader = AudioReader(source, sample_rate)
        out = []
        for packet in self.analyze(reader.blocks(self.sample_rate)):
            coded = iter([self.model.codebook.quantize(z, level)[1] for z in packet.latents])
            rows: list[np.ndarray] = []
            for gain in packet.gains:
                if gain == container.GAIN_COPY:
                    rows.append(rows[-1])
                elif gain == container.GAIN_SILENT:
                    rows.append(np.zeros((packet.vectors, self.model.autoencoder.latent_channels), np.int32))
                else:
                    rows.append(next(coded))
            out.append(np.stack(rows))
        return torch.from_numpy(np.concatenate(out, 1))

    @torch.inference_mode()
    def analyze(self, blocks: Iterable[np.ndarray]) -> Iterator[Analysis]:
        """Waveform blocks [C, n] at the codec's rate -> packets of latents, one after the other."""
        mel, pad = self.model.mel, self.model.mel.pad
        for window in self._windows(blocks):
            core = window[:, pad:-pad]
            gains: list[int] = []
            waves = []
            for c, channel in enumerate(window):
                if c and np.array_equal(channel, window[c - 1]):
                    gains.append(container.GAIN_COPY)
                    continue
                centred = channel - core[c].mean()
                peak = float(np.abs(centred[pad:-pad]).max())
                gains.append(gain_of(peak))
                if gains[-1] != container.GAIN_SILENT:
                    waves.append(centred * np.float32(0.5 / peak))
            latents, energies = [], []
            if waves:
                magnitudes = mel.spectrum(torch.from_numpy(np.stack(waves).astype(np.float32))).abs()
                latents = list(self.model.autoencoder.encode(mel.from_magnitudes(magnitudes)).numpy())
                energies = audible_energy(magnitudes).tolist()
            yield Analysis(core.shape[1] // self._patch_samples, tuple(gains), latents, energies)

    def _windows(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Packets [C, pad + n + pad] of the stream, with what stands before and after; reflected at both ends."""
        pad, size = self.model.mel.pad, self._packet_vectors * self._patch_samples
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
            raise AudioError("empty: no samples")
        count = held.shape[1] - (0 if first else pad)
        if count <= 0:
            return
        held = np.pad(held, ((0, 0), (0, -count % self._patch_samples)))
        if first:
            held = np.concatenate([held[:, pad:0:-1], held], 1)
        held = np.concatenate([held, held[:, -2 : -pad - 2 : -1]], 1)
        while held.shape[1] > 2 * pad:
            yield held[:, : size + 2 * pad]
            held = held[:, size:]

    def _pack(self, packet: Analysis, index: int, level: int, fidelity: float) -> bytes:
        streams = [self.model.codebook.quantize(z, level, fidelity)[:2] for z in packet.latents]
        payload = encode_indices(streams, self.model.codebook.tables, level)
        gains = self._output_gains(packet, [indices for _, indices in streams], level)
        return container.pack_record(container.PACKET, Packet(packet.vectors, gains, payload).pack(), index)

    def _output_gains(self, packet: Analysis, indices: list[np.ndarray], level: int) -> tuple[int, ...]:
        """Gains with which the decoded packet is as loud as the original.

        What is decoded is the average of a logarithm, which has too little energy by as much as it has error. More than
        12 dB, which the coarsest levels would need for some transients, are not made up for.
        """
        if not indices:
            return packet.gains
        magnitudes = self.model.mel.magnitudes(self._decode_latents(indices, level))
        excess = 10 * np.log10(np.array(packet.energies) / audible_energy(magnitudes).numpy())
        corrections = iter(np.rint(256 * excess.clip(-12, 12)).astype(int).tolist())
        special = (container.GAIN_SILENT, container.GAIN_COPY)
        return tuple(g if g in special else limit_gain(g + next(corrections)) for g in packet.gains)

    @torch.inference_mode()
    def _decode_latents(self, indices: list[np.ndarray], level: int) -> Tensor:
        """Indices [N, C] of some channels -> log-mel [channels, T, n_mels], normalised."""
        latents = torch.from_numpy(np.stack([self.model.codebook.dequantize(q, level) for q in indices]))
        return self.model.autoencoder.decode(latents, torch.full((len(latents),), float(step_size(level))))

    def _fit_bitrate(self, budget: float, packets: list[Analysis]) -> tuple[int, float]:
        """Finest level and fidelity whose packets take at most `budget` bytes, or the coarsest."""
        settings = [(level, fidelity) for level in range(self.levels) for fidelity in FIDELITIES]
        low, high = 0, len(settings) - 1
        while low < high:
            middle = (low + high + 1) // 2
            size = 0.0
            for packet in packets:
                bits = sum(self.model.codebook.quantize(z, *settings[middle])[2] for z in packet.latents)
                size += 9 + 2 * len(packet.gains) + bits / 8 + 2  # record, number of vectors; end of the coder
            low, high = (middle, high) if size <= budget else (low, middle - 1)
        return settings[low]

    # -- decoder ---------------------------------------------------------------------------------------------

    def decode(
        self,
        source: Any,
        *,
        original_rate: bool = False,
        start: float = 0.0,
        duration: float | None = None,
        strict: bool = False,
    ) -> np.ndarray:
        """An .aldm file -> samples.

        Args:
            source: bytes, a path, or a binary file object.
            original_rate: resample to the rate of what was encoded; otherwise 16 kHz.
            start, duration: part to decode, seconds.
            strict: refuse a file with damage, instead of silence in the place of damaged packets.

        Returns:
            float32 [C, N]; N is exactly the number of samples that went in (at 16 kHz: its duration rounded up).

        Raises:
            FormatError: not an .aldm file, a newer version, or damage that leaves nothing or `strict` refuses.
            ModelError: the file needs another model.
        """
        header, _, blocks = self.decode_blocks(
            read_bytes(source), original_rate=original_rate, start=start, duration=duration, strict=strict
        )
        return np.concatenate([np.zeros((header.channels, 0), np.float32), *blocks], 1)

    def decode_blocks(
        self,
        data: bytes,
        *,
        original_rate: bool = False,
        start: float = 0.0,
        duration: float | None = None,
        strict: bool = False,
    ) -> tuple[Header, Report, Iterator[np.ndarray]]:
        """As `decode`, block by block: the header, a report that fills while decoding, and blocks [C, n]."""
        header = Header.parse(data)
        self._check(header)
        report = Report()
        packets, total = self._packets(data, header, report)
        if report.damage and strict:
            raise DamageError(f"damaged: {report.damage[0]}" + more(report.damage))
        if not packets:
            raise DamageError("nothing to decode: " + (report.damage[0] if report.damage else "no packets"))
        rate = header.sample_rate if original_rate else self.sample_rate
        begin = min(max(0, round(start * rate)), length_at(total, self.sample_rate, rate))
        whole = length_at(total, self.sample_rate, rate)
        if header.samples is not None:
            whole = min(whole, header.samples if original_rate else length_at(header.samples, header.sample_rate, rate))
        end = whole if duration is None else min(whole, begin + max(0, round(duration * rate)))
        if begin >= end:
            raise ValueError(f"nothing between {start:g} s and the end: the file has {whole / rate:.2f} s")
        size = self._packet_samples(header)
        first = int(max(0.0, begin / rate - EDGE_SECONDS) * self.sample_rate) // size
        last = min((total - 1) // size, int((end / rate + EDGE_SECONDS) * self.sample_rate) // size)
        mels = (self._mel(packets.get(i), header, min(size, total - i * size), report) for i in range(first, last + 1))
        blocks = resample(self._synthesize(mels), self.sample_rate, rate, header.channels)
        offset = first * size * rate // self.sample_rate
        return header, report, cut(blocks, begin - offset, end - begin)

    def _check(self, header: Header) -> None:
        if header.model != self.model.fingerprint[:4]:
            have = self.model.fingerprint[:4].hex()
            raise ModelError(f"the file needs model {header.model.hex()}; {self.model.name or 'this one'} is {have}")
        if header.quality >= self.levels or self._packet_samples(header) % self._patch_samples:
            raise DamageError("header fields that this model does not know: quality or packet duration")

    def _packet_samples(self, header: Header) -> int:
        return header.packet_hops * self.sample_rate // container.HOPS_PER_SECOND

    def _packets(self, data: bytes, header: Header, report: Report) -> tuple[dict[int, Packet], int]:
        """Whole packets by number, and the samples from the start to the end of the last one."""
        size = self._packet_samples(header)
        packets: dict[int, Packet] = {}
        total, expected = 0, None
        if header.samples is not None:
            expected = length_at(header.samples, header.sample_rate, self.sample_rate)
        broken_end = False
        for record in container.read_records(data):
            if isinstance(record, DamageError):
                report.damage.append(str(record))
                broken_end = True
                continue
            if record.kind == container.END:
                samples = int.from_bytes(record.body[:5], "little")
                expected = length_at(samples, header.sample_rate, self.sample_rate) if expected is None else expected
            if record.kind != container.PACKET:
                continue
            try:
                packet = Packet.parse(record.body, header.channels)
                if packet.vectors * self._patch_samples > size:
                    raise DamageError("damaged packet: longer than the header allows")
            except DamageError as error:
                report.damage.append(f"packet {record.index}: {error}")
                continue
            packets[record.index] = packet
            total = record.index * size + packet.vectors * self._patch_samples
            broken_end = False
        if missing := [i for i in range(max(packets, default=-1)) if i not in packets]:
            report.damage.append(f"{len(missing)} missing packets, the first is number {missing[0]}")
        if expected is None:
            return packets, total
        if total < expected:
            report.damage.append(f"ends at {total / self.sample_rate:.2f} of {expected / self.sample_rate:.2f} s")
            if broken_end:  # the packet that the last damage took: silence in its place
                total = min(expected, (len(range(0, total, size)) + 1) * size)
        return packets, min(total, expected)

    @torch.inference_mode()
    def _mel(self, packet: Packet | None, header: Header, samples: int, report: Report) -> Tensor:
        """Log-mel [C, T, n_mels] of a packet; silence if it is missing or does not decode."""
        mel, codebook = self.model.mel, self.model.codebook
        frames = -(-samples // self._patch_samples) * self.model.autoencoder.patch
        out = torch.full((header.channels, frames, mel.n_mels), SILENT_MEL)
        if packet is None:
            return out
        coded = [g for g in packet.gains if g not in (container.GAIN_SILENT, container.GAIN_COPY)]
        try:
            streams = decode_indices(packet.payload, len(coded), packet.vectors, codebook.tables, header.quality)
        except DamageError as error:
            report.damage.append(str(error))
            return out
        report.packets += 1
        decoded: Iterator[Tensor] = iter(())
        if streams:
            decoded = iter(self._decode_latents([indices for _, indices in streams], header.quality))
        for c, gain in enumerate(packet.gains):
            if gain == container.GAIN_COPY:
                out[c] = out[c - 1]
            elif gain != container.GAIN_SILENT:
                log_gain = float(np.log(peak_of(gain) / 0.5))
                out[c, : packet.vectors * self.model.autoencoder.patch] = next(decoded)[:frames] + log_gain
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
    """Drop `skip` samples of a stream of blocks [C, n], then pass `count` on, padded with zeros if it ends early."""
    channels = 1
    for block in blocks:
        channels, drop = len(block), min(skip, block.shape[1])
        skip -= drop
        block = block[:, drop : drop + count]
        count -= block.shape[1]
        yield block
        if not count:
            return
    yield np.zeros((channels, count), np.float32)


def more(lines: list[str]) -> str:
    """How many further lines there are, for a message that shows one."""
    return f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""


def read_bytes(source: Any) -> bytes:
    """Content of bytes, a path, or a binary file object."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if hasattr(source, "read"):
        return bytes(source.read())
    return Path(source).read_bytes()
