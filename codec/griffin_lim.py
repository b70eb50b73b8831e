"""Fast Griffin-Lim: a waveform whose STFT magnitudes are as asked. Needs no training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .gain import AUDIBLE
from .mel import LogMel


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sum of frames [B, T, n] at distances of `hop`: [B, (T - 1) * hop + n]."""
    batch, count, size = frames.shape
    parts = -(-size // hop)
    pieces = F.pad(frames, (0, parts * hop - size)).view(batch, count, parts, hop)
    total = frames.new_zeros(batch, count + parts - 1, hop)
    for part in range(parts):
        total[:, part : part + count] += pieces[:, :, part]
    return total.view(batch, -1)[:, : (count - 1) * hop + size]


def griffin_lim(
    magnitude: Tensor, mel: LogMel, iterations: int = 32, momentum: float = 0.99, head: Tensor | None = None
) -> Tensor:
    """Invert STFT magnitudes (fast Griffin-Lim, Perraudin, Balazs, Sondergaard, WASPAA 2013).

    Args:
        magnitude: [B, n_fft // 2 + 1, T]; complex values say which phases to begin with.
        mel: the front-end that defines window, n_fft and hop.
        head: [B, K], samples at the start that are settled already; the rest continues them.
    Returns:
        waveform [B, T * hop_length + 2 * mel.pad], `mel.pad` samples of context at either end included.
    """
    weight = overlap_add((mel.window**2).expand(1, magnitude.shape[-1], -1), mel.hop_length).clamp(min=1e-2)

    def to_wave(spectrum: Tensor) -> Tensor:
        frames = torch.fft.irfft(spectrum.transpose(1, 2), mel.n_fft) * mel.window
        wave = overlap_add(frames, mel.hop_length) / weight
        if head is not None:
            wave[:, : head.shape[1]] = head
        return wave

    if magnitude.is_complex():
        estimate, magnitude = magnitude, magnitude.abs()
    else:  # The same start for every channel keeps equal channels equal, and a file's sound the same in every run.
        generator = torch.Generator().manual_seed(0)
        phase = torch.rand(magnitude.shape[1:], generator=generator) * (2 * torch.pi)
        estimate = torch.polar(magnitude, phase.expand_as(magnitude))
    previous = torch.zeros_like(estimate)
    for _ in range(iterations):
        consistent = mel.spectrum(to_wave(estimate))
        estimate = consistent + momentum * (consistent - previous)
        estimate *= magnitude / estimate.abs().clamp(min=1e-16)
        previous = consistent
    return to_wave(estimate)


class GriffinLim:
    """Griffin-Lim over a stream of STFT magnitudes, in chunks that continue each other without a seam.

    Each chunk looks `LOOKAHEAD` frames further than it emits, and the next one keeps what was emitted fixed while
    it finds phases for what follows. A chunk of 10.24 s takes about 60 MB.
    """

    LOOKAHEAD = 16
    OVERLAP = 14  # frames of settled samples; two windows
    FADE = 48  # samples from what the last chunk had guessed to come next, to what this one finds: no click

    def __init__(self, mel: LogMel, iterations: int = 32):
        self.mel, self.iterations = mel, iterations
        self._frames: Tensor | None = None  # [C, bins, T], not emitted yet, and OVERLAP before them
        self._head: Tensor | None = None  # [C, samples], emitted, from the first of these frames on
        self._next: Tensor | None = None  # [C, FADE], guessed to follow
        self._gain: Tensor | None = None  # [C, 1], at the end of what was emitted

    def push(self, frames: Tensor) -> Tensor:
        """Take magnitudes [C, n_fft // 2 + 1, T], or complex values to begin at; return the settled waveform [C, N]."""
        self._frames = frames if self._frames is None else torch.cat([self._frames, frames], 2)
        count = self._frames.shape[2] - self.LOOKAHEAD
        if count <= self.OVERLAP:
            return torch.zeros(len(frames), 0)
        return self._chunk(count, last=False)

    def flush(self) -> Tensor:
        """The rest, after the last frame of at least one."""
        assert self._frames is not None
        return self._chunk(self._frames.shape[2], last=True)

    def _chunk(self, count: int, last: bool) -> Tensor:
        assert self._frames is not None
        hop, pad = self.mel.hop_length, self.mel.pad
        magnitude = self._frames
        if magnitude.any() or (self._head is not None and self._head.any()):
            wave = griffin_lim(magnitude, self.mel, self.iterations, head=self._head)
        else:
            wave = torch.zeros(len(magnitude), magnitude.shape[2] * hop + 2 * pad)
        done = pad if self._head is None else self._head.shape[1]
        settled = count * hop + (pad if last else 0)
        if self._next is not None:
            fade = slice(done, done + self.FADE)
            wave[:, fade] = torch.lerp(self._next, wave[:, fade], torch.linspace(0, 1, self.FADE))
        self._next = wave[:, settled : settled + self.FADE]
        drop = count - self.OVERLAP
        self._frames = None if last else magnitude[:, :, drop:]
        self._head = wave[:, drop * hop : settled]
        # The estimate is inconsistent, so its waveform has too little energy; make up for it, gliding to the new gain
        pair = (magnitude.abs(), self.mel.spectrum(wave).abs())
        wanted, energy = (m[:, AUDIBLE:].square().sum((1, 2)) + 1e-9 for m in pair)
        gain = (wanted / energy).clamp(0.25, 4).sqrt()[:, None]
        before = gain if self._gain is None else self._gain
        self._gain = gain
        return wave[:, done:settled] * torch.lerp(before, gain, torch.linspace(0, 1, settled - done))
