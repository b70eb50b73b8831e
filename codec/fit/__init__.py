"""Fitting a model folder from audio: cache of log-mels, KLT, autoencoder, tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..mel import LogMel
from ..model import Model
from ..quantizer import LEVELS, TRAINED_LEVELS
from .dataset import MelCache
from .klt import klt_autoencoder
from .tables import fit_tables
from .train import train

FLOOR = -10.0  # nats; 95 dB below the loudest band of a normalised clip
PATCH = 16  # frames per latent vector: 160 ms
DEFAULT_QUALITY = 24


def fit_model(
    data: list[Path],
    out: Path,
    work: Path,
    progress: Callable[[str], None],
    *,
    steps: int = 16000,
    n_mels: int = 96,
    channels: int = 384,
    width: int = 384,
    table_hours: float = 1.0,
    checkpoint_every: int = 500,
) -> Model:
    """Fit and save a model folder; a stopped run goes on from what is in `work`.

    Args:
        data: folders (searched recursively) or tar shards of audio.
        steps: of gradient descent; 0 leaves the KLT alone (rung 1).
    """
    mel = LogMel(n_mels=n_mels, floor=FLOOR)
    cache = MelCache.build(data, work / "mel", mel, progress)
    progress(f"{len(cache.clips)} clips, {len(cache.peaks) / 360000:.2f} h")
    torch.manual_seed(0)
    autoencoder = klt_autoencoder(cache, PATCH, channels, width if steps else 0)
    gains = torch.ones(LEVELS, channels)
    if steps:
        rate = train(autoencoder, cache, work, steps, progress, checkpoint_every=checkpoint_every)
        gains[:TRAINED_LEVELS] = rate.gain.detach().exp()
        gains[TRAINED_LEVELS:] = gains[TRAINED_LEVELS - 1]
    autoencoder = autoencoder.half().float().eval().requires_grad_(False)  # as it will be stored
    with torch.inference_mode():
        crops = cache.blocks(PATCH, validation=False, limit=round(table_hours * 360000))
        latents = [autoencoder.encode(crop[None])[0].numpy() for crop in crops]
    codebook = fit_tables(latents, gains.half().float().numpy(), progress)
    model = Model(mel, autoencoder, codebook, DEFAULT_QUALITY)
    model.save_pretrained(out)
    return model
