"""Audio comes in the same way from files, pipes and memory, whatever its format and whatever its header says."""

import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from aldm.codec.audio.reader import AudioReader
from aldm.codec.audio.suffixes import READABLE, WRITABLE, guess_format
from aldm.codec.errors import AudioError
from conftest import DATA, clip
from recordings import encode, video_only

SPEECH = clip("speech")[:48000]
PCM = (SPEECH * 32767).astype("<i2").tobytes()


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise OSError("a pipe")


def wav(data: bytes, size: int | None = None, riff: int | None = None, behind: bytes = b"", tag: int = 1) -> bytes:
    """A WAV of 16-bit samples at 16 kHz with sizes that may be wrong."""
    form = struct.pack("<HHIIHH", tag, 1, 16000, 32000, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data) if size is None else size)
    body += data + behind
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def coded(subtype: str) -> bytes:
    file = io.BytesIO()
    sf.write(file, SPEECH, 16000, subtype=subtype, format="WAV")
    return file.getvalue()


def samples_of(reader: AudioReader) -> np.ndarray:
    blocks = np.concatenate(list(reader.blocks(reader.sample_rate)), 1)
    assert blocks.shape == (reader.channels, reader.samples)
    return blocks


CHUNK = b"_PMX" + struct.pack("<I", 20000) + bytes(range(250)) * 80
TAGS = b"LIST" + struct.pack("<I", 18) + b"INFOINAM" + struct.pack("<I", 6) + b"A talk"
ODDITIES = {
    "plain": (wav(PCM), 48000, False),
    "chunk behind the samples": (wav(PCM, behind=CHUNK), 48000, False),
    "sizes of 0": (wav(PCM, size=0, riff=0), 48000, False),
    "sizes as before recording": (wav(PCM, size=0, riff=36), 48000, False),
    "ffmpeg's sizes for pipes": (wav(PCM, size=0xFFFFFFFF, riff=0xFFFFFFFF), 48000, False),
    "sox's sizes for pipes": (wav(PCM, size=0x7FFFF000, riff=0x7FFFF024), 48000, False),
    "arecord's sizes for pipes": (wav(PCM, size=0x80000000, riff=0x80000024), 48000, False),
    "claims more": (wav(PCM[:60000], size=len(PCM)), 30000, True),
    "half a sample at the end": (wav(PCM[:-1]), 47999, False),
    "mu-law": (coded("ULAW"), 48000, False),
    "A-law": (coded("ALAW"), 48000, False),
    "24 bits": (coded("PCM_24"), 48000, False),
    "ADPCM": (coded("MS_ADPCM"), None, False),
    "IMA ADPCM": (coded("IMA_ADPCM"), None, False),
    "GSM": (None, None, False),
}
sf_gsm = io.BytesIO()
sf.write(sf_gsm, SPEECH, 16000, subtype="GSM610", format="WAV")
ODDITIES["GSM"] = (sf_gsm.getvalue(), None, False)


@pytest.mark.parametrize("name", ODDITIES)
def test_wav_is_the_same_from_a_file_a_pipe_a_fifo_and_memory(tmp_path: Path, name: str) -> None:
    data, samples, truncated = ODDITIES[name]
    path, fifo = tmp_path / "x.wav", tmp_path / "fifo"
    path.write_bytes(data)
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(data,))
    writer.start()
    readers = [AudioReader(source) for source in (path, str(path), Pipe(data), fifo, data, io.BytesIO(data))]
    writer.join()
    first, *others = [(samples_of(r), r.sample_rate, r.truncated, r.warnings, r.tags) for r in readers]
    for other in others:
        np.testing.assert_array_equal(other[0], first[0])
        assert other[1:] == first[1:]
    if samples is not None:
        assert first[0].shape == (1, samples)
    assert first[2] == truncated
    assert len(first[3]) == truncated
    if not name.startswith(("sizes", "ffmpeg", "sox", "arecord")):  # where libsndfile and this reader must agree
        np.testing.assert_allclose(first[0][0], sf.read(io.BytesIO(data), dtype="float32")[0], atol=1e-7)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF\0\0\0\0WAVE",
        b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff",
        wav(PCM, tag=85)[:60],
        wav(b""),
        wav(b"", behind=TAGS),
    ],
    ids=range(6),
)
def test_words_for_what_is_no_wav_are_the_same(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.wav").write_bytes(data)
    messages = set()
    for source in (tmp_path / "x.wav", Pipe(data), data):
        with pytest.raises(AudioError, match=r"not readable as audio|empty|damaged") as error:
            AudioReader(source)
        messages.add(str(error.value))
    assert len(messages) == 1


def test_tags_of_a_wav(tmp_path: Path) -> None:
    assert AudioReader(wav(PCM, behind=TAGS)).tags == ["TITLE=A talk"]


def lag(found: np.ndarray, wave: np.ndarray) -> tuple[int, float]:
    """The offset of best correlation, and that."""
    size = min(20000, len(found) - 4000)
    a, b = found[4000 : 4000 + size], wave[4000 : 4000 + size]
    spectrum = np.fft.rfft(a, 2 * size) * np.conj(np.fft.rfft(b, 2 * size))
    correlation = np.fft.irfft(spectrum) / np.sqrt((a**2).sum() * (b**2).sum())
    best = int(correlation.argmax())
    return (best + size) % (2 * size) - size, float(correlation[best])


@pytest.mark.parametrize(
    ("name", "codec", "rate", "slack"),
    [
        ("x.m4a", "aac", 16000, 0),
        ("x.mp4", "alac", 16000, 0),
        ("x.mka", "pcm_s16le", 16000, 0),
        ("x.webm", "libopus", 48000, 312),
        ("x.wma", "wmav2", 16000, 4096),
        ("x.wv", "wavpack", 16000, 0),
        ("x.ac3", "ac3", 48000, 2048),
        ("x.amr", "libopencore_amrnb", 8000, 320),
        ("x.aac", "aac", 16000, 3072),
        ("x.tta", "tta", 16000, 0),
    ],
)
def test_formats_that_libsndfile_does_not_know(tmp_path: Path, name: str, codec: str, rate: int, slack: int) -> None:
    wave = np.repeat(SPEECH, 3) if rate == 48000 else SPEECH[::2] if rate == 8000 else SPEECH
    path = encode(tmp_path / name, wave, rate, codec, title="Ein Stück", track="3")
    with pytest.raises(sf.LibsndfileError):
        sf.SoundFile(path)
    reader = AudioReader(path)
    found = samples_of(reader)
    assert (reader.sample_rate, reader.channels, reader.truncated, reader.warnings) == (rate, 1, False, [])
    assert abs(found.shape[1] - len(wave)) <= slack
    offset, correlation = lag(found[0], wave)
    assert correlation > (0.7 if name == "x.amr" else 0.9)
    assert abs(offset) <= slack
    for source in (Pipe(path.read_bytes()), path.read_bytes()):
        np.testing.assert_array_equal(samples_of(AudioReader(source)), found)
    if name not in ("x.ac3", "x.amr", "x.aac", "x.tta"):  # they have no tags, or none of FFmpeg's
        assert "TITLE=Ein Stück" in reader.tags


def test_lossless_formats_give_the_very_samples(tmp_path: Path) -> None:
    wave = np.frombuffer(PCM, "<i2").astype(np.float32) / 32768
    for name, codec in (("x.m4a", "alac"), ("x.wv", "wavpack"), ("x.mka", "flac")):
        found = samples_of(AudioReader(encode(tmp_path / name, wave, 16000, codec)))
        np.testing.assert_allclose(found[0], wave, atol=2e-5)


def test_sound_of_videos(tmp_path: Path) -> None:
    reader = AudioReader(encode(tmp_path / "film.mp4", np.stack([SPEECH, SPEECH[::-1]]), 16000, "aac", video=True))
    assert samples_of(reader).shape == (2, 48000)
    several = AudioReader(encode(tmp_path / "film.mkv", SPEECH, 16000, "aac", video=True, streams=2))
    assert several.channels == 1
    assert several.warnings == ["2 audio streams; the first is taken"]
    with pytest.raises(AudioError, match="a video without sound"):
        AudioReader(video_only(tmp_path / "silent.mp4"))


def test_flac_of_unknown_length(tmp_path: Path) -> None:
    data = bytearray((DATA / "speech.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # samples in STREAMINFO
    reader = AudioReader(bytes(data))
    whole = samples_of(AudioReader(DATA / "speech.flac"))
    np.testing.assert_array_equal(samples_of(reader), whole)
    assert not reader.truncated


@pytest.mark.parametrize("name", ["x.mp3", "x.flac", "x.ogg", "x.opus", "x.wav", "x.aac", "x.wma", "x.mka"])
def test_cut_files_are_read_as_far_as_they_go(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name in ("x.aac", "x.wma", "x.mka"):
        encode(path, SPEECH, 16000, "wmav2" if name == "x.wma" else "aac")
    elif name == "x.opus":
        sf.write(path, SPEECH, 16000, format="OGG", subtype="OPUS")
    else:
        sf.write(path, SPEECH, 16000)
    whole = samples_of(AudioReader(path))
    data = path.read_bytes()
    for source in (data[: len(data) * 6 // 10], Pipe(data[: len(data) * 6 // 10])):
        reader = AudioReader(source)
        found = samples_of(reader)
        assert reader.truncated
        assert "ends early" in reader.warnings[-1] or "not decode" in reader.warnings[-1]
        assert 0.3 * whole.shape[1] < found.shape[1] < 0.9 * whole.shape[1]
        offset, correlation = lag(found[0], whole[0])
        assert offset == 0
        assert correlation > 0.99


def test_without_pyav_the_message_names_the_command_that_works(tmp_path: Path) -> None:
    path = encode(tmp_path / "a memo.m4a", SPEECH, 16000, "aac")
    script = (
        "import sys; sys.modules['av'] = None\n"
        "from aldm.codec.audio.reader import AudioReader\n"
        f"try: AudioReader({str(path)!r})\n"
        "except ValueError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert "MP4 or M4A" in said
    assert "pip install av" in said
    assert f"ffmpeg -i '{path}' -f wav - | aldm encode - " in said


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    encode(tmp_path / "x.m4a", SPEECH, 16000, "aac")
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/x.m4a\n",
        f"ffconcat version 1.0\nfile {tmp_path}/x.m4a\n",
    ):
        with pytest.raises(AudioError, match="not readable"):
            AudioReader(text.encode())


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    for suffix, codec in ((b".wav", None), (b".flac", None), (b".m4a", "aac")):
        made = tmp_path / f"x{suffix.decode()}"
        if codec:
            encode(made, SPEECH, 16000, codec)
        else:
            sf.write(made, SPEECH, 16000)
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9" + suffix))
        os.rename(made, path)
        assert AudioReader(path).samples == 48000


def test_suffixes_and_first_bytes_agree(tmp_path: Path) -> None:
    assert WRITABLE < READABLE
    for suffix in sorted(WRITABLE):
        path = tmp_path / f"x{suffix}"
        from aldm.codec.audio.writer import write_audio

        with open(path, "wb") as file:
            write_audio(file, [SPEECH[None]], 16000, 1, suffix)
        assert AudioReader(path).samples >= 47000
        assert guess_format(path.read_bytes()[:12]), suffix


def test_what_is_no_source() -> None:
    for source in (None, 5, object()):
        with pytest.raises(AudioError, match="a path, a file, bytes or samples"):
            AudioReader(source, 16000)
    with pytest.raises(FileNotFoundError):
        AudioReader("/nowhere.wav")
