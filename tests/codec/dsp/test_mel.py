"""The front-end against librosa's and numpy's own computation of AudioLDM 2's recipe."""

import librosa
import numpy as np
import pytest
import torch
from aldm.codec.dsp.mel import LogMel
from conftest import DOMAINS, clip


@pytest.mark.parametrize("n_mels", [64, 80, 96, 128])
@pytest.mark.parametrize("name", DOMAINS)
def test_log_mel_matches_the_published_recipe(name: str, n_mels: int) -> None:
    wave = clip(name)[:32000].astype(np.float64)
    wave = 0.5 * (wave - wave.mean()) / np.abs(wave - wave.mean()).max()
    padded = np.pad(wave, 432, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::160]
    magnitude = np.abs(np.fft.rfft(frames * window))
    basis = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=n_mels, fmin=0, fmax=8000, htk=False, norm="slaney")
    expected = np.log(np.maximum(magnitude @ basis.T, 1e-5))
    ours = LogMel(n_mels=n_mels)(torch.tensor(wave[None], dtype=torch.float32))[0].numpy()
    assert ours.shape == (200, n_mels)
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_frames_stand_where_the_sound_is() -> None:
    wave = torch.zeros(1, 16000)
    wave[0, 8000] = 0.5
    energy = LogMel()(wave)[0].exp().sum(1)
    centre = (energy * (torch.arange(100) * 160 + 80)).sum() / energy.sum()
    assert abs(centre.item() - 8000) < 1  # half a frame further with the inference code's padding of 512


def test_magnitudes_have_the_mel_that_was_asked_for() -> None:
    mel = LogMel(n_mels=96)
    exact = mel(torch.from_numpy(clip("speech")[None, :32000]))
    again = mel.from_magnitudes(mel.magnitudes(exact))
    assert (again - exact).abs().mean() < 0.05
