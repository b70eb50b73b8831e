"""Rung 1: the Karhunen-Loeve transform of log-mel patches. Minutes, no gradient descent."""

from __future__ import annotations

import torch

from ..dsp.mel import LogMel
from ..nn.autoencoder import Autoencoder
from .dataset import AudioCache


def fit_klt(
    cache: AudioCache, mel: LogMel, patch: int, channels: int, frames: int = 1_000_000
) -> dict[str, torch.Tensor]:
    """Mean, leading eigenvectors and standard deviations of patches, as `Autoencoder`'s buffers.

    Args:
        frames: how many frames to take at most; 1e6 are 2.8 h.
    """
    size = patch * mel.n_mels
    if channels > size:
        raise ValueError(f"at most {size} latent channels with {mel.n_mels} bands, not {channels}")
    total, first, second = 0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for wave in cache.packets(patch * mel.hop_length, False, frames * mel.hop_length):
        patches = mel(wave[None]).reshape(-1, size)
        total += len(patches)
        first += patches.sum(0, dtype=torch.float64)
        second += (patches.T @ patches).double()
    if not total:
        raise ValueError(f"no clip of at least {4 * patch * mel.hop_length / mel.sample_rate:g} s to fit on")
    mean = first / total
    variance, vectors = torch.linalg.eigh(second / total - mean[:, None] * mean)
    order = torch.arange(size - 1, size - channels - 1, -1)  # eigh sorts upwards
    return dict(
        mean=mean.float(),
        basis=vectors[:, order].T.float().contiguous(),
        scale=variance[order].clamp(min=4.0).sqrt().float(),
    )


def klt_autoencoder(
    cache: AudioCache, mel: LogMel, patch: int, channels: int, width: int = 0, blocks: int = 3
) -> Autoencoder:
    """An autoencoder that starts as the KLT of the cache."""
    model = Autoencoder(mel.n_mels, patch, channels, width, blocks)
    model.load_state_dict(fit_klt(cache, mel, patch, channels), strict=False)
    return model
