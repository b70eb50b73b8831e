"""The log of `aldm batch`: a run goes on whatever path led to its inputs, and two runs do not meet."""

import json
import os
import shutil
from pathlib import Path

import pytest
from aldm.cli.inputs import find_inputs
from aldm.cli.run_log import locked_log, new_rows, read_log, rows_to_do
from aldm.codec import Codec
from conftest import DATA, aldm


def test_absolute_and_relative_paths_are_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("out").mkdir()
    shutil.copy(DATA / "speech.flac", "in/a.flac")
    rows = new_rows(find_inputs(("in",), None)[0], {})
    [row] = rows_to_do(rows, {}, Path("out"), False)
    Path("out/a.aldm").write_bytes(b"coded")
    with open("out/batch.jsonl", "a") as log:
        log.write(json.dumps(row | dict(bytes=5, seconds=1.0)) + "\n")
    for name in (str(tmp_path / "in"), "./in", "in/../in"):
        again = new_rows(find_inputs((name,), None)[0], {})
        assert rows_to_do(again, read_log(Path("out")), Path("out"), False) == []
        assert again[0]["skipped"]
    os.utime("in/a.flac", (1, 1))
    again = new_rows(find_inputs(("in",), None)[0], {})
    assert len(rows_to_do(again, read_log(Path("out")), Path("out"), False)) == 1


def test_a_second_run_into_a_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with locked_log(out):
        result = aldm("batch", DATA / "speech.flac", "--out", out)
    assert result.returncode == 1
    assert result.stderr.decode() == f"Error: {out}: another aldm batch is writing to this folder\n"
    assert not list(out.glob("*.aldm"))


@pytest.mark.slow
def test_a_library_with_everything_that_is_odd(tmp_path: Path, codec: Codec) -> None:
    library, out = tmp_path / "library", tmp_path / "out"
    library.mkdir()
    whole = (DATA / "speech.flac").read_bytes()
    (library / "a.flac").write_bytes(whole)
    (library / "cut.flac").write_bytes(whole[:40000])
    (library / "gone.wav").symlink_to("nowhere")
    (library / "notes.txt").write_text("no sound")
    (library / "broken.m4a").write_bytes(b"0000ftypM4A and no more")
    with open(os.fsencode(library) + b"/caf\xe9.flac", "wb") as file:
        file.write(whole)
    for number in range(2):  # the second finds nothing to do, and says the same
        result = aldm("batch", library, "--out", out, "--jobs", 1)
        said = result.stderr.decode()
        assert result.returncode == 3
        assert "Traceback" not in said
        for words in (
            "gone.wav: Broken link",
            "cut.flac: ends early",
            "1 files left out: 1 no audio: .txt",
            "broken.m4a",
        ):
            assert words in said, said
        facts = json.loads((out / "summary.json").read_text())
        assert (facts["coded"], facts["skipped"]) == ((3, 0) if number == 0 else (0, 3))
        assert (facts["failed"], facts["partial"], facts["not_audio"]) == (2, 1, 1)
    expected = codec.encode(DATA / "speech.flac")
    assert (out / "a.aldm").read_bytes() == expected
    with open(os.fsencode(out) + b"/caf\xe9.aldm", "rb") as file:
        assert file.read() == expected
