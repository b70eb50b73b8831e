"""Phases that Griffin-Lim starts from, on exact magnitudes of real clips."""

import math

import pytest
import torch
from aldm.codec.dsp.mel import LogMel
from aldm.codec.vocoders.griffin_lim import griffin_lim
from aldm.codec.vocoders.phases import starting_phases
from conftest import DOMAINS, clip

MEL = LogMel()


def inconsistency(magnitude: torch.Tensor, iterations: int) -> float:
    """Decibels by which the STFT of a waveform that Griffin-Lim finds differs in magnitude."""
    found = MEL.spectrum(griffin_lim(magnitude, MEL, iterations)).abs()
    return 20 * math.log10((found - magnitude).norm() / magnitude.norm())


@pytest.mark.parametrize(("name", "most"), [*zip(DOMAINS, (-18, -18, -12), strict=True)])
def test_they_go_with_magnitudes(name: str, most: float) -> None:
    magnitude = MEL.spectrum(torch.from_numpy(clip(name)[None, :48864])).abs()
    start = inconsistency(magnitude, 0)  # random phases: -3 dB, and -13 to -17 after 8 iterations
    assert start < most
    assert inconsistency(magnitude, 8) < start - 3


def test_a_sine_goes_on() -> None:
    """From phases that are known to those of later frames, over a third of a second."""
    time = torch.arange(32 * 160 + 864) / 16000
    for hz in (440.0, 1003.0, 3333.0):
        spectrum = MEL.spectrum(torch.cos(2 * math.pi * hz * time)[None]).mT
        found = starting_phases(spectrum.abs(), 160, spectrum[:, 0].angle())
        peak = round(hz * 1024 / 16000)
        error = (found - spectrum.angle())[0, :, peak - 1 : peak + 2]
        assert torch.cos(error).min() > 0.9


def test_channels_do_not_mix() -> None:
    both = torch.stack([MEL.spectrum(torch.from_numpy(clip(name)[None, :16864])).abs()[0].T for name in DOMAINS[:2]])
    together = starting_phases(both, 160)
    for channel, alone in zip(together, both, strict=True):
        torch.testing.assert_close(channel, starting_phases(alone[None], 160)[0], atol=1e-3, rtol=0)
