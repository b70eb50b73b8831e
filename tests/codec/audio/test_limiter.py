"""Sound beyond full scale is limited smoothly; sound within it passes untouched, whatever the blocks."""

import numpy as np
import pytest
from aldm.codec.audio.limiter import Limiter
from conftest import clip
from hypothesis import given
from hypothesis import strategies as st

MUSIC = np.stack([clip("music")[:64000], clip("speech")[:64000]])


def limited(wave: np.ndarray, size: int) -> tuple[np.ndarray, Limiter]:
    limiter = Limiter(16000)
    blocks = list(limiter.blocks(wave[:, i : i + size] for i in range(0, wave.shape[1], size)))
    return np.concatenate(blocks, 1), limiter


@pytest.mark.parametrize("size", [1, 100, 5000, 64000])
def test_sound_within_full_scale_is_untouched(size: int) -> None:
    wave = MUSIC[:, : 200 * size] / np.abs(MUSIC).max()
    found, limiter = limited(wave, size)
    np.testing.assert_array_equal(found, wave)
    assert limiter.reduction == 0


@given(gain=st.floats(1.1, 20), size=st.integers(50, 64000), at=st.integers(0, 40000))
def test_peaks_are_kept_within_full_scale(gain: float, size: int, at: int) -> None:
    wave = MUSIC[:, at:] / np.abs(MUSIC[:, at:]).max() * np.float32(gain)
    found, limiter = limited(wave, size)
    assert found.shape == wave.shape
    assert np.abs(found).max() <= 1 + 1e-6
    assert limiter.reduction == pytest.approx(20 * np.log10(gain), abs=0.01)
    whole, _ = limited(wave, wave.shape[1])
    np.testing.assert_allclose(found, whole, atol=1e-6)
    gains = np.abs(found[np.abs(wave) > 1e-3] / wave[np.abs(wave) > 1e-3])
    assert gains.max() <= 1 + 1e-6  # nothing becomes louder
    if gain < 1.2:
        assert gains.min() > 0.8


def test_limiting_distorts_less_than_clipping() -> None:
    time = np.arange(16000) / 16000
    tone = 1.5 * np.sin(2 * np.pi * 440 * time)[None].astype(np.float32)
    found, _ = limited(tone, 1600)

    def distortion(wave: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(wave[0, 2000:14000] * np.hanning(12000))) ** 2
        tone_bin = round(440 * 12000 / 16000)
        return 1 - spectrum[tone_bin - 3 : tone_bin + 4].sum() / spectrum.sum()

    assert distortion(found) < 0.1 * distortion(tone.clip(-1, 1))
