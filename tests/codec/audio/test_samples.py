"""Arrays, lists and tensors of the usual types are taken for what they are; mistakes get help."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from aldm.cli.main import main
from aldm.codec import Codec
from aldm.codec.audio.reader import AudioReader
from aldm.codec.audio.samples import as_samples
from aldm.codec.errors import AudioError
from click.testing import CliRunner
from conftest import clip

SPEECH = clip("speech")[:8000]


def test_types_and_scales() -> None:
    whole = np.rint(SPEECH.astype(float) * 32767)
    for data in (
        SPEECH.astype(np.float64), SPEECH.tolist(), whole.astype(np.int16), (whole * 65536).astype(np.int32),
        torch.from_numpy(SPEECH), torch.from_numpy(SPEECH).double().requires_grad_(), torch.from_numpy(whole).short(),
    ):  # fmt: skip
        found = as_samples(data)
        assert (found.dtype, found.shape) == (np.float32, (1, 8000))
        np.testing.assert_allclose(found[0], SPEECH, atol=1e-4)
    for data in (torch.from_numpy(SPEECH).bfloat16(), SPEECH.astype(np.float16)):
        np.testing.assert_allclose(as_samples(data)[0], SPEECH, atol=4e-3)
    np.testing.assert_allclose(as_samples(np.uint8(SPEECH * 127 + 128))[0], SPEECH, atol=2e-2)
    stereo = np.stack([SPEECH, -SPEECH])
    np.testing.assert_array_equal(as_samples(list(stereo)), stereo)
    assert AudioReader(SPEECH.tolist(), 16000).samples == 8000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((200, 2)), "transpose"),
        (np.zeros((16000, 2)), "transpose"),
        (np.zeros((12, 100)), "transpose"),
        (np.zeros((2, 3, 4)), "must be"),
        (np.zeros(8, complex), "complex"),
        (np.zeros(8, np.int64), "int64"),
        (np.zeros(8, bool), "bool"),
        ([[1.0, 2.0], [3.0]], "must be"),
        (["a", "b"], "must be"),
        (np.array(0.5), "must be"),
    ],
)
def test_mistakes(data: object, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        AudioReader(data, 16000)


def test_few_samples_of_few_channels_are_fine() -> None:
    assert as_samples(np.zeros((2, 1))).shape == (2, 1)
    assert as_samples(np.zeros((5, 16000))).shape == (5, 16000)
    for rate in (None, 0, -1, True):
        with pytest.raises(AudioError, match=r"sampl(e|ing) rate"):
            AudioReader(SPEECH, rate)


@pytest.mark.parametrize("rate", [4, 999, 768001])
def test_rates_that_are_refused(rate: int, codec: Codec, tmp_path: Path) -> None:
    """At 4 Hz, a file of 15 kB would be an hour of sound."""
    wave = clip("speech")[:4000]
    with pytest.raises(AudioError, match=f"a sampling rate of {rate} Hz: 1000 to 768000 Hz"):
        codec.encode(wave, rate)
    with pytest.raises(AudioError, match=f"a sampling rate of {rate} Hz"):
        codec.stream(rate)
    for kind in ("wav", "caf"):
        sf.write(tmp_path / f"slow.{kind}", wave, rate)
        with pytest.raises(AudioError, match=f"a sampling rate of {rate} Hz"):
            codec.encode(tmp_path / f"slow.{kind}")
    for options in ((tmp_path / "slow.wav",), ("-", "--raw", rate)):
        arguments = ["encode", *map(str, options), "--force"]
        done = CliRunner().invoke(main, [*arguments[:2], str(tmp_path / "out.aldm"), *arguments[2:]], input=b"\0" * 9)
        assert done.exit_code in (1, 2)
        assert f"a sampling rate of {rate} Hz" in done.stderr
        assert done.stderr.count("\n") == 1
