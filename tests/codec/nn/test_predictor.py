"""Prediction of latent vectors from those before them: fewer bits, no drift, and packets that stand alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from aldm.codec import Codec
from aldm.codec.fit.log import TrainingLog
from aldm.codec.fit.quantization import quantize_in_loop, residuals
from aldm.codec.fit.stages.predictor import Sequences, scale_predictor, train
from aldm.codec.fit.trainer import Trainer
from aldm.codec.levels import step_size
from aldm.codec.nn.predictor import Predictor
from conftest import DATA


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.from_pretrained()


@pytest.fixture(scope="module")
def music(codec: Codec) -> np.ndarray:
    """Latents [C, N] of the first packet."""
    packets = codec.analyze(DATA / "music.flac")
    return next(iter(packets)).channels[0].latents


@pytest.mark.parametrize("quality", [4, 24, 44])
def test_errors_do_not_add_up(codec: Codec, music: np.ndarray, quality: int) -> None:
    codebook = codec.model.codebook
    classes, indices, decoded = codebook.quantize(music, quality)
    assert np.array_equal(decoded, codebook.dequantize(indices, quality))
    bits = codebook.bits(classes, indices, quality)
    error = np.abs(decoded - music) / codebook.steps(quality)[:, None]
    # the nearest index or the next one towards zero; what is not coded is off by as much as was expected wrongly
    assert error[indices.T != 0].max() < 1.51
    half = error.shape[1] // 2
    assert error[:, half:].mean() < 1.3 * error[:, :half].mean()
    assert bits == pytest.approx(8 * len(codebook.pack([(classes, indices)], quality)), rel=0.02, abs=40)


def test_prediction_saves_bits_where_sound_is_steady(codec: Codec) -> None:
    codebook = codec.model.codebook
    packets = codec.analyze(DATA / "environment.flac")
    latents = next(iter(packets)).channels[0].latents
    for quality in (16, 24):
        left, all_of_it = codebook.quantize(latents, quality).indices, replace(codebook, predictor=None)
        error = np.square(codebook.dequantize(left, quality) - latents).sum()
        unaided = all_of_it.quantize(latents, quality).indices
        assert np.log2(1 + np.abs(left)).sum() < 0.8 * np.log2(1 + np.abs(unaided)).sum()
        assert error < 1.1 * np.square(all_of_it.dequantize(unaided, quality) - latents).sum()


@pytest.mark.parametrize("quality", [8, 24, 40])
def test_the_estimate_is_near(codec: Codec, music: np.ndarray, quality: int) -> None:
    codebook = codec.model.codebook
    bits = codebook.bits(*codebook.quantize(music, quality, 0.8)[:2], quality)
    assert codebook.encoder().estimate(music, quality, 0.8) == pytest.approx(bits, rel=0.04)


@pytest.mark.parametrize("ratio", [0.96, 1.0, 1.04])
@pytest.mark.parametrize("quality", [24, 32, 40])
def test_sizes_are_what_is_asked_for(codec: Codec, music: np.ndarray, quality: int, ratio: float) -> None:
    codebook = codec.model.codebook
    bits = codebook.bits(*codebook.quantize(music, quality, 0.8, ratio)[:2], quality)
    assert bits == pytest.approx(ratio * codebook.encoder().estimate(music, quality, 0.8), rel=0.012)


def test_only_vectors_before_count(codec: Codec, music: np.ndarray) -> None:
    predictor = codec.model.codebook.predictor
    assert predictor is not None
    latents, step = torch.from_numpy(music.T.copy())[None], torch.tensor([1.5])
    expected = predictor.predict(latents, step)
    latents[:, 7:] = 100
    assert torch.equal(predictor.predict(latents, step)[:, :8], expected[:, :8])
    walk = predictor.predictions(1.5)
    one_by_one = [next(walk), *(walk.send(vector) for vector in music.T[:20])]
    assert np.abs(np.stack(one_by_one[:20]) - expected[0, :20].numpy()).max() < 1e-3


def test_tokens_of_several_packets_come_back(codec: Codec) -> None:
    short = Codec.from_pretrained(packet_seconds=1.28)
    tokens = short.tokens(DATA / "music.flac", quality=24)
    wave = short.detokenize(tokens, quality=24)[0]
    exact = codec.decode(short.encode(DATA / "music.flac", quality=24))[0]
    size = min(len(wave), len(exact))
    mel = codec.model.mel

    def bands(x: np.ndarray) -> np.ndarray:  # tokens do not say how loud packets are: the shape counts
        frames = mel(torch.from_numpy(x[: size // 20480 * 20480])[None])[0].reshape(-1, 128, mel.n_mels)
        return (frames - frames.mean((1, 2), keepdim=True)).numpy()

    assert np.abs(bands(wave) - bands(exact)).mean() < 0.25


@pytest.mark.slow
def test_it_learns_what_repeats(tmp_path: Path) -> None:
    """Latents that follow each other as x' = 0.9 x + noise, in another order of channels."""
    random = np.random.default_rng(0)
    clips = []
    for _ in range(40):
        x = [random.normal(size=8) * 10]
        for _ in range(39):
            x.append(0.9 * x[-1][::-1] + random.normal(size=8))
        clips.append(np.stack(x, 1).astype(np.float32))
    step_scales = np.full((48, 8), 0.5, np.float32)
    predictor = Predictor(8)
    scale_predictor(predictor, clips[:30])
    log = TrainingLog(tmp_path, lambda line: None)
    trainer = Trainer(tmp_path, 150, log, batch_size=32, learning_rate=1.5e-3, held_out=True)
    train(predictor, {False: Sequences(clips[:30], 0), True: Sequences(clips[30:], 0)}, step_scales, trainer)
    assert trainer.held_out_losses["bits"] > 0
    left = np.concatenate([r[:, 2:] for r in residuals(predictor, clips[30:], step_scales[40], 40)], 1)
    assert left.std() < 0.75 * np.concatenate(clips[30:], 1).std()  # .44 is the noise


def test_decoded_is_what_the_codebook_does(codec: Codec, music: np.ndarray) -> None:
    """The stand-in for quantising in training leaves about as much error."""
    codebook, level = codec.model.codebook, 24
    step = torch.tensor([float(step_size(level))])
    grid = step[:, None] * torch.from_numpy(codebook.step_scales[level])
    stand_in = quantize_in_loop(codebook.predictor, torch.from_numpy(music.T.copy())[None], step, grid)[0].numpy().T
    error, real = (np.square(z - music).mean() for z in (stand_in, codebook.quantize(music, level).latents))
    assert 0.8 < error / real < 1.25


def test_weights_are_small() -> None:
    predictor = Predictor(8)
    assert predictor.config["history"] == 2
    folder = Path(__file__).parents[3] / "codec" / "models"
    assert sum(p.stat().st_size for p in folder.rglob("*.safetensors")) < 24e6
