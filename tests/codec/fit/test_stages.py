"""What stages learn: less error or fewer bits than before, and nothing else changes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from aldm.codec import Codec
from aldm.codec.fit import read_recipe, run_recipe
from aldm.codec.fit.data.audio_cache import AudioCache
from aldm.codec.fit.data.rendered import make_examples, target_magnitudes
from aldm.codec.fit.data.windows import Windows
from aldm.codec.fit.draft import Draft
from aldm.codec.fit.log import TrainingLog
from aldm.codec.fit.losses.rate import RateModel
from aldm.codec.fit.losses.waveform import waveform_losses
from aldm.codec.fit.stages.autoencoder import TrainAutoencoder, rate_distortion
from aldm.codec.fit.stages.base import Job
from aldm.codec.fit.stages.corrector import TrainCorrector
from aldm.codec.fit.stages.denoiser import TrainDenoiser, errors
from aldm.codec.fit.stages.klt import Klt
from aldm.codec.fit.stages.magnitudes import TrainMagnitudes
from aldm.codec.levels import step_size
from aldm.codec.model import Model
from aldm.codec.nn.autoencoder import Autoencoder
from conftest import clip

TABLES = '[[stages]]\nkind = "tables"\nhours = 0.01\n'
KLT = "[front_end]\nn_mels = 40\nfloor = -10.0\n[networks.autoencoder]\nlatent_channels = 32\nwidth = 32\n"
KLT += "[networks.magnitude_net]\nwidth = 64\nblocks = 1\n[networks.corrector]\nwidth = 48\nblocks = 1\n"
KLT += '[networks.denoiser]\nlevels = 4\nwidth = 48\n[[stages]]\nkind = "klt"\n'

Run = Callable[[str, str], Model]


@pytest.fixture(scope="module")
def cache(shard: Path, tmp_path_factory: pytest.TempPathFactory) -> AudioCache:
    return AudioCache.build([shard], tmp_path_factory.mktemp("cache"), 16000, lambda line: None)


@pytest.fixture
def job(cache: AudioCache, tmp_path: Path) -> Job:
    return Job(cache, tmp_path, TrainingLog(tmp_path, lambda line: None))


@pytest.fixture
def run(shard: Path, tmp_path: Path) -> Run:
    """Makes a model of that name by a recipe of that text."""

    def go(name: str, text: str) -> Model:
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        recipe = read_recipe(path)
        model = run_recipe(recipe, [shard], tmp_path / name, tmp_path / f"{name}.work", lambda line: None)
        assert model is not None
        return model

    return go


def options(text: str) -> str:
    """A stage of four small examples in a step."""
    return f"[[stages]]\nbatch_size = 4\nframes = 96\n{text}\n"


@pytest.mark.slow
def test_autoencoder_learns(job: Job) -> None:
    sizes = {"autoencoder": dict(latent_channels=32, width=64)}
    draft = Draft(read_recipe("klt", ["front_end.n_mels=40"]).front_end, sizes=sizes)
    Klt(name="klt").run(draft, job)
    model, mel = draft.require("autoencoder"), draft.mel
    waves = Windows(job.cache, mel, 192, seed=1).batch(0, 32)
    frames = mel.from_magnitudes(mel.spectrum(waves).abs())

    def loss(rate: RateModel) -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return rate_distortion(model, rate, frames, torch.arange(32))[2].item()

    rate = RateModel(model.scale)
    before = loss(rate)
    stage = TrainAutoencoder(name="autoencoder", steps=400, batch_size=8, frames=96, precision="float32")
    held_out = stage.train(model, rate, draft, job)
    assert loss(rate) < 0.95 * before
    assert held_out["bits"] > 0


def test_training_starts_at_the_linear_transform(codec: Codec) -> None:
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


@pytest.mark.slow
def test_magnitudes_learn(run: Run, job: Job, tmp_path: Path) -> None:
    """Magnitudes get nearer to those of the original; the decoder without networks stays at hand."""
    model = run("m", KLT + TABLES)
    draft = Draft.of(model)
    draft.sizes = {"magnitude_net": dict(width=64, blocks=1)}
    wave = torch.from_numpy(clip("speech")[:48000])[None]
    exact = model.mel.spectrum(torch.nn.functional.pad(wave[None], (432, 432), mode="reflect")[0]).abs()
    exact = exact[:, :, : exact.shape[2] // 16 * 16].clamp(min=1e-2)
    latents = model.autoencoder.encode(model.mel.from_magnitudes(exact))
    indices = [model.codebook.quantize(latents[0].numpy(), 30)[1]]

    def error(model: Model | None) -> float:
        assert model is not None
        decoded = model.decode_magnitudes(model.dequantize(indices, 30), float(step_size(30))).clamp(min=1e-2)
        return (decoded / exact).log().abs().mean().item()

    draft.new("magnitude_net")
    before = error(draft.model())
    stage = dict(steps=200, batch_size=4, frames=96, seed=1, learning_rate=2e-3, warm_up=20, precision="float32")
    found = TrainMagnitudes(name="magnitudes", **stage).run(draft, job)
    assert {"bins", "mel", "energy", "texture"} <= found.keys()
    trained = draft.model()
    assert trained is not None
    assert error(trained) < 0.95 * before
    trained.save_pretrained(tmp_path / "m")
    assert (tmp_path / "m/vocoder/diffusion_pytorch_model.safetensors").exists()
    with_network, without = (Codec.from_pretrained(tmp_path / "m", vocoder=v) for v in ("network", "griffin-lim"))
    data = with_network.encode(clip("speech"), 16000)
    assert np.abs(with_network.decode(data) - without.decode(data)).max() > 0.01


@pytest.mark.slow
def test_what_is_not_trained_stays(run: Run, job: Job) -> None:
    draft = Draft.of(run("m", KLT + options('kind = "autoencoder"\nsteps = 2') + TABLES))
    draft.sizes = {"magnitude_net": dict(width=32, blocks=1)}
    before = {k: v.clone() for k, v in draft.require("autoencoder").state_dict().items()}
    stage = dict(name="magnitudes", steps=2, batch_size=2, frames=96, warm_up=1, precision="float32")
    TrainMagnitudes(**stage, train=("magnitude_net",)).run(draft, job)
    after = draft.require("autoencoder").state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    (job.folder / "magnitudes.pt").unlink()
    TrainMagnitudes(**stage).run(draft, job)
    changed = {k for k, v in draft.require("autoencoder").state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(name.startswith(("decoder", "level")) for name in changed)


@pytest.mark.slow
def test_corrector_learns_and_goes_on(tmp_path: Path, job: Job) -> None:
    """Waveforms sound nearer to the originals, and a stopped run ends as one that was not stopped."""
    codec = Codec.from_pretrained()
    codec.decode(codec.encode(clip("speech")[:16000], 16000))  # leaves nothing behind that training cannot use
    stage = TrainCorrector(
        name="corrector",
        **dict(steps=60, batch_size=4, frames=64, seed=3, learning_rate=1e-2),
        **dict(checkpoint_every=20, precision="float32"),
    )

    def run(say: Callable[[str], None]) -> Draft:
        draft = Draft.of(Model.from_pretrained("klt"))
        draft.sizes = {"corrector": dict(width=48, blocks=1)}
        stage.run(draft, Job(job.cache, tmp_path, TrainingLog(None, say)))
        return draft

    def stop(line: str) -> None:
        if "step 50/" in line:
            raise KeyboardInterrupt

    draft = run(lambda line: None)
    (tmp_path / "corrector.pt").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(stop)
    net, again = draft.require("corrector"), run(lambda line: None).require("corrector")
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    waves = torch.from_numpy(clip("speech")[: 160 * 96 * 3 + 864 * 3].reshape(3, -1))
    examples = make_examples(draft, waves, np.random.default_rng(0))
    inner = examples.original[:, 432:-432]
    with torch.no_grad():
        _, target = target_magnitudes(draft, examples.mel, examples.step)
        steps = examples.step[:, None].expand_as(target[:, 0])
        corrected = net(examples.rendered[:, 256:-256], target, steps, torch.ones_like(steps))
    found, before = (waveform_losses(draft.mel, inner, v) for v in (corrected, examples.rendered[:, 432:-432]))
    assert found["disturbance"] < 0.97 * before["disturbance"]


@pytest.mark.slow
def test_adversarial_training_goes_on_with_its_discriminators(tmp_path: Path, job: Job) -> None:
    """A stopped run ends as one that was not stopped, discriminators included; held-out losses leave them out."""
    losses = {"adversarial": 1.0, "features": 1.0, "disturbance": 0.0}
    stage = TrainCorrector(
        name="finish",
        **dict(steps=6, batch_size=2, frames=64, warm_up=1, checkpoint_every=3, precision="float32"),
        **dict(projections=0, losses=losses, discriminator_width=4, synthetic=0.3),
    )

    def run(folder: Path, stop: bool = False) -> tuple[Draft, dict[str, float]]:
        draft = Draft.of(Model.from_pretrained("klt"))
        draft.sizes = {"corrector": dict(width=48, blocks=1)}
        log = TrainingLog(None, lambda line: None)
        if stop:

            def halt(*_: object) -> None:
                raise KeyboardInterrupt

            log.held_out = halt  # type: ignore[method-assign]
        return draft, stage.run(draft, Job(job.cache, folder, log))

    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()
    part.mkdir()
    draft, found = run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(part, stop=True)
    again, _ = run(part)
    assert draft.require("corrector").config["projections"] == 0
    states = [torch.load(folder / "finish.pt", weights_only=True) for folder in (whole, part)]
    for a, b in zip(
        states[0]["opponent"]["networks"].values(), states[1]["opponent"]["networks"].values(), strict=True
    ):
        assert torch.equal(a, b)
    for a, b in zip(draft.require("corrector").parameters(), again.require("corrector").parameters(), strict=True):
        assert torch.equal(a, b)
    assert "adversarial" not in found
    assert found["mel"] > 0


@pytest.mark.slow
def test_joint_training_learns(run: Run, tmp_path: Path) -> None:
    """Waveforms get nearer to the originals; what decides about the bits stays as it is."""
    first = KLT + options('kind = "autoencoder"\nsteps = 2') + TABLES
    first += options('kind = "magnitudes"\nsteps = 1') + options('kind = "corrector"\nsteps = 1')
    model = run("m", first)
    text = f'start = "{tmp_path / "m"}"\n'
    text += options(
        'kind = "corrector"\ntrain = ["corrector", "magnitude_net"]\nseed = 2\n'
        "steps = 120\nwarm_up = 60\nlearning_rate = 5e-4"
    )
    again = run("n", text)
    wave = torch.from_numpy(clip("speech"))
    data, losses = Codec(model).encode(wave.numpy(), 16000, quality=36), []
    for each in (model, again):
        decoded = torch.from_numpy(Codec(each).decode(data))
        found = waveform_losses(model.mel, wave[None], decoded)
        losses.append(
            sum(weight * found[k].item() for k, weight in TrainCorrector.default_losses.items() if k in found)
        )
    assert losses[1] < 0.97 * losses[0]
    for name in ("autoencoder", "magnitude_net", "corrector"):
        before, after = (getattr(m, name).state_dict().values() for m in (model, again))
        assert all(map(torch.equal, before, after)) == (name == "autoencoder")
    assert again.fingerprint == model.fingerprint


@pytest.mark.slow
def test_a_model_grows(run: Run, tmp_path: Path) -> None:
    """More latent channels: what it knew stays, and what it makes of finer latents gets nearer."""
    predictor = options('kind = "predictor"\nsteps = 2')
    denoiser = options('kind = "denoiser"\nsteps = 2')
    old = run("a", KLT + options('kind = "autoencoder"\nsteps = 2') + predictor + TABLES + denoiser)
    grow = f'start = "{tmp_path / "a"}"\n[[stages]]\nkind = "grow"\nlatent_channels = '
    steps = '[[stages]]\nkind = "channel_steps"\nweighed_channels = 32\n'
    new = run("b", f"{grow} 64\n" + steps + predictor + TABLES)
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
    for chosen in (dict(quality=40), dict(layers="ddcm", bitrate=1)):
        assert len(codec.decode(codec.encode(wave, 16000, **chosen))[0]) == len(wave)
    with pytest.raises(ValueError, match="32 latent channels; latent_channels must be more, not 32"):
        run("c", f"{grow} 32\n" + TABLES)


@pytest.mark.slow
def test_denoiser_learns(run: Run, job: Job, tmp_path: Path) -> None:
    """It guesses latents better than its Gaussian prior does."""
    draft = Draft.of(run("m", KLT + TABLES))
    draft.sizes = {"denoiser": dict(levels=4, width=48)}
    stage = dict(steps=400, batch_size=8, frames=96, seed=2, learning_rate=2e-3, precision="float32")
    found = TrainDenoiser(name="denoiser", **stage).run(draft, job)
    trained, autoencoder, mel = draft.require("denoiser"), draft.require("autoencoder"), draft.mel
    waves = Windows(job.cache, mel, 96, seed=9).batch(0, 64)
    latents = autoencoder.encode(mel.from_magnitudes(mel.spectrum(waves).abs()))
    arguments = (latents, torch.logspace(0, 2, 64), latents, torch.full((64,), -1))

    def error() -> float:
        torch.manual_seed(0)
        found, expected = errors(trained, *arguments)
        return (found / expected).mean().item()

    learned = error()
    model = draft.model()
    assert model is not None
    model.save_pretrained(tmp_path / "m")
    for parameter in trained.output.parameters():
        torch.nn.init.zeros_(parameter)
    assert learned < 0.98 * error()
    assert 0 < found["of_gaussian_without_base"] < 1.2
    codec = Codec.from_pretrained(tmp_path / "m")
    wave = clip("speech")
    assert codec.decode(codec.encode(wave, 16000, layers="ddcm", bitrate=1)).shape == (1, len(wave))
    text = f'start = "{tmp_path / "m"}"\n' + options('kind = "denoiser"\nsteps = 2')
    again = run("n", text + '[[stages]]\nkind = "tokens"\ntokens = 2\nhours = 0.01\n')
    assert again.denoiser is not None
    assert again.denoiser.config == trained.config
    tokens = Codec.from_pretrained(tmp_path / "n").tokens(wave, 16000, codebook="vq")
    assert tokens.shape == (1, 26, 2)


@pytest.mark.slow
def test_parts_of_another_model(run: Run, tmp_path: Path) -> None:
    """A stage may start from another model's parts; half of them may stay in what it makes."""
    whole = KLT + TABLES + options('kind = "magnitudes"\nsteps = 2\nwarm_up = 1')
    first = run("a", whole)
    start = f'start = "{tmp_path / "a"}"\nstart_share = 1.0\n'
    second = run("b", whole.replace('kind = "magnitudes"\n', 'kind = "magnitudes"\n' + start))
    assert first.magnitude_net is not None
    assert second.magnitude_net is not None
    after = second.magnitude_net.state_dict()
    for name, value in first.magnitude_net.state_dict().items():
        torch.testing.assert_close(after[name], value, atol=2e-3, rtol=0.02)
