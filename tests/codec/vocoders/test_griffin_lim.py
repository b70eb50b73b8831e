"""The vocoder on exact log-mels of real clips."""

import numpy as np
import pytest
import torch
from aldm.codec.dsp.mel import LogMel
from aldm.codec.dsp.stft import overlap_add
from aldm.codec.vocoders.griffin_lim import GriffinLim
from conftest import DOMAINS, clip

MEL = LogMel(n_mels=96, floor=-10.0)


def spectral_error(reference: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """Mean log-mel difference of each frame, in nats, [T]; for waveforms [N]."""
    return (MEL(reference[None]) - MEL(decoded[None])).abs().mean((0, 2))


def test_overlap_add_against_a_loop() -> None:
    frames, window = torch.randn(2, 9, 64), torch.rand(64)
    expected = torch.zeros(2, 8 * 10 + 64)
    for t in range(9):
        expected[:, 10 * t : 10 * t + 64] += frames[:, t] * window
    torch.testing.assert_close(overlap_add(frames, 10, window), expected)


@pytest.mark.parametrize("name", DOMAINS)
def test_exact_mel_comes_back(name: str) -> None:
    wave = torch.from_numpy(clip(name)[:48000]) * 2
    vocoder = GriffinLim(MEL)
    decoded = torch.cat([vocoder.push(MEL.magnitudes(MEL(wave[None]))), vocoder.flush()], 1)[0]
    assert decoded.shape == wave.shape
    assert spectral_error(wave, decoded).mean() < 0.25
    level = 10 * torch.log10(decoded.square().mean() / wave.square().mean())
    assert abs(level) < 0.6


@pytest.mark.parametrize("size", [16, 100])
def test_chunks_join_without_a_seam(mixture: np.ndarray, size: int) -> None:
    wave = torch.from_numpy(mixture[:192000])
    magnitudes = MEL.magnitudes(MEL(wave[None]))
    vocoder = GriffinLim(MEL)
    pieces = [vocoder.push(part) for part in magnitudes.split(size, 2)] + [vocoder.flush()]
    assert pieces[0].shape[1] < size * 160  # but for the first ones, as much comes out as goes in
    assert pieces[-2].shape[1] == size * 160
    pieces = [p for p in pieces if p.shape[1]]
    assert len(pieces) > 8
    decoded = torch.cat(pieces, 1)[0]
    assert decoded.shape == wave.shape
    error = spectral_error(wave, decoded)
    seams = torch.zeros(len(error), dtype=torch.bool)
    for end in np.cumsum([p.shape[1] for p in pieces])[:-1] // 160:
        seams[end - 4 : end + 5] = True
    assert error[seams].mean() < 1.1 * error[~seams].mean()
    # a click would show as a jump between two samples
    jumps = decoded.diff().abs()
    at = np.cumsum([p.shape[1] for p in pieces])[:-1] - 1
    assert jumps[at].mean() < 1.5 * jumps.mean()
