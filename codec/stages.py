"""The interface of a codec model: four stages and an optional denoiser. The codec uses models through it alone.

samples -> front-end -> transform -> quantizer -> indices
samples <- renderer  <- transform <- (denoiser) <- quantizer
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..format.layer import Layer
from .diffusion.schedule import NoiseRange
from .dsp.mel import LogMel
from .errors import ModelError
from .quantization.scalar import ScalarCodebook
from .quantization.vector import VectorCodebook
from .values import DecodedLatents, Frames, LoudnessTarget

MAX_LOG_MEL = 6.0  # nats; a band of a normalised clip reaches about 2


class Transform(Protocol):
    """Log-mels <-> latents.

    Attributes:
        patch: frames of 10 ms that a latent vector stands for.
        latent_channels: numbers in a latent vector, C.
    """

    patch: int
    latent_channels: int

    def encode(self, mel: Tensor) -> Tensor:
        """Log-mel [B, T, n_mels], T a multiple of `patch` -> latents [B, C, T / patch]."""

    def decode(self, latents: Tensor, step: Tensor) -> Tensor:
        """Dequantised latents [B, C, N] and the quantiser's step [B] -> log-mel [B, N * patch, n_mels]."""


class Renderer(Protocol):
    """Frames -> samples, over one stream. `copy.copy` gives one that goes on independently."""

    def push(self, frames: Frames) -> Tensor:
        """Take the next frames; return the waveform [C, N] that is settled by now."""

    def flush(self) -> Tensor:
        """The rest, after at least one frame: [C, N]."""


class Denoiser(Protocol):
    """Noisy latents and the base layer's latents -> an estimate of the latents.

    Attributes:
        levels: quality levels of the base layer that it was trained with; finer ones leave nothing to refine.
        schedule: configuration of diffusers' DDIMScheduler.
        noise_range: noise that diffusions begin and end at.
        fingerprint: of its files.
        deviation: [levels + 1, C], standard deviations of the error of each level's latents; last those of latents.
    """

    @property
    def levels(self) -> int: ...
    @property
    def schedule(self) -> dict[str, Any]: ...
    @property
    def noise_range(self) -> NoiseRange: ...
    @property
    def fingerprint(self) -> bytes: ...
    @property
    def deviation(self) -> Tensor: ...

    def for_step(self, number: int) -> Denoiser:
        """The denoiser of that step."""

    def start(self, base: Tensor, level: Tensor, step: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of what a diffusion starts from where the noise has that variance; else as for a call."""

    def __call__(self, noisy: Tensor, sigma: Tensor, base: Tensor, level: Tensor, step: Tensor) -> Tensor:
        """Latents with noise of standard deviation sigma -> latents, both [B, C, N].

        Args:
            sigma: [B].
            base: [B, C, N], the base layer's latents; ignored where `level` [B] is -1.
            step: [B], the quantiser's.
        """


class CodecModel(Protocol):
    """A model, ready to run. Latents, quantiser and diffusion are on the CPU.

    Attributes:
        mel: the front-end.
        autoencoder: the transform.
        codebook: the quantiser.
        default_quality: level if no rate is given.
        denoiser: for diffusion, if there is one.
        vector_codebook: codebook of the tokens of fixed rate, if there is one.
        name: for messages.
        fingerprint: of what indices mean; its first 4 bytes stand in every file.
        device: where networks and signal processing run.
        vocoders: names for `with_vocoder`; the first is the default.
        overlap: hops behind a packet that its latents cover too, and the next one's.
        context: hops on either side of a packet that its transform hears, too.
    """

    mel: LogMel
    autoencoder: Transform
    codebook: ScalarCodebook
    default_quality: int
    denoiser: Denoiser | None
    vector_codebook: VectorCodebook | None
    name: str
    fingerprint: bytes
    device: str
    vocoders: tuple[str, ...]
    overlap: int
    context: int

    @property
    def batch(self) -> int:
        """How many channels of packets are worked on at once."""

    @property
    def frame_size(self) -> int:
        """Magnitudes in a frame."""

    def loudness_targets(
        self, magnitudes: Tensor, mel: Tensor, latents: np.ndarray, own: slice
    ) -> Sequence[LoudnessTarget | None]:
        """Targets that keep the level of each channel of a packet; None: the model does not adjust it.

        Args:
            magnitudes: [B, n_fft // 2 + 1, T], of the packet and its context.
            mel: [B, T, n_mels].
            latents: [B, C, N], of the frames `own`.
        """

    def decoded_energy(self, latents: Tensor, step: float) -> Tensor:
        """Audible energy of decoded latents [B, C, N]: [B]. Only for models with loudness targets."""

    def frames(self, decoded: DecodedLatents, history: Sequence[Tensor | None] = ()) -> Frames:
        """Frames for decoded latents of some channels.

        Args:
            history: latents [1, C, K] before those of each channel, that the transform shall hear too.
        """

    def renderer(self) -> Renderer:
        """A renderer for one stream of frames."""

    def with_vocoder(self, name: str | None) -> CodecModel:
        """The model with one of `vocoders`; None: its own.

        Raises:
            ValueError, ModelError: there is none of that name.
        """

    def with_prompt(self, comments: Iterable[str], prompt: str | None, from_step: int) -> CodecModel:
        """The model as a file with these comments wants it: a prompt steers the denoiser, if it takes text.

        Args:
            prompt: another one for the steps of a diffusion from `from_step` on.

        Raises:
            ModelError: a prompt, and the model takes no text.
        """
        if prompt is not None:
            raise self.no_text()
        return self

    def no_text(self) -> ModelError:
        """The error where a prompt is given to a model that takes none."""
        return ModelError(f"model {self.name} takes no text")

    def sample_latents(
        self, prompt: str, negative: str, vectors: int, steps: int, seed: int, guidance: float, scheduler: str
    ) -> Tensor:
        """Latents [1, C, N] of the sound that a text describes; arguments as for `Codec.synthesize`.

        Raises:
            ModelError: the model takes no text, or its text encoders are missing.
        """
        raise self.no_text()

    def generate_picks(
        self, prompt: str, layer: Layer, index: int, vectors: int, seed: int, candidates: int
    ) -> np.ndarray:
        """Picks [1, blocks, steps - 1, 1] for packet `index` of a file, led by a prompt; raises as `sample_latents`.

        Args:
            vectors: latent vectors of the packet.
            candidates: random picks from which the prompt chooses each.
        """
        raise self.no_text()

    def save_pretrained(self, folder: Path) -> None:
        """Write the model as a folder.

        Raises:
            ModelError: its weights are not ours to copy.
        """

    def tags(self) -> list[str]:
        """Comments "NAME=value" for files of this model."""
        return []

    def vectors_of(self, hops: int) -> int:
        """Latent vectors of a packet of so many hops."""
        return (hops + self.overlap) // self.autoencoder.patch

    @property
    def patch_samples(self) -> int:
        """Samples that a latent vector stands for."""
        return self.autoencoder.patch * self.mel.hop_length

    def encode_mel(self, mel: Tensor, own: slice) -> Tensor:
        """Log-mel [B, T, n_mels] of a packet and its context -> latents [B, C, N] of the frames `own`."""
        before, count = own.start, own.stop - own.start
        if count < mel.shape[1]:  # what is around a quiet packet shall not outweigh it
            mel = mel.clamp(max=mel[:, own].amax((1, 2), keepdim=True))
        patch = self.autoencoder.patch
        return self.autoencoder.encode(mel)[:, :, before // patch : (before + count) // patch]

    @torch.inference_mode()
    def decode_mel(self, latents: Tensor, step: float) -> Tensor:
        """Latents [B, C, N] and the quantiser's step -> log-mel [B, N * patch, n_mels], normalised."""
        mel = self.autoencoder.decode(latents.to(self.device), torch.full((len(latents),), step, device=self.device))
        return mel.nan_to_num(self.mel.floor).clamp(max=MAX_LOG_MEL)  # indices of a crafted file can be anything

    def history(self, before: Tensor | None, latents: Tensor, hops: int) -> Tensor | None:
        """The last latents [1, C, K] up to the end of a packet, as many as the transform hears before the next one.

        Args:
            before: those up to the packet's beginning.
            latents: [1, C, N] of the packet of so many hops.
        """
        if not self.context:
            return None
        own = latents[:, :, : hops // self.autoencoder.patch]
        both = own if before is None else torch.cat([before, own], 2)
        return both[:, :, -(self.context // self.autoencoder.patch) :]

    def dequantize(self, indices: Sequence[np.ndarray], level: int) -> Tensor:
        """Indices [N, C] of some channels -> latents [channels, C, N]."""
        return torch.from_numpy(np.stack([self.codebook.dequantize(q, level) for q in indices]))

    def synthesize(self, frames: Frames) -> Tensor:
        """Frames -> waveform [C, T * hop_length], all at once."""
        renderer = self.renderer()
        return torch.cat([renderer.push(frames), renderer.flush()], 1)
