"""Full-band and stereo metrics on signals whose values are known, and the benchmark of stereo clips at their rate."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from aldm.bench.codecs import make_codec
from aldm.bench.codecs.base import run_fullband
from aldm.bench.metrics import FULLBAND_METRICS, FullBandPair, fit_channels, score_fullband
from aldm.bench.metrics.bands import erb_edges
from aldm.bench.metrics.stereo import stereo_image
from aldm.bench.sources import BenchError, load_fullband
from aldm.bench.stereo_picture import main
from aldm.bench.tasks import Task, code
from click.testing import CliRunner
from conftest import aldm, clip
from scipy.signal import butter, sosfilt

RATE = 44100
QUICK = [metric.name for metric in FULLBAND_METRICS if not metric.name.startswith("visqol")]


def noise(seed: int, channels: int = 2, seconds: float = 2.0) -> np.ndarray:
    """Independent white noises [C, N]."""
    generator = np.random.default_rng(seed)
    return generator.normal(0, 0.1, (channels, int(seconds * RATE))).astype(np.float32)


def measure(reference: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
    return score_fullband(FullBandPair(reference, decoded, RATE), QUICK)


def below(wave: np.ndarray, hertz: float) -> np.ndarray:
    """Low-passed, with nothing left above."""
    return sosfilt(butter(12, hertz, fs=RATE, output="sos"), wave).astype(np.float32)


def test_a_clip_against_itself_has_no_error() -> None:
    wave = noise(0)
    assert measure(wave, wave) == {m.name: 0 if m.name in QUICK else None for m in FULLBAND_METRICS}


def test_gain_and_silence() -> None:
    wave = noise(0)
    half = measure(wave, wave / 2)
    for name in ("lsd_high", "level_high", "mono_level"):
        assert half[name] == pytest.approx(6.02, abs=0.03), name
    assert half["convergence"] == pytest.approx(0.5, abs=1e-4)
    for name in ("ild_error", "coherence_error", "correlation_error", "mono_loss"):
        assert half[name] == pytest.approx(0, abs=0.01), name
    silent = measure(wave, np.zeros_like(wave))
    assert silent["convergence"] == 1
    assert silent["lsd_high"] > 30
    assert silent["mono_loss"] is None  # no band is left to be summed
    assert not [value for value in measure(np.zeros_like(wave), wave).values() if value is not None]


def test_noise_for_noise_has_the_documented_distances() -> None:
    """Levels of two independent noises differ by the spread of their spectra alone."""
    found = measure(noise(0), noise(1))
    assert found["lsd_high"] == pytest.approx(7.6, abs=0.3)
    assert found["level_high"] == pytest.approx(0.5, abs=0.2)


def test_a_lost_treble_is_seen_above_8_khz_only() -> None:
    wave = noise(0)
    found = measure(wave, below(wave, 7000))
    assert found["level_high"] > 30
    assert found["mono_level"] > 5
    assert found["mono_loss"] == pytest.approx(0, abs=0.05)  # the bands that are left sum as before
    quiet = measure(wave, wave + below(noise(1), 6000))
    assert quiet["level_high"] < 0.1
    assert quiet["convergence"] > 0.3


def test_level_difference() -> None:
    """One source in the middle, and the same at 12 dB to the left."""
    source = noise(0, 1)[0]
    left = np.stack([source, source * 10 ** (-12 / 20)])
    found = measure(left, np.stack([source, source]))
    assert found["ild_error"] == pytest.approx(12, abs=0.1)
    assert found["coherence_error"] == pytest.approx(0, abs=0.02)
    one_side = measure(left, np.stack([source, 0 * source]))
    assert one_side["ild_error"] == pytest.approx(18, abs=0.1)  # 12 against the limit of 30


def test_coherence_and_correlation() -> None:
    source = noise(0, 1)[0]
    same, opposite, apart = np.stack([source, source]), np.stack([source, -source]), noise(1)
    inverted = measure(same, opposite)
    assert inverted["coherence_error"] == pytest.approx(0, abs=0.01)
    assert inverted["correlation_error"] == pytest.approx(2, abs=0.01)
    assert inverted["mono_loss"] > 30  # the sum is gone
    spread = measure(same, apart)
    assert 0.7 < spread["coherence_error"] < 1  # an estimate from few bins is never quite 0
    assert spread["mono_loss"] == pytest.approx(3, abs=0.15)  # powers add up instead of amplitudes
    assert spread["ild_error"] < 1.5


def test_mixed_coherence_is_estimated() -> None:
    """A common and two own sources of equal power have a coherence of one half."""
    common, own = noise(0, 1), noise(1)
    pair = FullBandPair(common + own, common + own, RATE)
    high = stereo_image(pair.spectra[0], pair.hertz).coherence[-6:]
    assert high.mean() == pytest.approx(0.5, abs=0.05)


def test_bands_are_equal_rectangular_bandwidths() -> None:
    edges = erb_edges(50, 20000, 1)
    widths, centres = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    assert widths == pytest.approx(24.7 * (0.00437 * centres + 1), rel=0.02)


def test_mono_and_low_rates_have_no_stereo_nor_treble() -> None:
    mono = noise(0, 1)
    found = score_fullband(FullBandPair(mono, mono, RATE), QUICK)
    assert found["ild_error"] is None
    assert found["lsd_high"] == 0
    slow = score_fullband(FullBandPair(mono, mono, 16000), QUICK)
    assert slow["lsd_high"] is None
    assert slow["convergence"] == 0


def test_a_channel_for_both_and_lengths() -> None:
    found = fit_channels(np.array([0.5, 2.0], np.float32), 2, 3)
    assert found.tolist() == [[0.5, 1, 0], [0.5, 1, 0]]


def test_clips_are_stereo_and_have_their_licences() -> None:
    folder = Path(__file__).parents[2] / "bench/clips-fullband"
    files = sorted(folder.glob("*.flac"))
    assert len(files) == 24
    assert sum(file.stat().st_size for file in files) < 12e6
    readme = (folder / "README.md").read_text()
    for file in files:
        info = sf.info(file)
        assert (info.channels, info.samplerate in (44100, 48000)) == (2, True)
        assert 4 <= info.duration <= 8
        (line,) = (line for line in readme.splitlines() if line.startswith(f"| {file.name} |"))
        _, _, seconds, rate, _, _, licence, _, _ = line.split("|")
        assert (float(seconds), float(rate) * 1000) == (round(info.duration, 1), info.samplerate)
        assert any(name in licence for name in ("CC0", "CC BY", "MIT", "BSD"))


@pytest.fixture(scope="module")
def stereo_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise on the left and speech on the right, 1.5 s at 44.1 kHz."""
    path = tmp_path_factory.mktemp("stereo") / "speech_noise.wav"
    right = soxr.resample(clip("speech")[8000:32000], 16000, RATE)
    sf.write(path, np.stack([noise(0, 1)[0, : len(right)], right], 1), RATE)
    return path


@pytest.mark.slow
def test_bench_of_a_stereo_clip(stereo_clip: Path, tmp_path: Path) -> None:
    """Copying is perfect, Opus keeps rate, channels and treble, aldm the channels."""
    codecs = ["--codec", "aldm@3", "--codec", "opus@64", "--command", "copy", "cp {in} {bits}", "cp {bits} {out}"]
    result = aldm("bench", stereo_clip, "--fullband", *codecs, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())
    rows = {row["codec"]: row for row in results["rows"]}
    for name in ("copy", "opus", "aldm", "original"):
        info = sf.info(tmp_path / "out/audio/speech_noise" / f"{name}@{rows[name]['setting']}.flac")
        assert (info.channels, info.samplerate) == (2, RATE)
        assert info.duration == pytest.approx(1.5, abs=0.01)
    assert rows["copy"]["bytes"] == stereo_clip.stat().st_size
    assert rows["copy"]["visqol_48k"] > 4.7
    assert rows["copy"]["visqol_channels"] > 4.7
    assert rows["copy"]["ild_error"] == rows["copy"]["lsd_high"] == 0
    assert 40 < rows["opus"]["kbps"] < 110
    assert rows["opus"]["level_high"] < 8
    assert rows["opus"]["visqol_48k"] > 4
    assert rows["opus"]["ild_error"] < 6  # noise against speech with pauses: as a sum it would be 20
    assert rows["aldm"]["kbps"] <= 3
    assert rows["aldm"]["level_high"] > 20  # nothing above 8 kHz in the core
    assert rows["original"]["ild_error"] is None
    assert {row["domain"] for row in results["summary"]} == {"speech", "all"}
    assert "ViSQOL 48k" in (tmp_path / "out/table.md").read_text()


def test_a_codec_of_16_khz_mono_gets_the_sum(stereo_clip: Path, tmp_path: Path) -> None:
    wave, rate = load_fullband(stereo_clip)
    coded = run_fullband(make_codec("exact-mel"), wave, rate, "ceiling", tmp_path)
    decoded = fit_channels(coded.decoded, 2, wave.shape[1])
    assert coded.decoded.shape == (1, pytest.approx(wave.shape[1], abs=3))
    found = measure(wave, decoded)
    assert found["level_high"] > 20
    assert found["correlation_error"] > 0.5  # both channels are the same now
    both = measure(np.stack([wave.mean(0)] * 2), decoded)
    assert both["correlation_error"] < found["correlation_error"] / 2


def test_results_of_both_modes_are_not_mistaken(stereo_clip: Path, tmp_path: Path) -> None:
    """A row of one mode is no result of the other, and each has its own metrics, rate and channels."""
    tasks = {
        mode: Task("original", "original", stereo_clip, "speech", "ceiling", tmp_path, fullband=mode)
        for mode in (True, False)
    }
    for mode, task in tasks.items():
        code(task)
        row = task.read()
        assert row is not None
        assert row["error"] is None
        assert ("ild_error" in row, "pesq" in row) == (mode, not mode)
        assert tasks[not mode].read() is None
        info = sf.info(tmp_path / row["audio"])
        assert (info.channels, info.samplerate) == ((2, RATE) if mode else (1, 16000))


def test_clips_that_cannot_be_measured(tmp_path: Path) -> None:
    sf.write(tmp_path / "surround.wav", np.full((44100, 6), 0.1), 44100)
    with pytest.raises(BenchError, match="6 channels"):
        load_fullband(tmp_path / "surround.wav")
    sf.write(tmp_path / "high.wav", noise(0).T, 96000)
    wave, rate = load_fullband(tmp_path / "high.wav")
    assert rate == 48000
    assert wave.shape == (2, 44100)


def test_picture(stereo_clip: Path, tmp_path: Path) -> None:
    """Noise on the left and speech on the right do not look like their sum on both."""
    pictures = [tmp_path / "stereo.png", tmp_path / "mono.png"]
    for picture, mono in zip(pictures, (False, True), strict=True):
        wave = sf.read(stereo_clip)[0]
        sf.write(tmp_path / "same_name.wav", wave.mean(1) if mono else wave, RATE)
        result = CliRunner().invoke(main, [str(tmp_path / "same_name.wav"), "--out", str(picture)])
        assert result.exit_code == 0, result.output
        assert picture.stat().st_size > 20000
    assert pictures[0].read_bytes() != pictures[1].read_bytes()
    (tmp_path / "text.wav").write_text("no sound")
    result = CliRunner().invoke(main, [str(tmp_path / "text.wav"), "--out", str(tmp_path / "x.png")])
    assert result.exit_code == 1
    assert "not readable audio" in result.output
