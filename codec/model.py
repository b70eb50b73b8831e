"""A model folder: `vae/` and `vocoder/` in diffusers' layout, and `codec/` with front-end, codebook and tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from torch import Tensor, nn

from ..format.entropy import Tables
from .device import bfloat16, find_device
from .diffusion.denoiser import Denoiser
from .dsp.mel import LogMel
from .errors import ModelError
from .model_folder import (
    CORRECTOR,
    DENOISER,
    DENOISER_FILES,
    PREDICTOR,
    TABLES,
    VECTORS,
    VOCODER,
    WEIGHTS,
    find_model,
    fingerprint,
)
from .nn.autoencoder import Autoencoder
from .nn.corrector import Corrector
from .nn.magnitude_net import MagnitudeNet
from .nn.predictor import Predictor
from .nn.weights import load_weights, save_weights, uninitialised
from .quantization.noise_shaping import NoiseShaper
from .quantization.scalar import ScalarCodebook
from .quantization.vector import VectorCodebook
from .vocoders.corrected import Vocoder
from .vocoders.griffin_lim import GriffinLim

BATCH = 16  # channels of packets that a GPU takes at once
LOUDEST = 6.0  # nats; a band of a normalised clip reaches about 2


def _load_network(folder: Path, kind: Any, config: str, weights: str, *given: Any) -> Any:
    """A network of a folder, whose settings are `given` and in `config`; None: the folder has none."""
    if not (folder / config).exists() and not (folder / weights).exists():
        return None
    settings = json.loads((folder / config).read_text())
    with uninitialised():
        network = kind(*given, **{k: v for k, v in settings.items() if not k.startswith("_")})
    network.load_state_dict(load_weights(folder / weights))
    return network.eval().requires_grad_(False)


@dataclass
class Model:
    """What a folder holds, ready to run.

    Attributes:
        device: where networks and signal processing run. Latents are on the CPU, and so is what knows only latents:
            codebooks, diffusion.
    """

    mel: LogMel
    autoencoder: Autoencoder
    codebook: ScalarCodebook
    default_quality: int
    magnitude_net: MagnitudeNet | None = None
    corrector: Corrector | None = None
    denoiser: Denoiser | None = None
    vectors: VectorCodebook | None = None
    name: str = ""
    fingerprint: bytes = bytes(32)
    device: str = "cpu"

    vocoders: ClassVar[tuple[str, ...]] = ("network", "griffin-lim")
    overlap: ClassVar[int] = 0  # hops behind a packet that its latents cover too, and the next one's
    context: ClassVar[int] = 0  # hops on either side of a packet that its networks hear, too
    corrects_loudness: ClassVar[bool] = True  # whether encoders listen to what they coded, and adapt the gain

    @property
    def denoiser_fingerprint(self) -> bytes:
        """Of the denoiser's files; it stands in the layers that need it."""
        return self.denoiser.fingerprint if self.denoiser else bytes(32)

    def prompted(self, comments: Iterable[str], prompt: str | None, from_step: int) -> Model:
        """The model as a file with these comments wants it: a prompt steers the denoiser, if it takes text.

        Args:
            prompt: another one for the steps of a walk from `from_step` on.
        """
        if prompt is not None:
            raise ModelError(f"model {self.name} takes no text")
        return self

    def tags(self) -> list[str]:
        """Comments "NAME=value" for files of this model."""
        return []

    @property
    def batch(self) -> int:
        """How many channels of packets are worked on at once.

        On a CPU one by one: more take more memory and no less time, and live sound gets the same bytes as a file.
        """
        return 1 if self.device == "cpu" else BATCH

    @property
    def frame_size(self) -> int:
        """Numbers in a frame that the vocoder takes: magnitudes, and for a corrector two more, see `Vocoder`."""
        return self.mel.n_fft // 2 + 1 + 2 * (self.corrector is not None)

    def frames(self, latents: Tensor, step: float) -> Tensor:
        """Latents [B, C, N] and the quantiser's step -> what the vocoder takes, [B, frame_size, N * patch]."""
        with bfloat16(self.device):
            return self.framed(self.decode_magnitudes(latents, step), step)

    def framed(self, magnitudes: Tensor, step: float) -> Tensor:
        """Normalised magnitudes [B, n_fft // 2 + 1, T] of one quality -> frames for the vocoder."""
        if self.corrector is None:
            return magnitudes
        ones = torch.ones_like(magnitudes[:, :1])
        return torch.cat([magnitudes, ones, step * ones], 1)

    def vocoder(self) -> Any:
        """A vocoder for one stream of frames: `push(frames)` and `flush()` give waveforms [C, N]; can be copied."""
        return GriffinLim(self.mel) if self.corrector is None else Vocoder(self.mel, self.corrector)

    def synthesize(self, frames: Tensor) -> Tensor:
        """Frames [C, frame_size, T] -> waveform [C, T * hop_length], all at once."""
        vocoder = self.vocoder()
        return torch.cat([vocoder.push(frames), vocoder.flush()], 1)

    def with_vocoder(self, name: str | None) -> Model:
        """The model with one of `vocoders`; None: its own.

        Raises:
            ValueError, ModelError: there is none of that name.
        """
        if name not in (None, *self.vocoders):
            raise ValueError(f"no vocoder {name}; there are {', '.join(self.vocoders)}")
        if name == "network" and self.magnitude_net is None:
            raise ModelError(f"model {self.name} has no vocoder network")
        return replace(self, magnitude_net=None, corrector=None) if name == "griffin-lim" else self

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

    def dequantize(self, indices: list[np.ndarray], level: int) -> Tensor:
        """Indices [N, C] of some channels -> latents [channels, C, N]."""
        return torch.from_numpy(np.stack([self.codebook.dequantize(q, level) for q in indices]))

    @torch.inference_mode()
    def decode_mel(self, latents: Tensor, step: float) -> Tensor:
        """Latents [B, C, N] and the quantiser's step -> log-mel [B, N * patch, n_mels], normalised."""
        mel = self.autoencoder.decode(latents.to(self.device), torch.full((len(latents),), step, device=self.device))
        return mel.nan_to_num(self.mel.floor).clamp(max=LOUDEST)  # indices of a crafted file can be anything

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
            codec: dict[str, Any] = json.loads((folder / "codec/config.json").read_text())
            mel, quality = LogMel(**codec["mel"]), int(codec["default_quality"])
            autoencoder = _load_network(folder, Autoencoder, "vae/config.json", WEIGHTS)
            if autoencoder is None:
                raise FileNotFoundError(WEIGHTS)
            arrays = load_arrays(folder / TABLES)
            tables = Tables(arrays["bank"], arrays["choice"], arrays["transitions"])
            predictor = _load_network(folder, Predictor, *PREDICTOR)
            codebook = ScalarCodebook(arrays["gains"].astype(np.float32), tables, predictor, NoiseShaper(autoencoder))
            net = _load_network(folder, MagnitudeNet, "vocoder/config.json", VOCODER, mel)
            corrector = _load_network(folder, Corrector, "vocoder/corrector.json", CORRECTOR, mel)
            denoiser = _load_network(folder, Denoiser, "unet/config.json", DENOISER)
            if denoiser is not None:
                denoiser.schedule = json.loads((folder / "scheduler/scheduler_config.json").read_text())
            vectors = None
            if (folder / VECTORS).exists():
                arrays = load_arrays(folder / VECTORS)
                vectors = VectorCodebook(arrays["codes"].astype(np.float32), int(arrays["level"]))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"model folder {folder} does not load: {type(error).__name__} {str(error).splitlines()[0]}"
            ) from error
        for network in (autoencoder, net, corrector):
            if network is not None:
                network.to(device)
        networks = (net, corrector, denoiser, vectors)
        model = cls(mel, autoencoder, codebook, quality, *networks, folder.name, fingerprint(folder), device)
        if denoiser is not None:
            denoiser.fingerprint = fingerprint(folder, DENOISER_FILES)
        return model

    def save_pretrained(self, folder: Path) -> None:
        """Write the folder; weights in 8 bits, those of the denoiser in half precision."""
        networks: dict[str, tuple[str, nn.Module]] = {"vae/config.json": (WEIGHTS, self.autoencoder)}
        if self.magnitude_net is not None:
            networks["vocoder/config.json"] = (VOCODER, self.magnitude_net)
        if self.corrector is not None:
            networks["vocoder/corrector.json"] = (CORRECTOR, self.corrector)
        if self.codebook.predictor is not None:
            networks[PREDICTOR[0]] = (PREDICTOR[1], self.codebook.predictor)
        if self.denoiser is not None:
            networks["unet/config.json"] = (DENOISER, self.denoiser)
            (folder / "scheduler").mkdir(parents=True, exist_ok=True)
            (folder / "scheduler/scheduler_config.json").write_text(json.dumps(self.denoiser.schedule) + "\n")
        for settings, (file, network) in networks.items():
            (folder / settings).parent.mkdir(parents=True, exist_ok=True)
            config = {"_class_name": f"aldm.codec.{type(network).__name__}", **network.config}  # type: ignore[dict-item]
            (folder / settings).write_text(json.dumps(config, indent=2) + "\n")
            save_weights(network, folder / file, small=file != DENOISER)
        (folder / "codec").mkdir(exist_ok=True)
        codec = {"default_quality": self.default_quality, "mel": self.mel.config()}
        (folder / "codec/config.json").write_text(json.dumps(codec, indent=2) + "\n")
        tables = self.codebook.tables
        arrays = dict(bank=tables.bank, choice=tables.choice, transitions=tables.transitions)
        if self.vectors is not None:
            codes, level = self.vectors.codes.astype(np.float16), np.array(self.vectors.level, np.int32)
            save_arrays(dict(codes=codes, level=level), folder / VECTORS)
        save_arrays({**arrays, "gains": self.codebook.gains.astype(np.float16)}, folder / TABLES)
