"""`Codec`, the interface for programs: audio -> .aldm and back, with one model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..format import container
from ..format.stream import StreamReader
from .audio.reader import AudioReader
from .audioldm2.checkpoint import is_checkpoint
from .decoding.decoder import Decoder
from .decoding.packets import DecodeOptions
from .diffusion.ddcm import DDCM
from .encoding.analysis import AnalyzedPacket, Analyzer, Progress
from .encoding.encoder import Encoder
from .encoding.file import encode_file
from .encoding.live import LiveEncoder
from .encoding.settings import EncodeSettings, check_quality
from .fullband.encoder import ParametricEncoder, ParametricSettings
from .hub import download_model, is_repository
from .levels import step_size
from .model import Model
from .stages import CodecModel
from .tags import PROMPT_TAG, without_reserved_tags
from .tokens.tokens import packet_tokens, token_latents, vector_codebook
from .torch_defaults import generator_with_torch_defaults, with_torch_defaults
from .values import DecodedLatents, Latents

MIN_PACKET_SECONDS, PACKET_SECONDS = 0.16, 10.24


class Codec:
    """Encoder and decoder of one model.

    Args:
        model: loaded by `from_pretrained`.
        packet_seconds: duration of a packet, 0.16 to 10.24 s, rounded up to a multiple of the model's patch. Short ones
            are for live sound: each costs some bits, and some quality at its ends.
        vocoder: one of the model's; "griffin-lim" does without the networks before and behind it. Default: the
            network if the model has one. The gains of a file are right for the vocoder that encoded it.

    Attributes:
        sample_rate: of coded sound, Hz.
        levels: number of quality levels: `quality` is 0 .. levels - 1.
        packet_hops: duration of a packet, in units of 10 ms.
    """

    def __init__(self, model: CodecModel, packet_seconds: float = PACKET_SECONDS, vocoder: str | None = None):
        if not MIN_PACKET_SECONDS <= packet_seconds <= PACKET_SECONDS:
            raise ValueError(f"packets last {MIN_PACKET_SECONDS} to {PACKET_SECONDS} s, not {packet_seconds:g}")
        self.model = model = model.with_vocoder(vocoder)
        self.sample_rate = model.mel.sample_rate
        self.levels = model.codebook.levels
        vectors = math.ceil(packet_seconds * container.HOPS_PER_SECOND / model.autoencoder.patch)
        self._analyzer = Analyzer(model, vectors)
        self.packet_hops = self._analyzer.packet_hops

    @classmethod
    @with_torch_defaults
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Codec:
        """The codec of an embedded model (by name; None is the default), a model folder, or an AudioLDM 2 checkpoint.

        Args:
            model: a name in the package; a folder, or "user/name" of one on the Hugging Face hub; "music", "speech",
                "large" or the hub's name of an AudioLDM 2 checkpoint.
            options: of `Codec`; `device`: "cpu" (default), "cuda", ..., or "auto", a GPU if there is one; for the hub
                `revision` and `cache_dir`; for checkpoints those of `AudioLDM2.from_pretrained`.

        Raises:
            ModelError: no such model or device, or a model that does not load.
        """
        hub = {name: options.pop(name) for name in ("revision", "cache_dir") if name in options}
        if is_repository(model) and not is_checkpoint(model):
            model = download_model(str(model), **hub)
        elif hub:
            raise ValueError(f"{', '.join(hub)}: only for models of the hub")
        if is_checkpoint(model):
            from .audioldm2.model import AudioLDM2

            own = {name: options.pop(name) for name in ("packet_seconds", "vocoder") if name in options}
            return cls(AudioLDM2.from_pretrained(model, **options), **own)
        if foreign := options.keys() - {"packet_seconds", "vocoder", "device"}:
            raise ValueError(f"{', '.join(sorted(foreign))}: only for AudioLDM 2 checkpoints")
        return cls(Model.from_pretrained(model, options.pop("device", None)), **options)

    def __repr__(self) -> str:
        return f"Codec({self.model.name!r}, sample_rate={self.sample_rate}, device={self.model.device!r})"

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model as a folder, which `from_pretrained` loads and which can be uploaded to the hub as it is.

        Raises:
            ModelError: an AudioLDM 2 checkpoint, whose weights are not ours to copy.
        """
        self.model.save_pretrained(Path(folder))

    @with_torch_defaults
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
        high_band: bool = True,
        stereo: str = "auto",
        progress: Progress = lambda seconds: None,
    ) -> bytes:
        """Audio -> the bytes of an .aldm file.

        Args:
            source: samples [N] or [C, N] (array or tensor, floating point, full scale 1), a path, binary
                file object or bytes of an audio file, or an `AudioReader`.
            sample_rate: of samples in memory, Hz.
            bitrate: upper limit for the whole file, kbit/s. Where even level 0 needs more, the file has level 0.
            quality: level, 0 .. levels - 1, instead of a bitrate. Default: the model's. With both, the quality is that
                of the base layer, and the enhancement layer takes what is left.
            layers: "base"; "both": an enhancement layer (DDCM) on top; "ddcm": that alone.
            ddcm: its setting; default: what meets the bitrate, with half of it for the base layer.
            steps: of that default, 2 .. 255. Default: 14, and up to 40 where there are bits for them.
            prompt: description of the sound for the denoiser of a model that takes text; stored in the file.
            comments: "NAME=value" strings stored in the file, as in Vorbis comments.
            index: append the offsets of the packets. Without them, readers follow the lengths of records.
            high_band: describe what is above 8 kHz, where there is something, by about 0.1 kbit/s.
            stereo: of two channels. "parametric": code one, and describe the stereo image by about 0.1 kbit/s;
                "discrete": code both; "mono": mix them to one; "auto": parametric below 12 kbit/s.
            progress: called with the seconds of audio that are analysed.

        Raises:
            AudioError: no usable audio.
            ValueError: a quality or bitrate out of range.
        """
        settings = EncodeSettings.check(self.model, bitrate, quality, layers, ddcm, steps)
        prompts = [] if prompt is None else [f"{PROMPT_TAG}={prompt}"]
        comments = [*self.model.tags(), *prompts, *without_reserved_tags(comments)]
        encoder = Encoder(self.model.with_prompt([], prompt, 0).with_prompt(comments, None, 0))
        reader = source if isinstance(source, AudioReader) else AudioReader(source, sample_rate)
        choice = self._parametric_settings(reader.sample_rate, reader.channels, high_band, stereo, settings)
        parametric = ParametricEncoder(reader.sample_rate, reader.channels, choice)
        packets = self._analyzer.spool(reader, parametric, progress)
        return encode_file(encoder, reader, packets, parametric.channels, self.packet_hops, settings, comments, index)

    @generator_with_torch_defaults
    def analyze(self, source: Any, sample_rate: int | None = None) -> Iterator[AnalyzedPacket]:
        """Packets of audio before quantisation, the first step of `encode`. Arguments as there."""
        reader = source if isinstance(source, AudioReader) else AudioReader(source, sample_rate)
        yield from self._analyzer.analyze(reader.blocks(self.sample_rate))

    @with_torch_defaults
    def stream(
        self,
        sample_rate: int,
        channels: int = 1,
        *,
        bitrate: float | None = None,
        quality: int | None = None,
        comments: Iterable[str] = (),
        high_band: bool = True,
        stereo: str = "auto",
    ) -> LiveEncoder:
        """An encoder for live sound: `push` blocks, get packets; `flush` at the end.

        Args:
            sample_rate, channels: of the blocks that will be pushed.
            bitrate, quality, comments, high_band, stereo: as for `encode`; with a bitrate, every packet has a quality
                of its own.

        Raises:
            ValueError: a quality or bitrate out of range.
        """
        settings = EncodeSettings.check(self.model, bitrate, quality)
        extra = b"".join(map(container.pack_comment, (*self.model.tags(), *without_reserved_tags(comments))))
        choice = self._parametric_settings(sample_rate, channels, high_band, stereo, settings)
        return LiveEncoder(self._analyzer, sample_rate, channels, settings, choice, extra)

    @with_torch_defaults
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
            codebook: "scalar": the indices that `encode` writes at this quality, those of prediction residuals if the
                model has a predictor; "vq": those of the model's vector codebook.

        Returns:
            scalar: int32 [C, N, latent_channels], a vector for every 160 ms (AudioLDM 2: 40 ms), most important
            coefficients first, zeros where a channel is silent. vq: int32 [C, N, 16], 0 .. 1023, 100 tokens a second
            and 1 kbit/s. Every packet is normalised by its own peak, as in a file.

        Raises:
            ModelError: the model has no vector codebook.
        """
        level, vectors = check_quality(self.model, quality), vector_codebook(self.model, codebook)
        packets = self.analyze(source, sample_rate)
        return torch.from_numpy(np.concatenate([packet_tokens(self.model, p, level, vectors) for p in packets], 1))

    def encode_batch(self, clips: Iterable[Any], sample_rate: int | None = None, **options: Any) -> list[bytes]:
        """Files of several clips; as `encode` of each, with the same options."""
        return [self.encode(clip, sample_rate, **options) for clip in clips]

    def decode_batch(self, files: Iterable[Any], **options: Any) -> list[np.ndarray]:
        """Sound of several files; as `decode` of each, with the same options."""
        return [self.decode(file, **options) for file in files]

    def tokens_batch(
        self, batch: Any, sample_rate: int, lengths: Iterable[int] | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Tokens of a padded batch, each clip's as `tokens` gives them.

        Args:
            batch: samples [B, C, N].
            lengths: samples of each clip that are no padding; default: N.
            options: of `tokens`.

        Returns:
            int32 [B, C, most, groups], zeros behind the end of a clip; and int64 [B], vectors of each clip.
        """
        lengths = [len(clip[0]) for clip in batch] if lengths is None else list(lengths)
        found = [self.tokens(clip[:, :n], sample_rate, **options) for clip, n in zip(batch, lengths, strict=True)]
        counts = torch.tensor([tokens.shape[1] for tokens in found])
        padded = [torch.nn.functional.pad(t, (0, 0, 0, int(counts.max()) - t.shape[1])) for t in found]
        return torch.stack(padded), counts

    @with_torch_defaults
    def detokenize(self, tokens: Any, *, quality: int | None = None, codebook: str = "scalar") -> np.ndarray:
        """Tokens, of `tokens` or of a language model -> sound.

        Args:
            tokens: integers [C, N, latent_channels] or, of the vector codebook, [C, N, 16].
            quality, codebook: as for `tokens`.

        Returns:
            float32 [C, N * 2560] (AudioLDM 2: N * 640) at 16 kHz, with its peak near 0.5: tokens do not say how loud
            packets were.

        Raises:
            ValueError: tokens of another shape, or out of range.
        """
        vectors, level = vector_codebook(self.model, codebook), check_quality(self.model, quality)
        latents, level = token_latents(self.model, tokens, level, vectors, self._analyzer.packet_vectors)
        with torch.inference_mode():
            frames = self.model.frames(DecodedLatents(Latents(latents, float(step_size(level)))))
            return self.model.synthesize(frames).cpu().numpy()

    @with_torch_defaults
    def decode(
        self,
        source: Any,
        *,
        original_rate: bool = False,
        rate: int | None = None,
        start: float = 0.0,
        duration: float | None = None,
        **options: Any,
    ) -> np.ndarray:
        """An .aldm file -> samples.

        Args:
            source: bytes, a path, or a binary file object.
            original_rate: resample to the rate of what was encoded. Files of version 1.1, which may have a high band,
                always are; others otherwise have 16 kHz.
            rate: another rate, Hz; at 16000 or less the high band is left out.
            start, duration: part to decode, seconds.
            options: `strict`, `layers`, `refine`, `prompt`, `from_step`, `max_duration`: see `DecodeOptions`.

        Returns:
            float32 [C, N]; N is exactly the number of samples that went in (at 16 kHz: its duration rounded up).

        Raises:
            FormatError: not an .aldm file, a newer version, or damage that leaves nothing or `strict` refuses.
            ModelError: the file needs another model.
            ValueError: no sound between `start` and the end, or more than `max_duration`.
        """
        decoder = self.decoder(read_bytes(source), **options)
        return np.concatenate(list(decoder.blocks(original_rate, start, duration, rate)), 1)

    @with_torch_defaults
    def decoder(self, source: bytes | BinaryIO | StreamReader, **options: Any) -> Decoder:
        """The decoder of one file or stream, for programs that take the sound in blocks or ask what was damaged.

        Args:
            options: see `DecodeOptions`.
        """
        return Decoder(self.model, source, DecodeOptions(**options))

    @with_torch_defaults
    def generate(
        self,
        seconds: float,
        seed: int = 0,
        ddcm: DDCM | None = None,
        prompt: str | None = None,
        candidates: int | None = None,
        comments: Iterable[str] = (),
    ) -> bytes:
        """Unconditional generation: a DDCM file whose picks are random, or led by a prompt.

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

        vectors = self._analyzer.packet_vectors
        return generate_file(self.model, vectors, seconds, seed, ddcm, prompt, candidates, comments)

    @with_torch_defaults
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
            scheduler: one of diffusers': see `audioldm2.generation.SCHEDULERS`.

        Returns:
            float32 [1, N] at 16 kHz.

        Raises:
            ModelError: the model takes no text, or its text encoders are missing.
            ValueError: an argument out of range.
        """
        from .generation import synthesize

        return synthesize(self.model, prompt, negative, seconds, steps, seed, guidance, scheduler)

    def _parametric_settings(
        self, sample_rate: int, channels: int, high_band: bool, stereo: str, settings: EncodeSettings
    ) -> ParametricSettings:
        seconds = self.packet_hops / container.HOPS_PER_SECOND
        rate = settings.bitrate, settings.level
        return ParametricSettings.choose(sample_rate, channels, high_band, stereo, *rate, seconds)


def read_bytes(source: Any) -> bytes:
    """Content of bytes, a path, or a binary file object."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if hasattr(source, "read"):
        return bytes(source.read())
    return Path(source).read_bytes()
