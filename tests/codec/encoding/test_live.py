"""Sound that comes and goes through pipes while it is being made."""

import io
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from aldm.codec import Codec
from aldm.codec.audio.pcm import Format, to_bytes
from aldm.codec.audio.wav import WavHeader, WavSamples, read_wav_header, wav_header
from aldm.codec.encoding.live import END_BYTES, LiveEncoder
from aldm.codec.errors import AudioError
from aldm.format.container import HEADER_SIZE, Header
from aldm.format.stream import read_stream
from conftest import DATA, DOMAINS, aldm, clip
from hypothesis import given, settings
from hypothesis import strategies as st

COMMAND = [sys.executable, "-m", "aldm.cli"]


@pytest.fixture(scope="module")
def quick() -> Codec:
    return Codec.from_pretrained(packet_seconds=0.64)


def push(encoder: LiveEncoder, wave: np.ndarray, size: int) -> list[bytes]:
    """What comes out for each block that goes in, and at the end."""
    return [encoder.push(wave[..., i : i + size]) for i in range(0, wave.shape[-1], size)] + [encoder.flush()]


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 30000), samples=st.integers(1, 40000))
def test_bytes_are_those_of_a_file_however_blocks_are_cut(quick: Codec, size: int, samples: int) -> None:
    wave = clip("music")[:samples]
    data = b"".join(push(quick.stream(16000, quality=10), wave, max(size, samples // 50)))
    assert data[HEADER_SIZE:-END_BYTES] == quick.encode(wave, 16000, quality=10)[HEADER_SIZE:]
    assert Header.parse(data).samples is None
    assert read_stream(data).samples == samples


def test_other_rates_and_stereo(quick: Codec) -> None:
    wave = np.stack([clip("speech")[:60000], clip("music")[:60000]])
    data = b"".join(push(quick.stream(44100, 2, quality=12, comments=["A=b"]), wave, 3001))
    assert data[HEADER_SIZE:-END_BYTES] == quick.encode(wave, 44100, quality=12, comments=["A=b"])[HEADER_SIZE:]
    assert quick.decode(data, original_rate=True, strict=True).shape == wave.shape


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 10, 1500])
@pytest.mark.parametrize("bitrate", [0.9, 1.5, 4.0])
def test_a_stream_stays_under_its_bitrate_all_the_time(quick: Codec, bitrate: float, left: int) -> None:
    wave = np.concatenate([clip(name) for name in DOMAINS])
    wave = wave[: len(wave) // 5120 * 5120 - 5120 + left]
    encoder = quick.stream(16000, bitrate=bitrate)
    size, pieces = 0, list(push(encoder, wave, 1600))
    for number, data in enumerate(pieces):
        size += len(data)
        if size > HEADER_SIZE:
            assert size * 8 / 1000 <= bitrate * min((number + 1) * 0.1, len(wave) / 16000)
    seconds = len(wave) / 16000
    assert size == encoder.bytes
    assert size * 8 / 1000 > 0.9 * bitrate * seconds
    qualities = {p.quality for p in read_stream(b"".join(pieces)).packets.values()}
    assert len(qualities) > 3  # each as good as it can be


def test_what_cannot_be_pushed(quick: Codec) -> None:
    encoder = quick.stream(16000)
    with pytest.raises(AudioError, match=r"\[1, n\]"):
        encoder.push(np.zeros((2, 100)))
    with pytest.raises(AudioError, match="NaN"):
        encoder.push(np.full(100, np.nan))
    with pytest.raises(AudioError, match="empty"):
        encoder.flush()
    with pytest.raises(ValueError, match="bitrate"):
        quick.stream(16000, bitrate=0)


def test_decoding_while_it_is_written() -> None:
    """A decoder at the other end of a pipe gives every packet, but its last 160 ms, as soon as it is there."""
    quick = Codec.from_pretrained(packet_seconds=0.64, vocoder="griffin-lim")
    wave = clip("speech")[:48000]
    pieces = push(quick.stream(16000, quality=12), wave, 1600)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb", 0) as sink:
        sink.write(pieces[0])
        decoder = quick.decoder(source)
        blocks = decoder.blocks()
        got = written = 0
        for number, piece in enumerate(pieces[1:-1], 2):
            sink.write(piece)
            if piece:
                got += next(blocks).shape[1]
                written += 1
                assert got == written * 10240 - 2560 - quick.model.mel.pad
                assert number * 1600 < written * 10240 + 4 * 1600
        assert written == 4
        sink.write(pieces[-1])
        sink.close()
        got += sum(block.shape[1] for block in blocks)
    assert got == len(wave)
    assert not decoder.damage


@pytest.mark.slow
def test_filters(tmp_path: Path) -> None:
    """WAV of unknown length in, packets out before the input ends; and back."""
    wave = np.concatenate([clip("speech"), clip("music")])[:96000]
    encoder = subprocess.Popen([*COMMAND, "encode", "-", "-", "--packet", "2"], stdin=-1, stdout=-1, stderr=-1)
    decoder = subprocess.Popen([*COMMAND, "decode", "-", "-"], stdin=encoder.stdout, stdout=-1, stderr=-1)
    assert encoder.stdin
    assert decoder.stdout
    encoder.stdin.write(wav_header(16000, 1, None) + to_bytes(wave[None, :64000]))
    encoder.stdin.flush()
    start = decoder.stdout.read(44 + 2 * 16000)  # arrives while the encoder waits for more
    encoder.stdin.write(to_bytes(wave[None, 64000:]))
    encoder.stdin.close()
    data = start + decoder.stdout.read()
    assert (decoder.wait(), encoder.wait()) == (0, 0)
    decoded = np.frombuffer(data[44:], "<i2") / 32768
    assert len(decoded) == len(wave)
    assert data[:44] == wav_header(16000, 1, None)
    envelopes = [np.abs(x).reshape(-1, 1600).mean(1) for x in (wave, decoded)]
    assert np.corrcoef(envelopes)[0, 1] > 0.9


def test_a_killed_writer_leaves_its_whole_packets(tmp_path: Path) -> None:
    out = tmp_path / "out.aldm"
    with open(out, "wb") as file:
        encoder = subprocess.Popen([*COMMAND, "encode", "-", "-", "--packet", "0.64"], stdin=-1, stdout=file)
        assert encoder.stdin
        encoder.stdin.write(wav_header(16000, 1, None) + to_bytes(clip("speech")[None, :40000]))
        encoder.stdin.flush()
        while out.stat().st_size < 200:
            assert encoder.poll() is None
        encoder.kill()
        encoder.wait()
    whole = out.read_bytes()
    codec = Codec.from_pretrained()
    packets = len(read_stream(whole).packets)
    assert packets
    assert codec.decode(whole).shape[1] == packets * 10240
    assert codec.decode(whole[:-1]).shape[1] == (packets - 1) * 10240


def test_ctrl_c_ends_a_recording(tmp_path: Path) -> None:
    out = tmp_path / "out.aldm"
    encoder = subprocess.Popen([*COMMAND, "encode", "-", out, "--packet", "0.64"], stdin=-1, stderr=-1)
    assert encoder.stdin
    encoder.stdin.write(wav_header(16000, 1, None) + to_bytes(clip("speech")[None, :40000]))
    encoder.stdin.flush()
    while not any(p.stat().st_size > 200 for p in tmp_path.glob(".aldm-*")):
        assert encoder.poll() is None
    encoder.send_signal(signal.SIGINT)
    assert b"Traceback" not in encoder.communicate()[1]
    assert encoder.returncode == 0
    stream = read_stream(out.read_bytes())
    assert stream.samples
    assert stream.samples >= 10240
    assert not stream.damage


@pytest.mark.parametrize("sample", ["u8", "s16", "s24", "s32", "f32", "f64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_sample_formats(tmp_path: Path, sample: str, channels: int) -> None:
    wave = np.stack([clip("speech")[:8000], clip("music")[:8000]][:channels])
    subtype = {"u": "PCM_U8", "s": f"PCM_{sample[1:]}", "f": "FLOAT" if sample == "f32" else "DOUBLE"}[sample[0]]
    for name in ("WAV", "WAVEX"):
        sf.write(tmp_path / "x.wav", wave.T, 16000, subtype=subtype, format=name)
        reference = sf.read(tmp_path / "x.wav", dtype="float32", always_2d=True)[0].T
        with open(tmp_path / "x.wav", "rb") as file:
            header, _ = read_wav_header(file)
            assert header == WavHeader(Format(16000, channels, sample), 8000 * header.form.frame_bytes)
            found = np.concatenate(list(WavSamples(file, header).blocks(0.1)), 1)
        np.testing.assert_allclose(found, reference, atol=1e-7)


@pytest.mark.slow
def test_raw(tmp_path: Path) -> None:
    samples = to_bytes(np.stack([clip("speech")[:30000], clip("music")[:30000]]))
    data = aldm("encode", "-", "-", "--raw", "24000:2", stdin=samples).stdout
    assert (Header.parse(data).sample_rate, Header.parse(data).channels) == (24000, 2)
    back = aldm("decode", "-", "-", "--raw", "--original-rate", stdin=data).stdout
    assert len(back) == len(samples)
    (tmp_path / "x.raw").write_bytes(samples)
    assert aldm("encode", tmp_path / "x.raw", "-", "--raw", "24000:2").stdout == data


@pytest.mark.parametrize(
    ("stdin", "options", "words"),
    [
        (b"RIFF\0\0\0\0WAVE", [], b"begins like WAV"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff", [], b"begins like WAV"),
        (wav_header(16000, 1, None)[:20] + b"\x55\0" + wav_header(16000, 1, None)[22:], [], b"empty"),
        (wav_header(16000, 1, 0), [], b"empty"),
        (b"", ["--raw", "16000"], b"empty"),
        (b"\0" * 99, ["--raw", "16000:0"], b"0 channels"),
        (b"\0" * 99, ["--raw", "fast"], b"RATE"),
        (b"\0" * 99, ["--raw", "16000:1:s12"], b"s12"),
        (struct.pack("<f", np.inf) * 9999, ["--raw", "16000:1:f32"], b"infinite"),
        (b"neither audio nor anything", [], b"not readable as audio"),
    ],
    ids=range(10),
)
def test_bad_streams(tmp_path: Path, stdin: bytes, options: list[str], words: bytes) -> None:
    result = aldm("encode", "-", tmp_path / "out.aldm", *options, stdin=stdin)
    assert result.returncode == (2 if words in (b"0 channels", b"RATE", b"s12") else 1)
    assert words in result.stderr
    assert b"standard input" in result.stderr or b"--raw" in result.stderr
    assert result.stderr.count(b"\n") == 1
    assert not list(tmp_path.iterdir())


class Counting(io.BytesIO):
    """A seekable file that counts what is read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data

    read1 = read


def hour(codec: Codec, index: bool) -> bytes:
    """Many packets, cheaply: the same ones again and again under their own numbers."""
    from aldm.format import container as c
    from aldm.format.index import pack_index

    data = codec.encode(clip("speech")[:32000], 16000, quality=20)
    bodies = [r.body for r in c.read_records(data) if isinstance(r, c.Record)][:3]
    out, offsets = c.pack_record(c.COMMENT, b"A=b"), []
    for number in range(1500):
        offsets.append(HEADER_SIZE + len(out))
        out += c.pack_record(c.PACKET, bodies[number % 3], number)
    header = Header(16000, 1, 1500 * 10240, 20, 64, codec.model.fingerprint[:4])
    return header.pack() + out + (pack_index(offsets, HEADER_SIZE + len(out)) if index else b"")


@pytest.mark.parametrize("index", [False, True])
def test_a_part_reads_only_what_it_needs(quick: Codec, index: bool) -> None:
    data = hour(quick, index)
    file = Counting(data)
    part = np.concatenate(list(quick.decoder(file).blocks(start=900, duration=1)), 1)
    assert part.shape == (1, 16000)
    assert file.count < len(data) / 8
    from_pipe = np.concatenate(list(quick.decoder(pipe(data)).blocks(start=900, duration=1)), 1)
    np.testing.assert_array_equal(part, from_pipe)
    damaged = bytearray(data)
    damaged[5000] ^= 1  # before the part
    np.testing.assert_array_equal(quick.decode(bytes(damaged), start=900, duration=1), part)
    if index:
        damaged[-300] ^= 1
        np.testing.assert_array_equal(quick.decode(bytes(damaged), start=900, duration=1), part)


def pipe(data: bytes) -> io.BufferedReader:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise OSError("a pipe")

    return io.BufferedReader(Pipe(data))  # type: ignore[arg-type]


def test_an_index_that_lies_misleads_nobody(quick: Codec) -> None:
    from aldm.format.index import pack_index

    data = hour(quick, index=False)
    truth = quick.decode(data, start=900, duration=1)
    for offsets in ([24, 30], list(range(24, 24 + 1500 * 60, 60)), [10**9 + 99 * i for i in range(1500)]):
        lie = data + pack_index(offsets, offsets[-1] + 9)
        np.testing.assert_array_equal(quick.decode(lie, start=900, duration=1), truth)


@pytest.mark.slow
def test_seeking_in_the_command(tmp_path: Path) -> None:
    assert aldm("encode", DATA / "speech.flac", tmp_path / "x.aldm", "--packet", 0.64, "--index").returncode == 0
    assert aldm("decode", tmp_path / "x.aldm", tmp_path / "p.wav", "--start", 2, "--duration", 1).returncode == 0
    assert sf.info(tmp_path / "p.wav").frames == 16000


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tags") / "in.flac"
    with sf.SoundFile(path, "w", 16000, 1) as file:
        file.title, file.artist, file.date = "Ein Stück", "somebody", "1999"
        file.write(clip("speech")[:20000])
    return path


@pytest.mark.slow
def test_tags_travel(tagged: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.aldm"
    assert aldm("encode", tagged, out, "--tag", "GENRE=Hörspiel", "--tag", "X-MINE=1").returncode == 0
    assert read_stream(out.read_bytes()).comments == [
        "TITLE=Ein Stück",
        "ARTIST=somebody",
        "DATE=1999",
        "GENRE=Hörspiel",
        "X-MINE=1",
    ]
    assert "Hörspiel" in aldm("info", out).stdout.decode()
    for suffix in ("wav", "flac", "ogg"):
        assert aldm("decode", out, tmp_path / f"back.{suffix}").returncode == 0
        with sf.SoundFile(tmp_path / f"back.{suffix}") as file:
            assert (file.title, file.artist, file.genre) == ("Ein Stück", "somebody", "Hörspiel")
    assert aldm("encode", tagged, out, "--no-tags", "--force").returncode == 0
    assert read_stream(out.read_bytes()).comments == []
    for tag in ("no name", "=x", "ä=b"):
        result = aldm("encode", tagged, tmp_path / "y.aldm", "--tag", tag)
        assert (result.returncode, b"NAME=value" in result.stderr) == (2, True)
