"""`aldm batch` on a library of real clips: mirrored, resumable, one bad file is not the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile as sf
from aldm.cli.inputs import find_inputs
from aldm.cli.run_log import LOG, new_rows, read_log, rows_to_do
from aldm.codec import Codec
from conftest import DATA, aldm, clip


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Six clips in two folders, two of the same stem, a broken one, and a text."""
    root = tmp_path / "library"
    (root / "talk" / "deep").mkdir(parents=True)
    for name in ("talk/a", "talk/deep/b", "music"):
        shutil.copy(DATA / "speech.flac", root / f"{name}.flac")
    sf.write(root / "talk/a.wav", clip("music")[:24000], 16000)
    sf.write(root / "talk/stereo.ogg", np.stack([clip("speech")[:20000]] * 2, 1), 16000)
    (root / "talk/broken.wav").write_bytes(b"RIFF, but not really")
    (root / "talk/notes.txt").write_text("no sound")
    return root


def summary(out: Path) -> dict[str, object]:
    return json.loads((out / "summary.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_tree_is_mirrored_and_done_once(library: Path, tmp_path: Path, codec: Codec) -> None:
    out = tmp_path / "out"
    result = aldm("batch", library, "--out", out, "--bitrate", 1, "--jobs", 2)
    assert result.returncode == 3  # one could not be coded
    assert b"broken.wav: not readable as audio" in result.stderr
    assert b"Traceback" not in result.stderr
    found = {str(p.relative_to(out)) for p in out.rglob("*.aldm")}
    assert found == {"talk/a.flac.aldm", "talk/a.wav.aldm", "talk/deep/b.aldm", "talk/stereo.aldm", "music.aldm"}
    assert (out / "music.aldm").read_bytes() == codec.encode(library / "music.flac", bitrate=1)
    facts = summary(out)
    assert (facts["files"], facts["coded"], facts["skipped"], facts["failed"]) == (6, 5, 0, 1)
    # once more: only what has changed
    changed = library / "music.flac"
    sf.write(changed, clip("environment"), 16000)
    kept = (out / "talk/deep/b.aldm").stat().st_mtime_ns
    (out / "talk/stereo.aldm").unlink()
    (library / "talk/broken.wav").unlink()
    result = aldm("batch", library, "--out", out, "--bitrate", 1)
    assert result.returncode == 0, result.stderr
    facts = summary(out)
    assert (facts["coded"], facts["skipped"], facts["failed"]) == (2, 3, 0)
    assert (out / "talk/deep/b.aldm").stat().st_mtime_ns == kept
    assert (out / "music.aldm").read_bytes() == codec.encode(changed, bitrate=1)
    # other options: everything
    assert aldm("batch", library, "--out", out, "--quality", 3).returncode == 0
    assert summary(out)["coded"] == 5


@pytest.mark.slow
def test_manifest_patterns_and_what_is_in_the_way(library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (library / "list.txt").write_text("talk/deep/b.flac\n\ntalk/nowhere.wav\n")
    (out / "talk").mkdir(parents=True)
    (out / "talk/stereo.aldm").write_text("somebody's")
    manifest = ("--manifest", library / "list.txt")
    result = aldm("batch", library / "*/st*.ogg", *manifest, library / "music.flac", "--out", out, "-q", 2)
    assert result.returncode == 3
    facts = summary(out)
    errors = {Path(e["source"]).name: e["error"] for e in facts["errors"]}  # type: ignore[attr-defined]
    assert errors.keys() == {"nowhere.wav", "stereo.ogg"}
    assert errors["nowhere.wav"] == "No such file"
    assert "exists; --force replaces it" in errors["stereo.ogg"]
    assert (out / "talk/stereo.aldm").read_text() == "somebody's"
    assert (out / "talk/deep/b.aldm").exists()
    assert (out / "music.aldm").exists()


def test_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = aldm("batch", tmp_path / "empty", "--out", tmp_path / "out")
    assert result.returncode == 1
    assert b"no audio files" in result.stderr
    assert aldm("batch", "--out", tmp_path / "out").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    library, out = tmp_path / "library", tmp_path / "out"
    library.mkdir()
    for number in range(30):
        shutil.copy(DATA / "speech.flac", library / f"{number:02}.flac")
    command = [sys.executable, "-m", "aldm.cli", "batch", str(library), "--out", str(out), "--jobs", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        while not (out / "batch.jsonl").exists() or (out / "batch.jsonl").read_text().count("\n") < 33:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, how)
        _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"Traceback" not in said
    whole = sorted(out.glob("*.aldm"))
    assert 3 <= len(whole) < 30
    assert len({p.read_bytes() for p in whole}) == 1  # none is half-written
    result = aldm("batch", library, "--out", out)
    assert result.returncode == 0, result.stderr
    facts = summary(out)
    assert facts["coded"] + facts["skipped"] == 30  # type: ignore[operator]
    assert facts["skipped"] >= 3  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="needs a small file system")
def test_full_disk(library: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(out)], capture_output=True).returncode:
        pytest.skip("cannot mount")
    try:
        result = aldm("batch", library, "--out", out, "--bitrate", 6, "--jobs", 1)
        assert result.returncode == 1
        assert b"No space left on device" in result.stderr
        assert b"Traceback" not in result.stderr
        assert not list(out.rglob(".aldm-*"))
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_lines_of_a_manifest_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    manifest = tmp_path / "list.txt"
    manifest.write_text(f"folder\nnone.wav\n{'x' * 300}.wav\n")
    folder, none, long = new_rows(find_inputs((), manifest)[0], {})
    assert long["error"] == "No such file"
    assert folder["error"].startswith("A folder")
    assert none["error"] == "No such file"
    manifest.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(click.ClickException, match=r"list.txt: not a text"):
        find_inputs((), manifest)


def test_a_name_that_leaves_no_room_for_the_suffix(tmp_path: Path) -> None:
    """Its output cannot be made; that is its row's error, and not the end of the others."""
    (tmp_path / ("x" * 251 + ".wav")).write_bytes(b"RIFF")
    rows = new_rows(find_inputs((str(tmp_path),), None)[0], {})
    assert rows_to_do(rows, {}, tmp_path, False) == rows
    assert [row["error"] for row in rows] == [None]


def test_half_a_line_in_the_log(tmp_path: Path) -> None:
    """What a full disk or a kill left of a line does not take the next one along."""
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / LOG).write_text('{"name": "b", "tar')
    rows = new_rows(find_inputs((str(tmp_path / "a.wav"),), None)[0], {})
    assert rows_to_do(rows, read_log(tmp_path), tmp_path, False) == rows
    assert [*read_log(tmp_path)] == ["a"]
