"""Diffusion on real clips: DDCM as a layer and alone, refinement, generation."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from aldm.codec import Codec
from aldm.codec.diffusion.ddcm import DDCM, GENERATE, Sampler
from aldm.codec.encoding.enhancement import layer_setting
from aldm.codec.errors import ModelError
from aldm.format import container
from aldm.format.container import Header, read_records
from aldm.format.errors import DamageError
from aldm.format.layer import Layer
from aldm.format.philox import words
from conftest import DATA, DOMAINS, aldm, clip


def latents(codec: Codec, data: bytes, **options: object) -> torch.Tensor:
    """What the decoder ends with, for the first packet."""
    decoder = codec.decoder(data, **options)  # type: ignore[arg-type]
    return decoder.latents(next(decoder.reader.packets())).final.values


def exact(codec: Codec, wave: np.ndarray) -> torch.Tensor:
    (packet,) = codec.analyze(wave, 16000)
    return torch.from_numpy(packet.channels[0].latents)[None]


def error(codec: Codec, data: bytes, wave: np.ndarray, **options: object) -> float:
    return float((latents(codec, data, **options) - exact(codec, wave)).square().mean())


@pytest.mark.parametrize("domain", DOMAINS)
def test_more_bits_lead_nearer(codec: Codec, domain: str) -> None:
    wave = clip(domain)
    alone = [codec.encode(wave, 16000, layers="ddcm", bitrate=rate) for rate in (0.3, 1, 3)]
    errors = [error(codec, data, wave) for data in alone]
    assert errors[0] > 1.3 * errors[1] > 1.69 * errors[2]
    both = codec.encode(wave, 16000, layers="both", quality=10, ddcm=DDCM(codebook=256))
    assert error(codec, both, wave) < 0.8 * error(codec, both, wave, layers="base")


@pytest.mark.parametrize("layers", ["both", "ddcm"])
@pytest.mark.parametrize("bitrate", [0.2, 0.7, 2.0])
def test_bitrate_is_kept(codec: Codec, mixture: np.ndarray, layers: str, bitrate: float) -> None:
    size = len(codec.encode(mixture, 16000, layers=layers, bitrate=bitrate))
    kbps = size * 8 / len(mixture) * 16
    assert 0.6 * bitrate < kbps <= bitrate


def test_base_layer_of_a_file_with_both(codec: Codec) -> None:
    wave = clip("music")
    base = codec.encode(wave, 16000, quality=12)
    both = codec.encode(wave, 16000, quality=12, layers="both", ddcm=DDCM(codebook=64))
    assert np.array_equal(codec.decode(both, layers="base"), codec.decode(base))
    assert not np.array_equal(codec.decode(both), codec.decode(base))


def test_level_is_kept(codec: Codec) -> None:
    for domain in DOMAINS:
        wave = clip(domain)
        spectrum = np.abs(np.fft.rfft(wave))
        audible = np.fft.rfftfreq(len(wave), 1 / 16000) > 60
        for options in (dict(layers="ddcm", bitrate=1.0), dict(layers="both", bitrate=1.0)):
            decoded = codec.decode(codec.encode(wave, 16000, **options))[0]
            ratio = (np.abs(np.fft.rfft(decoded))[audible] ** 2).sum() / (spectrum[audible] ** 2).sum()
            assert abs(10 * np.log10(ratio)) < 1.0


@pytest.mark.slow
def test_stereo_silence_and_several_packets(short_packets: Codec, mixture: np.ndarray) -> None:
    second = np.roll(mixture, 7000)
    second[:80000] = 0
    wave = np.stack([mixture, second, second])
    for layers in ("both", "ddcm"):
        data = short_packets.encode(wave, 16000, layers=layers, bitrate=3)
        decoded = short_packets.decode(data)
        assert decoded.shape == wave.shape
        assert np.array_equal(decoded[1], decoded[2])
        assert np.abs(decoded[1, :60000]).max() < 1e-3
        assert np.abs(decoded[1, 100000:]).max() > 0.05


def test_refinement_is_the_same_in_every_run_and_as_loud(codec: Codec) -> None:
    wave = clip("environment")
    data = codec.encode(wave, 16000, quality=10)
    base, first, second = (codec.decode(data, refine=steps)[0] for steps in (0, 8, 8))
    assert np.array_equal(first, second)
    assert len(first) == len(wave)
    assert not np.allclose(first, base, atol=1e-3)
    assert abs(10 * np.log10((first**2).sum() / (base**2).sum())) < 1
    other = codec.decode(data, refine=3)[0]
    assert not np.array_equal(first, other)


def test_the_finest_qualities_leave_nothing_to_refine(codec: Codec) -> None:
    data = codec.encode(clip("speech")[:40000], 16000, quality=40)
    assert np.array_equal(codec.decode(data, refine=5), codec.decode(data))


def test_generated_file_decodes_to_the_generated_latents(codec: Codec) -> None:
    """Bit for bit: the file is the generation."""
    ddcm = DDCM(steps=9, codebook=32, block=2, atoms=3)
    data = codec.generate(5, 7, ddcm)
    denoiser = codec.model.denoiser
    assert denoiser is not None
    layer = ddcm.layer(codec.model.denoiser.fingerprint, None)
    random = words(7, GENERATE, 0, np.zeros(1), 16 * 8 * 3)[0] >> np.uint32(31 - 5)
    start = torch.zeros(1, codec.model.autoencoder.latent_channels, 32)
    sampler = Sampler(denoiser, start, -1, 14.0, np.array([0]))
    generated = sampler.decode(layer, random.astype(np.int64).reshape(1, 16, 8, 3))
    assert torch.equal(latents(codec, data), generated)
    assert codec.generate(5, 7, ddcm) == data
    assert codec.generate(5, 8, ddcm) != data
    sound = codec.decode(data)
    assert sound.shape == (1, 80000)
    assert 0.01 < np.abs(sound).max() < 4


@pytest.mark.slow
def test_threads_do_not_matter(tmp_path: Path) -> None:
    """Drift between thread counts stays far below the error that is left."""
    path = tmp_path / "x.aldm"
    options = ("--layers", "ddcm", "--steps", 30, "--codebook", 64)
    assert aldm("encode", DATA / "speech.flac", path, *options).returncode == 0
    script = (
        "import sys, numpy as np, torch; torch.set_num_threads(int(sys.argv[1]))\n"
        "from aldm.codec import Codec\n"
        "decoder = Codec.from_pretrained().decoder(open(sys.argv[2], 'rb').read())\n"
        "np.save(sys.argv[3], decoder.latents(next(decoder.reader.packets())).final.values.numpy())\n"
    )
    ends = []
    for threads in (1, 2):
        out = tmp_path / f"{threads}.npy"
        subprocess.run([sys.executable, "-c", script, str(threads), str(path), str(out)], check=True, timeout=120)
        ends.append(np.load(out))
    codec = Codec.from_pretrained()
    left = np.sqrt(((ends[0] - exact(codec, clip("speech")).numpy()) ** 2).mean())
    assert np.abs(ends[0] - ends[1]).max() < 0.01 * left


@pytest.fixture(scope="module")
def layered(short_packets: Codec, mixture: np.ndarray) -> bytes:
    return short_packets.encode(mixture, 16000, layers="both", quality=12, ddcm=DDCM(codebook=64, steps=8))


@pytest.mark.slow
def test_a_flipped_bit_in_a_layer_damages_its_block(short_packets: Codec, layered: bytes) -> None:
    whole = short_packets.decode(layered)[0]
    records = [r for r in read_records(layered) if not isinstance(r, DamageError)]
    target = [r for r in records if r.kind == container.LAYER][3]
    body = target.offset + target.size - 4 - len(target.body)
    packet = 2.08 * 16000  # samples
    for bit in (200, 300, 8 * len(target.body) - 20):
        damaged = bytearray(layered)
        damaged[body + bit // 8] ^= 128 >> bit % 8
        decoder = short_packets.decoder(bytes(damaged))
        wave = np.concatenate(list(decoder.blocks(False, 0, None)), 1)[0]
        assert len(wave) == len(whole)
        assert decoder.damage == ["packet 3: damaged enhancement layer"]
        changed = np.flatnonzero(np.abs(wave - whole) > 0.03)
        assert len(changed)
        assert 3 * packet - 3200 < changed[0]
        # phases behind it go on from others, so that samples differ, but not what is heard
        behind = slice(int(4 * packet) + 3200, len(whole) // 160 * 160)
        mels = (short_packets.model.mel(torch.from_numpy(w[None, behind])) for w in (wave, whole))
        assert torch.sub(*mels).abs().mean() < 0.15
        level = 10 * np.log10((wave[int(3 * packet) : int(4 * packet)] ** 2).sum())
        assert abs(level - 10 * np.log10((whole[int(3 * packet) : int(4 * packet)] ** 2).sum())) < 1
        with pytest.raises(DamageError, match="damaged enhancement layer"):
            short_packets.decode(bytes(damaged), strict=True)


def test_damaged_parameters_of_a_layer_leave_the_base_layer(short_packets: Codec, layered: bytes) -> None:
    base = short_packets.decode(layered, layers="base")
    records = [r for r in read_records(layered) if not isinstance(r, DamageError)]
    kept = layered[: container.HEADER_SIZE]
    for record in records:
        body = record.body
        if record.kind == container.LAYER:
            body = bytes(2) + body[2:]  # of another denoiser
        kept += container.pack_record(record.kind, body, record.index)
    decoder = short_packets.decoder(kept)
    assert np.array_equal(np.concatenate(list(decoder.blocks(False, 0, None)), 1), base)
    assert len(decoder.damage) == 7
    assert "another denoiser" in decoder.damage[0]


def test_a_layer_on_a_quality_that_has_none_is_left_out(codec: Codec) -> None:
    """No encoder writes it, but a crafted file may."""
    wave = clip("speech")[:40000]
    layer = layer_setting(codec.model.denoiser, DDCM(3, 4), 20)
    picks = np.ones(layer.shape(1, 16), np.int64)
    for quality in (32, 40, 47):
        base = codec.encode(wave, 16000, quality=quality)
        base = replace(Header.parse(base), layers=True).pack() + base[container.HEADER_SIZE :]
        decoder = codec.decoder(base + container.pack_record(container.LAYER, layer.pack(picks), 0))
        sound = np.concatenate(list(decoder.blocks(False, 0, None)), 1)
        assert decoder.damage == ["packet 0 at 0.00 s: enhancement layer on a quality that the denoiser does not know"]
        assert np.array_equal(sound, codec.decode(base))


@pytest.mark.slow
def test_damage_never_raises_anything_else(short_packets: Codec, layered: bytes) -> None:
    rng = np.random.default_rng(5)
    for _ in range(12):
        damaged = bytearray(layered)
        for at in rng.integers(24, len(layered), 3):
            damaged[at] ^= 1 << rng.integers(8)
        decoder = short_packets.decoder(bytes(damaged[: rng.integers(len(layered) // 2, len(layered) + 1)]))
        sound = np.concatenate(list(decoder.blocks(False, 0, None)), 1)
        assert np.isfinite(sound).all()
        assert decoder.damage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", "ddcm", "--codebook", 100), "power of two"),
        (("--layers", "ddcm", "--codebook", 32768), "bits is 0 to 14"),
        (("--layers", "ddcm", "--codebook", 4, "--atoms", 8), "atoms is 1 to 4"),
        (("--layers", "ddcm", "--steps", 1001), "1001"),
        (("--layers", "both", "--quality", 40), "nothing to refine"),
        (("--layers", "ddcm", "--model", "klt"), "no denoiser"),
        (("--steps", 9), "--steps is for"),
    ],
)
def test_bad_parameters_are_refused_by_name(tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    out = tmp_path / "x.aldm"
    result = aldm("encode", DATA / "speech.flac", out, *options)
    assert result.returncode in (1, 2)
    assert message in result.stderr.decode()
    assert b"Traceback" not in result.stderr
    assert not out.exists()


def test_refusals_when_decoding(codec: Codec) -> None:
    wave = clip("speech")[:40000]
    with pytest.raises(ValueError, match="no base layer"):
        codec.decoder(codec.encode(wave, 16000, layers="ddcm"), layers="base")
    klt = Codec.from_pretrained("klt")
    with pytest.raises(ModelError, match="no denoiser"):
        klt.decoder(klt.encode(wave, 16000), refine=5)
    with pytest.raises(ModelError, match="no denoiser"):
        klt.generate(1)


@pytest.mark.slow
def test_commands(tmp_path: Path) -> None:
    a, b, wav = tmp_path / "a.aldm", tmp_path / "b.aldm", tmp_path / "a.wav"
    assert aldm("encode", DATA / "speech.flac", a, "--layers", "both", "--bitrate", 0.8).returncode == 0
    shown = aldm("info", a).stdout.decode()
    assert "bytes of enhancement layer" in shown
    assert aldm("decode", a, wav).returncode == 0
    assert aldm("decode", a, wav, "--layers", "base", "--refine", 3, "--force").returncode == 0
    assert aldm("generate", b, "--seconds", 2, "--seed", 7).returncode == 0
    assert Header.parse(b.read_bytes()).quality == container.NO_BASE
    assert aldm("decode", b, wav, "--force").returncode == 0
    assert aldm("decode", b, wav, "--force", "--layers", "base").returncode == 2


def test_layer_parameters_in_the_file(codec: Codec) -> None:
    data = codec.encode(clip("speech"), 16000, layers="ddcm", ddcm=DDCM(12, 128, 2, 2, 9))
    body = next(r.body for r in read_records(data) if not isinstance(r, DamageError) and r.kind == container.LAYER)
    layer, _ = Layer.parse(body, 1, 26)
    assert (layer.seed, layer.steps, layer.span, layer.bits, layer.atoms) == (9, 12, 2, 7, 2)
    assert layer.denoiser == codec.model.denoiser.fingerprint[:2]
