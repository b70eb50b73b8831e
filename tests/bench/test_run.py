"""The benchmark on real clips: its numbers against values computed another way, and what can go wrong."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from aldm.bench.codecs import Commands, Missing, make_codec
from aldm.bench.codecs.base import nearest
from aldm.bench.codecs.opus import ogg_overhead
from aldm.bench.metrics import METRICS, align
from aldm.bench.run import bench
from aldm.bench.sources import BenchError, find_clips
from aldm.bench.statistics import interval, read_ratings, savings, summarize
from aldm.bench.tasks import Task, code, run_all
from aldm.cli.main import main
from click.testing import CliRunner
from conftest import aldm, clip

COPY = ("copy", "cp {in} {bits}", "cp {bits} {out}")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech at 16 kHz and music in stereo at 44.1 kHz, 3 s each, and a file that is no audio."""
    folder = tmp_path_factory.mktemp("clips")
    sf.write(folder / "speech_a.wav", clip("speech")[8000:56000], 16000, subtype="PCM_16")
    stereo = np.stack([clip("music")[:48000]] * 2, 1)
    sf.write(folder / "music-b.flac", soxr.resample(stereo, 16000, 44100), 44100)
    (folder / "env_broken.wav").write_bytes(b"RIFF but not really")
    return folder


@pytest.fixture(scope="module")
def results(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small benchmark by the command: this codec at two rates, one that copies, one that fails, one that lies."""
    out = tmp_path_factory.mktemp("bench") / "out"
    failing = [
        "--command", "crash", "echo first line >&2; echo what happened >&2; exit 7", "true",
        "--command", "nothing", "touch {bits}", "true",
        "--command", "noise", "cp {in} {bits}", "echo this is not audio > {out}",
    ]  # fmt: skip
    arguments = ["--codec", "aldm", "--command", *COPY, *failing, "--bitrate", "1.5,3", "--out", out, "--jobs", 2]
    result = aldm("bench", clips, *arguments)
    assert result.returncode == 3, result.stderr  # something failed, and is named
    assert b"wrote" in result.stderr
    assert b"Traceback" not in result.stderr
    return out


NAMES = ("\u4e2d" * 30, "..", "new\nline", "--help", "{in}", "x" * 250, b"caf\xe9")


def test_clips_of_any_name_are_rows(tmp_path: Path) -> None:
    folder, out = tmp_path / "clips", tmp_path / "out"
    folder.mkdir()
    for name in NAMES:
        with open(os.path.join(os.fsencode(folder), os.fsencode(name) + b".wav"), "wb") as file:
            file.write(b"RIFF but not really")
    os.mkfifo(folder / "pipe.wav")
    found = bench([folder], [Commands(*COPY)], [1], out)
    copied = {row["clip"]: row["error"] for row in found["rows"] if row["codec"] == "copy"}
    assert copied.keys() == {NAMES[0], "..", "new\\nline", "--help", "{in}", "x" * 250, "caf\\xe9", "pipe"}
    assert None not in copied.values()
    assert len(list((out / "audio").iterdir())) == len(copied)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "out"]
    sf.write(folder / f"{NAMES[0]}.wav", clip("speech")[8000:20000], 16000)
    code(task := Task(Commands(*COPY), "copy", folder / f"{NAMES[0]}.wav", "speech", "-", out))
    row = task.read()
    assert row
    assert row["error"] is None
    assert (out / row["audio"]).is_file()


def rows(out: Path) -> dict[tuple[str, str, str], dict]:
    found = json.loads((out / "results.json").read_text())["rows"]
    return {(row["codec"], row["setting"], row["clip"]): row for row in found}


@pytest.mark.slow
def test_sizes_are_those_of_files(results: Path, clips: Path, tmp_path: Path) -> None:
    for bitrate in ("1.5", "3"):
        assert aldm("encode", clips / "speech_a.wav", tmp_path / bitrate, "--bitrate", bitrate).returncode == 0
        row = rows(results)["aldm", bitrate, "speech_a"]
        assert row["bytes"] == (tmp_path / bitrate).stat().st_size
        assert row["kbps"] == pytest.approx(row["bytes"] * 8 / 3 / 1000)
        assert 0 < row["encode_rtf"] < 5
        assert 0 < row["decode_rtf"] < 5
        assert 100 < row["memory_mb"] < 2000
    assert rows(results)["copy", "-", "speech_a"]["bytes"] == 48000 * 2 + 44


def test_scores_against_other_computations(results: Path, clips: Path) -> None:
    import librosa
    from pesq import pesq
    from pystoi import stoi

    row = rows(results)["aldm", "3", "speech_a"]
    reference = sf.read(clips / "speech_a.wav", dtype="float32")[0]
    decoded = sf.read(results / row["audio"], dtype="float32")[0]
    decoded = align(reference, decoded)
    assert row["pesq"] == pytest.approx(pesq(16000, reference, decoded, "wb"), abs=1e-6)
    assert row["stoi"] == pytest.approx(stoi(reference, decoded, 16000), abs=1e-6)
    assert row["estoi"] == pytest.approx(stoi(reference, decoded, 16000, extended=True), abs=1e-6)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean((reference - decoded) ** 2)), rel=1e-4)
    assert row["correlation"] == pytest.approx(np.corrcoef(reference, decoded)[0, 1], abs=1e-5)
    assert row["snr"] == pytest.approx(10 * np.log10(np.var(reference) / np.var(reference - decoded)), abs=0.05)
    basis = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=80, htk=True, norm=None)

    def mel(wave: np.ndarray) -> np.ndarray:
        spectrum = np.abs(librosa.stft(wave, n_fft=1024, hop_length=160, pad_mode="constant")) / 512
        return np.log10(np.maximum(basis @ spectrum, 1e-5))

    assert row["mel"] == pytest.approx(np.abs(mel(reference) - mel(decoded)).mean(), rel=0.02)
    music = rows(results)["aldm", "3", "music-b"]
    assert music["domain"] == "music"
    assert music["pesq"] is None
    assert 3 < music["visqol"] < 4.75
    assert 0 < music["mel"] < 0.3


def test_a_perfect_codec_has_perfect_scores(results: Path) -> None:
    row = rows(results)["copy", "-", "speech_a"]
    assert row["pesq"] == pytest.approx(4.644, abs=0.001)
    assert row["stoi"] == pytest.approx(1, abs=1e-6)
    assert row["visqol"] > 4.3
    assert row["mel"] < 0.002
    assert row["stft"] < 0.01
    assert row["sisdr"] > 60
    assert row["snr"] > 60


def test_failures_are_rows(results: Path) -> None:
    found = rows(results)
    assert "ended with 7: what happened" in found["crash", "-", "speech_a"]["error"]
    assert "wrote nothing" in found["nothing", "-", "speech_a"]["error"]
    assert "no audio" in found["noise", "-", "music-b"]["error"]
    assert "not readable audio" in found["aldm", "3", "env_broken"]["error"]
    assert len(found) == 3 * (2 + 4 + 1)  # and the originals
    table = (results / "results.tsv").read_text().splitlines()
    assert len(table) == 1 + len(found)
    assert len({line.count("\t") for line in table}) == 1
    lines = (results / "table.md").read_text().splitlines()
    assert f"{found['aldm', '3', 'speech_a']['kbps']:.2f}" in "".join(line for line in lines if "aldm" in line)
    assert lines[-1].strip().startswith("aldm bench")
    for name in ("curves.svg", "curves.png", "report.html"):
        assert (results / name).stat().st_size > 5000


@pytest.mark.slow
def test_a_stopped_run_goes_on(results: Path, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(results, out)
    facts = [path for path in out.glob("audio/*/aldm@*.json") if path.parent.name != "env_broken"]
    before = {path: path.stat().st_mtime_ns for path in facts}
    lost = out / "audio/speech_a/aldm@3.json"
    expected = json.loads(lost.read_text())["visqol"]
    lost.unlink()
    again = bench([clips], ["aldm"], [1.5, 3], out)
    assert {path for path in facts if path.stat().st_mtime_ns != before[path]} == {lost}
    assert json.loads(lost.read_text())["visqol"] == pytest.approx(expected, abs=1e-3)
    assert len(again["rows"]) == 9


@pytest.mark.slow
def test_what_cannot_be_measured(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = {
        ("bench", tmp_path / "empty", "--out", tmp_path / "o"): b"no audio files",
        ("bench", clips, "--codec", "flac", "--out", tmp_path / "o"): b"no codec 'flac'",
        ("bench", clips, "--codec", "encodec:/nowhere", "--out", tmp_path / "o"): b"none of these codecs can run",
        ("bench", clips, "--codec", "aldm@fast", "--out", tmp_path / "o"): b"must be numbers in kbit/s",
        ("bench", clips, "--bitrate", "1,-2", "--out", tmp_path / "o"): b"above 0",
        ("bench", clips, "--codec", "aldm", "--anchor", "opus", "--out", tmp_path / "o"): b"not among the codecs",
        ("bench", clips, "--codec", "lyra", "--out", tmp_path / "o"): b"name the folder of its networks",
        ("bench", clips, "--codec", f"lyra:{clips}", "--out", tmp_path / "o"): b"soundstream_encoder.tflite",
        ("bench", clips, "--yamnet", clips / "speech_a.wav", "--out", tmp_path / "o"): b"is not a TFLite model",
        ("bench", clips, "--out", clips / "env_broken.wav"): b"is a file",
        ("analyze", clips / "env_broken.wav", "--out", tmp_path / "o"): b"not readable audio",
        ("analyze", clips / "speech_a.wav", "--model", "none", "--out", tmp_path / "o"): b"no model none",
    }
    for arguments, message in cases.items():
        result = aldm(*arguments)
        assert result.returncode in (1, 2), arguments
        assert message in result.stderr, (arguments, result.stderr)
        assert b"Traceback" not in result.stderr
    twice = ("bench", clips, "--codec", "opus@6", "--codec", "opus@6", "--out", tmp_path / "o")
    assert b"named twice" in aldm(*twice).stderr
    with pytest.raises(BenchError, match="two clips are called"):
        find_clips([clips, clips / "speech_a.wav"])


def test_ctrl_c_drops_what_waits(clips: Path, tmp_path: Path) -> None:
    tasks = [
        Task(Commands("slow", "sleep 1", "true"), "slow", clips / "speech_a.wav", "speech", str(n), tmp_path)
        for n in range(9)
    ]

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(code, tasks, 1, interrupt)
    assert sum(task.path.exists() for task in tasks) < 5


def test_missing_packages_are_named_first(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pesq" else real(name))
    for command in ("bench", "analyze"):
        result = CliRunner().invoke(main, [command, str(clips / "speech_a.wav"), "--out", str(tmp_path / "o")])
        assert result.exit_code == 1
        assert "(pesq): pip install" in result.output
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_analyze(clips: Path, tmp_path: Path) -> None:
    result = aldm("analyze", clips / "speech_a.wav", "--out", tmp_path / "a", "--bitrate", "1.5,6")
    assert result.returncode == 0, result.stderr
    stages = json.loads((tmp_path / "a/analysis.json").read_text())["stages"]
    names = [stage["stage"] for stage in stages]
    assert names[0] == "exact mel, Griffin-Lim"
    assert names[-2:] == ["1.5 kbit/s", "6 kbit/s"]
    by_name = {stage["stage"]: stage for stage in stages}
    assert by_name["autoencoder, not quantised"]["mel"] < by_name["6 kbit/s"]["mel"] < by_name["1.5 kbit/s"]["mel"]
    assert {m.name for m in METRICS if not m.pooled} < set(stages[0])
    assert len(list((tmp_path / "a").glob("*.wav"))) == len(stages) + 1
    assert (tmp_path / "a/spectrograms.png").stat().st_size > 20000


def test_intervals_and_savings() -> None:
    from scipy.stats import bootstrap

    values = list(np.random.default_rng(3).normal(3, 1, 20))
    mean, low, high = interval(values)
    expected = bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert mean == pytest.approx(np.mean(values))
    assert low == pytest.approx(expected.low, abs=0.05)
    assert high == pytest.approx(expected.high, abs=0.05)

    def row(codec: str, rate: float, visqol: float) -> dict:
        return dict.fromkeys(m.name for m in METRICS) | dict(
            codec=codec, setting=str(rate), domain="music", kbps=rate, visqol=visqol, error=None, mel=1 / visqol,
            encode_rtf=0.1, decode_rtf=0.1,
        )  # fmt: skip

    points = [(1, 2.0), (2, 3.0), (4, 3.5), (8, 4.0)]
    summary = summarize(
        [row("a", r, q) for r, q in points]
        + [row("half", r / 2, q) for r, q in points]
        + [row("bumpy", 1, 3.0), row("bumpy", 2, 2.5)]
        + [row("better", 1, 4.5), row("better", 2, 4.7)]
    )
    found = {(s["codec"], s["metric"]): s["rate_percent"] for s in savings(summary, "a")}
    assert found["half", "visqol"] == pytest.approx(-50)
    assert found["half", "mel"] == pytest.approx(-50)
    assert found["bumpy", "visqol"] is None  # rises and falls
    assert found["better", "visqol"] is None  # no quality in common


def test_ogg_overhead() -> None:
    """A file made by hand: two header packets, then audio packets of 300 and 70 bytes, one across two pages."""

    def page(*segments: int) -> bytes:
        return b"OggS" + bytes(22) + bytes([len(segments), *segments]) + bytes(sum(segments))

    pages = [page(19), page(40), page(255), page(45, 70)]
    assert ogg_overhead(b"".join(pages)) == sum(map(len, pages)) - 370


def test_settings() -> None:
    assert nearest([0.75, 1.5, 6], [1.5, 3, 6, 12]) == ["1.5", "6"]
    with pytest.raises(ValueError, match="no codec"):
        make_codec("mp3")


@pytest.mark.parametrize(
    ("name", "kbps"), [("aldm-ddcm:5", 1.0), ("aldm-both:5", 1.0), ("aldm-refine:2", 1.0), ("aldm-vq", 1.05)]
)
def test_diffusion_and_tokens_as_codecs(name: str, kbps: float, tmp_path: Path) -> None:
    codec = make_codec(name)
    wave = clip("speech")
    (setting,) = codec.settings([1.0])
    coded = codec.run(wave, setting, tmp_path)
    assert len(coded.decoded) == len(wave)
    assert coded.size is not None
    assert 0.6 * kbps < coded.size * 8 / len(wave) * 16 <= kbps
    with pytest.raises(ValueError, match="steps"):
        make_codec("aldm-ddcm:many")


@pytest.mark.parametrize("kind", ["encodec", "dac", "mimi"])
def test_codecs_of_transformers(kind: str, tmp_path: Path) -> None:
    """Real architectures with random weights, from a folder: bits and lengths do not depend on the weights."""
    import transformers as t

    if kind == "encodec":  # 75 frames a second; 1.5 kbit/s are three codebooks of 6 bits
        config = t.EncodecConfig(num_filters=4, hidden_size=16, codebook_size=64, codebook_dim=16, num_lstm_layers=1)
        model, frames, setting = t.EncodecModel(config), 75, "1.5"
    elif kind == "dac":  # 50 frames
        config = t.DacConfig(
            encoder_hidden_size=4, decoder_hidden_size=64, downsampling_ratios=[4, 8, 10], hidden_size=32,
            upsampling_ratios=[10, 8, 4], n_codebooks=4, codebook_size=64, sampling_rate=16000,
        )  # fmt: skip
        model, frames, setting = t.DacModel(config), 50, "0.9"
    else:  # 12.5 frames
        config = t.MimiConfig(
            num_filters=4, hidden_size=32, codebook_size=64, codebook_dim=16, vector_quantization_hidden_dimension=16,
            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=16, intermediate_size=32,
            num_quantizers=4, num_semantic_quantizers=1, upsample_groups=32,
        )  # fmt: skip
        model, frames, setting = t.MimiModel(config), 12.5, "0.225"
    model.save_pretrained(tmp_path / kind)
    codec = make_codec(f"{kind}:{tmp_path / kind}")
    assert setting in codec.settings([float(setting), 24])
    wave = clip("speech")[:32000]
    coded = codec.run(wave, setting, tmp_path)
    assert coded.size == pytest.approx(2 * frames * 3 * 6 / 8, abs=6)
    assert abs(len(coded.decoded) - len(wave)) < 1300
    with pytest.raises(Missing, match="neither in the cache"):
        make_codec(f"{kind}:/nowhere")


def test_ratings(tmp_path: Path) -> None:
    good = dict(rater="r", ratings=[dict(clip="a", codec="aldm", setting="1.5", score=71)])
    (tmp_path / "good.json").write_text(json.dumps(good))
    assert read_ratings([tmp_path / "good.json"]) == [dict(rater="r", **good["ratings"][0])]
    deep = '{"rater": "r", "ratings": ' + "[" * 100000 + "]" * 100000 + "}"
    for bad in (
        deep,
        "[]",
        "{",
        '{"rater": "r", "ratings": [{"clip": "a", "codec": "x", "setting": "", "score": 101}]}',
    ):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(ValueError, match="not an export of a blind session"):
            read_ratings([tmp_path / "bad.json"])
