"""Metrics against values computed another way; perfect, noisy, silent and short clips; missing packages."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from aldm.bench import generations, joins
from aldm.bench.metrics import FAMILIES, METRICS, absent, kad, log_mel, score, stft_distance
from aldm.bench.metrics.distribution import SPEECH, embed_speech
from aldm.bench.metrics.identity import track_pitch
from aldm.bench.statistics import add_distances
from click.testing import CliRunner
from conftest import aldm, clip

RATE = 16000
# Of the first 3 s of the speech clip as it is, and with white noise of 0.02: by speechmos.dnsmos.run, by
# distillmos.ConvTransformerSQAModel, and by resemblyzer's VoiceEncoder, called without this package.
PUBLISHED = {
    "dnsmos_ovrl": (2.8530, 2.4548),
    "dnsmos_sig": (3.4369, 3.5263),
    "dnsmos_bak": (3.5420, 2.6008),
    "dnsmos_p808": (4.0487, 2.5775),
    "distillmos": (4.4349, 2.8488),
    "speaker_similarity": (1, 0.8501),
}


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    return clip("speech")[:48000]


@pytest.fixture(scope="module")
def noisy(wave: np.ndarray) -> np.ndarray:
    return wave + np.random.default_rng(0).normal(0, 0.02, len(wave)).astype(np.float32)


@pytest.fixture(scope="module")
def scores(wave: np.ndarray, noisy: np.ndarray) -> dict[str, dict[str, float | None]]:
    decoded = {"clean": wave, "noisy": noisy, "silent": np.zeros_like(wave)}
    return {name: score(wave, each, "speech") for name, each in decoded.items()}


def test_packages_are_installed() -> None:
    """So that no test here passes because a metric was skipped."""
    assert not [absent(family.modules) for family in FAMILIES if absent(family.modules)]
    assert not absent(SPEECH.modules)


@pytest.mark.slow
def test_networks_say_what_their_packages_say(scores: dict) -> None:
    for name, values in PUBLISHED.items():
        found = scores["clean"][name], scores["noisy"][name]
        assert found == pytest.approx(values, abs=0.01), name


def test_a_clip_against_itself_is_perfect_and_noise_is_noticed(scores: dict) -> None:
    perfect = {"pesq": 4.644, "stoi": 1, "estoi": 1, "mel": 0, "stft": 0, "rmse": 0, "correlation": 1}
    perfect |= {"speaker_similarity": 1, "f0_error": 0, "f0_gross": 0, "voicing_error": 0}
    perfect |= {f"texture_{name}": 1 for name in ("low", "mid", "high")}
    clean, worse = scores["clean"], scores["noisy"]
    for name, value in perfect.items():
        assert clean[name] == pytest.approx(value, abs=1e-3), name
    for metric in METRICS:
        a, b = clean[metric.name], worse[metric.name]
        if metric.pooled or metric.name in ("f0_gross", "dnsmos_sig"):  # white noise harms neither pitch nor speech
            continue
        if metric.better == "near 1":
            a, b = -abs(a - 1), -abs(b - 1)
        assert a < b if metric.better == "lower" else a > b, metric.name
    assert worse["snr"] == pytest.approx(20 * np.log10(0.1044 / 0.02), abs=0.1)  # the clip has an RMS of 0.1044


def test_silence_has_no_voice_no_pitch_and_no_texture(wave: np.ndarray, scores: dict) -> None:
    silent = scores["silent"]
    for name in ("speaker_similarity", "f0_error", "f0_gross"):
        assert silent[name] is None
    assert silent["pesq"] is None or silent["pesq"] < 1.5
    assert silent["texture_high"] == 0
    assert silent["voicing_error"] == pytest.approx(100 * (track_pitch(wave) > 0).mean())
    assert silent["distillmos"] < 2.5
    assert silent["dnsmos_ovrl"] < 2
    assert log_mel(np.zeros(RATE, np.float32)).max() == -5


def test_delay_is_not_an_error(wave: np.ndarray, scores: dict) -> None:
    late = score(wave, np.concatenate([np.zeros(400, np.float32), wave]), "speech", ("pesq", "f0_error"))
    assert late["pesq"] == pytest.approx(scores["clean"]["pesq"], abs=0.05)
    assert late["f0_error"] < 3
    assert stft_distance(wave, wave) == 0


def harmonics(f0: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return sum(np.sin(2 * np.pi * f0 * n * t) / n for n in range(1, 12)).astype(np.float32) * np.float32(0.1)


def test_pitch_errors_are_those_of_known_tones() -> None:
    tone = harmonics(200)
    names = ("f0_error", "f0_gross", "voicing_error")
    sharp, fifth = (score(tone, harmonics(f0), "speech", names) for f0 in (210, 300))
    assert sharp["f0_error"] == pytest.approx(1200 * np.log2(210 / 200), abs=12)  # cents; the tracker's grid is 20
    assert sharp["f0_gross"] == 0
    assert fifth["f0_gross"] == 100
    assert fifth["f0_error"] is None
    half = tone.copy()
    half[RATE // 2 :] = 0
    assert score(tone, half, "speech", names)["voicing_error"] == pytest.approx(50, abs=6)


def test_texture_knows_smeared_from_rough(wave: np.ndarray) -> None:
    """The clip's bands averaged over 90 ms have little left; bands that flicker have more than the original."""
    from scipy.signal import istft, stft

    _, times, spectrum = stft(wave, RATE, nperseg=512, noverlap=352)
    smooth = np.apply_along_axis(lambda row: np.convolve(row, np.ones(9) / 9, "same"), 1, np.abs(spectrum))
    flicker = np.where(np.arange(len(times)) // 3 % 2, 2.0, 0.5)
    names = [f"texture_{name}" for name in ("low", "mid", "high")]
    for change, low, high in ((smooth / np.maximum(np.abs(spectrum), 1e-9), 0, 0.8), (flicker, 1.2, 20)):
        changed = istft(spectrum * change, RATE, nperseg=512, noverlap=352)[1][: len(wave)].astype(np.float32)
        found = score(wave, changed, "music", names)
        assert all(low < found[name] < high for name in names), found


def windows(rng: np.random.Generator, shift: float, clips: int = 40, count: int = 10) -> list[np.ndarray]:
    return [rng.normal(shift, 1, (count, 4)).astype(np.float32) for _ in range(clips)]


def test_kad_is_the_maximum_mean_discrepancy() -> None:
    rng = np.random.default_rng(1)
    x, same, far = windows(rng, 0), windows(rng, 0), windows(rng, 1)
    assert kad(x, x) == pytest.approx((0, 0, 0), abs=1e-9)
    value, low, high = kad(x, same)
    assert low < 0 < high  # as good as equal
    # Between Gaussians N(0, I) and N(1, I) of 4 dimensions, under a Gaussian kernel of width s, in closed form
    s2 = float(np.median(np.linalg.norm(np.concatenate(x)[:, None] - np.concatenate(x)[None], axis=-1))) ** 2
    equal = (s2 / (s2 + 2)) ** 2
    exact = 100 * 2 * equal * (1 - np.exp(-4 / (2 * (s2 + 2))))
    value, low, high = kad(x, far)
    assert value == pytest.approx(exact, rel=0.08)
    assert low < exact < high
    assert high - low < 0.5 * exact
    with pytest.raises(ValueError, match="at least 3 clips"):
        kad(x[:2], far[:2])


def test_kad_leaves_pairs_within_a_clip_out() -> None:
    """Against the double sum, written out, over clips of different lengths."""
    rng = np.random.default_rng(2)
    x = [rng.normal(0, 1, (n, 3)) for n in (1, 4, 2, 3)]
    y = [each + rng.normal(0, 0.5, each.shape) for each in x]
    flat = np.concatenate(x)
    far = [np.linalg.norm(a - b) for i, a in enumerate(flat) for b in flat[:i]]
    kernel = lambda a, b: np.exp(-((a - b) ** 2).sum() / (2 * np.median(far) ** 2))  # noqa: E731
    terms = [
        kernel(x[c][i], x[d][j]) + kernel(y[c][i], y[d][j]) - kernel(x[c][i], y[d][j]) - kernel(y[c][i], x[d][j])
        for c in range(4) for d in range(4) if c != d for i in range(len(x[c])) for j in range(len(x[d]))
    ]  # fmt: skip
    assert kad(x, y)[0] == pytest.approx(100 * np.mean(terms))


def test_distances_of_sets_come_with_their_windows() -> None:
    rng = np.random.default_rng(3)
    sets = {
        name: dict(zip("abc", windows(rng, shift, 3, 5), strict=True)) for name, shift in (("original", 0), ("x", 2))
    }
    sets["original"]["c"] = sets["x"]["c"] = np.zeros((0, 4))  # too short for a window
    sets["original"]["d"], sets["x"]["d"] = windows(rng, 0, 1, 7)[0], windows(rng, 2, 1, 7)[0]
    summary = [dict(codec=name, setting="-", domain="speech", metrics={}) for name in sets]
    add_distances(summary, "kad_speech", {(name, "-", "speech"): each for name, each in sets.items()})
    assert summary[0]["metrics"] == {}
    found = summary[1]["metrics"]["kad_speech"]
    assert found["windows"] == 17
    assert found["low"] < found["mean"] < found["high"]
    assert found["mean"] > 10


def test_speech_embedding_is_that_of_its_package(wave: np.ndarray) -> None:
    """Streamed through the package's own runtime, some of its windows coincide with ours."""
    from pyopen_wakeword.openwakeword import OpenWakeWordFeatures

    mine = embed_speech(wave)
    assert mine.shape[1] == 96
    assert len(mine) == 1 + (len(wave) // 160 - 79) // 38
    samples = (wave * 32767).astype("<i2").tobytes()
    theirs = np.concatenate([each[0, 0] for each in OpenWakeWordFeatures.from_builtin().process_streaming(samples)])
    match = np.corrcoef(mine, theirs)[: len(mine), len(mine) :].max(1)
    assert match.max() > 0.999
    assert match.min() > 0.9
    assert embed_speech(wave[:12000]).shape == (0, 96)


# In every Python process that has it on its path, a package looks as if it were not installed.
HIDDEN = """
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "speechmos" else real(name, *rest)
"""


@pytest.mark.slow
def test_short_clips_missing_packages_and_what_is_added_later(tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    speech = clip("speech")
    sf.write(clips / "speech_a.flac", speech[8000:40000], RATE)
    sf.write(clips / "speech_b.flac", speech[20000:50000], RATE)
    sf.write(clips / "speech_c.flac", speech[30000:62000], RATE)
    sf.write(clips / "speech_short.flac", speech[16000 : 16000 + 11200], RATE)
    sf.write(clips / "music_short.flac", clip("music")[:11200], RATE)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text(HIDDEN)
    command = ["bench", clips, "--command", "copy", "cp {in} {bits}", "cp {bits} {out}", "--out", out, "--listen", 0]

    result = aldm(*command, env={**os.environ, "PYTHONPATH": str(tmp_path / "hidden")})
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.decode().splitlines() if "DNSMOS" in line]
    assert len(lines) == 1
    assert "speechmos" in lines[0]
    assert "pip install 'aldm[bench]'" in lines[0]
    assert result.stderr.count(b"--yamnet") == 1

    def rows() -> dict[tuple[str, str], dict]:
        found = json.loads((out / "results.json").read_text())["rows"]
        return {(row["codec"], row["clip"]): row for row in found}

    first = rows()
    assert not [row for row in first.values() if row["error"]]
    assert first["copy", "speech_a"]["dnsmos_ovrl"] is None
    assert first["copy", "speech_a"]["distillmos"] > 3
    assert first["original", "speech_a"]["pesq"] is None  # nothing to compare with
    assert first["original", "speech_a"]["distillmos"] == pytest.approx(
        first["copy", "speech_a"]["distillmos"], abs=0.05
    )
    for name in ("visqol", "distillmos", "speaker_similarity"):
        assert first["copy", "speech_short"][name] is None
    assert first["copy", "music_short"]["visqol"] is None
    assert first["copy", "music_short"]["mel"] < 0.002
    assert first["copy", "speech_short"]["stoi"] == pytest.approx(1, abs=1e-3)

    result = aldm(*command)  # now with all packages
    assert result.returncode == 0, result.stderr
    second = rows()
    assert second["copy", "speech_a"]["dnsmos_ovrl"] > 2
    assert second["copy", "speech_short"]["dnsmos_ovrl"] is None
    for key, row in first.items():
        assert all(second[key][m.name] == pytest.approx(row[m.name]) for m in METRICS if row.get(m.name) is not None)
    found = json.loads((out / "results.json").read_text())
    (speech_row,) = [row for row in found["summary"] if (row["codec"], row["domain"]) == ("copy", "speech")]
    assert speech_row["metrics"]["kad_speech"]["mean"] == pytest.approx(0, abs=1e-3)
    assert speech_row["n"] == 4
    table = (out / "table.md").read_text()
    assert "KAD speech: 11 windows a set" in table
    assert "| copy | 256" in table


def test_every_metric_is_explained() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.better in ("higher", "lower", "near 1")
        assert metric.group in ("fidelity", "naturalness")
        assert metric.meaning.endswith(".")
        assert len(metric.meaning) > 25
    assert {m.name for family in FAMILIES for m in family.metrics} == {m.name for m in METRICS if not m.pooled}


def test_generations_get_worse(tmp_path: Path) -> None:
    sf.write(tmp_path / "speech_a.flac", clip("speech")[:32000], RATE)
    result = CliRunner().invoke(generations.main, [str(tmp_path), "--count", "3"])
    assert result.exit_code == 0, result.output
    header, _, *lines = result.stdout.splitlines()
    mel = [name.strip() for name in header.split("|")].index("mel")
    values = [float(line.split("|")[mel]) for line in lines]
    assert len(values) == 3
    assert 0.05 < values[0] < values[1] < values[2] < 0.4
    result = CliRunner().invoke(generations.main, [str(tmp_path / "speech_a.flac"), "--codec", "mp3"])
    assert result.exit_code == 1
    assert "no codec 'mp3'" in result.output


def test_seams_are_found_where_they_are(tmp_path: Path, wave: np.ndarray) -> None:
    click = wave.copy()
    click[16000:16400] += np.linspace(0.3, 0, 400, dtype=np.float32)
    (at, whole, elsewhere), steps = joins.seam_figures(wave, click, wave, [16000, 32000])
    assert at > 0.1
    assert whole == 0
    assert elsewhere < 0.05 * at
    assert steps[0] > 3 > steps[1]
    sf.write(tmp_path / "speech_a.flac", wave, RATE)
    result = CliRunner().invoke(joins.main, [str(tmp_path), "--piece", "1"])
    assert result.exit_code == 0, result.output
    cells = [cell.strip() for cell in result.stdout.splitlines()[2].split("|")]
    assert cells[1:4] == ["speech", "1", "2"]
    assert 0.05 < float(cells[5]) < 0.3
