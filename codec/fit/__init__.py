"""Fitting a model folder from audio: KLT, autoencoder, tables, the decoding side, denoiser, and vector codebook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..dsp.mel import LogMel
from ..levels import LEVELS, TRAINED_LEVELS
from ..model import Model
from ..nn.corrector import Corrector
from ..nn.magnitude_net import MagnitudeNet
from ..nn.weights import as_stored
from . import autoencoder as autoencoder_training
from . import corrector as corrector_training
from . import decoder as decoder_training
from . import denoiser as denoiser_training
from . import predictor as predictor_training
from .dataset import AudioCache, encode_clips
from .descent import Run
from .grow import grow_autoencoder, grow_denoiser, grow_gains, grow_predictor, weighed_again
from .klt import fit_klt, klt_autoencoder
from .sensitivity import channel_gains
from .tables import fit_tables
from .vq import fit_vector_codebook

FLOOR = -10.0  # nats; 95 dB below the loudest band of a normalised clip
PATCH = 16  # frames per latent vector: 160 ms
CHANNELS = 640
DEFAULT_QUALITY = 24
PREDICTOR_HOURS = 20.0  # of audio, at most, that the predictor is trained on
PREDICTOR_BATCH = 192  # of 2.56 s
JOINTLY = 3e-4  # learning rate
HOLD = 500  # steps that the rate model of a model that goes on learning gets for itself


def fit_model(
    data: list[Path],
    out: Path,
    work: Path,
    progress: Callable[[str], None],
    *,
    init: str | None = None,
    steps: int = 30000,
    weigh: bool | None = None,
    predictor_steps: int = 1500,
    decoder_steps: int = 5000,
    corrector_steps: int = 5000,
    joint_steps: int = 3000,
    denoiser_steps: int = 12000,
    tokens: int = 16,
    n_mels: int = 96,
    channels: int | None = None,
    width: int = 384,
    decoder_width: int = 512,
    table_hours: float = 1.0,
    batch_size: int = 16,
    checkpoint_every: int = 500,
    seed: int = 0,
) -> Model:
    """Fit and save a model folder; a stopped run goes on from what is in `work`.

    Args:
        data: folders (searched recursively) or tar shards of audio.
        init: model whose networks go on learning, instead of new ones that start at the KLT; it decides about
            `n_mels` and the widths. Those of the decoding side meet what they were half-way.
        steps: of gradient descent for the autoencoder; 0 leaves it as it is (without `init`, rung 1: the KLT), and
            its tables too.
        weigh: give channels whose errors are heard finer steps; default: after training of the autoencoder, and where
            it has grown.
        predictor_steps: of gradient descent for what vectors are expected to be, after which tables are fitted anew; 0
            leaves it, or leaves a new one out.
        decoder_steps: of gradient descent for the magnitude network and the autoencoder's decoder (rung 3); 0 leaves
            the decoder, and leaves a new magnitude network out.
        corrector_steps: of gradient descent for the network behind Griffin-Lim (rung 3 too), in batches half as large;
            0 leaves it, or leaves a new one out.
        joint_steps: of gradient descent for that network and the magnitude network together (rung 6), in such batches;
            0 leaves them.
        denoiser_steps: of gradient descent for the denoiser (rung 5); 0 leaves it, or leaves a new one out.
        tokens: of the vector codebook per latent vector; 0 leaves it, or leaves it out.
        channels: of the latents; default: those of `init`, or 640. More than `init` has: it grows, and its tables are
            fitted anew.
        table_hours: of audio that tables and vector codebook are fitted to.
        batch_size: examples of 3.84 s.
        seed: of the training examples; with `init`, another one than before shows it new ones.
    """
    start = Model.from_pretrained(init) if init else None
    mel = start.mel if start else LogMel(n_mels=n_mels, floor=FLOOR)
    cache = AudioCache.build(data, work / "audio", mel.sample_rate, progress)
    progress(f"{len(cache.clips)} clips, {cache.hours:.2f} h")
    torch.manual_seed(0)

    def run(steps: int, number: int, examples: int = batch_size) -> Run:
        return Run(work, steps, progress, examples, seed + number, checkpoint_every)

    known = start.autoencoder.latent_channels if start else 0
    if start:
        grown = _grow(start, cache, channels or start.autoencoder.latent_channels)
        autoencoder, gains = start.autoencoder, torch.from_numpy(start.codebook.gains)
    else:
        autoencoder = klt_autoencoder(cache, mel, PATCH, channels or CHANNELS, width if steps else 0)
        gains, grown = torch.ones(LEVELS, autoencoder.latent_channels), False
    if steps:
        rate = autoencoder_training.RateModel(autoencoder.scale)
        rate.gain.data = gains[:TRAINED_LEVELS].log()
        autoencoder_training.train(autoencoder, rate, cache, mel, run(steps, 0), hold=HOLD if start else 0)
        gains[:TRAINED_LEVELS] = rate.gain.detach().exp()
        gains[TRAINED_LEVELS:] = gains[TRAINED_LEVELS - 1]
    as_stored(autoencoder.eval().requires_grad_(False))
    codebook = start.codebook if start else None
    if codebook is None or steps or predictor_steps or weigh or grown:
        predictor = codebook.predictor if codebook else None
        stored = gains.half().float().numpy()
        if (steps > 0 or grown) if weigh is None else weigh:
            factors = channel_gains(autoencoder, mel, cache, stored)
            if grown:
                factors = weighed_again(factors, known)
            progress(f"steps of the last channels times {factors[-32:].mean():.2f}")
            stored = (stored * factors).astype(np.float16).astype(np.float32)
        if predictor_steps:
            latents = encode_clips(autoencoder, mel, cache, PREDICTOR_HOURS)
            predictor = predictor or predictor_training.new_predictor(latents)
            predictor_training.train(predictor, latents, stored, run(predictor_steps, 4, PREDICTOR_BATCH))
            as_stored(predictor)
        latents = encode_clips(autoencoder, mel, cache, table_hours)
        codebook = fit_tables(latents, stored, progress, predictor)
    model = Model(mel, autoencoder, codebook, DEFAULT_QUALITY)
    if start and grown and start.denoiser:
        start.denoiser = grow_denoiser(
            start.denoiser, *denoiser_training.measure_prior(model, start.denoiser.levels, cache)
        )
    if start:
        model.magnitude_net, model.corrector = start.magnitude_net, start.corrector
        model.denoiser, model.vectors = start.denoiser, start.vectors
    if decoder_steps:
        further = model.magnitude_net is not None
        model.magnitude_net = model.magnitude_net or MagnitudeNet(mel, decoder_width)
        decoder_training.train(model, cache, run(decoder_steps, 1), further=further)
    if corrector_steps:
        further = model.corrector is not None
        model.corrector = model.corrector or Corrector(mel)
        corrector_training.train(model, cache, run(corrector_steps, 3, max(1, batch_size // 2)), further=further)
    if joint_steps and model.magnitude_net and model.corrector:
        together = run(joint_steps, 5, max(1, batch_size // 2))
        corrector_training.train(model, cache, together, learning_rate=JOINTLY, jointly=True)
    if denoiser_steps:
        denoiser_training.train(model, cache, run(denoiser_steps, 2))
        denoiser_training.evaluate(model, cache, progress)
    if tokens:
        denoiser = model.denoiser
        deviation = denoiser.deviation if denoiser else denoiser_training.measure_prior(model, TRAINED_LEVELS, cache)[1]
        latents = encode_clips(autoencoder, mel, cache, table_hours)
        model.vectors = fit_vector_codebook(latents, deviation[:-1], tokens, progress)
    model.save_pretrained(out)
    return model


def _grow(model: Model, cache: AudioCache, channels: int) -> bool:
    """Give autoencoder, predictor and gains of a model that many latent channels; whether it had fewer."""
    if channels < model.autoencoder.latent_channels:
        raise ValueError(f"the model has {model.autoencoder.latent_channels} latent channels, more than {channels}")
    if channels == model.autoencoder.latent_channels:
        return False
    klt = fit_klt(cache, model.mel, model.autoencoder.patch, channels)
    model.autoencoder = grow_autoencoder(model.autoencoder, klt)
    model.codebook.gains = grow_gains(model.codebook.gains, channels)
    if model.codebook.predictor is not None:
        model.codebook.predictor = grow_predictor(model.codebook.predictor, klt["scale"])
    return True
