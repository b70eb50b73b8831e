"""Outputs that replace nothing they must not, and leave nothing behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from aldm.cli.files import output_file, remove_stale
from aldm.cli.names import check_encoded_name, check_sound_name, output_name
from conftest import DATA


def test_the_input_is_never_replaced(tmp_path: Path) -> None:
    original = tmp_path / "a.wav"
    original.write_bytes(b"precious")
    (tmp_path / "soft.aldm").symlink_to("a.wav")
    os.link(original, tmp_path / "hard.aldm")
    os.chdir(tmp_path)
    for name in ("a.wav", "./a.wav", str(original), "soft.aldm", "hard.aldm"):
        with open(original, "rb") as source, pytest.raises(click.UsageError, match="same file"):  # noqa: SIM117
            with output_file(name, force=True, source=source):
                pass
    assert original.read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "hard.aldm", "soft.aldm"]


def test_files_of_killed_runs_are_removed_and_those_of_others_are_not(tmp_path: Path) -> None:
    script = (
        "import sys, time; from aldm.cli.files import output_file\n"
        "with output_file(sys.argv[1], False) as out:\n"
        "    out.write(b'half'); out.flush(); print('ready', flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.aldm")]
    old = time.time() - 600
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        [left] = tmp_path.iterdir()
        os.utime(left, (old, old))
        (tmp_path / ".aldm-notes").write_text("a user's")
        os.utime(tmp_path / ".aldm-notes", (old, old))
        remove_stale(tmp_path)
        assert left.exists()  # it is still being written
        process.kill()
    with output_file(str(tmp_path / "y.aldm"), False) as out:
        out.write(b"whole")
    assert sorted(os.listdir(tmp_path)) == [".aldm-notes", "y.aldm"]


def test_names_of_outputs(tmp_path: Path) -> None:
    assert output_name("talk.wav", None, ".aldm") == "talk.aldm"
    assert output_name("in/talk.aldm", None, ".wav") == "in/talk.wav"
    assert output_name("talk 2.1", None, ".aldm") == "talk 2.1.aldm"
    assert output_name("in/talk.wav", str(tmp_path), ".aldm") == str(tmp_path / "talk.aldm")
    assert output_name("talk.wav", "x", ".aldm") == "x"
    assert output_name("-", "-", ".aldm") == "-"
    for pipe in ("-", "/dev/stdin"):
        with pytest.raises(click.UsageError, match="name OUT"):
            output_name(pipe, None, ".aldm")
    for name in ("x.aldm", "x", "-", "x.part", "/dev/null"):
        check_encoded_name(name, "a.wav")
    for name in ("b.mp3", "b.WAV", "b.m4a"):
        with pytest.raises(click.UsageError, match="aldm batch"):
            check_encoded_name(name, "a.wav")
    for name in ("x.wav", "x", "-", "x.FLAC", "/dev/stdout"):
        check_sound_name(name)
    for name in ("x.m4a", "x.aldm", "x.txt"):
        with pytest.raises(click.UsageError, match=r"\.flac.* ffmpeg -i - OUT\."):
            check_sound_name(name)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("decode {file} - >&-", 1, "Error: standard output is closed\n"),
        ("encode {sound} - >&-", 1, "Error: standard output is closed\n"),
        ("decode - x.wav <&-", 1, "Error: standard input is closed\n"),
        ("info {file} >&-", 0, ""),
        ("info nothing.aldm 2>&-", 1, ""),
    ],
)
def test_standard_streams_that_the_shell_closed(command: str, code: int, said: str, tmp_path: Path) -> None:
    file = Path(__file__).parents[1] / "golden/valid/one-sample.aldm"
    command = command.format(file=file, sound=DATA / "speech.flac")
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m aldm.cli {command}"], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr.decode()) == (code, said)
    assert not list(tmp_path.iterdir())
