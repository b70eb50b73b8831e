"""AudioLDM 2 checkpoints of the real classes with random weights: loading, front-end, base layer, seams, vocoders."""

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile as sf
import torch
from aldm.cli.main import main
from aldm.codec import Codec
from aldm.codec.audioldm2.checkpoint import is_checkpoint, licence_of, model_from_comments
from aldm.codec.audioldm2.model import CONTEXT, OVERLAP, AudioLDM2
from aldm.codec.errors import AldmWarning, ModelError
from aldm.codec.fit.checkpoint import fit_checkpoint
from aldm.codec.values import Frames
from aldm.codec.vocoders.hifigan import HifiGan
from aldm.format import DamageError, read_records
from aldm.format.container import COMMENT, PACKET, pack_record
from aldm.format.stream import read_stream
from click.testing import CliRunner, Result
from conftest import DATA, aldm, clip
from tiny_audioldm2 import networks, save

pytestmark = pytest.mark.filterwarnings("ignore::aldm.codec.errors.AldmWarning")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def large(checkpoint: Path) -> Codec:
    return Codec.from_pretrained(checkpoint)


def mels(codec: Codec, data: bytes) -> np.ndarray:
    """Log-mel of a whole file, seams faded, [T, 64]; loudness as in the file."""
    decoder = codec.decoder(data)
    frames: list[Frames] = []
    decoder.model = _Tap(codec.model, frames)  # type: ignore[assignment]
    list(decoder.blocks(False, 0, None))
    return Frames.stack(frames, -1).magnitudes[0].clamp(min=1e-5).log().T.numpy()


def base_latents(codec: Codec, data: bytes) -> torch.Tensor:
    """Of the first packet."""
    decoder = codec.decoder(data)
    return decoder.latents(next(decoder.reader.packets(0))).final.values


class _Tap:
    """A model whose vocoder keeps what it is given, and is silent."""

    def __init__(self, model: Any, frames: list[Frames]):
        self._model, self._kept = model, frames

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def renderer(self) -> Any:
        keep = self._kept

        class Keeper:
            def push(self, frames: Frames) -> Any:
                keep.append(frames)
                return torch.zeros(len(frames.scale), frames.count * 160)

            def flush(self) -> Any:
                return torch.zeros(1, 0)

        return Keeper()


# loading


def test_round_trip_is_exactly_as_long(large: Codec) -> None:
    for samples in (1, 700, 16000, 200001):
        wave = np.resize(clip("speech"), samples)
        assert large.decode(large.encode(wave, 16000)).shape == (1, samples)


def test_only_what_is_needed_has_to_be_there(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint / "vae", tmp_path / "vae")
    codec = Codec.from_pretrained(tmp_path)
    data, other = (c.encode(clip("speech"), 16000) for c in (codec, Codec.from_pretrained(checkpoint)))
    assert read_stream(data).packets == read_stream(other).packets
    with pytest.warns(AldmWarning, match="Griffin-Lim takes its place"):
        decoded = codec.decode(data)
    np.testing.assert_array_equal(decoded, Codec.from_pretrained(checkpoint, vocoder="griffin-lim").decode(data))
    with pytest.raises(ModelError, match="no denoiser"):
        codec.encode(clip("speech"), 16000, layers="ddcm")


def test_other_weights_are_another_model(checkpoint: Path, tmp_path: Path, large: Codec) -> None:
    data = large.encode(clip("speech"), 16000)
    other = shutil.copytree(checkpoint, tmp_path / "other")
    config = json.loads((other / "vae/config.json").read_text())
    (other / "vae/config.json").write_text(json.dumps({**config, "scaling_factor": 0.4}))
    with pytest.raises(ModelError, match="needs model"):
        Codec.from_pretrained(other).decode(data)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vae", {"in_channels": 2, "out_channels": 2}, "16 kHz log-mels"),
        ("vae", {"block_out_channels": [8, 8]}, "does not load"),
        ("vae", {"latent_channels": 16}, "does not load"),
        ("vocoder", {"upsample_rates": [6, 4, 2, 2, 5], "model_in_dim": 256}, "64 bands"),
    ],
)
def test_foreign_configurations_are_refused_or_replaced(
    checkpoint: Path, tmp_path: Path, part: str, change: dict[str, Any], message: str
) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")
    file = other / part / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    if part == "vae":
        with pytest.raises(ModelError, match=message):
            Codec.from_pretrained(other)
    else:
        with pytest.warns(AldmWarning, match=message):
            Codec.from_pretrained(other).model.renderer()


def test_truncated_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")
    weights = next((other / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(ModelError, match="does not load"):
        Codec.from_pretrained(other)


def test_too_little_memory_is_said_before_loading(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aldm.codec.audioldm2.loading.free_memory", lambda device: 10_000)
    with pytest.raises(ModelError, match=r"GB of memory.*--dtype"):
        Codec.from_pretrained(checkpoint)


@pytest.fixture
def hub_cache(checkpoint: Path, tmp_path: Path) -> Path:
    """A cache of the hub that holds the checkpoint as cvssp/audioldm2-music."""
    repo = tmp_path / "hub/models--cvssp--audioldm2-music"
    shutil.copytree(checkpoint, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(COMMIT)
    return tmp_path / "hub"


def test_hub_cache_comes_first_and_pins_the_revision(
    hub_cache: Path, large: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("music", "cvssp/audioldm2-music", f"music@{COMMIT}"):
        with pytest.warns(AldmWarning, match="CC BY-NC-SA"):
            codec = Codec.from_pretrained(name)
        data = codec.encode(clip("speech"), 16000)
        assert read_stream(data).comments == [f"ALDM_MODEL=cvssp/audioldm2-music@{COMMIT}"]
        assert codec.model.fingerprint == large.model.fingerprint
    with pytest.raises(ModelError, match=r"cannot get vae/ of cvssp/audioldm2-large.*hf download"):
        Codec.from_pretrained("large")


@pytest.mark.slow
def test_decoder_finds_the_checkpoint_of_a_file_or_a_pipe(
    hub_cache: Path, tmp_path: Path, large: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = large.encode(clip("speech"), 16000)
    packet = next(r.offset for r in read_records(data) if not isinstance(r, DamageError) and r.kind == PACKET)
    tags = (b"TITLE=x", f"ALDM_MODEL=cvssp/audioldm2-music@{'bad' + COMMIT[3:]}".encode())  # somebody's proposal
    data = data[:24] + b"".join(pack_record(COMMENT, tag) for tag in tags) + data[packet:]
    file, out, piped = tmp_path / "a.aldm", tmp_path / "a.wav", tmp_path / "b.wav"
    file.write_bytes(data)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = CliRunner().invoke(main, ["decode", str(file), str(out), "--vocoder", "griffin-lim"])
    assert done.exit_code == 0, done.stderr
    environment = {**os.environ, "HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1"}
    pipe = aldm("decode", "-", piped, "--vocoder", "griffin-lim", stdin=data, env=environment)
    assert pipe.returncode == 0, pipe.stderr
    np.testing.assert_allclose(sf.read(piped)[0], sf.read(out)[0], atol=1e-4)


def test_names() -> None:
    assert all(map(is_checkpoint, ("music", "speech", "large", "cvssp/audioldm2", "music@abc")))
    assert not any(map(is_checkpoint, (None, "base", "klt", "no/such", DATA)))
    assert model_from_comments(["ALDM_MODEL=cvssp/audioldm2@12"]) == "cvssp/audioldm2"
    assert model_from_comments(["ALDM_MODEL=someone/audioldm2"]) is None
    assert licence_of(["ALDM_MODEL=cvssp/audioldm2@12"])
    assert not licence_of(["TITLE=cvssp/audioldm2"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_precision_take_audio_of_single(checkpoint: Path, large: Codec, dtype: str) -> None:
    wave = clip("speech")
    half = Codec.from_pretrained(checkpoint, dtype=dtype)
    data = half.encode(wave, 16000, quality=30)
    assert half.decode(data).dtype == np.float32
    error = np.abs(mels(half, data) - mels(large, large.encode(wave, 16000, quality=30))).mean()
    assert error < (0.05 if dtype == "float16" else 0.5)


def test_embedded_models_refuse_these_options() -> None:
    with pytest.raises(ValueError, match="only for AudioLDM 2"):
        Codec.from_pretrained(dtype="float16")


# front-end and alignment


@pytest.mark.slow
def test_log_mel_is_the_published_recipe(large: Codec, mixture: np.ndarray) -> None:
    """librosa, step by step as AudioLDM-training-finetuning's dataset.py and 16k_64.yaml."""
    wave = mixture[: 160 * (1024 + OVERLAP)].astype(np.float64)  # a packet and what it shares with the next one
    wave = wave - wave.mean()
    wave = wave / (np.abs(wave).max() + 1e-8) * 0.5
    padded = np.pad(wave, (432, 432), mode="reflect")
    magnitude = np.abs(librosa.stft(padded, n_fft=1024, hop_length=160, window="hann", center=False))
    basis = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64, fmin=0, fmax=8000, htk=False, norm="slaney")
    expected = np.log(np.clip(basis @ magnitude, 1e-5, None)).T
    seen: list[torch.Tensor] = []
    encode = large.model.autoencoder.encode

    def listen(mel: torch.Tensor) -> torch.Tensor:
        seen.append(mel)
        return encode(mel)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large.model.autoencoder, "encode", listen)
        large.encode(mixture, 16000)
    assert seen[0].shape == (1, 1024 + OVERLAP + CONTEXT, 64)
    inside = slice(0, 1021 + OVERLAP)  # behind it the true continuation is heard, not a reflection
    np.testing.assert_allclose(seen[0][0, inside].numpy(), expected[inside], atol=2e-3)


def test_wrong_shapes_are_refused(large: Codec) -> None:
    for shape in ((1, 64, 400), (1, 400, 80), (1, 1, 400, 64), (1, 401, 64)):
        with pytest.raises(ValueError, match=r"log-mel is \[B, T, 64\]"):
            large.model.autoencoder.encode(torch.zeros(shape))


def test_latents_keep_their_place(large: Codec) -> None:
    """Channel c * 16 + f, vector n of ours is the network's [c, n, f]; and back."""
    vae: Any = large.model.autoencoder
    parted = torch.arange(8 * 5 * 16.0).reshape(1, 8, 5, 16)
    flat = vae.flatten(parted)
    assert flat[0, 3 * 16 + 7, 2] == parted[0, 3, 2, 7]
    assert torch.equal(vae.unflatten(flat), parted)


def test_vae_is_aligned(large: Codec) -> None:
    """What changes in the log-mel at one time changes the decoded log-mel there."""
    vae: Any = large.model.autoencoder
    torch.manual_seed(0)
    mel = torch.randn(1, 400, 64) - 5
    apart = []
    for at in range(90, 310, 13):
        other = mel.clone()
        other[:, at] += 3 * torch.randn(64)
        change = (vae.decode(vae.encode(other), None) - vae.decode(vae.encode(mel), None))[0].square().sum(1)
        change[change < 0.05 * change.max()] = 0  # the normalisation reaches everywhere
        apart.append(float((change * torch.arange(400)).sum() / change.sum()) - at)
    assert abs(np.mean(apart)) < 4  # a latent; random kernels have no middle of their own


def test_vocoder_is_aligned_to_the_sample(large: Codec) -> None:
    """With kernels that are the same backwards, a log-mel backwards is the sound backwards, but only if the trimming
    is centred."""
    network = large.model.hifigan()  # type: ignore[attr-defined]
    module = network.__closure__[0].cell_contents
    module = module if isinstance(module, torch.nn.Module) else network.__closure__[1].cell_contents
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
                layer.weight.copy_((layer.weight + layer.weight.flip(2)) / 2)
    vocoder = HifiGan(network, large.model.mel)
    frames = Frames.of(torch.randn(1, 64, 50).exp() / 100, 1.0)
    wave = vocoder.wave(frames)
    assert wave.shape == (1, 8000)
    tolerance = 1e-3 * float(wave.diff().abs().mean())
    torch.testing.assert_close(
        vocoder.wave(frames.map(lambda field: field.flip(2))), wave.flip(1), atol=tolerance, rtol=0
    )


# base layer


@pytest.mark.parametrize("bitrate", [0.3, 1.5, 6.0])
def test_bitrate_is_kept(large: Codec, mixture: np.ndarray, bitrate: float) -> None:
    kbps = len(large.encode(mixture, 16000, bitrate=bitrate)) * 8 / len(mixture) * 16
    assert 0.65 * bitrate < kbps <= bitrate


def test_latents_of_a_file_are_those_of_the_encoder(large: Codec) -> None:
    wave = clip("music")
    (packet,) = large.analyze(wave, 16000)
    for quality in (10, 24, 40):
        latents = base_latents(large, large.encode(wave, 16000, quality=quality))
        error = np.abs(latents[0].numpy() - packet.channels[0].latents)
        assert error.max() < 1.6 * float(large.model.codebook.steps(quality)[0])


def test_posterior_options(checkpoint: Path) -> None:
    wave = clip("speech")

    def latents(**options: float) -> np.ndarray:
        (packet,) = Codec.from_pretrained(checkpoint, **options).analyze(wave, 16000)
        return packet.channels[0].latents

    mode, sample, half = latents(), latents(posterior=1.0), latents(posterior=0.5)
    limited = latents(posterior=1.0, std_limit=1e-3)
    assert np.abs(sample - mode).mean() > 0.01
    np.testing.assert_allclose(half, (mode + sample) / 2, atol=1e-4)
    assert 0 < np.abs(limited - mode).mean() < 0.1 * np.abs(sample - mode).mean()
    np.testing.assert_array_equal(sample, latents(posterior=1.0))


def test_tokens_and_back(large: Codec) -> None:
    wave = np.stack([clip("speech"), np.zeros_like(clip("speech"))])
    tokens = large.tokens(wave, 16000)
    assert tokens.shape == (2, -(-wave.shape[1] // 640), 128)
    assert not tokens[1].any()
    assert large.detokenize(tokens).shape == (2, tokens.shape[1] * 640)


# seams


def seams(codec: Codec, wave: np.ndarray) -> np.ndarray:
    """Differences from coding in one packet, at seams and elsewhere; and jumps from frame to frame, likewise."""
    short = Codec(codec.model, packet_seconds=2.4)
    hops, faded = short.packet_hops, max(16, codec.model.overlap)
    one, several = (mels(c, c.encode(wave, 16000, quality=47)) for c in (codec, short))
    count = len(wave) // 160 - 80
    inner = np.arange(count) >= hops - faded
    near = ((np.arange(count) + (0 if codec.model.overlap else 8)) % hops < faded) & inner
    error, jump = (np.abs(x[:count]).mean(1) for x in (one - several, np.diff(several, axis=0)))
    at = (np.arange(1, count + 1) % hops == 0) & inner
    return np.array([error[near].mean(), error[inner & ~near].mean(), jump[at].mean(), jump[inner & ~near].mean()])


@pytest.mark.slow
def test_seams_are_no_worse_than_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the weights are: for a single VAE, what sounds at the seams counts as much as that they are seams."""
    wave = np.tile(clip("environment"), 4)[: 160 * 980]
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for seed in range(6):
        codec = Codec.from_pretrained(save(tmp_path / str(seed), {"vae": networks(seed)["vae"]}))
        for overlap, context in ((OVERLAP, CONTEXT), (OVERLAP, 0), (0, 0)):
            monkeypatch.setattr(AudioLDM2, "overlap", overlap)
            monkeypatch.setattr(AudioLDM2, "context", context)
            found.setdefault((overlap, context), []).append(seams(Codec(codec.model), wave))
    near, far, jump, jump_elsewhere = np.transpose(found[OVERLAP, CONTEXT])
    assert near.mean() < far.mean()
    assert (near < 1.35 * far).all()
    assert jump.mean() < 1.1 * jump_elsewhere.mean()
    without_context, without_overlap = (np.transpose(found[key]) for key in ((OVERLAP, 0), (0, 0)))
    assert near.mean() < 0.8 * without_context[0].mean()
    assert (without_overlap[0] > 1.4 * without_overlap[1]).all()
    assert without_overlap[2].mean() > 1.2 * without_overlap[3].mean()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.4, 0.32])
def test_seeking_gives_the_same_sound(checkpoint: Path, mixture: np.ndarray, seconds: float) -> None:
    """Also where what the VAE hears before a packet is in several packets."""
    codec = Codec.from_pretrained(checkpoint, packet_seconds=seconds)
    data = codec.encode(mixture, 16000)
    whole = codec.decode(data)[0]
    for start in (1.0, 2.1, 2.2, 6.3, 11.0):
        part = codec.decode(data, start=start, duration=1.5)[0]
        expected = whole[round(start * 16000) :][: len(part)]
        inner = slice(8000, -8000)  # beyond HiFi-GAN's context
        np.testing.assert_allclose(part[inner], expected[inner], atol=1e-5)


def test_a_loud_neighbour_does_not_drown_a_quiet_packet(large: Codec) -> None:
    wave = 1e-3 * np.resize(clip("music"), 160 * 480)
    loud = wave.copy()
    loud[160 * 310 :] = 0.5 * np.resize(clip("environment"), 160 * 170)  # the first packet ends at 304
    short = Codec(large.model, packet_seconds=2.4)
    quiet, other = (mels(short, short.encode(w, 16000, quality=40)) for w in (wave, loud))
    assert np.abs(quiet - other)[:200].mean() < 0.5  # nats, of 6.9 that are between them


# vocoders


def test_chunks_of_hifigan_continue_each_other(large: Codec) -> None:
    vocoder: Any = large.model.renderer()
    frames = Frames.of(torch.rand(2, 64, 700), 1.0)
    whole = vocoder.wave(frames)
    parts = [slice(start, end) for start, end in itertools.pairwise((0, 10, 30, 180, 183, 383, 700))]
    pieces = [vocoder.push(frames.during(part)) for part in parts]
    assert [piece.shape[1] for piece in pieces][:2] == [0, 0]
    torch.testing.assert_close(torch.cat([*pieces, vocoder.flush()], 1), whole, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_channels_that_part(checkpoint: Path) -> None:
    """Vocoders of equal channels are one, until they are not."""
    left, right = clip("music")[:96000], clip("music")[:96000].copy()
    right[60000:] = clip("speech")[: len(right) - 60000]
    for name in AudioLDM2.vocoders:
        codec = Codec.from_pretrained(checkpoint, packet_seconds=1.2, vocoder=name)
        both = codec.decode(codec.encode(np.stack([left, right]), 16000, stereo="discrete"))
        for channel, wave in zip(both, (left, right), strict=True):
            alone = codec.decode(codec.encode(wave, 16000))[0]
            np.testing.assert_allclose(channel, alone, atol=2e-3 * np.abs(alone).max())


def test_missing_packets_are_concealed(checkpoint: Path) -> None:
    codec = Codec.from_pretrained(checkpoint, packet_seconds=1.2, vocoder="griffin-lim")
    data = codec.encode(clip("environment"), 16000)
    packets = [r for r in read_records(data) if not isinstance(r, DamageError) and r.kind == PACKET]
    cut = data[: packets[1].offset] + data[packets[2].offset :]
    decoder = codec.decoder(cut)
    wave = np.concatenate(list(decoder.blocks()), 1)
    assert decoder.damage
    assert wave.shape == (1, len(clip("environment")))
    assert np.abs(wave[0, 20000:35000]).max() > 0


def test_live(large: Codec) -> None:
    codec = Codec(large.model, packet_seconds=1.2)
    wave = clip("speech")
    live = codec.stream(16000, quality=20)
    data = b"".join([live.push(part) for part in np.array_split(wave, 9)]) + live.flush()
    assert read_stream(data).packets == read_stream(codec.encode(wave, 16000, quality=20)).packets


@pytest.mark.slow
def test_vocoders_obey_level_and_silence(checkpoint: Path) -> None:
    wave = np.concatenate([clip("music")[:32000], np.zeros(128000, np.float32), clip("music")[:32000]])
    for name in AudioLDM2.vocoders:
        codec = Codec.from_pretrained(checkpoint, packet_seconds=2.4, vocoder=name)
        decoded = codec.decode(codec.encode(wave, 16000))[0]
        quieter = codec.decode(codec.encode(wave / 8, 16000))[0]
        assert np.isfinite(decoded).all()
        assert not decoded[60000:110000].any()
        ratio = np.sqrt(np.square(decoded).mean() / np.square(quieter).mean())
        assert abs(ratio - 8) < 0.2, name


@pytest.mark.parametrize("name", ["griffin-lim", "hybrid"])
def test_griffin_lim_follows_the_log_mel(large: Codec, name: str) -> None:
    mel = large.model.mel
    wanted = mel(torch.from_numpy(clip("speech")[None, :64000]) / 2)
    vocoder = large.model.with_vocoder(name).renderer()
    frames = Frames.of(wanted.exp().transpose(1, 2), 1.0)
    wave = torch.cat([vocoder.push(frames), vocoder.flush()], 1)
    assert wave.shape == (1, 64000)
    apart = (mel(wave) - wanted).abs()
    assert apart.mean() < 0.25


def test_match_loudness_and_emphasis(checkpoint: Path) -> None:
    plain = Codec.from_pretrained(checkpoint)
    data = plain.encode(clip("speech"), 16000, quality=40)
    wanted = np.square(np.exp(mels(plain, data))).sum()

    def missing(codec: Codec) -> float:
        wave = torch.from_numpy(codec.decode(data))
        got = codec.model.mel(wave[:, : wave.shape[1] // 160 * 160])[0].exp().square().sum()
        return abs(10 * np.log10(float(got) / wanted))

    matched = missing(Codec.from_pretrained(checkpoint, match_loudness=True))
    assert missing(plain) > 1  # with random weights, far more
    assert abs(matched - max(0, missing(plain) - 20 * np.log10(4))) < 0.5
    bright = Codec.from_pretrained(checkpoint, emphasis=6.0)
    rise = np.median((mels(bright, data) - mels(plain, data))[30:-60], 0) * 20 / np.log(10)
    assert abs(rise[:40]).max() < 1e-3
    assert abs(rise[-1] - 6) < 0.1


# what is learned for a checkpoint


@pytest.mark.slow
def test_fit_learns_tables_for_a_checkpoint(text_checkpoint: Path, tmp_path: Path, large: Codec) -> None:
    out, work = tmp_path / "fitted", tmp_path / "work"
    model = fit_checkpoint(text_checkpoint, [DATA], out, work, lambda line: None, classes=4, tables=64)
    fitted = Codec(model)
    wave = clip("speech")
    for quality in (10, 20, 30):
        data, plain = (codec.encode(wave, 16000, quality=quality) for codec in (fitted, large))
        (packet,) = fitted.analyze(wave, 16000)
        bits = fitted.model.codebook.encoder().estimate(packet.channels[0].latents, quality)
        assert abs(len(read_stream(data).packets[0].payload) * 8 - bits) < 0.02 * bits + 40
        latents, others = base_latents(fitted, data), base_latents(large, plain)
        assert (latents - others).abs().max() < 2.1 * float(fitted.model.codebook.steps(quality)[0])
    assert model.fingerprint != large.model.fingerprint
    with pytest.raises(ModelError, match="needs model"):
        large.decode(data)
    tokens = fitted.tokens(wave, 16000, codebook="vq")
    assert tokens.shape == (1, -(-len(wave) // 640), 16)
    assert fitted.detokenize(tokens, codebook="vq").shape[1] == tokens.shape[1] * 640
    denoiser: Any = model.denoiser
    assert denoiser.fingerprint != large.model.denoiser.fingerprint  # its fixed condition is an empty prompt
    assert denoiser.runtime.condition(None).sequence.abs().sum() > 0


# the command


def test_command(checkpoint: Path, tmp_path: Path) -> None:
    out, wav = tmp_path / "a.aldm", tmp_path / "a.wav"

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    done = run("encode", DATA / "speech.flac", out, "--model", checkpoint, "--bitrate", 1, "--posterior", 0.5)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith("note: weights of AudioLDM 2")
    info = run("info", out)
    assert "CC BY-NC-SA 4.0" in info.stdout
    assert "ALDM_MODEL=audioldm2:tiny" in info.stdout
    assert "model audioldm2:tiny (" in info.stdout
    done = run("decode", out, wav, "--model", checkpoint, "--vocoder", "hybrid", "--dtype", "bfloat16")
    assert done.exit_code == 0, done.stderr
    done = run("decode", out, wav, "--force", "--model", checkpoint, "--prompt", "x", "--vocoder", "griffin-lim")
    assert "--prompt changes nothing" in done.stderr
    broken = tmp_path / "broken/vae"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    for wrong, message in (
        (("decode", out, wav, "--force"), "needs model"),
        (("decode", out, wav, "--force"), "'audioldm2:tiny': name it by --model"),
        (("encode", wav, out, "--force", "--model", broken.parent), "config.json is no JSON"),
        (("encode", wav, out, "--force", "--model", checkpoint, "--device", "abacus"), "no device abacus"),
        (("encode", wav, out, "--force", "--dtype", "float16"), "only for AudioLDM 2"),
        (("encode", wav, out, "--force", "--model", "music@0"), "cannot get vae/ of cvssp/audioldm2-music"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
            done = run(*wrong)
        assert done.exit_code == (2 if message == "only for AudioLDM 2" else 1)
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    for wrong, message in (
        (("fit-checkpoint", "base", DATA, "--out", tmp_path / "m"), "base is no AudioLDM 2 checkpoint"),
        (("decode", out, wav, "--model", checkpoint, "--from-step", 2), "--from-step is for --prompt"),
    ):
        done = run(*wrong)
        assert done.exit_code == 2
        assert message in done.stderr
