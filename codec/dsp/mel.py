"""Log-mel front-end with AudioLDM 2's definition, and its least-squares inverse."""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import Ranges, check_ranges


def slaney_mel(hz: Tensor) -> Tensor:
    """Slaney's mel scale (Auditory Toolbox): linear below 1 kHz, 27 log steps per factor 6.4 above."""
    log_step = math.log(6.4) / 27
    return torch.where(hz < 1000, hz * 3 / 200, 15 + torch.log(hz.clamp(min=1e-9) / 1000) / log_step)


def slaney_hz(mel: Tensor) -> Tensor:
    """Inverse of `slaney_mel`."""
    log_step = math.log(6.4) / 27
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp(log_step * (mel - 15)))


@functools.cache
def on_device(mel: LogMel, name: str, device: torch.device) -> Tensor:
    """One of a front-end's arrays on a device."""
    with torch.inference_mode(False):  # training may need it, too
        return getattr(mel, name).clone().to(device)


@dataclass(frozen=True)
class LogMel:
    """Log-mel spectrogram: natural log of Slaney mel bands of STFT magnitudes.

    The defaults are AudioLDM 2's training front-end (AudioLDM-training-finetuning, 16k_64.yaml:
    magnitude, Slaney scale and norm, clamp 1e-5, waveform reflected by (n_fft - hop) / 2, not centred).

    Raises:
        ValueError: a field out of range.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    hop_length: int = 160
    n_mels: int = 64
    fmin: float = 0.0
    fmax: float = 8000.0
    floor: float = math.log(1e-5)

    ranges: ClassVar[Ranges] = dict(
        sample_rate=(8000, 48000), n_fft=(2, 8192), hop_length=(1, 4096), n_mels=(1, 512),
        fmin=(0.0, 24000.0), fmax=(0.0, 24000.0), floor=(-30.0, 0.0),
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_ranges(self.config(), self.ranges)
        if self.n_fft % 2 or self.hop_length % 2 or self.n_fft < 2 * self.hop_length:
            raise ValueError("n_fft must be even, and at least two hops of an even number of samples")
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(f"fmax must be above fmin, and at most half of the sample rate, not {self.fmax:g}")

    @property
    def pad(self) -> int:
        """Samples of context that the first and the last frame need on either side."""
        return (self.n_fft - self.hop_length) // 2

    @functools.cached_property
    def basis(self) -> Tensor:
        """Triangular bands of unit area (Slaney norm), [n_mels, n_fft // 2 + 1]."""
        hz = torch.linspace(0, self.sample_rate / 2, self.n_fft // 2 + 1, dtype=torch.float64)
        ends = slaney_mel(torch.tensor([self.fmin, self.fmax], dtype=torch.float64))
        edges = slaney_hz(torch.linspace(ends[0].item(), ends[1].item(), self.n_mels + 2, dtype=torch.float64))
        rise = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        fall = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
        area = 2 / (edges[2:] - edges[:-2])[:, None]
        return (torch.minimum(rise, fall).clamp(min=0) * area).float()

    @functools.cached_property
    def window(self) -> Tensor:
        """Periodic Hann window, [n_fft]."""
        return torch.hann_window(self.n_fft)

    def array(self, name: str, like: Tensor) -> Tensor:
        """`window`, `basis` or another array of this front-end, on the device that `like` is on."""
        return on_device(self, name, like.device)

    def config(self) -> dict[str, Any]:
        """The fields as plain numbers, for a model folder's JSON."""
        return asdict(self)

    def spectrum(self, padded: Tensor) -> Tensor:
        """STFT of waveforms that already carry `pad` samples of context per side.

        Args:
            padded: [B, N + 2 pad], N a multiple of hop_length.
        Returns:
            complex [B, n_fft // 2 + 1, N / hop_length].
        """
        return torch.stft(
            padded, self.n_fft, self.hop_length, window=self.array("window", padded), center=False, return_complex=True
        )

    def from_magnitudes(self, magnitude: Tensor) -> Tensor:
        """STFT magnitudes [B, n_fft // 2 + 1, T] -> [B, T, n_mels], natural log, not below `floor`."""
        return (magnitude.transpose(1, 2) @ self.array("basis", magnitude).T).clamp(min=math.exp(self.floor)).log()

    def __call__(self, wave: Tensor) -> Tensor:
        """Log-mel of whole waveforms [B, N], reflected at both ends: [B, N / hop_length, n_mels]."""
        padded = F.pad(wave[:, None], (self.pad, self.pad), mode="reflect")[:, 0]
        return self.from_magnitudes(self.spectrum(padded).abs())

    @functools.cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.pinv(self.basis.double()).float()

    @functools.cached_property
    def _interpolation(self) -> Tensor:
        """[n_mels, n_fft // 2 + 1]: maps the bands of a flat spectrum to that spectrum."""
        return self.basis / (self.basis.sum(1) @ self.basis).clamp(min=1e-4)

    @functools.cached_property
    def shares(self) -> Tensor:
        """How much of a bin belongs to each band, [n_mels, n_fft // 2 + 1]; sums to 1, or 0 outside of all bands."""
        return self.basis / self.basis.sum(0).clamp(min=1e-9)

    def interpolate(self, mel: Tensor) -> Tensor:
        """Log-mel [B, T, n_mels] -> smooth linear log-magnitudes [B, T, n_fft // 2 + 1]."""
        return (mel.exp() @ self.array("_interpolation", mel)).clamp(min=1e-7).log()

    def pseudo_inverse(self, mel: Tensor) -> Tensor:
        """Positive linear magnitudes, roughly: the pseudo-inverse, not below a tenth of what interpolation gives.

        Args:
            mel: [B, T, n_mels], natural log.
        Returns:
            [B, T, n_fft // 2 + 1].
        """
        bands = mel.exp()
        inverse, interpolation = self.array("_inverse", mel), self.array("_interpolation", mel)
        return torch.maximum(bands @ inverse.T, 0.1 * bands @ interpolation).clamp(min=1e-7)

    def magnitudes(self, mel: Tensor, iterations: int = 12, start: Tensor | None = None) -> Tensor:
        """Non-negative linear magnitudes whose mel bands match, by multiplicative updates.

        The updates (Lee and Seung, NIPS 2000) keep the shape of what they start at, within each band.

        Args:
            mel: [B, T, n_mels], natural log.
            start: [B, T, n_fft // 2 + 1], positive; without it, the clamped pseudo-inverse.
        Returns:
            [B, n_fft // 2 + 1, T].
        """
        target, basis = mel.exp(), self.array("basis", mel)
        if start is None:
            start = (target @ self.array("_inverse", mel).T).clamp(min=0) + 1e-3 * target @ basis
        guess = start
        for _ in range(iterations):
            guess = guess * ((target @ basis) / (guess @ basis.T @ basis).clamp(min=1e-12))
        return guess.transpose(1, 2)
