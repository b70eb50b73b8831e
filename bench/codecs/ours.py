"""This codec in the same process: with its denoiser, its tokens, and the ceilings of its parts."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import SAMPLE_RATE, Wave
from .base import CodecError, Coded, Missing, number


class OurCodec:
    """A model of this codec; the argument names another than the embedded default."""

    def __init__(self, argument: str = "", vocoder: str | None = None):
        from ...codec import Codec
        from ...codec.errors import ModelError
        from ...codec.model_folder import VOCODER, find_model, fingerprint

        self.name = "aldm" + (f":{argument}" if argument else "")
        try:
            folder = find_model(argument or None)
            self.codec = Codec.from_pretrained(folder, vocoder=vocoder)
        except ModelError as error:
            raise Missing(str(error)) from error
        weights = (folder / VOCODER).read_bytes() if (folder / VOCODER).exists() else b""
        self.identity = f"{fingerprint(folder).hex()} {zlib.crc32(weights):08x} {vocoder}"

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return [number(b) for b in bitrates]


class Aldm(OurCodec):
    """This codec as it is."""

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        coded = self.run_fullband(wave[None], SAMPLE_RATE, setting, folder)
        return replace(coded, decoded=coded.decoded[0])

    def run_fullband(self, wave: Wave, rate: int, setting: str, folder: Path) -> Coded:
        started = time.perf_counter()
        data = self.codec.encode(wave, rate, bitrate=float(setting))
        encoded = time.perf_counter()
        decoded = self.codec.decode(data, original_rate=True)
        return Coded(decoded, len(data), encoded - started, time.perf_counter() - encoded)


class AldmDiffusion(OurCodec):
    """This codec's embedded model with its denoiser: aldm-refine, aldm-both or aldm-ddcm; the argument is its steps."""

    def __init__(self, name: str, argument: str = ""):
        from ...codec.model_folder import DENOISER_FILES, find_model, fingerprint

        super().__init__()
        if argument and not argument.isdigit():
            raise ValueError(f"{name}:N has N steps of diffusion, not {argument!r}")
        if self.codec.model.denoiser is None:
            raise Missing("the model has no denoiser")
        self.name = name + (f":{argument}" if argument else "")
        self.mode, self.steps = name.removeprefix("aldm-"), int(argument) if argument else None
        self.identity += f" {fingerprint(find_model(None), DENOISER_FILES).hex()}"

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        refine = self.mode == "refine"
        steps = (self.steps or 10) if refine else self.steps
        options: dict[str, Any] = {} if refine else {"layers": self.mode, "steps": steps}
        try:
            started = time.perf_counter()
            data = self.codec.encode(wave, SAMPLE_RATE, bitrate=float(setting), **options)
            encoded = time.perf_counter()
            decoded = self.codec.decode(data, refine=steps if refine else 0)[0]
        except ValueError as error:
            raise CodecError(str(error)) from error
        return Coded(decoded, len(data), encoded - started, time.perf_counter() - encoded)


class AldmTokens(OurCodec):
    """The tokens of this codec's vector codebook, packed to bits, and 2 bytes that say how loud the clip is."""

    def __init__(self, name: str, argument: str = ""):
        super().__init__(argument)
        if self.codec.model.vector_codebook is None:
            raise Missing("the model has no vector codebook")
        self.name = name + (f":{argument}" if argument else "")
        self.identity += f" {zlib.crc32(self.codec.model.vector_codebook.codes.tobytes()):08x}"

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return ["tokens"]

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        started = time.perf_counter()
        tokens = self.codec.tokens(wave, SAMPLE_RATE, codebook="vq")
        encoded = time.perf_counter()
        decoded = self.codec.detokenize(tokens, codebook="vq")[0, : len(wave)]
        decoded *= np.float32(np.linalg.norm(wave) / max(float(np.linalg.norm(decoded)), 1e-9))
        size = -(-tokens.numel() * 10 // 8) + 2
        return Coded(decoded, size, encoded - started, time.perf_counter() - encoded)


class ExactMel(OurCodec):
    """Ceiling of the vocoder: the exact log-mel, through the network if the model has one, and Griffin-Lim."""

    def __init__(self, argument: str = "", vocoder: str | None = None):
        super().__init__(argument, vocoder)
        self.name = "exact-mel" + (f":{argument}" if argument else "")

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return ["ceiling"]

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        started = time.perf_counter()
        decoded = self._synthesize(wave)
        return Coded(decoded, None, 0.0, time.perf_counter() - started)

    def _mel(self, mel: Any) -> Any:
        return mel

    def _synthesize(self, wave: Wave) -> Wave:
        """As `Encoder` and `Decoder` do it, in one packet and without quantisation."""
        import torch

        from ...codec.levels import step_size
        from ...codec.values import Frames

        model = self.codec.model
        gain = 0.5 / max(float(np.abs(wave).max()), 1e-5)
        padded = np.pad(wave, (0, -len(wave) % model.patch_samples), mode="symmetric") * np.float32(gain)
        with torch.inference_mode():
            mel = self._mel(model.mel(torch.from_numpy(padded)[None]))
            finest = float(step_size(model.codebook.levels - 1))
            decoded = model.synthesize(Frames.of(model.magnitudes(mel, torch.full((1,), finest)), finest))[0]
        return decoded[: len(wave)].numpy() / np.float32(gain)


class Unquantized(ExactMel):
    """Ceiling of the autoencoder: its latents as they are."""

    def __init__(self, argument: str = ""):
        super().__init__(argument)
        self.name = "unquantized" + (f":{argument}" if argument else "")

    def _mel(self, mel: Any) -> Any:
        import torch

        from ...codec.levels import step_size

        autoencoder = self.codec.model.autoencoder
        finest = torch.full((1,), float(step_size(self.codec.levels - 1)))
        return autoencoder.decode(autoencoder.encode(mel), finest)
