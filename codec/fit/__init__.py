"""Fitting a model folder from audio: KLT, autoencoder, tables, the decoding side, denoiser, and vector codebook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..corrector import Corrector
from ..magnitude_net import MagnitudeNet
from ..mel import LogMel
from ..model import Model
from ..quantizer import LEVELS, TRAINED_LEVELS
from ..weights import as_stored
from . import autoencoder as autoencoder_training
from . import corrector as corrector_training
from . import decoder as decoder_training
from . import denoiser as denoiser_training
from . import predictor as predictor_training
from .dataset import AudioCache, encode_clips
from .klt import klt_autoencoder
from .sensitivity import channel_gains
from .tables import fit_tables
from .vq import fit_vector_codebook

FLOOR = -10.0  # nats; 95 dB below the loudest band of a normalised clip
PATCH = 16  # frames per latent vector: 160 ms
DEFAULT_QUALITY = 24
PREDICTOR_HOURS = 20.0  # of audio, at most, that the predictor is trained on
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
    denoiser_steps: int = 12000,
    tokens: int = 16,
    n_mels: int = 96,
    channels: int = 384,
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
            `n_mels`, `channels` and the widths.
        steps: of gradient descent for the autoencoder; 0 leaves it as it is (without `init`, rung 1: the KLT), and
            its tables too.
        weigh: give channels whose errors are heard finer steps; default: after training of the autoencoder, once.
        predictor_steps: of gradient descent for what vectors are expected to be, after which tables are fitted anew; 0
            leaves it, or leaves a new one out.
        decoder_steps: of gradient descent for the magnitude network and the autoencoder's decoder (rung 3); 0 leaves
            the decoder, and leaves a new magnitude network out.
        corrector_steps: of gradient descent for the network behind Griffin-Lim (rung 3 too), in batches half as large;
            0 leaves it, or leaves a new one out.
        denoiser_steps: of gradient descent for the denoiser (rung 5); 0 leaves it, or leaves a new one out.
        tokens: of the vector codebook per latent vector; 0 leaves it, or leaves it out.
        table_hours: of audio that tables and vector codebook are fitted to.
        batch_size: examples of 3.84 s.
        seed: of the training examples; with `init`, another one than before shows it new ones.
    """
    start = Model.from_pretrained(init) if init else None
    mel = start.mel if start else LogMel(n_mels=n_mels, floor=FLOOR)
    cache = AudioCache.build(data, work / "audio", mel.sample_rate, progress)
    progress(f"{len(cache.clips)} clips, {cache.hours:.2f} h")
    torch.manual_seed(0)
    autoencoder = start.autoencoder if start else klt_autoencoder(cache, mel, PATCH, channels, width if steps else 0)
    gains = torch.from_numpy(start.codebook.gains) if start else torch.ones(LEVELS, channels)
    if steps:
        rate = autoencoder_training.RateModel(autoencoder.scale)
        rate.gain.data = gains[:TRAINED_LEVELS].log()
        autoencoder_training.train(
            autoencoder,
            rate,
            cache,
            mel,
            work,
            steps,
            progress,
            batch_size=batch_size,
            hold=HOLD if start else 0,
            seed=seed,
            checkpoint_every=checkpoint_every,
        )
        gains[:TRAINED_LEVELS] = rate.gain.detach().exp()
        gains[TRAINED_LEVELS:] = gains[TRAINED_LEVELS - 1]
    as_stored(autoencoder.eval().requires_grad_(False))
    codebook = start.codebook if start else None
    if codebook is None or steps or predictor_steps or weigh:
        predictor = codebook.predictor if codebook else None
        stored = gains.half().float().numpy()
        if steps > 0 if weigh is None else weigh:
            factors = channel_gains(autoencoder, mel, cache, stored)
            progress(f"steps of the last channels times {factors[-32:].mean():.2f}")
            stored = (stored * factors).astype(np.float16).astype(np.float32)
        if predictor_steps:
            latents = encode_clips(autoencoder, mel, cache, PREDICTOR_HOURS)
            predictor = predictor or predictor_training.new_predictor(latents)
            options = dict(seed=seed + 4, checkpoint_every=checkpoint_every)
            predictor_training.train(predictor, latents, stored, work, predictor_steps, progress, **options)
            as_stored(predictor)
        latents = encode_clips(autoencoder, mel, cache, table_hours)
        codebook = fit_tables(latents, stored, progress, predictor)
    model = Model(mel, autoencoder, codebook, DEFAULT_QUALITY)
    if start:
        model.magnitude_net, model.corrector = start.magnitude_net, start.corrector
        model.denoiser, model.vectors = start.denoiser, start.vectors
    if decoder_steps:
        model.magnitude_net = model.magnitude_net or MagnitudeNet(mel, decoder_width)
        options = dict(batch_size=batch_size, seed=seed + 1, checkpoint_every=checkpoint_every)
        decoder_training.train(model, cache, work, decoder_steps, progress, **options)
    if corrector_steps:
        model.corrector = model.corrector or Corrector(mel)
        options = dict(batch_size=max(1, batch_size // 2), seed=seed + 3, checkpoint_every=checkpoint_every)
        corrector_training.train(model, cache, work, corrector_steps, progress, **options)
    if denoiser_steps:
        options = dict(batch_size=batch_size, seed=seed + 2, checkpoint_every=checkpoint_every)
        denoiser_training.train(model, cache, work, denoiser_steps, progress, **options)
        denoiser_training.evaluate(model, cache, progress)
    if tokens:
        denoiser = model.denoiser
        deviation = denoiser.deviation if denoiser else denoiser_training.measure_prior(model, TRAINED_LEVELS, cache)[1]
        latents = encode_clips(autoencoder, mel, cache, table_hours)
        model.vectors = fit_vector_codebook(latents, deviation[:-1], tokens, progress)
    model.save_pretrained(out)
    return model
