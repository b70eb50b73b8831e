"""The codec of one model: audio -> .aldm and back. What a program uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.container import Header
from .audio import AudioReader
from .decoder import Decoder
from .diffusion import DDCM
from .encoder import Encoder
from .folder import ModelError
from .model import Model
from .quantizer import step_size
from .vocoder import synthesize
from .vq import VectorCodebook

Progress = Callable[[float], None]  # told the seconds of audio that are done

PACKET_SECONDS = 10.24
VOCODERS = ("network", "griffin-lim")


class Codec:
    """Encoder and decoder of one model.

    Args:
        model: loaded by `from_pretrained`.
        packet_seconds: duration of a packet, 2 to 10.24 s, rounded up to a multiple of the model's patch.
        vocoder: one of `VOCODERS`; "griffin-lim" does without the networks before and behind it. Default: the
            network if the model has one. The gains of a file are right for the vocoder that encoded it.

    Attributes:
        sample_rate: of what is coded, Hz.
        levels: number of quality levels: `quality` is 0 .. levels - 1.
    """

    def __init__(self, model: Model, packet_seconds: float = PACKET_SECONDS, vocoder: str | None = None):
        if not 2 <= packet_seconds <= PACKET_SECONDS:
            raise ValueError(f"packets last 2 to {PACKET_SECONDS} s, not {packet_seconds:g}")
        if vocoder not in (None, *VOCODERS):
            raise ValueError(f"no vocoder {vocoder}; there are {', '.join(VOCODERS)}")
        if vocoder == "network" and model.magnitude_net is None:
            raise ModelError(f"model {model.name} has no vocoder network")
        if vocoder == "griffin-lim":
            model = replace(model, magnitude_net=None, corrector=None)
        self.model = model
        self.sample_rate = model.mel.sample_rate
        self.levels = model.codebook.levels
        vectors = math.ceil(packet_seconds * container.HOPS_PER_SECOND / model.autoencoder.patch)
        self._packet_hops = vectors * model.autoencoder.patch
        self._encoder = Encoder(model, vectors)

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Codec:
        """The codec of an embedded model (by name; None is the default) or of a model folder.

        Raises:
            ModelError: no such model, or one that does not load.
        """
        return cls(Model.from_pretrained(model), **options)

    def encode(
        self,
        source: Any,
        sample_rate: int | None = None,
        *,
        bitrate: float | None = None,
        quality: int | None = None,
        layers: str = "base",
        ddcm: DDCM | None = None,
        steps: int | None = None,
        comments: Iterable[str] = (),
        progress: Progress = lambda seconds: None,
    ) -> bytes:
        """Audio -> the bytes of an .aldm file.

        Args:
            source: samples [N] or [C, N] (array or tensor, floating point, full scale 1), a path or binary file
                object that libsndfile reads, or an `AudioReader`.
            sample_rate: of samples in memory, Hz.
            bitrate: kbit/s that the whole file stays under, by choice of the quality. What level 0 needs is
                written in any case.
            quality: level, 0 .. levels - 1, instead of a bitrate. Default: the model's. With both, the quality is that
                of the base layer, and the enhancement layer takes what is left.
            layers: "base"; "both": an enhancement layer (DDCM) on top; "ddcm": that alone.
            ddcm: its setting; default: what meets the bitrate, with half of it for the base layer.
            steps: of that default's walk, 2 .. 255. Default: 14, and up to 40 where there are bits for them.
            comments: "NAME=value" strings stored in the file.
            progress: called with the seconds of audio that are analysed.

        Raises:
            AudioError: no usable audio.
            ValueError: a quality or bitrate out of range.
        """
        if layers not in ("base", "both", "ddcm"):
            raise ValueError(f"no layers {layers}; there are base, both, ddcm")
        if bitrate is not None and quality is not None and layers != "both":
            raise ValueError("give a bitrate or a quality, not both")
        if bitrate is not None and not bitrate > 0:
            raise ValueError(f"a bitrate is above 0 kbit/s, not {bitrate:g}")
        if layers == "base" and ddcm is not None:
            raise ValueError("a DDCM setting is for the layers both and ddcm")
        if layers != "base" and self.model.denoiser is None:
            raise ModelError(f"model {self.model.name} has no denoiser")
        plain = DDCM() if steps is None else DDCM(steps)  # refuses wrong ones before any work
        level, fidelity = self._level(quality), 1.0
        if layers == "both":
            self._encoder.layer(DDCM(), level)
        reader = source if isinstance(source, AudioReader) else AudioReader(source, sample_rate)
        seconds = reader.samples / reader.sample_rate
        packets = []
        for packet in self._encoder.analyze(reader.blocks(self.sample_rate)):
            packets.append(packet)
            progress(min(seconds, len(packets) * self._packet_hops / container.HOPS_PER_SECOND))
        extra = b"".join(container.pack_record(container.COMMENT, c.encode()) for c in comments)
        budget = math.inf if bitrate is None else bitrate * 1000 / 8 * seconds - container.HEADER_SIZE - len(extra)
        layer = None
        if layers == "ddcm":
            level = container.NO_BASE
        if layers != "base":
            if layers == "ddcm" or quality is not None:
                budget -= self._encoder.size(packets, level, fidelity)
            share = budget / 2 if layers == "both" and quality is None else budget
            ddcm = ddcm or (plain if bitrate is None else self._encoder.fit_layer(share, packets, steps))
            layer = self._encoder.layer(ddcm, level)
            budget -= self._encoder.layer_size(layer, packets)
        if bitrate is not None and quality is None and layers != "ddcm":
            level, fidelity = self._encoder.fit_bitrate(budget, packets)
            if layers == "both" and self.model.denoiser is not None:
                level = min(level, self.model.denoiser.levels - 1)
            layer = self._encoder.layer(ddcm, level) if ddcm else None
        header = Header(
            sample_rate=reader.sample_rate,
            channels=reader.channels,
            samples=reader.samples,
            quality=level,
            packet_hops=self._packet_hops,
            model=self.model.fingerprint[:4],
        )
        return header.pack() + extra + b"".join(self._encoder.records(packets, level, fidelity, layer))

    def tokens(
        self,
        source: Any,
        sample_rate: int | None = None,
        *,
        quality: int | None = None,
        codebook: str = "scalar",
    ) -> Tensor:
        """Codebook indices of audio, for training on them.

        Args:
            source, sample_rate: as for `encode`.
            quality: of the scalar codebook, as for `encode`.
            codebook: "scalar": what `encode` writes at this quality; "vq": the model's vector codebook.

        Returns:
            scalar: int32 [C, N, latent_channels], a vector for every 160 ms, most important coefficients first, zeros
            where a channel is silent. vq: int32 [C, N, 16], 0 .. 1023, 100 tokens a second and 1 kbit/s. Every packet
            is normalised by its own peak, as in a file.

        Raises:
            ModelError: the model has no vector codebook.
        """
        level = self._level(quality)
        vectors = self._vectors(codebook)
        packets = self._encoder.analyze(AudioReader(source, sample_rate).blocks(self.sample_rate))
        parts = [self._encoder.indices(packet, level, vectors) for packet in packets]
        return torch.from_numpy(np.concatenate(parts, 1))

    def detokenize(self, tokens: Any, *, quality: int | None = None, codebook: str = "scalar") -> np.ndarray:
        """What `tokens` gave, or a language model made up -> sound.

        Args:
            tokens: integers [C, N, latent_channels] or, of the vector codebook, [C, N, 16].
            quality, codebook: as for `tokens`.

        Returns:
            float32 [C, N * 2560] at 16 kHz, with its peak near 0.5: tokens do not say how loud packets were.

        Raises:
            ValueError: tokens of another shape, or out of range.
        """
        level = self._level(quality)
        channels = self.model.autoencoder.latent_channels
        vectors = self._vectors(codebook)
        indices = np.asarray(tokens)
        if vectors is not None:
            latents = [vectors.dequantize(channel, channels) for channel in indices]
            level = vectors.level
        elif indices.ndim == 3 and indices.shape[2] == channels:
            latents = [self.model.codebook.dequantize(channel, level) for channel in indices]
        else:
            raise ValueError(f"tokens are [C, N, {channels}], not {indices.shape}")
        if not latents or not latents[0].size:
            raise ValueError("no tokens")
        with torch.inference_mode():
            step = float(step_size(level))
            magnitudes = self.model.decode_magnitudes(torch.from_numpy(np.stack(latents)), step)
            return synthesize(self.model, magnitudes, step).numpy()

    def _vectors(self, codebook: str) -> VectorCodebook | None:
        if codebook not in ("scalar", "vq"):
            raise ValueError(f"no codebook {codebook}; there are scalar, vq")
        if codebook == "vq" and self.model.vectors is None:
            raise ModelError(f"model {self.model.name} has no vector codebook")
        return self.model.vectors if codebook == "vq" else None

    def decode(
        self,
        source: Any,
        *,
        original_rate: bool = False,
        start: float = 0.0,
        duration: float | None = None,
        strict: bool = False,
        layers: str = "all",
        refine: int = 0,
    ) -> np.ndarray:
        """An .aldm file -> samples.

        Args:
            source: bytes, a path, or a binary file object.
            original_rate: resample to the rate of what was encoded; otherwise 16 kHz.
            start, duration: part to decode, seconds.
            strict: refuse a file with damage, instead of silence in the place of damaged packets.
            layers: "all", or "base": enhancement layers are ignored.
            refine: steps of diffusion for packets without an enhancement layer, up to 255: seeded noise in the place of
                what the quantiser removed. The same in every run.

        Returns:
            float32 [C, N]; N is exactly the number of samples that went in (at 16 kHz: its duration rounded up).

        Raises:
            FormatError: not an .aldm file, a newer version, or damage that leaves nothing or `strict` refuses.
            ModelError: the file needs another model.
            ValueError: no sound between `start` and the end.
        """
        decoder = self.decoder(read_bytes(source), strict, layers, refine)
        return np.concatenate(list(decoder.blocks(original_rate, start, duration)), 1)

    def decoder(self, data: bytes, strict: bool = False, layers: str = "all", refine: int = 0) -> Decoder:
        """The decoder of one file, for programs that take the sound in blocks or ask what was damaged."""
        return Decoder(self.model, data, strict, layers, refine)

    def generate(self, seconds: float, seed: int = 0, ddcm: DDCM | None = None) -> bytes:
        """A file of sound that nobody made: DDCM whose picks are random.

        Args:
            seconds: its duration, up to an hour.
            seed: of the picks, 0 .. 2^32 - 1.
            ddcm: setting of the layer.

        Raises:
            ModelError: the model has no denoiser.
            ValueError: duration or seed out of range.
        """
        if self.model.denoiser is None:
            raise ModelError(f"model {self.model.name} has no denoiser")
        if not 0.01 <= seconds <= 3600:
            raise ValueError(f"0.01 to 3600 s, not {seconds:g}")
        if not 0 <= seed < 1 << 32:
            raise ValueError(f"a seed is 0 to {(1 << 32) - 1}, not {seed}")
        samples = round(seconds * self.sample_rate)
        header = Header(
            sample_rate=self.sample_rate,
            channels=1,
            samples=samples,
            quality=container.NO_BASE,
            packet_hops=self._packet_hops,
            model=self.model.fingerprint[:4],
        )
        vectors = -(-samples // self.model.patch_samples)
        return header.pack() + b"".join(self._encoder.generate(vectors, seed, ddcm or DDCM()))

    def _level(self, quality: int | None) -> int:
        level = self.model.default_quality if quality is None else quality
        if not 0 <= level < self.levels:
            raise ValueError(f"this model has quality 0 to {self.levels - 1}, not {level}")
        return level


def read_bytes(source: Any) -> bytes:
    """Content of bytes, a path, or a binary file object."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if hasattr(source, "read"):
        return bytes(source.read())
    return Path(source).read_bytes()
