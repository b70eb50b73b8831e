"""Fitting a model from a folder or shards, and going on after a stop."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from aldm.codec import Codec
from aldm.codec.dsp.mel import LogMel
from aldm.codec.errors import AudioError, ModelError
from aldm.codec.fit import decoder, denoiser, fit_model
from aldm.codec.fit.autoencoder import RateModel, loss_terms, train
from aldm.codec.fit.dataset import AudioCache, Windows, audio_files, is_validation
from aldm.codec.fit.descent import Run
from aldm.codec.fit.klt import klt_autoencoder
from aldm.codec.levels import step_size
from aldm.codec.nn.corrector import Corrector
from aldm.codec.nn.magnitude_net import MagnitudeNet
from conftest import DATA, aldm, clip

SMALL = dict(
    n_mels=40,
    channels=32,
    width=32,
    table_hours=0.01,
    predictor_steps=0,
    decoder_steps=0,
    corrector_steps=0,
    joint_steps=0,
    denoiser_steps=0,
    tokens=0,
    batch_size=4,
)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of the clips, under names that are not held out."""
    path = tmp_path_factory.mktemp("shard") / "clips.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(6):
            for file in sorted(DATA.glob("*.flac")):
                name = f"a/{file.stem}__{number}.flac"
                if not is_validation(f"clips.tar/{name}"):
                    tar.add(file, name)
        broken = tarfile.TarInfo("a/broken.wav")
        broken.size = 9
        tar.addfile(broken, io.BytesIO(b"not sound"))
    return path


def test_linear_model_from_the_command(shard: Path, tmp_path: Path) -> None:
    result = aldm(
        "fit",
        shard,
        "--out",
        tmp_path / "m",
        "--steps",
        0,
        "--predictor-steps",
        0,
        "--decoder-steps",
        0,
        "--corrector-steps",
        0,
        "--denoiser-steps",
        0,
        "--tokens",
        0,
        "--channels",
        32,
        "--table-hours",
        0.01,
    )
    assert result.returncode == 0, result.stderr
    assert b"skipped clips.tar/a/broken.wav" in result.stderr
    codec = Codec.from_pretrained(tmp_path / "m")
    wave = clip("speech")
    assert codec.decode(codec.encode(wave, 16000)).shape == (1, len(wave))
    path = tmp_path / "x.aldm"
    assert aldm("encode", DATA / "speech.flac", path, "--model", tmp_path / "m").returncode == 0
    result = aldm("decode", path, tmp_path / "x.wav")
    assert b"needs model" in result.stderr  # a model folder outside the package must be named
    assert aldm("decode", path, tmp_path / "x.wav", "--model", tmp_path / "m").returncode == 0


def test_training_learns(shard: Path, tmp_path: Path) -> None:
    cache = AudioCache.build([shard], tmp_path, 16000, lambda line: None)
    mel = LogMel(n_mels=40, floor=-10.0)
    model = klt_autoencoder(cache, mel, 16, 32, 64)
    waves = Windows(cache, mel, 192, seed=1).batch(0, 32)
    frames = mel.from_magnitudes(mel.spectrum(waves).abs())
    level = torch.arange(32)

    def loss(rate: RateModel) -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return loss_terms(model, rate, frames, level)[2].item()

    rate = RateModel(model.scale)
    before = loss(rate)
    train(model, rate, cache, mel, Run(tmp_path, 400, lambda line: None, batch_size=8), length=96)
    assert loss(rate) < 0.95 * before


def test_decoder_training_learns(shard: Path, tmp_path: Path) -> None:
    """Magnitudes get nearer to those of the original."""
    model = fit_model([shard], tmp_path / "m", tmp_path, lambda line: None, steps=0, **SMALL)
    wave = torch.from_numpy(clip("speech")[:48000])[None]
    exact = model.mel.spectrum(torch.nn.functional.pad(wave[None], (432, 432), mode="reflect")[0]).abs()
    exact = exact[:, :, : exact.shape[2] // 16 * 16].clamp(min=1e-2)
    latents = model.autoencoder.encode(model.mel.from_magnitudes(exact))
    indices = [model.codebook.quantize(latents[0].numpy(), 30)[1]]

    def error() -> float:
        decoded = model.decode_magnitudes(model.dequantize(indices, 30), float(step_size(30))).clamp(min=1e-2)
        return (decoded / exact).log().abs().mean().item()

    model.magnitude_net = MagnitudeNet(model.mel, 64, 1)
    before = error()
    cache = AudioCache(tmp_path / "audio")
    run = Run(tmp_path, 300, lambda line: None, batch_size=4, seed=1)
    decoder.train(model, cache, run, length=96, learning_rate=2e-3)
    assert error() < 0.95 * before
    model.save_pretrained(tmp_path / "m")
    assert (tmp_path / "m/vocoder/diffusion_pytorch_model.safetensors").exists()
    with_network, without = (Codec.from_pretrained(tmp_path / "m", vocoder=v) for v in ("network", "griffin-lim"))
    data = with_network.encode(clip("speech"), 16000)
    assert np.abs(with_network.decode(data) - without.decode(data)).max() > 0.01
    # goes on from there, with one or the other part
    for steps, decoder_steps in ((0, 2), (2, 0)):
        options = dict(
            steps=steps,
            predictor_steps=steps,
            decoder_steps=decoder_steps,
            corrector_steps=0,
            joint_steps=0,
            denoiser_steps=0,
            tokens=0,
            init=str(tmp_path / "m"),
            table_hours=0.01,
            batch_size=2,
        )
        again = fit_model([shard], tmp_path / "n", tmp_path / f"w{steps}", lambda line: None, **options)
        assert again.magnitude_net is not None
        assert again.magnitude_net.config == model.magnitude_net.config
        assert (again.codebook.predictor is not None) == (steps > 0)
        coded = Codec.from_pretrained(tmp_path / "n")
        assert len(coded.decode(coded.encode(clip("speech"), 16000))[0]) == len(clip("speech"))


def test_joint_training_learns(shard: Path, tmp_path: Path) -> None:
    """Waveforms get nearer to the originals; what decides about the bits stays as it is."""
    model = fit_model([shard], tmp_path / "m", tmp_path, lambda line: None, steps=2, **SMALL)
    model.magnitude_net, model.corrector = MagnitudeNet(model.mel, 64, 1), Corrector(model.mel, 48, 1)
    model.save_pretrained(tmp_path / "m")
    options = {**SMALL, "init": str(tmp_path / "m"), "steps": 0, "joint_steps": 160, "seed": 2}
    again = fit_model([shard], tmp_path / "n", tmp_path, lambda line: None, **options)
    wave = clip("speech")
    exact, errors = model.mel(torch.from_numpy(wave[:25600])[None]), []
    data = Codec(model).encode(wave, 16000, quality=36)
    for each in (model, again):
        decoded = torch.from_numpy(Codec(each).decode(data))
        errors.append((each.mel(decoded[:, :25600]) - exact).abs().mean().item())
    assert errors[1] < 0.97 * errors[0]
    for name in ("autoencoder", "magnitude_net", "corrector"):
        before, after = (getattr(m, name).state_dict().values() for m in (model, again))
        assert all(map(torch.equal, before, after)) == (name == "autoencoder")
    assert again.fingerprint == model.fingerprint


def test_a_model_grows(shard: Path, tmp_path: Path) -> None:
    """More latent channels: what it knew stays, and what it makes of finer latents gets nearer."""
    first = {**SMALL, "predictor_steps": 2, "denoiser_steps": 2, "batch_size": 2}
    old = fit_model([shard], tmp_path / "a", tmp_path / "w", lambda line: None, steps=2, **first)
    more = {**SMALL, "channels": 64, "init": str(tmp_path / "a"), "steps": 0, "predictor_steps": 2}
    new = fit_model([shard], tmp_path / "b", tmp_path / "v", lambda line: None, **more)
    wave = clip("speech")[: 16000 // 16 * 16]
    frames = old.mel(torch.from_numpy(wave)[None])
    frames = frames[:, : frames.shape[1] // 16 * 16]
    finest = torch.full((1,), float(step_size(47)))
    errors = []
    for model in (old, new):
        latents = model.autoencoder.encode(frames)
        errors.append((model.autoencoder.decode(latents, finest) - frames).square().mean())
        assert torch.allclose(latents[:, :32], old.autoencoder.encode(frames), atol=0.05)
    assert errors[1] < 0.9 * errors[0]
    codec = Codec.from_pretrained(tmp_path / "b")
    assert codec.model.codebook.predictor.config["latent_channels"] == 64
    for options in (dict(quality=40), dict(layers="both", bitrate=1)):
        assert len(codec.decode(codec.encode(wave, 16000, **options))[0]) == len(wave)
    with pytest.raises(ValueError, match="64 latent channels, more than 32"):
        fit_model(
            [shard],
            tmp_path / "c",
            tmp_path / "w",
            lambda line: None,
            **{**more, "init": str(tmp_path / "b"), "channels": 32},
        )


def test_denoiser_training_learns(shard: Path, tmp_path: Path) -> None:
    """It guesses latents better than its Gaussian prior does."""
    model = fit_model([shard], tmp_path / "m", tmp_path, lambda line: None, steps=0, **SMALL)
    cache = AudioCache(tmp_path / "audio")
    run = Run(tmp_path, 400, lambda line: None, batch_size=8, seed=2)
    denoiser.train(model, cache, run, length=96, levels=4, width=48, learning_rate=2e-3)
    trained = model.denoiser
    assert trained is not None
    waves = Windows(cache, model.mel, 96, seed=9).batch(0, 64)
    latents = model.autoencoder.encode(model.mel.from_magnitudes(model.mel.spectrum(waves).abs()))
    arguments = (latents, torch.logspace(0, 2, 64), latents, torch.full((64,), -1))

    def error() -> float:
        torch.manual_seed(0)
        found, expected = denoiser.errors(trained, *arguments)
        return (found / expected).mean().item()

    learned = error()
    for parameter in trained.output.parameters():
        torch.nn.init.zeros_(parameter)
    assert learned < 0.98 * error()
    model.save_pretrained(tmp_path / "m")
    codec = Codec.from_pretrained(tmp_path / "m")
    wave = clip("speech")
    assert codec.decode(codec.encode(wave, 16000, layers="ddcm", bitrate=1)).shape == (1, len(wave))
    again = fit_model(
        [shard],
        tmp_path / "n",
        tmp_path / "w",
        lambda line: None,
        init=str(tmp_path / "m"),
        steps=0,
        predictor_steps=0,
        decoder_steps=0,
        corrector_steps=0,
        joint_steps=0,
        denoiser_steps=2,
        tokens=2,
        table_hours=0.01,
        batch_size=2,
    )
    assert again.denoiser is not None
    assert again.denoiser.config == trained.config
    tokens = Codec.from_pretrained(tmp_path / "n").tokens(wave, 16000, codebook="vq")
    assert tokens.shape == (1, 26, 2)


def test_training_goes_on_after_a_stop(shard: Path, tmp_path: Path) -> None:
    fit_model([shard], tmp_path / "a", tmp_path / "wa", lambda line: None, steps=60, **SMALL)

    class Stop(Exception):
        pass

    def stop_late(line: str) -> None:
        if "step 50/" in line:
            raise Stop

    with pytest.raises(Stop):
        fit_model([shard], tmp_path / "b", tmp_path / "wb", stop_late, steps=60, checkpoint_every=40, **SMALL)
    lines: list[str] = []
    fit_model([shard], tmp_path / "b", tmp_path / "wb", lines.append, steps=60, checkpoint_every=40, **SMALL)
    assert "autoencoder: resumed at step 40" in lines
    a, b = (Codec.from_pretrained(tmp_path / name).model.autoencoder.state_dict() for name in "ab")
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], atol=0.02, rtol=0.05)


def test_training_starts_at_the_linear_transform(codec: Codec) -> None:
    from aldm.codec.nn.autoencoder import Autoencoder

    linear = codec.model.autoencoder
    config = {**linear.config, "width": 64}
    deep = Autoencoder(**config)
    deep.load_state_dict({k: getattr(linear, k) for k in ("mean", "basis", "scale")}, strict=False)
    mel = torch.randn(1, 64, config["n_mels"]) - 4
    latents = deep.encode(mel)
    torch.testing.assert_close(latents[0], ((mel.reshape(4, -1) - linear.mean) @ linear.basis.T).T)
    torch.testing.assert_close(
        deep.decode(latents, torch.ones(1)).reshape(4, -1), latents[0].T @ linear.basis + linear.mean
    )


def test_rate_model_is_a_distribution() -> None:
    """The bits of all symbols together belong to probabilities that add up to one."""
    rate = RateModel(torch.tensor([1.0, 20.0]))
    symbols = torch.arange(-400, 401, dtype=torch.float32)
    for level in (5, 20):
        grid = symbols.view(-1, 1, 1).expand(-1, 2, 1)
        bits = rate(grid, torch.zeros_like(grid), torch.full((len(symbols),), level))
        torch.testing.assert_close((2.0**-bits).sum(0), torch.ones(2, 1), atol=1e-3, rtol=0)


def test_names(tmp_path: Path, shard: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.flac").write_bytes((DATA / "speech.flac").read_bytes())
    (tmp_path / "notes.txt").write_text("no sound")
    assert [name for name, _ in audio_files(tmp_path)] == ["sub/x.flac"]
    assert len(list(audio_files(shard))) > 6
    speakers = {is_validation(f"speaker7__{n}.wav") for n in range(20)}
    assert len(speakers) == 1  # a speaker is on one side or the other
    assert 0.02 < np.mean([is_validation(f"speaker{n}__0.wav") for n in range(2000)]) < 0.06


def test_nothing_to_fit(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="no readable audio"):
        fit_model([tmp_path / "empty"], tmp_path / "m", tmp_path / "w", lambda line: None, steps=0)
    with pytest.raises(ModelError, match="no model"):
        Codec.from_pretrained(tmp_path / "m")
