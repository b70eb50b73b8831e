"""Tables, vector codebook and condition for an AudioLDM 2 checkpoint, whose networks stay as they are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ..audioldm2.model import AudioLDM2
from ..audioldm2.text import PARTS, embed
from ..audioldm2.unet import CONDITION
from ..model_parts import save_codebook, save_vector_codebook
from ..quantization.adaptive import AdaptiveCodebook
from ..quantization.scalar import ScalarCodebook
from .data.audio_cache import AudioCache
from .stages.tables import fit_tables
from .stages.tokens import fit_vector_codebook

CODED = ("vae", "vocoder", "unet", "scheduler")


def fit_checkpoint(
    name: str | Path,
    data: list[Path],
    out: Path,
    work: Path,
    progress: Callable[[str], None],
    *,
    table_hours: float = 1.0,
    tokens: int = 16,
    classes: int = 32,
    tables: int = 512,
    device: str | None = None,
    dtype: str | None = None,
) -> AudioLDM2:
    """Learn on a checkpoint's latents and save a folder: its networks, and `codec/` with what was learned.

    Tables take the place of the adaptive ones. Where the checkpoint has its text encoders, what they make of an empty
    prompt becomes the fixed condition of the UNet.

    Args:
        name: as for `Checkpoint`.
        data: folders (searched recursively) or tar shards of audio.
        work: for the cache of samples.
        table_hours: of audio that is used.
        tokens: of the vector codebook for each latent vector; 0: none.
        classes, tables: as for `fit_tables`.
        device, dtype: as for `AudioLDM2.from_pretrained`.
    """
    model = AudioLDM2.from_pretrained(name, device, dtype)
    vae, mel = model.autoencoder, model.mel
    cache = AudioCache.build(data, work / "audio", mel.sample_rate, progress)
    progress(f"{len(cache.clips)} clips, {cache.hours:.2f} h")
    limit = round(table_hours * 3600 * mel.sample_rate)
    clips = cache.packets(model.patch_samples, False, limit, longest=256)
    latents = [vae.encode(mel(wave[None]))[0].numpy() for wave in clips]
    spread = np.concatenate(latents, 1).std()
    progress(f"latents have a deviation of {spread:.3f}; the schedule supposes 1")
    step_scales = AdaptiveCodebook(vae.latent_channels, 1).step_scales
    codebook = fit_tables(latents, step_scales, progress, classes=classes, tables=tables)
    (out / "codec").mkdir(parents=True, exist_ok=True)
    for sub in (sub for sub in (*CODED, *PARTS) if model.checkpoint.has(sub)):
        _link(model.checkpoint.part(sub), out / sub)
    save_codebook(codebook, out)
    (out / "codec/config.json").write_text(json.dumps({"mel": mel.config()}, indent=2) + "\n")
    if tokens:
        deviation = np.stack([_error(codebook, latents, level) for level in range(0, codebook.levels, 8)])
        steps = np.interp(np.arange(codebook.levels), np.arange(0, codebook.levels, 8), np.log(deviation.mean(1)))
        errors = torch.from_numpy(np.exp(steps)).float()[:, None].expand(-1, vae.latent_channels)
        save_vector_codebook(fit_vector_codebook(latents, errors, tokens, progress), out)
    if model.denoiser is not None and all(map(model.checkpoint.has, PARTS)):
        conditioning = embed(model.checkpoint, "", model.device, model.dtype)
        save_file({k: v.float().cpu().contiguous() for k, v in conditioning._asdict().items()}, out / CONDITION)
    return AudioLDM2.from_pretrained(out, device, dtype)


def _error(codebook: ScalarCodebook, latents: list[np.ndarray], level: int) -> np.ndarray:
    """Deviation of the error of every channel at a level, on a few clips."""
    some = latents[:: max(1, len(latents) // 20)]
    errors = np.concatenate([codebook.quantize(z, level).latents - z for z in some], 1)
    return np.sqrt(np.square(errors).mean(1)) + 1e-6


def _link(source: Path, target: Path) -> None:
    """A folder's files once more, as links where the disk allows it: networks are large."""

    def place(file: str, copy: str) -> str:
        try:
            os.link(os.path.realpath(file), copy)
        except OSError:
            shutil.copyfile(file, copy)
        return copy

    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, copy_function=place)
