"""The models of the package, and those that `aldm fit` makes: folders of networks, codebooks and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..format.container import HOPS_PER_SECOND
from .device import bfloat16, find_device
from .diffusion.denoiser import Denoiser
from .diffusion.schedule import OWN_SCHEDULE, SCHEDULER, check_schedule
from .dsp.loudness import audible_energy, band_energy, loud_parts
from .dsp.mel import LogMel
from .errors import ModelError
from .model_folder import (
    CORRECTOR,
    DENOISER,
    DENOISER_FILES,
    PREDICTOR,
    VOCODER,
    WEIGHTS,
    find_model,
    fingerprint,
)
from .model_parts import (
    LOADING_ERRORS,
    load_codebook,
    load_network,
    load_vector_codebook,
    reason,
    save_codebook,
    save_network,
    save_vector_codebook,
)
from .nn.autoencoder import Autoencoder
from .nn.corrector import Corrector
from .nn.magnitude_net import MagnitudeNet
from .nn.predictor import Predictor
from .quantization.noise_shaping import NoiseShaper
from .quantization.scalar import ScalarCodebook
from .quantization.vector import VectorCodebook
from .settings import check_ranges, read_settings
from .stages import CodecModel, Renderer
from .values import DecodedLatents, Frames, LoudnessTarget
from .vocoders.corrected import CorrectedGriffinLim
from .vocoders.griffin_lim import GriffinLimRenderer

BATCH = 16  # channels of packets that a GPU takes at once
LOUDNESS_STEP = 0.2  # nats by which the loud parts are raised to see what that does to latents


@dataclass
class Model(CodecModel):
    """The model of a folder, ready to run; see `CodecModel`.

    Attributes:
        magnitude_net: STFT magnitudes from log-mels; without it, a pseudo-inverse.
        corrector: behind Griffin-Lim, if there is one.
    """

    mel: LogMel
    autoencoder: Autoencoder
    codebook: ScalarCodebook
    default_quality: int
    magnitude_net: MagnitudeNet | None = None
    corrector: Corrector | None = None
    denoiser: Denoiser | None = None
    vector_codebook: VectorCodebook | None = None
    name: str = ""
    fingerprint: bytes = bytes(32)
    device: str = "cpu"

    vocoders: ClassVar[tuple[str, ...]] = ("network", "griffin-lim")  # type: ignore[misc]
    overlap: ClassVar[int] = 0  # type: ignore[misc]
    context: ClassVar[int] = 0  # type: ignore[misc]

    @classmethod
    def from_pretrained(cls, name: str | Path | None = None, device: str | None = None) -> Model:
        """Load an embedded model by name, or a folder.

        Args:
            device: "cpu" (default), "cuda", ...; "auto": a GPU if there is one.

        Raises:
            ModelError: missing or unreadable files, or no such device.
        """
        device = find_device(device)
        folder = find_model(name)
        try:
            codec = read_settings(folder / "codec/config.json")
            mel = LogMel(**check_ranges(codec.pop("mel"), LogMel.ranges))
            autoencoder = load_network(folder, Autoencoder, "vae/config.json", WEIGHTS)
            if autoencoder is None:
                raise FileNotFoundError(WEIGHTS)
            codebook = load_codebook(folder, autoencoder.latent_channels)
            quality: int = check_ranges(codec, {"default_quality": (0, codebook.levels - 1)})["default_quality"]
            codebook.predictor = load_network(folder, Predictor, *PREDICTOR)
            codebook.shaper = NoiseShaper(autoencoder)
            net = load_network(folder, MagnitudeNet, "vocoder/config.json", VOCODER, mel)
            corrector = load_network(folder, Corrector, "vocoder/corrector.json", CORRECTOR, mel)
            denoiser = load_network(folder, Denoiser, "unet/config.json", DENOISER)
            if denoiser is not None:
                config = read_settings(folder / "scheduler/scheduler_config.json")
                denoiser.schedule = check_schedule(config, **OWN_SCHEDULE)
                denoiser.fingerprint = fingerprint(folder, DENOISER_FILES)
            vector_codebook = load_vector_codebook(folder, autoencoder.latent_channels, codebook.levels)
            if mel.sample_rate != HOPS_PER_SECOND * mel.hop_length or mel.n_mels != autoencoder.config["n_mels"]:
                raise ValueError("the autoencoder is not one for hops of 10 ms of this front-end")
            for part in (codebook.predictor, denoiser):
                if part is not None and part.config["latent_channels"] != autoencoder.latent_channels:
                    raise ValueError(f"the {type(part).__name__.lower()} is not one for these latents")
        except LOADING_ERRORS as error:
            raise ModelError(f"model folder {folder} does not load: {reason(error)}") from error
        for network in (autoencoder, net, corrector):
            if network is not None:
                network.to(device)
        networks = (net, corrector, denoiser, vector_codebook)
        return cls(mel, autoencoder, codebook, quality, *networks, folder.name, fingerprint(folder), device)

    def save_pretrained(self, folder: Path) -> None:
        """Write the folder; weights in 8 bits, those of the denoiser in half precision."""
        networks = [
            (self.autoencoder, "vae/config.json", WEIGHTS),
            (self.magnitude_net, "vocoder/config.json", VOCODER),
            (self.corrector, "vocoder/corrector.json", CORRECTOR),
            (self.codebook.predictor, *PREDICTOR),
            (self.denoiser, "unet/config.json", DENOISER),
        ]
        for network, settings, weights in networks:
            if network is not None:
                save_network(network, network.config, folder, settings, weights, small=network is not self.denoiser)
        if self.denoiser is not None:
            (folder / "scheduler").mkdir(parents=True, exist_ok=True)
            (folder / "scheduler/scheduler_config.json").write_text(
                json.dumps({"_class_name": SCHEDULER, **self.denoiser.schedule}) + "\n"
            )
        if self.vector_codebook is not None:
            save_vector_codebook(self.vector_codebook, folder)
        save_codebook(self.codebook, folder)
        codec = {"default_quality": self.default_quality, "mel": self.mel.config()}
        (folder / "codec/config.json").write_text(json.dumps(codec, indent=2) + "\n")

    def with_vocoder(self, name: str | None) -> Model:
        if name not in (None, *self.vocoders):
            raise ValueError(f"no vocoder {name}; there are {', '.join(self.vocoders)}")
        if name == "network" and self.magnitude_net is None:
            raise ModelError(f"model {self.name} has no vocoder network")
        return replace(self, magnitude_net=None, corrector=None) if name == "griffin-lim" else self

    @property
    def batch(self) -> int:
        """On a CPU 1: more take more memory and no less time, and live sound gets the same bytes as a file."""
        return 1 if self.device == "cpu" else BATCH

    @property
    def frame_size(self) -> int:
        return self.mel.n_fft // 2 + 1

    def loudness_targets(
        self, magnitudes: Tensor, mel: Tensor, latents: np.ndarray, own: slice
    ) -> Sequence[LoudnessTarget | None]:
        raised = self.encode_mel(mel + LOUDNESS_STEP * loud_parts(mel), own).cpu().numpy()
        gradients = ((raised - latents) / LOUDNESS_STEP).astype(np.float16)
        energies = audible_energy(magnitudes[:, :, own]).cpu().tolist()
        bands = band_energy(self.mel, mel[:, own]).cpu().tolist()
        return [LoudnessTarget(*found) for found in zip(energies, bands, gradients, strict=True)]

    @torch.inference_mode()
    def decoded_energy(self, latents: Tensor, step: float) -> Tensor:
        """As for `CodecModel`.

        Magnitudes are computed for the louder half of the vectors only, where nearly all energy is; their ratio to flat
        bands is applied to the rest. That is 0.03 to 0.07 dB (RMS) off, and takes half of the time.
        """
        mel = self.decode_mel(latents, step)
        vectors = mel.unflatten(1, (-1, self.autoencoder.patch))  # [B, N, frames, n_mels]
        energy = band_energy(self.mel, vectors.flatten(0, 1)).view(vectors.shape[:2])
        loudest = energy.topk((energy.shape[1] + 1) // 2).indices.sort().values
        some = vectors.gather(1, loudest[..., None, None].expand(-1, -1, *vectors.shape[2:])).flatten(1, 2)
        found = audible_energy(self.magnitudes(some, torch.full((len(some),), step, device=some.device)))
        return found * energy.sum(1) / energy.gather(1, loudest).sum(1)

    def frames(self, decoded: DecodedLatents, history: Sequence[Tensor | None] = ()) -> Frames:
        """As for `CodecModel`; after a diffusion from a base layer, frames are as loud as that layer's."""
        if decoded.base is None or decoded.refined is None:
            with bfloat16(self.device):
                return Frames.of(self.decode_magnitudes(*decoded.final), decoded.final.step)
        magnitudes = self.decode_magnitudes(*decoded.refined)
        wanted = audible_energy(self.decode_magnitudes(*decoded.base))
        gain = (wanted / audible_energy(magnitudes)).sqrt()[:, None, None]
        return Frames.of(magnitudes * gain, decoded.refined.step)

    def renderer(self) -> Renderer:
        if self.corrector is None:
            return GriffinLimRenderer(self.mel)
        return CorrectedGriffinLim(self.mel, self.corrector)

    def magnitudes(self, mel: Tensor, step: Tensor) -> Tensor:
        """Log-mel [B, T, n_mels] and the quantiser's step [B] -> STFT magnitudes [B, n_fft // 2 + 1, T]."""
        if self.magnitude_net is None:
            return self.mel.magnitudes(mel)
        return self.mel.magnitudes(mel, 3, self.magnitude_net(mel, step).exp())

    @torch.inference_mode()
    def decode_magnitudes(self, latents: Tensor, step: float) -> Tensor:
        """Latents [B, C, N] and the quantiser's step -> STFT magnitudes [B, n_fft // 2 + 1, N * patch], normalised."""
        mel = self.decode_mel(latents, step)
        return self.magnitudes(mel, torch.full((len(mel),), step, device=mel.device))
