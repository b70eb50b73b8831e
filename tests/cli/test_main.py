"""The command as a user runs it: pipes, overwriting, damage, and one clear line for everything that is wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from aldm.codec import Codec
from aldm.codec.errors import ModelError
from aldm.format import FormatError, Header
from aldm.format import container as c
from aldm.format.stream import read_stream
from conftest import DATA, aldm

SPEECH = DATA / "speech.flac"


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The speech clip, two packets."""
    path = tmp_path_factory.mktemp("cli") / "speech.aldm"
    assert aldm("encode", SPEECH, path, "-b", 1.5, "--packet", 2.08).returncode == 0
    return path


def refused(result: subprocess.CompletedProcess[bytes], *words: str, code: int = 1) -> None:
    """One line on stderr that says what is wrong, and no traceback."""
    message = result.stderr.decode()
    assert result.returncode == code, message
    assert "Traceback" not in message
    assert len(message.strip().splitlines()) == 1, message
    for word in words:
        assert word in message, message


def refused_usage(result: subprocess.CompletedProcess[bytes], *words: str) -> None:
    """Exit code 2, and the words."""
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr.decode()


@pytest.mark.slow
def test_encode_info_decode(encoded: Path, tmp_path: Path) -> None:
    facts = json.loads(aldm("info", encoded, "--json").stdout)
    assert (facts["channels"], facts["sample_rate"], facts["samples"]) == (1, 16000, sf.info(SPEECH).frames)
    assert facts["bytes"]["file"] == encoded.stat().st_size
    assert sum(facts["bytes"][k] for k in ("header", "framing", "payload")) == encoded.stat().st_size
    assert facts["kbps"] <= 1.5
    assert facts["model_name"]
    assert facts["model_name"].encode() in aldm("info", encoded).stdout
    result = aldm("decode", encoded, tmp_path / "out.wav")
    assert result.returncode == 0
    assert b"16000 Hz" in result.stderr
    assert sf.info(tmp_path / "out.wav").frames == sf.info(SPEECH).frames


@pytest.mark.slow
def test_original_rate_and_other_containers(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, (30001, 2))
    sf.write(tmp_path / "in.wav", wave, 44100)
    assert aldm("encode", tmp_path / "in.wav", tmp_path / "x.aldm", "--quality", 5).returncode == 0
    assert aldm("decode", tmp_path / "x.aldm", tmp_path / "out.flac", "--original-rate").returncode == 0
    info = sf.info(tmp_path / "out.flac")
    assert (info.format, info.samplerate, info.channels, info.frames) == ("FLAC", 44100, 2, 30001)
    refused_usage(aldm("decode", tmp_path / "x.aldm", tmp_path / "out.txt"), ".txt", ".wav", "ffmpeg")


@pytest.mark.slow
def test_pipes(encoded: Path) -> None:
    data = aldm("encode", "-", "-", "-b", 1.5, "--packet", 2.08, stdin=SPEECH.read_bytes()).stdout
    assert data == encoded.read_bytes()
    wave = aldm("decode", "-", "-", stdin=data).stdout
    assert wave[:4] == b"RIFF"
    assert aldm("info", "-", stdin=data).returncode == 0


@pytest.mark.slow
def test_part(encoded: Path, tmp_path: Path) -> None:
    assert aldm("decode", encoded, tmp_path / "p.wav", "--start", 1, "--duration", 0.5).returncode == 0
    assert sf.info(tmp_path / "p.wav").frames == 8000
    refused(aldm("decode", encoded, tmp_path / "q.wav", "--start", 100), "nothing to decode", "speech.aldm", code=2)


def test_existing_output_is_kept_unless_forced(encoded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    out.write_bytes(b"precious")
    refused(aldm("decode", encoded, out), "exists", "--force")
    assert out.read_bytes() == b"precious"
    refused(aldm("decode", SPEECH, out, "--force"), "not an .aldm file")
    assert out.read_bytes() == b"precious"
    assert aldm("decode", encoded, out, "--force").returncode == 0
    assert sf.info(out).frames == sf.info(SPEECH).frames


def test_a_link_stays_a_link(encoded: Path, tmp_path: Path) -> None:
    (tmp_path / "link.wav").symlink_to("real.wav")
    assert aldm("decode", encoded, tmp_path / "link.wav").returncode == 0
    assert (tmp_path / "link.wav").is_symlink()
    assert sf.info(tmp_path / "real.wav").frames == sf.info(SPEECH).frames
    refused(aldm("decode", encoded, tmp_path / "link.wav"), "exists")


@pytest.mark.slow
def test_devices(encoded: Path) -> None:
    assert aldm("decode", encoded, "/dev/null").returncode == 0
    assert aldm("decode", encoded, "/dev/stdout").stdout[:4] == b"RIFF"


def write(path: Path, content: bytes | np.ndarray, subtype: str = "FLOAT") -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        sf.write(path, content, 16000, subtype=subtype)
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"this is text, not sound" * 99, ["not readable as audio"]),
        (b"", ["not readable as audio"]),
        (np.zeros(0), ["empty"]),
        (np.array([0.1, np.nan, 0.2]), ["NaN"]),
        (np.array([0.1, np.inf, 0.2]), ["NaN"]),
    ],
)
def test_bad_audio(tmp_path: Path, content: bytes | np.ndarray, words: list[str]) -> None:
    source = write(tmp_path / "in.wav", content)
    refused(aldm("encode", source, tmp_path / "out.aldm"), *words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.wav"]  # nothing half-written, nothing left over


def test_truncated_audio(tmp_path: Path) -> None:
    source = write(tmp_path / "in.flac", SPEECH.read_bytes()[:30000])
    refused(aldm("encode", source, tmp_path / "out.aldm", "--strict"), "in.flac", "ends early", "--strict")
    assert not (tmp_path / "out.aldm").exists()
    result = aldm("encode", source, tmp_path / "out.aldm")
    assert result.returncode == 3
    assert b"in.flac: ends early" in result.stderr
    assert 0 < read_stream((tmp_path / "out.aldm").read_bytes()).samples < sf.info(SPEECH).frames


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 100, 433])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_tiny_and_silent_audio(tmp_path: Path, samples: int, value: float) -> None:
    source = write(tmp_path / "in.wav", np.full(samples, value))
    assert aldm("encode", source, tmp_path / "x.aldm").returncode == 0
    assert aldm("decode", tmp_path / "x.aldm", tmp_path / "out.wav").returncode == 0
    assert sf.info(tmp_path / "out.wav").frames == samples


def test_missing_files_and_folders(tmp_path: Path, encoded: Path) -> None:
    refused(aldm("encode", tmp_path / "no.wav", tmp_path / "x.aldm"), "no.wav", "No such file")
    refused(aldm("decode", tmp_path / "no.aldm", tmp_path / "x.wav"), "no.aldm", "No such file")
    refused(aldm("info", tmp_path / "no.aldm"), "no.aldm", "No such file")
    refused(aldm("encode", SPEECH, tmp_path / "no" / "x.aldm"), "No such file")
    refused(aldm("encode", tmp_path, tmp_path / "x.aldm"), "Is a directory")


@pytest.mark.slow
def test_usage(tmp_path: Path) -> None:
    assert aldm("encode", SPEECH, tmp_path / "x", "-b", 1, "-q", 3).returncode == 2
    refused(aldm("encode", SPEECH, tmp_path / "x", "-q", 1000), "quality 0 to", code=2)
    assert aldm("encode", SPEECH, tmp_path / "x", "-b", 0).returncode == 2
    assert aldm("encode", SPEECH, tmp_path / "x", "--packet", 60).returncode == 2
    refused(aldm("encode", SPEECH, tmp_path / "x", "--model", "nonsense"), "no model nonsense", "klt")
    assert not (tmp_path / "x").exists()


def test_a_bitrate_out_of_reach_is_said(tmp_path: Path) -> None:
    result = aldm("encode", SPEECH, tmp_path / "x.aldm", "-b", 0.01)
    assert result.returncode == 0
    assert b"cannot reach 0.01 kbit/s" in result.stderr


def test_wrong_model_and_newer_version(encoded: Path, tmp_path: Path) -> None:
    data = encoded.read_bytes()
    header = Header.parse(data)
    other = Header(**{**vars(header), "model": b"\xde\xad\xbe\xef"})
    refused(aldm("decode", write(tmp_path / "m.aldm", other.pack() + data[24:]), tmp_path / "x.wav"), "model deadbeef")
    newer = Header(**{**vars(header), "version": (c.MAJOR + 1, 0)})
    refused(aldm("decode", write(tmp_path / "v.aldm", newer.pack() + data[24:]), tmp_path / "x.wav"), "version")
    assert not (tmp_path / "x.wav").exists()


@pytest.mark.slow
def test_damage(encoded: Path, tmp_path: Path) -> None:
    data = bytearray(encoded.read_bytes())
    data[-20] ^= 4
    source, out = write(tmp_path / "d.aldm", bytes(data)), tmp_path / "x.wav"
    refused(aldm("decode", source, out, "--strict"), "damaged")
    assert not out.exists()
    result = aldm("decode", source, out)
    assert result.returncode == 3
    assert b"1 packets decoded" in result.stderr
    assert b"Traceback" not in result.stderr
    assert sf.info(out).frames == sf.info(SPEECH).frames
    result = aldm("info", source)
    assert result.returncode == 3
    assert b"damage" in result.stdout


@pytest.mark.slow
def test_every_truncation_and_flip_ends_well(short_packets: Codec) -> None:
    """At every byte, in one process: the library behind the command raises its own errors and nothing else."""
    wave = sf.read(SPEECH, dtype="float32")[0]
    data = short_packets.encode(wave, 16000, quality=2)
    cuts = [data[:n] for n in range(len(data))]
    flips = [data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :] for i in range(len(data))]
    for broken in cuts + flips:
        try:
            decoder = short_packets.decoder(broken)
            blocks = list(decoder.blocks(False, 0.0, 0.01))
        except (FormatError, ModelError):
            continue
        assert sum(b.shape[1] for b in blocks) == 160
        assert decoder.damage or read_stream(broken).damage  # a part is read no further than it goes


@pytest.mark.slow
def test_full_disk(tmp_path: Path, encoded: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    refused(aldm("encode", SPEECH, tmp_path / "x.aldm", preexec_fn=limit))
    refused(aldm("decode", encoded, tmp_path / "x.wav", preexec_fn=limit))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_leaves_nothing(tmp_path: Path, stop: signal.Signals) -> None:
    sf.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, 16000 * 900), 16000)
    command = [sys.executable, "-m", "aldm.cli", "encode", "long.wav", "x.aldm", "-b", "1.5"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".aldm-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(stop)
    assert b"Traceback" not in process.communicate()[1]
    assert process.returncode != 0
    assert [p.name for p in tmp_path.iterdir()] == ["long.wav"]


def test_help_and_info_start_without_torch_and_numpy(encoded: Path) -> None:
    script = (
        "import sys; from click.testing import CliRunner; from aldm.cli.main import main\n"
        f"assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        f"assert CliRunner().invoke(main, ['info', {str(encoded)!r}]).exit_code == 0\n"
        "assert not {'torch', 'diffusers', 'transformers', 'soundfile', 'numpy'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_shell_completion() -> None:
    environment = {**os.environ, "_ALDM_COMPLETE": "bash_source"}
    executable = Path(sys.executable).with_name("aldm")
    assert b"complete" in subprocess.run([executable], env=environment, capture_output=True).stdout
