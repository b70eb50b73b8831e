"""Training audio: which clips are held out, windows, synthetic examples."""

from pathlib import Path

import numpy as np
import pytest
from aldm.codec.dsp.mel import LogMel
from aldm.codec.errors import AudioError
from aldm.codec.fit.data.audio_cache import AudioCache, audio_files, is_held_out
from aldm.codec.fit.data.synthetic import synthesize
from aldm.codec.fit.data.windows import Windows
from conftest import DATA

MEL = LogMel(n_mels=40, floor=-10.0)


@pytest.fixture(scope="module")
def cache(shard: Path, tmp_path_factory: pytest.TempPathFactory) -> AudioCache:
    return AudioCache.build([shard], tmp_path_factory.mktemp("cache"), 16000, lambda line: None)


def test_names(tmp_path: Path, shard: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.flac").write_bytes((DATA / "speech.flac").read_bytes())
    (tmp_path / "notes.txt").write_text("no sound")
    assert [name for name, _ in audio_files(tmp_path)] == ["sub/x.flac"]
    assert len(list(audio_files(shard))) == 25


def test_a_speaker_is_on_one_side() -> None:
    assert len({is_held_out(f"speaker7__{n}.wav") for n in range(20)}) == 1
    shares = [np.mean([is_held_out(f"speaker{n}__0.wav", percent) for n in range(2000)]) for percent in (0, 4, 50)]
    assert shares == pytest.approx([0, 0.04, 0.5], abs=0.03)


def test_cache_is_built_once(shard: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    first = AudioCache.build([shard], tmp_path, 16000, lines.append)
    assert any("skipped clips.tar/a/broken.wav" in line for line in lines)
    again = AudioCache.build([shard], tmp_path, 16000, lines.append)
    assert again.sha256 == first.sha256
    assert len([line for line in lines if "skipped" in line]) == 1
    other = AudioCache.build([DATA / "speech.flac"], tmp_path, 16000, lines.append)
    assert other.sha256 != first.sha256


def test_no_audio(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="no readable audio"):
        AudioCache.build([tmp_path / "empty"], tmp_path / "cache", 16000, lambda line: None)


def test_windows_depend_on_seed_and_step_alone(cache: AudioCache) -> None:
    a, b = (Windows(cache, MEL, 96, seed=3).batch(5, 2) for _ in range(2))
    assert a.shape == (2, 96 * 160 + 2 * MEL.pad)
    assert (a == b).all()
    assert not (a == Windows(cache, MEL, 96, seed=4).batch(5, 2)).all()
    assert not (a == Windows(cache, MEL, 96, seed=3, held_out=True).batch(5, 2)).all()


def test_windows_of_what_is_held_out_are_of_other_clips(cache: AudioCache) -> None:
    starts = [set(Windows(cache, MEL, 96, 0, held_out=part).starts) for part in (False, True)]
    assert len(starts[0]) == 18
    assert len(starts[1]) == 6
    assert not starts[0] & starts[1]


def test_too_little_audio(cache: AudioCache) -> None:
    with pytest.raises(ValueError, match="too little for examples of 100000 frames"):
        Windows(cache, MEL, 100000, seed=0)


def test_synthetic_examples() -> None:
    """Tones, chirps, chords and clicks: some have one peak in their spectrum, some are flat; all have a peak of 1."""
    rng = np.random.default_rng(0)
    waves = [synthesize(16000, 16000, rng) for _ in range(40)]
    crest = []
    for wave in waves:
        assert wave.dtype == np.float32
        assert wave.shape == (16000,)
        assert np.abs(wave).max() == pytest.approx(1)
        power = np.abs(np.fft.rfft(wave)) ** 2
        crest.append(power.max() / power.mean())
    assert max(crest) > 1000
    assert min(crest) < 20


def test_synthetic_share(cache: AudioCache) -> None:
    """With a share of 1, no recording is left."""
    plain, mixed = (Windows(cache, MEL, 96, 3, synthetic).batch(0, 4) for synthetic in (0.0, 1.0))
    assert not (plain == mixed).any(1).all()
    rng = np.random.default_rng([3, 0])
    rng.random()
    expected = synthesize(96 * 160 + 2 * MEL.pad, 16000, rng)
    correlation = np.corrcoef(expected, mixed[0])[0, 1]
    assert correlation == pytest.approx(1, abs=1e-3)
