"""Vocoders of AudioLDM 2's log-mels: the checkpoint's HiFi-GAN, Griffin-Lim, and one after the other.

Each takes a stream of frames with mel magnitudes [C, n_mels, T] at their true level; their scale says how loud the
packet is that they come from, so that a network sees them as normalised as it was trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dsp.mel import LogMel
from ..dsp.stft import glide
from ..values import Frames
from .griffin_lim import GriffinLim

MIN_SCALE = 1e-9  # of a packet's level, to divide by it


def normalised(frames: Frames, floor: float) -> Tensor:
    """Frames -> log-mel [C, T, n_mels] as the autoencoder gave it."""
    bands = frames.magnitudes / frames.scale.clamp(min=MIN_SCALE)
    return bands.clamp(min=math.exp(floor)).log().transpose(1, 2)


def magnitudes_of(frames: Frames, mel: LogMel) -> Tensor:
    """Frames -> STFT magnitudes [C, n_fft // 2 + 1, T] at their true level, by least squares."""
    return mel.magnitudes(normalised(frames, mel.floor)) * frames.scale


class MelGriffinLim(GriffinLim):
    """Griffin-Lim from frames."""

    def push(self, frames: Frames) -> Tensor:  # type: ignore[override]
        """Take frames; return the waveform [C, N] that is settled by now."""
        return super().push(magnitudes_of(frames, self.mel))


class HifiGan:
    """HiFi-GAN in chunks that continue each other: each sees CONTEXT frames at either side, more than it reacts to.

    Args:
        network: log-mel [B, T, n_mels] -> waveform [B, hop * T + some], centred.
        match: whether to give each chunk the energy of its frames, see `_match_level`.
    """

    CONTEXT = 32

    def __init__(self, network: Callable[[Tensor], Tensor], mel: LogMel, match: bool = False):
        self.network, self.mel, self.match = network, mel, match
        self._frames: Frames | None = None  # not emitted yet, and `_before` frames of context
        self._before = 0
        self._gain: Tensor | None = None

    def push(self, frames: Frames) -> Tensor:
        """Take frames; return the waveform [C, N] that is settled by now."""
        self._frames = frames if self._frames is None else Frames.stack([self._frames, frames], -1)
        count = self._frames.count - self._before - self.CONTEXT
        if count <= 0:
            return frames.scale.new_zeros(len(frames.scale), 0)
        wave = self._chunk(self._frames, count)
        keep = min(self.CONTEXT, self._before + count)
        self._frames, self._before = self._frames.during(slice(self._before + count - keep, None)), keep
        return wave

    def flush(self) -> Tensor:
        """The rest, after the last frame of at least one."""
        assert self._frames is not None
        wave = self._chunk(self._frames, self._frames.count - self._before)
        self._frames, self._before = None, 0
        return wave

    def _chunk(self, frames: Frames, count: int) -> Tensor:
        hop = self.mel.hop_length
        wave = self.wave(frames)[:, self._before * hop : (self._before + count) * hop]
        mine = frames.during(slice(self._before, self._before + count))
        return self._match_level(mine, wave) if self.match else wave

    def wave(self, frames: Frames) -> Tensor:
        """Frames -> waveform [C, hop * T] at its true level."""
        samples = frames.count * self.mel.hop_length
        wave = self.network(normalised(frames, self.mel.floor))
        extra = wave.shape[1] - samples  # 32 for the published network: half of them at either end
        level = F.interpolate(frames.scale, samples, mode="linear")[:, 0]
        return wave[:, extra // 2 : extra // 2 + samples] * level

    def _match_level(self, frames: Frames, wave: Tensor) -> Tensor:
        """The waveform with the energy of its frames."""
        wanted = frames.magnitudes.square().sum((1, 2))
        energy = self.mel(wave).exp().square().sum((1, 2))
        before, self._gain = self._gain, (wanted / energy.clamp(min=1e-12)).sqrt().clamp(0.25, 4)[:, None]
        return glide(wave, before, self._gain)


class Hybrid(HifiGan):
    """HiFi-GAN's phases, made consistent with the log-mel's magnitudes by some rounds of Griffin-Lim."""

    ITERATIONS = 8

    def __init__(self, network: Callable[[Tensor], Tensor], mel: LogMel):
        super().__init__(network, mel)
        self._griffin_lim = GriffinLim(mel, self.ITERATIONS)

    def push(self, frames: Frames) -> Tensor:
        spectrum = super().push(frames)
        return self._griffin_lim.push(spectrum) if spectrum.shape[-1] else spectrum

    def flush(self) -> Tensor:
        last = self._griffin_lim.push(super().flush())
        return torch.cat([last, self._griffin_lim.flush()], 1)

    def __copy__(self) -> Hybrid:
        other = Hybrid(self.network, self.mel)
        other.__dict__.update(self.__dict__, _griffin_lim=copy.copy(self._griffin_lim))
        return other

    def _chunk(self, frames: Frames, count: int) -> Tensor:
        """A complex spectrum [C, n_fft // 2 + 1, count]."""
        mine = slice(self._before, self._before + count)
        spectrum = self.mel.spectrum(F.pad(self.wave(frames), (self.mel.pad, self.mel.pad)))[:, :, mine]
        return torch.polar(magnitudes_of(frames.during(mine), self.mel), spectrum.angle())
