"""Discriminators of waveforms: by periods (HiFi-GAN) and by spectrograms at several resolutions (UnivNet), strided.

Small ones: they judge what a codec of a few million parameters adds, on a CPU. All first layers stride, because full
resolution is what costs most there.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)  # samples
WINDOWS = (256, 512, 1024)  # samples; hops are a quarter
SLOPE = 0.1  # of leaky rectifiers


class PeriodDiscriminator(nn.Module):
    """Waveforms [B, N] folded to [N / period, period]; convolutions run along time alone.

    Args:
        period: samples.
        width: channels of the first layer; each layer has twice as many, up to 8 times.
    """

    def __init__(self, period: int, width: int):
        super().__init__()
        self.period = period
        sizes = [1, width, 2 * width, 4 * width, 8 * width]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in itertools.pairwise(sizes)
        )
        self.last = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """Features of all layers; the last one is the verdict."""
        wave = F.pad(wave, (0, -wave.shape[1] % self.period))
        h, features = wave.unflatten(1, (-1, self.period))[:, None], []
        for layer in self.layers:
            features.append(h := F.leaky_relu(layer(h), SLOPE))
        return [*features, self.last(h)]


class SpectrumDiscriminator(nn.Module):
    """Log-magnitudes of an STFT as an image; every layer strides along frequency.

    Args:
        n_fft: window, samples.
        width: channels of the first layer; the others have twice as many.
    """

    def __init__(self, n_fft: int, width: int):
        super().__init__()
        self.n_fft = n_fft
        sizes = [1, width, 2 * width, 2 * width, 2 * width]
        strides = [(2, 2), (2, 1), (2, 2), (2, 1)]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 3), stride, (2, 1)))
            for a, b, stride in zip(sizes, sizes[1:], strides, strict=False)
        )
        self.last = weight_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """As of `PeriodDiscriminator`."""
        with torch.autocast(wave.device.type, enabled=False):
            window = torch.hann_window(self.n_fft, device=wave.device)
            hop = self.n_fft // 4
            spectrum = torch.stft(wave.float(), self.n_fft, hop, window=window, center=False, return_complex=True)
            h = (spectrum.real.square() + spectrum.imag.square()).clamp(min=1e-8).log()[:, None] / 6
        features = []
        for layer in self.layers:
            features.append(h := F.leaky_relu(layer(h), SLOPE))
        return [*features, self.last(h)]


class Discriminators:
    """All of them, with their optimiser: the opponent of what makes waveforms. Least squares (LSGAN).

    Args:
        width: channels of first layers.
        learning_rate: constant.
        autocast: what the networks run in.
    """

    def __init__(
        self,
        width: int,
        learning_rate: float,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ):
        torch.manual_seed(1)
        periods = [PeriodDiscriminator(period, width) for period in PERIODS]
        self.networks = nn.ModuleList([*periods, *(SpectrumDiscriminator(n_fft, width) for n_fft in WINDOWS)])
        self.optimizer = torch.optim.AdamW(self.networks.parameters(), learning_rate, betas=(0.8, 0.99))
        self.autocast = autocast
        self._last: tuple[Tensor, Tensor] | None = None

    def judge(self, exact: Tensor, decoded: Tensor) -> dict[str, Tensor]:
        """Losses of decoded waveforms [B, N]: verdicts, and the distance of features from those of the originals."""
        self._last = exact.detach(), decoded.detach()
        adversarial, distance = [], []
        self.networks.requires_grad_(False)
        for network in self.networks:
            with self.autocast():
                with torch.no_grad():
                    real = network(exact)
                fake = network(decoded)
            adversarial.append((fake[-1].float() - 1).square().mean())
            for a, b in zip(real[:-1], fake[:-1], strict=True):
                distance.append((a.float() - b.float()).abs().mean() / a.float().abs().mean().clamp(min=1e-3))
        return {"adversarial": torch.stack(adversarial).mean(), "features": torch.stack(distance).mean()}

    def learn(self) -> None:
        """Tell the waveforms that were judged last from their originals."""
        if self._last is None:
            return
        exact, decoded = self._last
        self.networks.requires_grad_(True)
        losses = []
        for network in self.networks:
            with self.autocast():
                real, fake = network(exact)[-1], network(decoded)[-1]
            losses.append((real.float() - 1).square().mean() + fake.float().square().mean())
        self.optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), 10.0)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Networks and optimiser."""
        return dict(networks=self.networks.state_dict(), optimizer=self.optimizer.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])
