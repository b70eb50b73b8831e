"""The codec of one model: audio -> .aldm and back. What a program uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.container import Header
from ..format.index import MIN_RECORD_BYTES as INDEX_BYTES
from ..format.index import join_records
from ..format.stream import StreamReader
from .audio.reader import AudioReader
from .audioldm2.checkpoint import is_checkpoint
from .decoding.decoder import Decoder
from .diffusion.ddcm import DDCM
from .encoding.analysis import Spool
from .encoding.encoder import Encoder, Gains
from .encoding.live import LiveEncoder
from .errors import ModelError
from .levels import step_size
from .model import Model
from .tags import PROMPT_TAG
from .tags import without_reserved_tags as without_reserved_tags
from .tokens.tokens import packet_tokens, token_latents, vector_codebook

Progress = Callable[[float], None]  # told the seconds of audio that are done

LEAST_SECONDS, PACKET_SECONDS = 0.16, 10.24


class Codec:
    """Encoder and decoder of one model.

    Args:
        model: loaded by `from_pretrained`.
        packet_seconds: duration of a packet, 0.16 to 10.24 s, rounded up to a multiple of the model's patch. Short ones
            are for live sound: each costs some bits, and some quality at its ends.
        vocoder: one of the model's; "griffin-lim" does without the networks before and behind it. Default: the
            network if the model has one. The gains of a file are right for the vocoder that encoded it.

    Attributes:
        sample_rate: of what is coded, Hz.
        levels: number of quality levels: `quality` is 0 .. levels - 1.
    """

    def __init__(self, model: Model, packet_seconds: float = PACKET_SECONDS, vocoder: str | None = None):
        if not LEAST_SECONDS <= packet_seconds <= PACKET_SECONDS:
            raise ValueError(f"packets last {LEAST_SECONDS} to {PACKET_SECONDS} s, not {packet_seconds:g}")
        self.model = model = model.with_vocoder(vocoder)
        self.sample_rate = model.mel.sample_rate
        self.levels = model.codebook.levels
        vectors = math.ceil(packet_seconds * container.HOPS_PER_SECOND / model.autoencoder.patch)
        self._packet_hops = vectors * model.autoencoder.patch
        self._encoder = Encoder(model, vectors)

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Codec:
        """The codec of an embedded model (by name; None is the default), a model folder, or an AudioLDM 2 checkpoint.

        Args:
            model: a name in the package; "music", "speech", "large" or the hub's name of such a checkpoint; a folder.
            options: of `Codec`; `device`: "cpu" (default), "cuda", ..., or "auto", a GPU if there is one; and for
                checkpoints those of `AudioLDM2.from_pretrained`.

        Raises:
            ModelError: no such model or device, or a model that does not load.
        """
        if is_checkpoint(model):
            from .audioldm2.model import AudioLDM2

            own = {name: options.pop(name) for name in ("packet_seconds", "vocoder") if name in options}
            return cls(AudioLDM2.from_pretrained(model, **options), **own)
        if foreign := options.keys() - {"packet_seconds", "vocoder", "device"}:
            raise ValueError(f"{', '.join(sorted(foreign))}: only for AudioLDM 2 checkpoints")
        return cls(Model.from_pretrained(model, options.pop("device", None)), **options)

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
        prompt: str | None = None,
        comments: Iterable[str] = (),
        index: bool = False,
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
            prompt: says what the sound is, to the denoiser of a model that takes text; stored in the file.
            comments: "NAME=value" strings stored in the file, as in Vorbis comments.
            index: close the file with the offsets of its packets. Without, readers find one by the lengths before it.
            progress: called with the seconds of audio that are analysed.

        Raises:
            AudioError: no usable audio.
            ValueError: a quality or bitrate out of range.
        """
        if layers not in ("base", "both", "ddcm"):
            raise ValueError(f"no layers {layers}; there are base, both, ddcm")
        level = self._check_rate(bitrate, quality, layers == "both")
        if layers == "base" and ddcm is not None:
            raise ValueError("a DDCM setting is for the layers both and ddcm")
        if layers != "base" and self.model.denoiser is None:
            raise ModelError(f"model {self.model.name} has no denoiser")
        told = [] if prompt is None else [f"{PROMPT_TAG}={prompt}"]
        comments = [*self.model.tags(), *told, *without_reserved_tags(comments)]
        if prompt is not None:
            self.model.prompted([], prompt, 0)  # refuses where there is no text
        encoder = Encoder(self.model.prompted(comments, None, 0), self._encoder.packet_vectors)
        plain = DDCM() if steps is None else DDCM(steps)  # refuses wrong ones before any work
        if layers == "both":
            encoder.layer(DDCM(), level)
        reader = source if isinstance(source, AudioReader) else AudioReader(source, sample_rate)
        seconds = reader.samples / reader.sample_rate
        packets = Spool()
        for packet in encoder.analyze(reader.blocks(self.sample_rate)):
            packets.append(packet)
            progress(min(seconds, len(packets) * self._packet_hops / container.HOPS_PER_SECOND))
        extra = b"".join(map(container.pack_comment, comments))
        budget = math.inf if bitrate is None else bitrate * 1000 / 8 * seconds - container.HEADER_SIZE - len(extra)
        if index:
            budget -= INDEX_BYTES + 2 * len(packets)
        if layers != "base" and bitrate is None:
            ddcm = ddcm or plain
        fitted = bitrate is not None and quality is None
        plan, gains = encoder.plan(packets, layers, budget, None if fitted else level, ddcm, steps), Gains()
        while True:
            header = Header(
                sample_rate=reader.sample_rate,
                channels=reader.channels,
                samples=reader.samples,
                quality=plan.level,
                packet_hops=self._packet_hops,
                model=self.model.fingerprint[:4],
                layers=plan.layer is not None,
            )
            start = header.pack() + extra
            records = encoder.records(plan.packets, plan.level, plan.fidelity, plan.ratio, plan.layer, gains=gains)
            data = start + join_records(records, len(start) if index else None)
            excess = 0.0 if bitrate is None else len(data) / (bitrate * 125 * seconds)
            if excess <= 1 or plan.rate == 0:
                return data
            plan = plan.coarser(excess, self.model.codebook.slack)  # what was an estimate was a little too low

    def stream(
        self,
        sample_rate: int,
        channels: int = 1,
        *,
        bitrate: float | None = None,
        quality: int | None = None,
        comments: Iterable[str] = (),
    ) -> LiveEncoder:
        """An encoder for sound that is still being made: `push` blocks, get packets; `flush` at the end.

        Args:
            sample_rate, channels: of the blocks that will be pushed.
            bitrate, quality, comments: as for `encode`; with a bitrate, every packet has a quality of its own.

        Raises:
            ValueError: a quality or bitrate out of range.
        """
        level = self._check_rate(bitrate, quality)
        extra = b"".join(map(container.pack_comment, (*self.model.tags(), *without_reserved_tags(comments))))
        return LiveEncoder(self._encoder, sample_rate, channels, None if bitrate else level, bitrate, extra)

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
            codebook: "scalar": what `encode` writes at this quality, with a predictor what it did not expect by the
                vectors before; "vq": the model's vector codebook.

        Returns:
            scalar: int32 [C, N, latent_channels], a vector for every 160 ms (AudioLDM 2: 40 ms), most important
            coefficients first, zeros where a channel is silent. vq: int32 [C, N, 16], 0 .. 1023, 100 tokens a second
            and 1 kbit/s. Every packet is normalised by its own peak, as in a file.

        Raises:
            ModelError: the model has no vector codebook.
        """
        level, vectors = self._level(quality), vector_codebook(self.model, codebook)
        packets = self._encoder.analyze(AudioReader(source, sample_rate).blocks(self.sample_rate))
        return torch.from_numpy(np.concatenate([packet_tokens(self.model, p, level, vectors) for p in packets], 1))

    def detokenize(self, tokens: Any, *, quality: int | None = None, codebook: str = "scalar") -> np.ndarray:
        """What `tokens` gave, or a language model made up -> sound.

        Args:
            tokens: integers [C, N, latent_channels] or, of the vector codebook, [C, N, 16].
            quality, codebook: as for `tokens`.

        Returns:
            float32 [C, N * 2560] (AudioLDM 2: N * 640) at 16 kHz, with its peak near 0.5: tokens do not say how loud
            packets were.

        Raises:
            ValueError: tokens of another shape, or out of range.
        """
        vectors = vector_codebook(self.model, codebook)
        latents, level = token_latents(self.model, tokens, self._level(quality), vectors, self._encoder.packet_vectors)
        with torch.inference_mode():
            frames = self.model.frames(latents, float(step_size(level)))
            return self.model.synthesize(frames).cpu().numpy()

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
        prompt: str | None = None,
        from_step: int = 0,
    ) -> np.ndarray:
        """An .aldm file -> samples.

        Args:
            source: bytes, a path, or a binary file object.
            original_rate: resample to the rate of what was encoded; otherwise 16 kHz.
            start, duration: part to decode, seconds.
            strict: refuse a file with damage, instead of concealing damaged packets.
            layers: "all", or "base": enhancement layers are ignored.
            refine: steps of diffusion for packets without an enhancement layer, up to 255: seeded noise in the place of
                what the quantiser removed. The same in every run.
            prompt: says what the sound shall be instead, for the steps of diffusion from `from_step` on; for files
                with an enhancement layer, or with `refine`, of models that take text.

        Returns:
            float32 [C, N]; N is exactly the number of samples that went in (at 16 kHz: its duration rounded up).

        Raises:
            FormatError: not an .aldm file, a newer version, or damage that leaves nothing or `strict` refuses.
            ModelError: the file needs another model.
            ValueError: no sound between `start` and the end.
        """
        decoder = self.decoder(read_bytes(source), strict, layers, refine, prompt, from_step)
        return np.concatenate(list(decoder.blocks(original_rate, start, duration)), 1)

    def decoder(
        self,
        source: bytes | BinaryIO | StreamReader,
        strict: bool = False,
        layers: str = "all",
        refine: int = 0,
        prompt: str | None = None,
        from_step: int = 0,
    ) -> Decoder:
        """The decoder of one file or stream, for programs that take the sound in blocks or ask what was damaged."""
        return Decoder(self.model, source, strict, layers, refine, prompt, from_step)

    def generate(
        self,
        seconds: float,
        seed: int = 0,
        ddcm: DDCM | None = None,
        prompt: str | None = None,
        candidates: int | None = None,
        comments: Iterable[str] = (),
    ) -> bytes:
        """A file of sound that nobody made: DDCM whose picks are random, or lead where a prompt says.

        Args:
            seconds: its duration, up to an hour.
            seed: of the picks, 0 .. 2^32 - 1.
            ddcm: setting of the layer.
            prompt: what it shall be, for models that take text; decoders do not need it.
            candidates: random picks among which the prompt chooses each; the more, the more it counts.
            comments: "NAME=value" strings stored in the file.

        Raises:
            ModelError: the model has no denoiser, or takes no text.
            ValueError: duration, seed or candidates out of range.
        """
        from .generation import generate_file

        return generate_file(self._encoder, seconds, seed, ddcm, prompt, candidates, comments)

    def synthesize(
        self,
        prompt: str,
        seconds: float = 10.0,
        seed: int = 0,
        *,
        steps: int = 200,
        guidance: float = 3.5,
        negative: str = "",
        scheduler: str = "ddim",
    ) -> np.ndarray:
        """Sound that a text describes, without a file in between; for AudioLDM 2 checkpoints with text encoders.

        Args:
            seconds: its duration; all of it is in memory at once.
            seed: of the noise that it is made of.
            steps: of the scheduler.
            guidance: how much the prompt counts; 1: as a condition only.
            negative: what it shall not be.
            scheduler: one of diffusers': see `generation.SCHEDULERS`.

        Returns:
            float32 [1, N] at 16 kHz.

        Raises:
            ModelError: the model takes no text, or its text encoders are missing.
            ValueError: an argument out of range.
        """
        from .generation import synthesize

        return synthesize(self.model, prompt, negative, seconds, steps, seed, guidance, scheduler)

    def _check_rate(self, bitrate: float | None, quality: int | None, both: bool = False) -> int:
        """The level that a quality asks for, or the model's own choice."""
        if bitrate is not None and quality is not None and not both:
            raise ValueError("give a bitrate or a quality, not both")
        if bitrate is not None and not bitrate > 0:
            raise ValueError(f"a bitrate is above 0 kbit/s, not {bitrate:g}")
        return self._level(quality)

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
