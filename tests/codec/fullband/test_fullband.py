"""Sound above 8 kHz and the stereo image, from samples to a file and back."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from aldm.codec import Codec
from aldm.codec.fullband.downmix import Downmix
from aldm.format import container
from aldm.format.stream import read_stream
from conftest import clip

RATE = 44100
SPAN = 3 * RATE


@pytest.fixture(scope="module")
def quick() -> Codec:
    return Codec.from_pretrained(packet_seconds=1.28, vocoder="griffin-lim")


@pytest.fixture(scope="module")
def music() -> np.ndarray:
    return soxr.resample(clip("music"), 16000, RATE)[:SPAN].astype(np.float32)


@pytest.fixture(scope="module")
def bright(music: np.ndarray) -> np.ndarray:
    """Music with bursts of noise above 8 kHz, two a second."""
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(0, 0.05, SPAN))
    hertz = np.fft.rfftfreq(SPAN, 1 / RATE)
    spectrum[hertz < 8000] = 0
    return music + np.fft.irfft(spectrum, SPAN).astype(np.float32) * (np.arange(SPAN) * 4 // RATE % 2)


def above(wave: np.ndarray, rate: int = RATE) -> np.ndarray:
    """Power from 8.5 to 20 kHz in each eighth of a second, dB."""
    pieces = wave[: len(wave) // (rate // 8) * (rate // 8)].reshape(-1, rate // 8)
    hertz = np.fft.rfftfreq(rate // 8, 1 / rate)
    power = np.abs(np.fft.rfft(pieces * np.hanning(rate // 8)))[:, (hertz > 8500) & (hertz < 20000)] ** 2
    return 10 * np.log10(power.mean(1) + 1e-9)


def level(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(wave**2) + 1e-12))


def correlation(pair: np.ndarray) -> float:
    return float(np.corrcoef(pair)[0, 1])


def test_bursts_above_8_khz_come_back_in_time_and_level(quick: Codec, bright: np.ndarray) -> None:
    data = quick.encode(bright, RATE, bitrate=2.0)
    out = quick.decode(data)[0]
    assert len(out) == SPAN
    loud = above(bright) > above(bright).max() - 10
    assert np.abs(above(out)[loud] - above(bright)[loud]).mean() < 6
    assert above(out)[loud].min() > above(out)[~loud].max() + 6
    assert len(data) * 8 / 3 <= 2000
    core = quick.decode(data, rate=16000)[0]
    np.testing.assert_allclose(len(core), 3 * 16000)
    assert above(soxr.resample(core, 16000, RATE))[loud].max() < above(out)[loud].min() - 20


def test_what_has_nothing_to_describe_keeps_its_bytes(quick: Codec, music: np.ndarray) -> None:
    """Mono without a high band, and equal channels, are files of version 1.0."""
    core = soxr.resample(music, RATE, 16000)
    for wave, rate in ((core, 16000), (music, RATE), (np.stack([core, core]), 16000), (np.zeros(9000), RATE)):
        data = quick.encode(wave, rate, quality=10)
        assert data == quick.encode(wave, rate, quality=10, high_band=False, stereo="discrete")
        assert data[4] == 0x10
        assert quick.decode(data).shape[1] == -(-wave.shape[-1] * 16000 // rate)


@pytest.mark.parametrize(("left", "right"), [(1, 0.5), (1, -1), (0.3, -0.9), (1, 0), (0, 1)])
def test_scaled_inverted_and_silent_channels_come_back_as_such(
    quick: Codec, bright: np.ndarray, left: float, right: float
) -> None:
    both = np.stack([left * bright, right * bright])
    out = quick.decode(quick.encode(both, RATE, bitrate=2.0))
    inner = out[:, RATE // 4 : -RATE // 4]
    if left and right:
        scaled = right / left * inner[0]
        assert level(inner[1] - scaled) < level(scaled) - 25
        assert abs(level(inner[0]) - level(left * bright)) < 2
    else:
        silent = 0 if right else 1
        assert level(inner[silent]) < level(inner[1 - silent]) - 40
        assert abs(level(inner[1 - silent]) - level(bright)) < 2


def test_almost_equal_channels_stay_together(quick: Codec, music: np.ndarray) -> None:
    dither = np.random.default_rng(1).uniform(-1, 1, (2, SPAN)) / 32768
    out = quick.decode(quick.encode(np.stack([music, music]) + dither, RATE, bitrate=1.0))
    assert correlation(out) > 0.99
    assert abs(level(out.sum(0)) - level(2 * music)) < 2


def test_two_sounds_side_by_side(quick: Codec, music: np.ndarray) -> None:
    """Independent channels stay so, with their levels; the mono sum does not lose any."""
    other = 0.3 * np.roll(soxr.resample(clip("environment"), 16000, RATE)[:SPAN], 777)
    both = np.stack([music, other]).astype(np.float32)
    out = quick.decode(quick.encode(both, RATE, bitrate=2.0, stereo="parametric"))
    assert abs(correlation(out)) < 0.6
    wanted = level(both[0]) - level(both[1])
    assert abs(level(out[0]) - level(out[1]) - wanted) < 2
    assert abs(level(out.sum(0)) - level(both.sum(0))) < 2


def test_modes(quick: Codec, bright: np.ndarray) -> None:
    both = np.stack([bright, np.roll(bright, 2000)])
    gains = {}
    for mode in ("auto", "parametric", "discrete", "mono"):
        stream = read_stream(quick.encode(both, RATE, bitrate=3.0, stereo=mode))
        gains[mode] = stream.packets[0].gains
        assert (container.STEREO in stream.parameters[0]) == (mode in ("auto", "parametric"))
        assert container.HIGH_BAND in stream.parameters[0]
    assert len(gains["mono"]) == 1
    assert gains["auto"] == gains["parametric"]
    assert gains["parametric"][1] == container.GAIN_COPY != gains["discrete"][1]
    with pytest.raises(ValueError, match="stereo mode"):
        quick.encode(both, RATE, stereo="wide")


def test_more_channels_stay_as_they_are(quick: Codec, bright: np.ndarray) -> None:
    three = np.stack([bright, -bright, 0.1 * bright])
    data = quick.encode(three, RATE, quality=4, stereo="parametric")
    assert data[4] == 0x10
    assert quick.decode(data, original_rate=True).shape == three.shape


def test_side_alone_does_not_vanish_in_the_downmix() -> None:
    side = clip("music")[:32000]
    mid = Downmix()
    out = np.concatenate([mid.push(np.stack([side, -side])), mid.flush()], 1)[0]
    assert len(out) == len(side)
    assert level(out[2000:-2000] - side[2000:-2000]) < level(side) - 40


def test_a_live_stream_has_the_records_of_a_file(quick: Codec, bright: np.ndarray) -> None:
    both = np.stack([bright, np.roll(bright, 500)])
    encoder = quick.stream(RATE, 2, quality=12)
    live = b"".join(encoder.push(both[:, at : at + 4999]) for at in range(0, SPAN, 4999)) + encoder.flush()
    whole = quick.encode(both, RATE, quality=12)
    assert live[container.HEADER_SIZE :].startswith(whole[container.HEADER_SIZE :])
    encoder = quick.stream(RATE, 2, bitrate=2.0)
    live = encoder.push(both) + encoder.flush()
    assert len(live) * 8 / 3 <= 2000
    assert quick.decode(live).shape == both.shape


def test_lost_records_leave_the_core(quick: Codec, bright: np.ndarray) -> None:
    both = np.stack([bright, -0.5 * bright])
    data = quick.encode(both, RATE, quality=12)
    records = [r for r in container.read_records(data) if isinstance(r, container.Record)]
    flipped = bytearray(data)
    for record in records[3:5]:  # of the second packet
        assert record.kind in container.PARAMETRIC
        flipped[record.offset + 8] ^= 4
    decoder = quick.decoder(bytes(flipped))
    out = np.concatenate(list(decoder.blocks()), 1)
    assert decoder.damage
    assert out.shape == both.shape
    first, second = out[:, RATE // 2 : RATE], out[:, round(1.6 * RATE) : round(2.2 * RATE)]
    assert correlation(first) < -0.9
    assert correlation(second) > 0.99  # the mid channel on both
    assert above(second[0]).max() < above(first[0]).max() - 20


def test_seeking_gives_the_same_image_and_treble(quick: Codec, bright: np.ndarray) -> None:
    both = np.stack([bright, -0.5 * bright])
    data = quick.encode(both, RATE, quality=20, index=True)
    whole, part = quick.decode(data), quick.decode(data, start=1.5, duration=1.0)
    same = whole[:, round(1.5 * RATE) : round(2.5 * RATE)]
    assert part.shape == same.shape
    assert np.abs(above(part[0]) - above(same[0])).mean() < 2
    assert correlation(part) < -0.98


@pytest.mark.slow
def test_the_command(tmp_path: Path, bright: np.ndarray) -> None:
    source, coded = tmp_path / "a.wav", tmp_path / "a.aldm"
    sf.write(source, np.stack([bright, 0.5 * bright], 1), RATE)

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "aldm.cli", *map(str, args)], capture_output=True, text=True)

    assert run("encode", source, coded, "--stereo", "parametric").returncode == 0
    assert "parameters" in run("info", coded).stdout
    for options, rate in (((), RATE), (("--rate", 16000), 16000), (("--original-rate",), RATE)):
        assert run("decode", coded, tmp_path / "b.wav", "--force", *options).returncode == 0
        assert sf.info(tmp_path / "b.wav").samplerate == rate
    assert run("decode", coded, tmp_path / "c.wav", "--original-rate", "--rate", 8000).returncode == 2
    assert run("encode", source, coded, "-f", "--stereo", "mono", "--no-high-band").returncode == 0
    assert sf.info(tmp_path / "b.wav").channels == 2
    assert coded.read_bytes()[4:6] == b"\x10\1"
