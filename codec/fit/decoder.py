"""Rung 3: the decoding side, trained on what the encoder really writes: magnitude network and autoencoder's decoder."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..dsp.loudness import audible_energy
from ..dsp.mel import LogMel
from ..levels import step_size
from ..model import LOUDEST, Model
from .dataset import AudioCache, Windows
from .descent import Run
from .perception import texture_error
from .predictor import coded
from .sensitivity import auditory_bands

FLOOR = -7.5  # nats; magnitudes below are as good as this
ENERGY = 0.02  # weight; 0.1 distorts what is loud, and lowered STOI
TEXTURE = 1.5  # weight
BAND = -2.75  # nats; a mel band of a flat spectrum less a bin of it


def error(decoded: Tensor, exact: Tensor, level: Tensor, least: float = 0.3) -> Tensor:
    """Absolute error of log-magnitudes or log-mels, weighted: what lies far below the peak counts less.

    Args:
        level: log-mels, a band of a normalised clip reaches about 2.
        least: weight of the quietest.
    """
    weight = least + (1 - least) * torch.sigmoid(level + 6)
    return (weight * (decoded - exact).abs()).mean()


def shape_error(mel: LogMel, exact: Tensor, estimate: Tensor) -> Tensor:
    """Error of log-magnitudes [B, T, bins] within mel bands; `exact` are magnitudes [B, bins, T].

    The network is asked for the shape within bands alone: under exact levels, what is noise has no reason to be
    guessed too low, as the median of its magnitudes is.
    """
    frames = mel.from_magnitudes(exact)
    shape = mel.magnitudes(frames, 1, estimate.exp()).transpose(1, 2).clamp(min=1e-6).log()
    return error(shape, exact.transpose(1, 2).clamp(min=math.exp(FLOOR)).log(), mel.interpolate(frames) + BAND)


def train(
    model: Model,
    cache: AudioCache,
    run: Run,
    length: int = 384,
    learning_rate: float = 1e-3,
    further: bool = False,
) -> None:
    """Train `model.magnitude_net` and the decoder of `model.autoencoder` in place; goes on from `decoder.pt`.

    Encoder, codebook and tables stay as they are.

    Args:
        length: frames of an example.
        further: both have learned already.
    """
    mel, autoencoder, net = model.mel, model.autoencoder, model.magnitude_net
    assert net is not None
    windows = Windows(cache, mel, length, run.seed)
    for name, parameter in autoencoder.named_parameters():
        parameter.requires_grad_(name.startswith(("decoder", "level")))
    net.requires_grad_(True)

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            exact = mel.spectrum(windows.batch(step, run.batch_size)).abs()
            frames = mel.from_magnitudes(exact)
            loud = audible_energy(exact)
            levels = np.random.default_rng([run.seed, step, 1]).integers(model.codebook.levels, size=run.batch_size)
            latents = coded(model.codebook, autoencoder.encode(frames), levels)
            size = torch.from_numpy(step_size(levels).astype(np.float32))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            decoded = autoencoder.decode(latents, size)
            estimate = net(decoded.clamp(max=LOUDEST), size)
        bins = shape_error(mel, exact, estimate)
        mels = error(decoded, frames, frames, 0.5)
        # the median of levels has too little energy too: the loudest make up for it at the least cost
        magnitudes = mel.magnitudes(decoded.clamp(max=LOUDEST), 1, estimate.exp())
        energy = (audible_energy(magnitudes) / loud).log().abs().mean()
        texture = texture_error(*(auditory_bands(mel, m) for m in (frames, decoded.clamp(max=LOUDEST)))).mean()
        found = {"bins": bins, "mel": mels, "energy": energy, "texture": texture}
        return bins + mels + ENERGY * energy + TEXTURE * texture, found

    both = nn.ModuleList([autoencoder, net])
    names = dict(autoencoder=autoencoder.config, net=net.config, data=cache.size)
    run.descend("decoder", both, loss, learning_rate, further, **names)
