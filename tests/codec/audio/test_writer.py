"""Samples are written as they are heard: rounded to the nearest, the same in files and pipes."""

import io

import numpy as np
import pytest
import soundfile as sf
from aldm.codec.audio.pcm import to_bytes
from aldm.codec.audio.wav import wav_header
from aldm.codec.audio.writer import write_audio
from aldm.codec.errors import AudioError
from conftest import clip

WAVE = np.stack([clip("music")[:20000], clip("speech")[:20000]]) * np.float32(1.1)


def written(suffix: str, sample: str) -> np.ndarray:
    file = io.BytesIO()
    assert write_audio(file, [WAVE[:, :7000], WAVE[:, 7000:]], 16000, 2, suffix, sample=sample) == 20000
    file.seek(0)
    return sf.read(file, dtype="float64")[0].T


@pytest.mark.parametrize(("sample", "step"), [("s16", 2**-15), ("s24", 2**-23), ("f32", 0)])
def test_files_and_pipes_hold_the_same_samples(sample: str, step: float) -> None:
    found = written(".wav", sample)
    piped = sf.read(io.BytesIO(wav_header(16000, 2, 20000, sample) + to_bytes(WAVE, sample)), dtype="float64")[0].T
    np.testing.assert_array_equal(found, piped)
    error = found - WAVE.clip(-1, 1 - step)
    assert np.abs(error).max() <= step / 2
    assert abs(error.mean()) < step / 50 + 1e-12
    if sample != "f32":
        np.testing.assert_array_equal(written(".flac", sample), found)


def test_what_formats_cannot_hold() -> None:
    with pytest.raises(AudioError, match="no float samples"):
        written(".flac", "f32")
    with pytest.raises(AudioError, match="no 24-bit samples"):
        written(".ogg", "s24")
    with pytest.raises(AudioError, match=r"cannot write \.m4a files.*\.flac.*ffmpeg"):
        written(".m4a", "s16")
    with pytest.raises(AudioError, match="cannot write 12 channels"):
        write_audio(io.BytesIO(), [np.zeros((12, 100), np.float32)], 16000, 12, ".flac")
