"""Diffusion with the UNet of a checkpoint: enhancement layers, prompts, generation. Real classes, random weights."""

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from aldm.cli.main import main
from aldm.codec import Codec
from aldm.codec.audioldm2.generation import generate_picks
from aldm.codec.audioldm2.model import AudioLDM2
from aldm.codec.audioldm2.unet import STEP, UNet, quantiser_error
from aldm.codec.diffusion.ddcm import DDCM, Sampler
from aldm.codec.errors import ModelError
from aldm.format.layer import Layer
from aldm.format.stream import read_stream
from click.testing import CliRunner, Result
from conftest import DATA, clip
from safetensors.torch import save_file

pytestmark = pytest.mark.filterwarnings("ignore::aldm.codec.errors.AldmWarning")
DDCM_SHORT = DDCM(4, codebook=64, block=4)


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> Codec:
    return Codec.from_pretrained(checkpoint, vocoder="griffin-lim")


@pytest.fixture(scope="module")
def reading(text_checkpoint: Path) -> Codec:
    """The same with text encoders."""
    return Codec.from_pretrained(text_checkpoint, vocoder="griffin-lim")


def found(codec: Codec, data: bytes, **options: Any) -> list[torch.Tensor]:
    """Latents of the first packet: of the base layer and behind the diffusion, as far as there are."""
    decoder = codec.decoder(data, **options)
    return [part.values for part in decoder.latents(next(decoder.reader.packets(0))) if part]


def end(codec: Codec, data: bytes, **options: Any) -> torch.Tensor:
    return found(codec, data, **options)[-1]


@functools.cache
def wave() -> np.ndarray:
    return clip("speech")[:32000]


# enhancement


def test_schedule_is_the_published_one(plain: Codec) -> None:
    unet: Any = plain.model.denoiser
    betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    np.testing.assert_allclose(unet.runtime.sigmas.numpy(), np.sqrt(1 / alphas - 1), rtol=1e-4)
    for noise in (0.3, 1.0, 20.0, 80.0):
        near = np.sqrt(1 / alphas - 1)[round(unet.noise_range.position(noise) * 999)]
        assert abs(near / noise - 1) < 0.03


def test_guess_is_what_the_noise_leaves(plain: Codec) -> None:
    """x = sqrt(abar) * latents + sqrt(1 - abar) * noise, solved for the latents with the UNet's noise."""
    unet: Any = plain.model.denoiser
    network, vae = unet.runtime.network, plain.model.autoencoder
    torch.manual_seed(0)
    noisy, t = torch.randn(1, 128, 40) * 3, 700
    sigma = unet.runtime.sigmas[t : t + 1]
    guess = unet(noisy, sigma, torch.zeros_like(noisy), torch.tensor([-1]), torch.tensor([14.0]))
    abar = 1 / (1 + sigma**2)
    x = vae.unflatten(noisy) * abar.sqrt()
    with torch.inference_mode():
        told = dict(encoder_hidden_states=torch.zeros(1, 8, 16), encoder_hidden_states_1=torch.zeros(1, 1, 32))
        noise = network(x, t, **told, encoder_attention_mask_1=torch.ones(1, 1)).sample
    expected = vae.flatten((x - (1 - abar).sqrt() * noise) / abar.sqrt())
    torch.testing.assert_close(guess, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layers", ["ddcm", "both"])
def test_decoder_walks_where_the_encoder_went(plain: Codec, layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[torch.Tensor] = []
    encode = Sampler.encode

    def listen(self: Sampler, *args: Any) -> Any:
        found = encode(self, *args)
        ends.append(found[2])
        return found

    monkeypatch.setattr(Sampler, "encode", listen)
    options: Any = dict(quality=14) if layers == "both" else {}
    data = plain.encode(wave(), 16000, layers=layers, ddcm=DDCM_SHORT, **options)
    assert torch.equal(end(plain, data), ends[0])
    assert plain.decode(data).shape == (1, 32000)


def test_picks_lead_towards_the_sound(plain: Codec) -> None:
    """The noise of every step goes where the latents are missing, the more, the more atoms there are to pick from."""
    (packet,) = plain.analyze(wave(), 16000)
    target = torch.from_numpy(packet.channels[0].latents)[None]
    run = Sampler.run

    def advances(codebook: int) -> np.ndarray:
        gains: list[float] = []

        def listen(self: Sampler, way: Any, seed: int, noise: Any) -> Any:
            def heard(step: int, guess: torch.Tensor) -> torch.Tensor:
                picked = noise(step, guess)
                gains.append(float((picked * (target - guess)).sum() / (target - guess).norm()))
                return picked

            return run(self, way, seed, heard)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sampler, "run", listen)
            plain.encode(wave(), 16000, layers="ddcm", ddcm=DDCM(6, codebook=codebook, block=2))
        return np.array(gains)

    few, many = advances(8), advances(512)
    assert (few > 0).all()
    assert (1.3 * few < many).all()


def test_a_base_layer_bounds_the_guess(plain: Codec) -> None:
    for quality in (10, 30):
        data = plain.encode(wave(), 16000, layers="both", quality=quality, ddcm=DDCM_SHORT)
        base, best = found(plain, data)
        apart = (base - best).abs()
        step = float(plain.model.codebook.steps(quality)[0])
        assert apart.max() <= step * 1.0001
        assert apart.max() > 0.3 * step
        refined = end(plain, plain.encode(wave(), 16000, quality=quality), refine=3)
        assert 0 < (refined - base).abs().max() <= step * 1.0001


def test_walks_begin_at_the_quantisers_error(plain: Codec) -> None:
    unet: Any = plain.model.denoiser
    for quality in range(plain.levels):
        step = 14 * 2 ** (-quality / 8)
        assert quantiser_error(step) == pytest.approx(min(1, STEP * step / 12**0.5))
        layer = DDCM_SHORT.layer(bytes(2), step, unet.noise_range)
        scale = unet.runtime.sigmas[999 - round(layer.first * 1000 / layer.schedule)]
        assert 0.8 < float(scale) / quantiser_error(step) < 2


def test_another_denoiser_is_noticed(plain: Codec, checkpoint: Path, tmp_path: Path) -> None:
    data = plain.encode(wave(), 16000, layers="both", quality=14, ddcm=DDCM_SHORT)
    other = shutil.copytree(checkpoint, tmp_path / "tiny")
    (other / "codec").mkdir()
    condition = dict(sequence=torch.randn(1, 8, 16), text=torch.randn(1, 3, 32), mask=torch.ones(1, 3))
    save_file(condition, other / "codec/condition.safetensors")
    changed = Codec.from_pretrained(other)
    assert changed.model.fingerprint == plain.model.fingerprint
    decoder = changed.decoder(data)
    assert decoder.latents(next(decoder.reader.packets(0))).refined is None
    assert "another denoiser" in decoder.damage[0]


def test_unet_of_other_latents_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "tiny")
    file = other / "unet/config.json"
    file.write_text(file.read_text().replace('"in_channels": 8', '"in_channels": 4'))
    with pytest.raises(ModelError, match="not one for the latents"):
        Codec.from_pretrained(other).encode(wave(), 16000, layers="ddcm", ddcm=DDCM_SHORT)


# prompts


def test_prompt_is_stored_and_used(plain: Codec, reading: Codec) -> None:
    options: Any = dict(layers="both", quality=14, ddcm=DDCM_SHORT)
    data = reading.encode(wave(), 16000, prompt="a dog barks", **options)
    assert "ALDM_PROMPT=a dog barks" in read_stream(data).comments
    assert data != reading.encode(wave(), 16000, **options)
    without = data.replace(b"ALDM_PROMPT=a dog barks", b"REMARK=a dog barks")
    assert torch.equal(end(reading, data, layers="base"), end(reading, without, layers="base"))
    with pytest.raises(ModelError, match="needs the text encoders"):
        plain.decode(data)
    assert plain.decode(data, layers="base").shape == (1, 32000)


def test_embedded_models_take_no_text(codec: Codec) -> None:
    for use in (
        lambda: codec.encode(wave(), 16000, prompt="a dog"),
        lambda: codec.decode(codec.encode(wave(), 16000), prompt="a dog"),
        lambda: codec.generate(1.0, prompt="a dog"),
        lambda: codec.synthesize("a dog", 1.0),
    ):
        with pytest.raises(ModelError, match="takes no text"):
            use()


def test_editing_begins_where_it_is_told(reading: Codec) -> None:
    data = reading.encode(wave(), 16000, layers="ddcm", ddcm=DDCM(6, codebook=64), prompt="speech")
    original = end(reading, data)
    same = end(reading, data, prompt="speech")
    assert torch.equal(original, same)
    apart = [float((end(reading, data, prompt="drums", from_step=t) - original).abs().mean()) for t in (0, 5, 6)]
    assert apart[0] > 0 < apart[1]
    assert apart[2] == 0


# generation


def test_generated_file_is_the_generation(plain: Codec, reading: Codec) -> None:
    """A decoder that has no text encoders comes to the latents that the prompt led to."""
    ddcm = DDCM(5, codebook=64, block=8)
    data = reading.generate(2.0, 7, ddcm, prompt="techno with a strong beat", candidates=16)
    layer, picks = Layer.parse(read_stream(data).layers[0], 1, reading.model.vectors_of(200))
    unet: Any = reading.model.denoiser
    again, latents = generate_picks(unet, "techno with a strong beat", layer, 0, reading.model.vectors_of(200), 7, 16)
    np.testing.assert_array_equal(again, picks)
    assert torch.equal(end(plain, data), latents)
    assert plain.decode(data).shape == (1, 32000)
    others = [
        reading.generate(2.0, 8, ddcm, prompt="techno with a strong beat", candidates=16),
        reading.generate(2.0, 7, ddcm, prompt="a lonely flute", candidates=16),
    ]
    assert all(other[-300:] != data[-300:] for other in others)


def test_picks_lead_where_the_prompt_says(reading: Codec) -> None:
    """The more candidates, the more the noise goes in the direction of the prompt."""
    unet: Any = reading.model.denoiser
    layer = Layer(bytes(2), 0, 5, 0, 5, 8, 8, 1, 39)
    told = Sampler.run

    def advance(candidates: int) -> float:
        gains: list[float] = []

        def listen(self: Sampler, way: Any, seed: int, noise: Any) -> Any:
            guided: Any = self.denoiser

            def heard(step: int, guess: torch.Tensor) -> torch.Tensor:
                picked = noise(step, guess)
                gains.append(float((picked * guided.direction).sum() / guided.direction.norm()))
                return picked

            return told(self, way, seed, heard)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sampler, "run", listen)
            generate_picks(unet, "techno", layer, 0, 24, 1, candidates)
        return sum(gains)

    advances = [advance(n) for n in (1, 8, 128)]
    assert advances[0] < advances[1] < advances[2]
    assert advances[0] > 0  # one candidate may still be turned around


def test_several_packets(reading: Codec) -> None:
    codec = Codec(reading.model, packet_seconds=2.0)
    data = codec.generate(5.0, 1, DDCM(3, codebook=16, block=16), prompt="rain")
    assert len(read_stream(data).packets) == 3
    assert codec.decode(data).shape == (1, 80000)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm", "pndm"])
def test_synthesis_is_that_of_diffusers(reading: Codec, text_checkpoint: Path, scheduler: str) -> None:
    """The same latents as AudioLDM2Pipeline gives, from the same noise; GPT-2 as GPT2LMHeadModel on either side."""
    import diffusers
    from aldm.codec.audioldm2.generation import SCHEDULERS, sample_latents
    from aldm.codec.audioldm2.text import text_stack
    from transformers import ClapFeatureExtractor

    unet: Any = reading.model.denoiser
    latents = sample_latents(unet, "a dog", "music", 52, 6, 3, 3.5, scheduler)
    stack = text_stack(unet.runtime.checkpoint, "cpu", torch.float32)
    kept = {name: getattr(stack, name) for name in stack.config if not name.startswith("_")}
    kept |= dict(
        vae=reading.model.autoencoder.network,  # type: ignore[dict-item]
        unet=unet.runtime.network,
        vocoder=reading.model.hifigan().__closure__ and _vocoder(text_checkpoint),  # type: ignore[attr-defined]
        scheduler=getattr(diffusers, SCHEDULERS[scheduler]).from_pretrained(text_checkpoint / "scheduler"),
        feature_extractor=ClapFeatureExtractor(),
    )
    pipeline = diffusers.AudioLDM2Pipeline(**kept)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    theirs = pipeline(
        "a dog", negative_prompt="music", num_inference_steps=6, audio_length_in_s=2.08, generator=generator,
        output_type="latent", num_waveforms_per_prompt=1,
    ).audios  # fmt: skip
    torch.testing.assert_close(latents, reading.model.autoencoder.flatten(theirs), atol=1e-4, rtol=1e-3)  # type: ignore[operator]


def _vocoder(folder: Path) -> Any:
    from transformers import SpeechT5HifiGan

    return SpeechT5HifiGan.from_pretrained(folder / "vocoder")


def test_synthesis_options(reading: Codec) -> None:
    one = reading.synthesize("a dog", 1.0, steps=3)
    assert one.shape == (1, 16000)
    np.testing.assert_array_equal(one, reading.synthesize("a dog", 1.0, steps=3))
    for change in (dict(seed=1), dict(guidance=1.0), dict(negative="cat"), dict(scheduler="euler")):
        assert np.abs(reading.synthesize("a dog", 1.0, steps=3, **change) - one).max() > 0
    for wrong in (dict(scheduler="none"), dict(steps=0), dict(guidance=-1.0)):
        with pytest.raises(ValueError, match=r"scheduler|steps"):
            reading.synthesize("a dog", 1.0, **wrong)


def test_half_precision(text_checkpoint: Path) -> None:
    codec = Codec.from_pretrained(text_checkpoint, dtype="bfloat16", vocoder="griffin-lim")
    assert isinstance(codec.model, AudioLDM2)
    assert isinstance(codec.model.denoiser, UNet)
    assert np.isfinite(codec.synthesize("a dog", 1.0, steps=2)).all()
    data = codec.encode(wave(), 16000, layers="ddcm", ddcm=DDCM_SHORT, prompt="speech")
    assert np.isfinite(codec.decode(data)).all()


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.slow
def test_command(text_checkpoint: Path, checkpoint: Path, tmp_path: Path) -> None:
    out, wav = tmp_path / "a.aldm", tmp_path / "a.wav"
    done = run("generate", "a dog", out, "--model", text_checkpoint, "--seconds", 2, "--steps", 4)
    assert done.exit_code == 0, done.stderr
    assert "DESCRIPTION=a dog" in read_stream(out.read_bytes()).comments
    done = run("decode", out, wav, "--model", checkpoint, "--vocoder", "griffin-lim")
    assert done.exit_code == 0, done.stderr
    assert sf.info(wav).frames == 32000
    options = ("--model", text_checkpoint, "--seconds", 1, "--steps", 3, "--scheduler", "dpm", "--negative", "noise")
    done = run("generate", "a dog", wav, *options, "--force")
    assert done.exit_code == 0, done.stderr
    assert sf.info(wav).frames == 16000
    done = run("encode", DATA / "speech.flac", out, "--model", text_checkpoint, "--layers", "ddcm", "--steps", 3,
               "--prompt", "speech", "--force")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    done = run("decode", out, wav, "--model", text_checkpoint, "--prompt", "drums", "--from-step", 1, "--force")
    assert done.exit_code == 0, done.stderr
    for wrong, message in (
        (("generate", "a dog", out), "needs --model"),
        (("generate", wav), "OUT is an .aldm file"),
        (("generate", "a dog", out, "--model", checkpoint, "--scheduler", "ddim"), "--scheduler is not for .aldm"),
        (("generate", "a dog", out, "--model", checkpoint, "--emphasis", 2), "--emphasis is not for .aldm"),
        (("generate", "a dog", wav, "--model", checkpoint, "--candidates", 2), "--candidates is for .aldm"),
        (("generate", "a", "b", out), "one PROMPT"),
    ):
        done = run(*wrong)
        assert done.exit_code == 2
        assert message in done.stderr


def test_command_without_text_encoders(checkpoint: Path, tmp_path: Path) -> None:
    done = run("generate", "a dog", tmp_path / "a.wav", "--model", checkpoint)
    assert done.exit_code == 1
    assert "has no text_encoder/" in done.stderr
    assert done.stderr.count("\n") == 2  # with the licence
    assert not list(tmp_path.iterdir())
