"""EnCodec, DAC and Mimi through transformers."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import SAMPLE_RATE, Wave
from .base import Coded, Missing, nearest
from .commands import resample


@dataclass(frozen=True)
class Checkpoint:
    """A codec of transformers: where its weights are, and how its codes become bits."""

    classname: str
    hub: str
    rates: Callable[[Any], list[float]]  # kbit/s by number of codebooks, from the model's config
    options: Callable[[int, float], dict[str, Any]]  # of encode(), from number of codebooks and rate


def _rates(config: Any, frame_rate: float, codebooks: int, entries: int) -> list[float]:
    return [n * frame_rate * math.log2(entries) / 1000 for n in range(1, codebooks + 1)]


CHECKPOINTS = {
    "encodec": Checkpoint(
        "EncodecModel",
        "facebook/encodec_24khz",
        lambda c: list(c.target_bandwidths),
        lambda n, rate: {"bandwidth": rate},
    ),
    "dac": Checkpoint(
        "DacModel",
        "descript/dac_16khz",
        lambda c: _rates(c, c.sampling_rate / c.hop_length, c.n_codebooks, c.codebook_size),
        lambda n, rate: {"n_quantizers": n},
    ),
    "mimi": Checkpoint(
        "MimiModel",
        "kyutai/mimi",
        lambda c: _rates(c, c.frame_rate, c.num_quantizers, c.codebook_size),
        lambda n, rate: {"num_quantizers": n},
    ),
}


class TransformersCodec:
    """EnCodec, DAC or Mimi through transformers, from the local cache, the hub, or a folder; codes packed to bits."""

    def __init__(self, kind: str, argument: str = ""):
        if importlib.util.find_spec("transformers") is None:
            raise Missing("the package transformers is not installed")
        import transformers

        self.kind = CHECKPOINTS[kind]
        self.name = kind
        where = argument or self.kind.hub
        try:
            self.model = getattr(transformers, self.kind.classname).from_pretrained(where).eval()
        except (OSError, ValueError) as error:
            raise Missing(f"the weights of {where} are neither in the cache nor reachable") from error
        self.identity = f"{where} {transformers.__version__}"
        self.rates = self.kind.rates(self.model.config)

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return nearest(bitrates, self.rates)

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        import soxr
        import torch

        config = self.model.config
        rate = config.sampling_rate
        target = min(self.rates, key=lambda r: abs(r - float(setting)))
        options = self.kind.options(self.rates.index(target) + 1, target)
        samples = torch.from_numpy(soxr.resample(wave, SAMPLE_RATE, rate).astype(np.float32))[None, None]
        with torch.inference_mode():
            started = time.perf_counter()
            encoded = self.model.encode(samples, **options)
            codes = encoded.audio_codes
            done = time.perf_counter()
            if "audio_scales" in encoded:
                decoded = self.model.decode(codes, encoded.audio_scales)[0]
            else:
                decoded = self.model.decode(audio_codes=codes)[0]
            ended = time.perf_counter()
        size = math.ceil(codes.numel() * math.log2(config.codebook_size) / 8)
        decoded = resample(decoded.reshape(-1).numpy(), rate, SAMPLE_RATE, len(wave))
        return Coded(decoded, size, done - started, ended - done)
