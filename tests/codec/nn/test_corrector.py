"""The network behind Griffin-Lim: in a stream, in a model folder, in training, and what the embedded one is worth."""

from pathlib import Path

import pytest
import torch
from aldm.codec import Codec
from aldm.codec.dsp.mel import LogMel
from aldm.codec.fit.losses.hearing import disturbance, power
from aldm.codec.nn.corrector import Corrector
from aldm.codec.nn.weights import load_weights, save_weights
from aldm.codec.values import Frames
from aldm.codec.vocoders.corrected import CorrectedGriffinLim, Correction
from aldm.codec.vocoders.griffin_lim import GriffinLim, GriffinLimRenderer
from conftest import DATA, DOMAINS, aldm, clip

MEL = LogMel(n_mels=96, floor=-10.0)


def random_net() -> Corrector:
    torch.manual_seed(0)
    net = Corrector(MEL, 32, 2)
    torch.nn.init.normal_(net.output.weight, 0, 0.1)
    for block in net.blocks:
        torch.nn.init.normal_(block.out.weight, 0, 0.1)
    return net.requires_grad_(False)


def sides(wave: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Magnitudes of a waveform [N] whose level is 0.3 at first and 2 then, what it was scaled by, and a step."""
    magnitudes = MEL.magnitudes(MEL(wave[None]))
    scale = torch.where(torch.arange(magnitudes.shape[2]) < 150, 0.3, 2.0)[None]
    return magnitudes * scale[:, None], scale, torch.full_like(scale, 1.3)


@pytest.mark.parametrize("frames", [401, 402])
def test_pieces_are_the_whole(frames: int) -> None:
    """However a waveform comes, it is corrected as in one piece."""
    net = random_net()
    wave = torch.from_numpy(clip("speech")[: frames * 160])
    magnitudes, scale, step = sides(wave)
    expected = Frames(magnitudes, scale[:, None], (scale * step)[:, None])
    whole = Correction(MEL, net)
    whole.expect(expected)
    one = whole.push(wave[None], last=True)[0]
    stream, parts = Correction(MEL, net), []
    for start in range(0, frames, 90):
        stream.expect(expected.during(slice(start, start + 90)))
    for piece in wave.split(4001):
        parts.append(stream.push(piece[None])[0])
    parts.append(stream.push(wave[None, :0], last=True)[0])
    assert len([p for p in parts if p.shape[1]]) > 10
    assert one.shape == (1, len(wave))
    torch.testing.assert_close(torch.cat(parts, 1), one, rtol=0, atol=1e-5)
    assert (one - wave).abs().max() > 0.01


@pytest.mark.parametrize("size", [32, 70])
def test_chunks_of_griffin_lim_and_corrector(size: int) -> None:
    wave = torch.from_numpy(clip("music")[:64000])
    magnitudes, scale, step = sides(wave)
    frames = Frames(magnitudes, scale[:, None], (scale * step)[:, None])
    parts = [frames.during(slice(first, first + size)) for first in range(0, frames.count, size)]
    decoded = []
    for vocoder in (
        GriffinLimRenderer(MEL),
        CorrectedGriffinLim(MEL, random_net()),
        CorrectedGriffinLim(MEL, random_net()),
    ):
        decoded.append(torch.cat([*map(vocoder.push, parts), vocoder.flush()], 1))
    plain, first, second = decoded
    assert plain.shape == first.shape == (1, 64000)
    assert torch.equal(first, second)
    assert (plain - first).abs().max() > 0.01


def test_mel_bands_are_as_asked_for() -> None:
    """Whatever the network does, the spectrum is projected back onto the decoded mel bands."""
    wave = torch.from_numpy(clip("speech")[:64000])[None]
    magnitudes, scale, step = sides(wave[0])
    noisy = wave + 0.01 * torch.randn(wave.shape, generator=torch.Generator().manual_seed(0))
    short = torch.nn.functional.pad(noisy * scale.repeat_interleave(160, 1), (176, 176))  # a window of 512, less a hop
    corrected = random_net()(short, magnitudes, step, scale)
    asked = MEL.from_magnitudes(magnitudes)
    loud = asked > asked.amax() - 7  # 60 dB
    before, after = ((MEL(v) - asked)[:, 5:-5][loud[:, 5:-5]].abs().mean() for v in (short[:, 176:-176], corrected))
    assert after < 0.3 * before, (before, after)


def test_weights_in_8_bits(tmp_path: Path) -> None:
    net = random_net()
    save_weights(net, tmp_path / "half")
    save_weights(net, tmp_path / "small", small=True)
    assert (tmp_path / "small").stat().st_size < 0.6 * (tmp_path / "half").stat().st_size
    exact = net.state_dict()
    shapes = {name: value.shape for name, value in exact.items()}
    small = load_weights(tmp_path / "small", shapes)
    assert exact.keys() == small.keys() == load_weights(tmp_path / "half", shapes).keys()
    for name, value in exact.items():
        rows = value.flatten(1) if value.ndim > 1 else value[None]
        most = rows.abs().amax(1) / (253 if value.ndim > 1 else 2000)
        assert ((small[name] - value).abs().view(len(rows), -1).amax(1) <= most + 1e-9).all()


@pytest.mark.parametrize(("domain", "most"), [*zip(DOMAINS, (0.97, 0.97, 0.99), strict=True)])
def test_embedded_corrector_is_worth_it(domain: str, most: float) -> None:
    """Loudness and log-mel are nearer to the original than after Griffin-Lim, at the same level."""
    codec = Codec.from_pretrained()
    plain = Codec.from_pretrained()
    plain.model.corrector = None
    assert codec.model.corrector is not None
    wave = clip(domain)
    data = codec.encode(wave, 16000, bitrate=1.5)
    exact = torch.from_numpy(wave)[None]
    errors = []
    for decoder in (plain, codec):
        decoded = torch.from_numpy(decoder.decode(data))
        mel = (MEL(2 * exact) - MEL(2 * decoded)).abs().mean().item()
        errors.append((disturbance(power(exact), power(decoded)).item(), mel))
    assert errors[1][0] < most * errors[0][0]
    assert errors[1][1] < 1.05 * errors[0][1]
    level = 10 * torch.log10(decoded.square().mean() / exact.square().mean())
    assert abs(level) < 0.5


@pytest.mark.slow
def test_without_networks(tmp_path: Path) -> None:
    """`--vocoder griffin-lim` uses neither."""
    path = tmp_path / "x.aldm"
    assert aldm("encode", DATA / "speech.flac", path).returncode == 0
    assert aldm("decode", path, tmp_path / "x.wav", "--vocoder", "griffin-lim").returncode == 0
    codec = Codec.from_pretrained(vocoder="griffin-lim")
    assert codec.model.corrector is None
    assert codec.model.magnitude_net is None
    magnitudes = codec.model.mel.magnitudes(codec.model.mel(torch.from_numpy(clip("speech")[:16000])[None]))
    vocoder = GriffinLim(codec.model.mel)
    expected = torch.cat([vocoder.push(magnitudes), vocoder.flush()], 1)
    assert torch.equal(codec.model.synthesize(Frames.of(magnitudes, 1.0)), expected)
