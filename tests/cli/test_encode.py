"""`aldm encode` as a user runs it: pipes, names, tags, cut inputs."""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from aldm.codec.audio.pcm import to_bytes
from aldm.codec.audio.wav import wav_header
from aldm.codec.tags import affordable_tags
from aldm.format.stream import read_stream
from conftest import DATA, aldm, clip

SPEECH = DATA / "speech.flac"
WAVE = clip("speech")[:40000]
WAV = wav_header(16000, 1, 40000) + to_bytes(WAVE[None])
CHUNK = b"_PMX" + (20000).to_bytes(4, "little") + bytes(20000)


@pytest.mark.slow
def test_files_pipes_fifos_and_dev_stdin_hold_the_same_sound(tmp_path: Path) -> None:
    """The same packets, whether the length was known or not."""
    data = WAV + CHUNK
    (tmp_path / "x.wav").write_bytes(data)
    os.mkfifo(tmp_path / "fifo")
    writer = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=(data,))
    writer.start()
    results = [
        aldm("encode", tmp_path / "x.wav", "-", "-q", 20),
        aldm("encode", tmp_path / "fifo", "-", "-q", 20),
        aldm("encode", "-", "-", "-q", 20, stdin=data),
        aldm("encode", "/dev/stdin", "-", "-q", 20, stdin=data),
    ]
    writer.join()
    streams = [read_stream(result.stdout) for result in results]
    assert {stream.samples for stream in streams} == {40000}
    assert len({tuple(p.payload for p in stream.packets.values()) for stream in streams}) == 1


@pytest.mark.slow
def test_a_pipe_of_what_must_be_read_whole(tmp_path: Path) -> None:
    data = aldm("encode", SPEECH, "-").stdout
    script = f"cat {SPEECH} | {sys.executable} -m aldm.cli encode /dev/stdin -"
    assert subprocess.run(["bash", "-c", script], capture_output=True).stdout == data
    script = f"{sys.executable} -m aldm.cli encode <(cat {SPEECH}) -"
    assert subprocess.run(["bash", "-c", script], capture_output=True).stdout == data


@pytest.mark.slow
def test_names(tmp_path: Path) -> None:
    shutil.copy(SPEECH, tmp_path / "talk.flac")
    assert aldm("encode", "talk.flac", cwd=tmp_path).returncode == 0
    (tmp_path / "folder").mkdir()
    assert aldm("decode", "talk.aldm", "folder", cwd=tmp_path).returncode == 0
    assert sf.info(tmp_path / "folder/talk.wav").frames == sf.info(SPEECH).frames
    result = aldm("encode", "talk.flac", "b.mp3", cwd=tmp_path)
    assert result.returncode == 2
    assert b"aldm batch" in result.stderr
    result = aldm("encode", "talk.flac", "talk.flac", "--force", cwd=tmp_path)
    assert result.returncode == 2
    assert (tmp_path / "talk.flac").read_bytes() == SPEECH.read_bytes()
    (tmp_path / "link.aldm").symlink_to("talk.flac")
    result = aldm("encode", "talk.flac", "link.aldm", "--force", cwd=tmp_path)
    assert (result.returncode, b"same file" in result.stderr) == (2, True)
    assert (tmp_path / "talk.flac").read_bytes() == SPEECH.read_bytes()


@pytest.mark.slow
def test_a_cut_pipe(tmp_path: Path) -> None:
    result = aldm("encode", "-", tmp_path / "x.aldm", stdin=WAV[:40000])
    assert result.returncode == 3
    assert b"standard input: ends early: 1.25 of 2.50 s are there" in result.stderr
    assert read_stream((tmp_path / "x.aldm").read_bytes()).samples == (40000 - 44) // 2
    result = aldm("encode", "-", tmp_path / "y.aldm", "--strict", stdin=WAV[:40000])
    assert (result.returncode, (tmp_path / "y.aldm").exists()) == (1, False)


@pytest.mark.slow
def test_tags_never_eat_the_sound(tmp_path: Path) -> None:
    with sf.SoundFile(tmp_path / "x.flac", "w", 16000, 1) as file:
        file.title, file.comment = "A", "x" * 800
        file.write(np.tile(clip("speech"), 4))
    result = aldm("encode", tmp_path / "x.flac", "-b", 1.5)
    assert result.returncode == 0
    assert b"COMMENT (808 bytes)" in result.stderr
    stream = read_stream((tmp_path / "x.aldm").read_bytes())
    assert stream.comments == ["TITLE=A"]
    plain = aldm("encode", tmp_path / "x.flac", "-", "-b", 1.5, "--no-tags").stdout
    assert stream.header.quality >= read_stream(plain).header.quality - 1
    by_hand = aldm("encode", tmp_path / "x.flac", "-", "-b", 1.5, "--no-tags", "--tag", "COMMENT=" + "x" * 800).stdout
    assert read_stream(by_hand).comments == ["COMMENT=" + "x" * 800]
    assert len(by_hand) * 8 <= 1500 * len(clip("speech")) * 4 / 16000


def test_affordable_tags() -> None:
    tags = ["TITLE=a", "COMMENT=" + "x" * 500, "ARTIST=b", "ALDM_MODEL=somebody's"]
    assert affordable_tags(tags, None, 1) == (tags[:3], [])
    assert affordable_tags(tags, 1.5, 10) == (["TITLE=a", "ARTIST=b"], [tags[1]])
    assert affordable_tags(tags, 1.5, 600) == (tags[:3], [])


@pytest.mark.slow
def test_messages(tmp_path: Path) -> None:
    sf.write(tmp_path / "quiet.wav", np.zeros(32000), 16000)
    result = aldm("encode", tmp_path / "quiet.wav", "-b", 6)
    assert b"this is the finest quality" in result.stderr
    result = aldm("encode", SPEECH, tmp_path / "x.aldm", "-b", 1.5)
    assert re.search(rb"x\.aldm: .* \d+\.\dx real time", result.stderr)
    result = aldm("encode", SPEECH, tmp_path / "x.aldm", "-b", 0.1, "--force", "--quiet")
    assert (result.returncode, result.stderr) == (0, b"")
    result = aldm("encode", SPEECH, tmp_path / "x.aldm", "--force", "--verbose")
    assert b"model base, device cpu" in result.stderr
    (tmp_path / "bad.wav").write_text("no sound")
    assert b"bad.wav: not readable as audio" in aldm("encode", tmp_path / "bad.wav").stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [b"caf\xe9.flac", b"new\nline.flac"])
def test_odd_names(tmp_path: Path, name: bytes) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    shutil.copy(SPEECH, path)
    result = aldm("encode", path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count(b"\n") == 1
    assert Path(path).with_suffix(".aldm").exists()
