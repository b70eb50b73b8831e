"""A network behind Griffin-Lim that corrects its complex spectrum: the second one of a model folder's `vocoder/`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dsp.mel import LogMel
from ..dsp.stft import overlap_add, window_sum
from ..settings import Ranges
from .layers import Configured, ResidualBlock

STRIDE = 2  # frames per step of the convolutions
MIN_MAGNITUDE = 1e-4  # magnitudes below are as good as this; those of a normalised clip reach about 60
MAX_LOG_GAIN = 3.0  # nats that a magnitude is changed by, at most
MAX_PROJECTION_GAIN = 20.0  # most that a mel band is raised or lowered by a projection


class Corrector(Configured):
    """Waveform of Griffin-Lim, the decoded log-mel and the quantiser's step -> a better waveform.

    Griffin-Lim finds phases for magnitudes that no waveform has exactly, and what it returns has neither the envelopes
    nor the valleys between harmonics of the decoded magnitudes. Convolutions see its short-time spectrum, the course of
    its phases and the log-mel, and predict a gain and a rotation for each value. That correction starts at zero. Then
    the spectrum is projected back onto the decoded mel bands, which the file stores and ViSQOL compares.

    Args:
        mel: the front-end.
        width: channels.
        blocks: residual blocks; each sees `STRIDE` frames more to either side.
        n_fft: its own window, no longer than that of the log-mel: what is corrected is the course in time too.
        projections: how often the output is projected back onto the decoded mel bands, 0 to 2.

    Raises:
        ValueError: `n_fft` or `projections` out of range.
    """

    ranges: ClassVar[Ranges] = dict(width=(1, 8192), blocks=(0, 64), n_fft=(2, 8192), projections=(0, 2))
    advance: Tensor

    def __init__(self, mel: LogMel, width: int = 384, blocks: int = 4, n_fft: int = 512, projections: int = 2):
        super().__init__()
        if not 0 <= projections <= 2:
            raise ValueError(f"projections must be 0 to 2, not {projections}")
        if n_fft % 2 or not 2 * mel.hop_length <= n_fft <= mel.n_fft:
            raise ValueError(f"n_fft must be even, from two hops to the front-end's {mel.n_fft}, not {n_fft}")
        self.config: dict[str, Any] = dict(width=width, blocks=blocks, n_fft=n_fft, projections=projections)
        self.mel, self.short, self.projections = mel, replace(mel, n_fft=n_fft), projections
        self.bins = n_fft // 2 + 1
        # frames on either side that a frame's output depends on, at most: convolutions, and two windows of the log-mel
        self.context = STRIDE * (blocks + 2 + mel.n_fft // mel.hop_length + 1)
        self.input = nn.Linear(STRIDE * (5 * self.bins + mel.n_mels + 1), width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.output = nn.Linear(width, STRIDE * 2 * self.bins)
        # conjugate of how a steady sine in the middle of each bin turns from frame to frame, [bins, 1]
        angle = 2 * math.pi / n_fft * (torch.arange(self.bins, device="cpu") * self.short.hop_length % n_fft).float()
        self.register_buffer("advance", torch.polar(torch.ones_like(angle), -angle)[:, None], persistent=False)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, wave: Tensor, magnitudes: Tensor, step: Tensor, scale: Tensor) -> Tensor:
        """Correct waveforms.

        Args:
            wave: [B, T * hop_length + 2 * pad] with `pad` of its own front-end; T a multiple of STRIDE.
            magnitudes: [B, n_fft // 2 + 1, T], decoded, the input of Griffin-Lim.
            step: [B, T], the quantiser's.
            scale: [B, T], what normalised magnitudes and waveform have been multiplied by.
        Returns:
            [B, T * hop_length].
        """
        scale = scale[:, None]
        spectrum = self.short.spectrum(wave)
        with torch.autocast(wave.device.type, enabled=False):
            mel = self.mel.from_magnitudes(magnitudes / scale)
        gain, angle = self.correction(spectrum / scale, mel, step)
        corrected = waveform(spectrum * torch.polar(gain.exp(), angle), self.short)
        for _ in range(self.projections):
            corrected = self._project(corrected, magnitudes, scale)
        return corrected

    def _project(self, wave: Tensor, magnitudes: Tensor, scale: Tensor) -> Tensor:
        """The waveform [B, T * hop_length] with mel bands about as in these magnitudes."""
        basis, shares = self.mel.array("basis", wave), self.mel.array("shares", wave)
        spectrum = self.mel.spectrum(F.pad(wave, (self.mel.pad, self.mel.pad)))
        quiet = math.exp(self.mel.floor + 1) * scale
        ratio = (basis @ magnitudes).maximum(quiet) / (basis @ spectrum.abs()).maximum(quiet)
        return waveform(
            spectrum * (shares.T @ ratio.clamp(1 / MAX_PROJECTION_GAIN, MAX_PROJECTION_GAIN).log()).exp(), self.mel
        )

    def correction(self, spectrum: Tensor, mel: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """How much to raise (nats) and to turn (radians) each value of [B, bins, T]."""
        batch, bins, frames = spectrum.shape
        magnitude = spectrum.abs().clamp(min=MIN_MAGNITUDE)
        phase = spectrum / magnitude
        turned = F.pad(phase[..., 1:] * phase[..., :-1].conj() * self.advance, (1, 0))
        delayed = F.pad(phase[:, 1:] * -phase[:, :-1].conj(), (0, 0, 1, 0))  # sign: from the middle of the window on
        course = [v for z in (turned, delayed) for v in (z.real, z.imag)]
        seen = torch.cat([(magnitude.log() + 3) / 3, *course, (mel.mT + 5) / 3, step.log()[:, None]], 1)
        h = self.input(seen.mT.reshape(batch, frames // STRIDE, -1)).mT
        for block in self.blocks:
            h = block(h)
        found = self.output(F.gelu(h).mT).float().reshape(batch, frames, 2, bins)
        gain = MAX_LOG_GAIN * torch.tanh(found[:, :, 0].mT / MAX_LOG_GAIN)
        return gain, math.pi * torch.tanh(found[:, :, 1].mT / math.pi)


def waveform(spectrum: Tensor, mel: LogMel) -> Tensor:
    """Waveform [B, T * hop_length] whose STFT is nearest to [B, n_fft // 2 + 1, T]; the context at its ends is cut."""
    window = mel.array("window", spectrum)
    frames = torch.fft.irfft(spectrum.mT, mel.n_fft)
    weight = window_sum(frames.shape[1], mel.hop_length, window)
    return (overlap_add(frames, mel.hop_length, window) / weight)[:, mel.pad : -mel.pad]
