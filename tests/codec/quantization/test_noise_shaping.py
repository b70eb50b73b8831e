"""Noise shaping in the encoder: what it minimises, and what it does to real sound."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from aldm.codec.model import Model
from aldm.codec.quantization.noise_shaping import MIN_GAIN_BITS, POOL, REACH, NoiseShaper
from conftest import DOMAINS, clip
from hypothesis import given, settings
from hypothesis import strategies as st

MODEL = Model.from_pretrained("klt")
SHAPER = NoiseShaper(MODEL.autoencoder)
PATTERNS = SHAPER.patterns.numpy()
CHANNELS = MODEL.autoencoder.latent_channels


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), error_bits=st.floats(0.5, 20), size=st.floats(0.1, 40))
def test_indices_get_better(seed: int, error_bits: float, size: float) -> None:
    """Every step away from the nearest index pays, in bits + weighted error."""
    rng = np.random.default_rng(seed)
    scaled = (size * rng.laplace(size=CHANNELS) * np.linspace(1, 0.05, CHANNELS)).astype(np.float32)
    costs = (np.abs(np.arange(-7, 8))[:, None] * rng.uniform(0.2, 2, CHANNELS)).astype(np.float32)
    weights = rng.exponential(size=PATTERNS.shape[1]).astype(np.float32)
    weights = weights / weights.mean() - 1
    before = np.rint(scaled).astype(np.int32)

    def bits(indices: np.ndarray, channels: Any = slice(None)) -> np.ndarray:
        return costs[np.clip(indices, -7, 7) + 7, np.arange(CHANNELS)[channels]]

    after = SHAPER.shape(scaled, before, bits, weights, error_bits)

    def cost(indices: np.ndarray) -> float:
        error = scaled - indices
        weighted = np.square(error).sum() + (weights * np.square(error @ PATTERNS)).sum()
        return bits(indices).sum() + error_bits * weighted

    steps = np.abs(after - before)
    assert steps.max() <= REACH
    assert cost(before) - cost(after) >= MIN_GAIN_BITS * steps.sum() - 1e-4 * cost(before)
    assert np.array_equal(before, np.rint(scaled))  # the argument is the caller's


@pytest.mark.parametrize("domain", DOMAINS)
def test_errors_go_where_it_is_quiet(domain: str) -> None:
    """About as many bits, less error in what is loud, more in what is quiet; and no more where nothing is loud."""
    model = Model.from_pretrained()
    wave = torch.from_numpy(clip(domain)[:64000])[None]
    frames = model.mel(0.5 * wave / wave.abs().max())
    with torch.inference_mode():
        latents = model.autoencoder.encode(frames)[0].numpy()
    plain = replace(model.codebook, shaper=None)
    coded = [codebook.quantize(latents, 26) for codebook in (plain, model.codebook)]
    bits = [model.codebook.bits(c.classes, c.indices, 26) for c in coded]
    assert bits[1] == pytest.approx(bits[0], rel=0.05)
    shaper = model.codebook.shaper
    assert shaper is not None
    weights = shaper.weights(latents)
    loud = weights > np.quantile(weights, 0.9)
    loudest, rest = zip(
        *(
            (e[loud].mean(), e[~loud].mean())
            for e in (np.square((c.latents - latents).T @ shaper.patterns.numpy()) for c in coded)
        ),
        strict=True,
    )
    assert loudest[1] < 0.95 * loudest[0]
    assert rest[1] > 0.97 * rest[0]
    assert weights.shape == (latents.shape[1], model.autoencoder.patch // POOL * model.mel.n_mels)
    assert weights.mean() == pytest.approx(0, abs=1e-4)
