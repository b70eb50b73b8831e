"""Losses follow what is heard; the rate model is a distribution; discriminators learn to tell."""

import pytest
import torch
from aldm.codec.dsp.mel import LogMel
from aldm.codec.fit.losses.discriminators import Discriminators
from aldm.codec.fit.losses.hearing import disturbance, envelope_error, power
from aldm.codec.fit.losses.rate import RateModel
from aldm.codec.fit.losses.waveform import waveform_losses
from conftest import clip

WAVE = torch.from_numpy(clip("speech")[:64000])[None]
NOISE = torch.randn(WAVE.shape, generator=torch.Generator().manual_seed(0))


def test_losses_follow_what_is_heard() -> None:
    exact = power(WAVE)
    for loss in (disturbance, envelope_error):
        noisy = [loss(exact, power(WAVE + level * NOISE)).item() for level in (1e-5, 1e-3, 1e-2)]
        assert noisy[0] < 0.05
        assert noisy == sorted(noisy)
        assert loss(exact, power(0.5 * WAVE)).item() < 0.05  # how loud it is as a whole is not their business


@pytest.mark.parametrize(("n_fft", "n_mels"), [(1024, 96), (640, 96), (512, 64)])
def test_waveform_losses_grow_with_noise(n_fft: int, n_mels: int) -> None:
    mel = LogMel(n_fft=n_fft, n_mels=n_mels, floor=-10.0)
    little, much = (waveform_losses(mel, WAVE, WAVE + level * NOISE) for level in (1e-5, 1e-2))
    for name, loss in little.items():
        assert 0 <= loss < 0.2
        assert much[name] > 2 * loss


def test_rate_model_is_a_distribution() -> None:
    """The bits of all symbols together belong to probabilities that add up to one."""
    rate = RateModel(torch.tensor([1.0, 20.0]))
    symbols = torch.arange(-400, 401, dtype=torch.float32)
    for level in (5, 20):
        grid = symbols.view(-1, 1, 1).expand(-1, 2, 1)
        bits = rate(grid, torch.zeros_like(grid), torch.full((len(symbols),), level))
        torch.testing.assert_close((2.0**-bits).sum(0), torch.ones(2, 1), atol=1e-3, rtol=0)


def test_discriminators_learn_to_tell_and_go_on() -> None:
    """Noisy speech from clean speech; their state comes back as it was."""
    exact, decoded = WAVE[:, :16000], (WAVE + 0.02 * NOISE)[:, :16000]
    opponent = Discriminators(4, 5e-3)
    for _ in range(30):
        opponent.judge(exact, decoded)
        opponent.learn()
    same, after = opponent.judge(exact, exact), opponent.judge(exact, decoded)
    assert same["features"] == 0
    assert same["adversarial"] < 0.7 * after["adversarial"]  # the verdict on what is real is nearer to 1
    other = Discriminators(4, 5e-3)
    other.load_state_dict(opponent.state_dict())
    assert other.judge(exact, decoded) == after


def test_verdicts_teach_the_waveform() -> None:
    """Gradients reach what is judged, and the discriminators' own weights get none of them."""
    opponent = Discriminators(4, 1e-3)
    decoded = (WAVE[:, :8000] + 0.01 * NOISE[:, :8000]).requires_grad_(True)
    judged = opponent.judge(WAVE[:, :8000], decoded)
    (judged["adversarial"] + judged["features"]).backward()
    assert decoded.grad is not None
    assert decoded.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in opponent.networks.parameters())
