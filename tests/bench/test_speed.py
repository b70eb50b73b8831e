"""The programs that measure speed and growth run, and what they print adds up."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from aldm.bench import growth, latency, speed
from click.testing import CliRunner
from conftest import DATA, clip


@pytest.mark.slow
def test_speed_side_by_side() -> None:
    result = CliRunner().invoke(
        speed.main, [str(DATA / "speech.flac"), "--seconds", "2", "--repeats", "1", "--jobs", "1"]
    )
    assert result.exit_code == 0, result.output
    rows = {m[1]: float(m[2]) for m in re.finditer(r"^\| ([^|]+) \|(?:.*\|)? ([\d.]+) \|$", result.output, re.M)}
    assert rows["encodec, 6.0 kbit/s"] == 1
    assert {"aldm, 1.5 kbit/s", "dac, 6.0 kbit/s", "mimi, 1.1 kbit/s"} <= rows.keys()
    assert rows["decode: Griffin-Lim"] > 0
    encode, decode = re.search(r"^1 processes at once: encode ([\d.]+), decode ([\d.]+)$", result.output, re.M).groups()  # type: ignore[union-attr]
    assert 0 < float(decode) < 1
    assert 0 < float(encode) < 5


@pytest.mark.slow
def test_growth(tmp_path: Path) -> None:
    options = ["--out", str(tmp_path), "--minutes", "0.05,0.1", "--files", "2,3", "--jobs", "1"]
    result = CliRunner().invoke(growth.main, [str(DATA / "speech.flac"), *options])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "growth.json").read_text())
    assert [row["minutes"] for row in found["lengths"]] == [0.05, 0.1]
    assert 1.8 < found["lengths"][1]["bytes"] / found["lengths"][0]["bytes"] < 2.2
    assert [row["files"] for row in found["libraries"]] == [2, 3]
    assert (tmp_path / "growth.png").stat().st_size > 5000


@pytest.mark.slow
def test_latency(tmp_path: Path) -> None:
    sf.write(tmp_path / "clip.wav", clip("speech")[:32000], 16000)
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(latency.main, [str(tmp_path / "empty")])
    assert result.exit_code == 1, result.output
    assert "no audio files" in result.output
    result = CliRunner().invoke(latency.main, [str(tmp_path / "clip.wav")])
    assert result.exit_code == 0, result.output
    rows = [
        [float(n) for n in line.strip("| ").split(" | ")] for line in result.output.splitlines() if line[2:3].isdigit()
    ]
    packets, seconds, plain, bits = np.transpose(rows)[:4]
    assert (plain < seconds).all()
    assert (packets < plain).all()
    assert bits[0] == 1
    assert 1.1 < bits[-1] < 2
