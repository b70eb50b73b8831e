"""AudioLDM 2 checkpoints as models of the codec: their VAE, vocoder and UNet, each loaded when it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...format.layer import Layer
from ..device import find_device
from ..dsp.mel import LogMel
from ..errors import AldmWarning, ModelError
from ..model_folder import TABLES
from ..model_parts import LOADING_ERRORS, load_codebook, load_vector_codebook, reason
from ..quantization.adaptive import AdaptiveCodebook
from ..quantization.scalar import ScalarCodebook
from ..quantization.vector import VectorCodebook
from ..stages import CodecModel, Renderer
from ..tags import MODEL_TAG, PROMPT_TAG, comment_value
from ..values import DecodedLatents, Frames, LoudnessTarget
from ..vocoders.hifigan import HifiGan, Hybrid, MelGriffinLim
from .checkpoint import LICENCE, Checkpoint
from .generation import generate_picks, sample_latents
from .loading import load_network
from .unet import UNet, UNetRuntime
from .vae import STD_LIMIT, Vae

DTYPES = ("float32", "float16", "bfloat16")
OVERLAP = 64  # hops that a packet of 1024 shares with the next one: 6 % of the bits
CONTEXT = 64  # hops around a packet that the VAE hears besides, about as far as its convolutions reach
DEFAULT_QUALITY = 22
BRIGHT = 4000.0  # Hz, from which on `emphasis` rises


def pick_dtype(device: str, dtype: str | None) -> torch.dtype:
    """The dtype of that name; default: float16 on a GPU, else float32."""
    name = dtype or ("float16" if device.startswith("cuda") else "float32")
    if name not in DTYPES:
        raise ValueError(f"no dtype {name}; there are {', '.join(DTYPES)}")
    return getattr(torch, name)


@dataclass
class AudioLDM2(CodecModel):
    """A checkpoint, ready to run, see `CodecModel`; the vocoder and the UNet load when they are first used.

    Attributes:
        checkpoint: where it is from.
        dtype: with what numbers networks run.
        vocoder_name: one of `vocoders`, or None: HiFi-GAN.
        emphasis: dB that the vocoder's frames rise from BRIGHT to the highest band.
        match_loudness: whether HiFi-GAN's sound is made as loud as its log-mel; Griffin-Lim's is in any case.
    """

    checkpoint: Checkpoint
    mel: LogMel
    autoencoder: Vae
    codebook: ScalarCodebook
    denoiser: UNet | None = None
    vector_codebook: VectorCodebook | None = None
    name: str = ""
    fingerprint: bytes = bytes(32)
    device: str = "cpu"
    default_quality: int = DEFAULT_QUALITY
    dtype: torch.dtype = torch.float32
    vocoder_name: str | None = None
    emphasis: float = 0.0
    match_loudness: bool = False

    vocoders: ClassVar[tuple[str, ...]] = ("hifi-gan", "hybrid", "griffin-lim")  # type: ignore[misc]
    overlap: ClassVar[int] = OVERLAP  # type: ignore[misc]
    context: ClassVar[int] = CONTEXT  # type: ignore[misc]

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
        posterior: float = 0.0,
        std_limit: float = STD_LIMIT,
        emphasis: float = 0.0,
        match_loudness: bool = False,
    ) -> AudioLDM2:
        """Load a checkpoint's VAE, and what `aldm fit` learned for it.

        Args:
            name: as for `Checkpoint`.
            device: as for `Model`.
            dtype: one of DTYPES; default: float16 on a GPU, else float32.
            posterior, std_limit: as for `Vae`.
            emphasis, match_loudness: attributes.

        Raises:
            ModelError: it is not there, or does not load or fit.
        """
        checkpoint = Checkpoint(str(name))
        device = find_device(device)
        chosen = pick_dtype(device, dtype)
        mel = LogMel()  # the front-end that all of them were trained with
        vae = Vae(checkpoint, mel, device, chosen, posterior, std_limit)
        files = ["vae/config.json", *checkpoint.weights("vae")]
        codebook: ScalarCodebook = AdaptiveCodebook(vae.latent_channels, vae.bands)
        try:
            if checkpoint.fitted:
                codebook = load_codebook(checkpoint.root, vae.latent_channels)
                files.append(TABLES)
            vector_codebook = load_vector_codebook(checkpoint.root, vae.latent_channels, codebook.levels)
        except LOADING_ERRORS as error:
            raise ModelError(f"codec/ of {checkpoint.name} does not load: {reason(error)}") from error
        warnings.warn(f"weights of AudioLDM 2 ({checkpoint.name}): {LICENCE}", AldmWarning, stacklevel=2)
        return cls(
            checkpoint,
            mel,
            vae,
            codebook,
            denoiser=UNet(UNetRuntime(checkpoint, vae, device, chosen)) if checkpoint.has("unet") else None,
            vector_codebook=vector_codebook,
            name=checkpoint.name,
            fingerprint=checkpoint.fingerprint(*files),
            device=device,
            dtype=chosen,
            emphasis=emphasis,
            match_loudness=match_loudness,
        )

    def with_prompt(self, comments: Iterable[str], prompt: str | None, from_step: int) -> CodecModel:
        """As for `CodecModel`; without a prompt, what the comments say counts."""
        if self.denoiser is None:
            return super().with_prompt(comments, prompt, from_step)
        stored = comment_value(comments, PROMPT_TAG)
        return replace(self, denoiser=replace(self.denoiser, prompt=stored, edit=prompt, from_step=from_step))

    def sample_latents(
        self, prompt: str, negative: str, vectors: int, steps: int, seed: int, guidance: float, scheduler: str
    ) -> Tensor:
        if self.denoiser is None:
            raise self.no_text()
        return sample_latents(self.denoiser, prompt, negative, vectors, steps, seed, guidance, scheduler)

    def generate_picks(
        self, prompt: str, layer: Layer, index: int, vectors: int, seed: int, candidates: int
    ) -> np.ndarray:
        if self.denoiser is None:
            raise self.no_text()
        return generate_picks(self.denoiser, prompt, layer, index, vectors, seed, candidates)[0]

    def save_pretrained(self, folder: Path) -> None:
        raise ModelError(f"{self.name} is a checkpoint of others; copy its folder")

    def tags(self) -> list[str]:
        return [f"{MODEL_TAG}={self.checkpoint.name if self.checkpoint.from_hub else 'audioldm2:' + self.name}"]

    @property
    def batch(self) -> int:
        return 1  # these networks fill a GPU, and its memory, as it is

    @property
    def frame_size(self) -> int:
        return self.mel.n_mels

    def loudness_targets(
        self, magnitudes: Tensor, mel: Tensor, latents: np.ndarray, own: slice
    ) -> Sequence[LoudnessTarget | None]:
        return [None] * len(latents)  # to listen to what it coded would take as long as decoding

    def frames(self, decoded: DecodedLatents, history: Sequence[Tensor | None] = ()) -> Frames:
        """Mel magnitudes, as the vocoders of `hifigan` take them. Each channel for itself: not all have a history."""
        values, step = decoded.final
        if not any(before is not None for before in history):
            return self._frames(values, step)
        parts = []
        for row, before in zip(values.split(1), history, strict=True):
            known = row if before is None else torch.cat([before, row], 2)
            heard = (known.shape[2] - row.shape[2]) * self.autoencoder.patch
            parts.append(self._frames(known, step).during(slice(heard, None)))
        return Frames.stack(parts, 0)

    def _frames(self, latents: Tensor, step: float) -> Frames:
        bands = self.decode_mel(latents, step).exp().transpose(1, 2)
        if self.emphasis:
            bands = bands * self._tilt.to(bands.device)[:, None]
        return Frames.of(bands, step)

    @property
    def _tilt(self) -> Tensor:
        """Factor of every band: `emphasis` dB more at the highest one than at BRIGHT, and none below."""
        centre = self.mel.basis.argmax(1) * self.mel.sample_rate / self.mel.n_fft
        rise = ((centre - BRIGHT) / (centre[-1] - BRIGHT)).clamp(min=0)
        return 10 ** (self.emphasis / 20 * rise)

    def renderer(self) -> Renderer:
        name = self.vocoder_name or self.vocoders[0]
        if name != "griffin-lim":
            try:
                network = self.hifigan()
                return (
                    Hybrid(network, self.mel) if name == "hybrid" else HifiGan(network, self.mel, self.match_loudness)
                )
            except (ImportError, ModelError) as error:
                warnings.warn(f"no {name}, Griffin-Lim takes its place: {error}", AldmWarning, stacklevel=2)
        return MelGriffinLim(self.mel)

    def with_vocoder(self, name: str | None) -> AudioLDM2:
        """As for `CodecModel`. Where HiFi-GAN does not load, Griffin-Lim takes its place, and that of the hybrid."""
        if name not in (None, *self.vocoders):
            raise ValueError(f"no vocoder {name}; there are {', '.join(self.vocoders)}")
        return replace(self, vocoder_name=name)

    def hifigan(self) -> Callable[[Tensor], Tensor]:
        """The checkpoint's vocoder: log-mel [B, T, n_mels] -> waveform."""
        config = self.checkpoint.config("vocoder")
        hop = int(np.prod(config.get("upsample_rates", [])))
        expected = (self.mel.n_mels, self.mel.hop_length, self.mel.sample_rate)
        if (config.get("model_in_dim"), hop, config.get("sampling_rate")) != expected:
            raise ModelError(f"vocoder/ of {self.checkpoint.name} is not one of {expected[0]} bands at 16 kHz")
        from transformers import SpeechT5HifiGan

        network, _ = load_network(SpeechT5HifiGan, self.checkpoint, "vocoder", self.device, self.dtype)
        return lambda mel: network(mel.to(self.device, self.dtype)).float()
