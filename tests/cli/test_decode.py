"""Sound goes out unclipped, in the asked format, to files, pipes and players."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from aldm.codec import Codec
from conftest import DATA, aldm, clip


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory, codec: Codec) -> tuple[Path, np.ndarray]:
    """A file whose sound goes beyond full scale, and that sound."""
    wave = clip("music")[:48000]
    data = codec.encode((wave / np.abs(wave).max()).clip(-0.5, 0.5) * 2, 16000, bitrate=3)
    path = tmp_path_factory.mktemp("loud") / "loud.aldm"
    path.write_bytes(data)
    sound = codec.decode(data)
    assert np.abs(sound).max() > 1.02
    return path, sound


@pytest.mark.slow
def test_sound_beyond_full_scale(loud: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, sound = loud
    result = aldm("decode", path, tmp_path / "limited.wav")
    assert result.returncode == 0
    assert b"above full scale were limited" in result.stderr
    limited = sf.read(tmp_path / "limited.wav", dtype="float32")[0]
    clipped = 0
    for options, name in ((["--float"], "float.wav"), (["--no-limiter"], "clipped.wav")):
        result = aldm("decode", path, tmp_path / name, *options)
        assert b"limited" not in result.stderr
        found = sf.read(tmp_path / name, dtype="float32")[0]
        if name == "float.wav":
            np.testing.assert_array_equal(found, sound[0])
        else:
            np.testing.assert_allclose(found, sound[0].clip(-1, 1), atol=1e-4)
            clipped = int((np.abs(found) > 0.9999).sum())
    assert int((np.abs(limited) > 0.9999).sum()) < clipped
    assert len(limited) == sound.shape[1]
    piped = sf.read(io.BytesIO(aldm("decode", path, "-").stdout), dtype="float32")[0]
    np.testing.assert_array_equal(piped, limited)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "subtype"),
    [
        ("x.wav", [], "PCM_16"),
        ("x.wav", ["--bits", "24"], "PCM_24"),
        ("x.wav", ["--float"], "FLOAT"),
        ("x.flac", ["--bits", "24"], "PCM_24"),
        ("x.mp3", [], "MPEG_LAYER_III"),
        ("x.opus", [], "OPUS"),
    ],
)
def test_sample_formats(
    loud: tuple[Path, np.ndarray], tmp_path: Path, name: str, options: list[str], subtype: str
) -> None:
    assert aldm("decode", loud[0], tmp_path / name, *options).returncode == 0
    assert sf.info(tmp_path / name).subtype == subtype
    if name == "x.wav":
        piped = aldm("decode", loud[0], "-", *options).stdout
        assert sf.info(io.BytesIO(piped)).subtype == subtype
        np.testing.assert_array_equal(sf.read(io.BytesIO(piped))[0], sf.read(tmp_path / name)[0])


@pytest.mark.slow
def test_formats_that_hold_no_such_samples(loud: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    for name, option in (("x.flac", "--float"), ("x.mp3", "--float")):
        result = aldm("decode", loud[0], tmp_path / name, option)
        assert result.returncode == 1
        assert b"no float samples" in result.stderr
        assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_play(loud: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    result = aldm("play", loud[0], "--player", f"tee {tmp_path}/heard.wav", "--start", 1, "--duration", 0.5)
    assert result.returncode == 0
    assert sf.info(tmp_path / "heard.wav").frames == 8000
    result = aldm("play", loud[0], "--player", f"cp {{}} {tmp_path}/again.wav", "--start", 1, "--duration", 0.5)
    assert result.returncode == 0
    np.testing.assert_array_equal(sf.read(tmp_path / "again.wav")[0], sf.read(tmp_path / "heard.wav")[0])
    result = aldm("play", loud[0], "--player", "false")
    assert (result.returncode, b"false failed with exit code 1" in result.stderr) == (1, True)
    result = aldm("play", loud[0], "--player", "head -c 10")  # closed in the middle
    assert (result.returncode, result.stderr) == (0, b"")
    environment = {**os.environ, "PATH": str(tmp_path)}
    result = aldm("play", loud[0], env=environment)
    assert result.returncode == 1
    assert b"--player" in result.stderr


@pytest.mark.slow
def test_convert_is_encode_and_decode(tmp_path: Path) -> None:
    source = DATA / "speech.flac"
    assert aldm("encode", source, tmp_path / "x.aldm", "-b", 0.75).returncode == 0
    assert aldm("decode", tmp_path / "x.aldm", tmp_path / "x.wav").returncode == 0
    result = aldm("convert", source, tmp_path / "y.wav", "-b", 0.75)
    assert result.returncode == 0
    assert b"kbit/s" in result.stderr
    assert (tmp_path / "y.wav").read_bytes() == (tmp_path / "x.wav").read_bytes()
    facts = json.loads(aldm("info", tmp_path / "x.aldm", "--json").stdout)
    assert f"{facts['kbps']:.3f} kbit/s".encode() in result.stderr
    result = aldm("convert", source, source, "--force")
    assert result.returncode == 2


def test_max_duration(loud: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """A small file that claims much sound cannot fill a disk."""
    result = aldm("decode", loud[0], tmp_path / "out.wav", "--max-duration", "0.0005")
    assert result.returncode == 2
    assert b"larger maximum duration" in result.stderr
    assert not (tmp_path / "out.wav").exists()
