"""Fast Griffin-Lim: a waveform for given STFT magnitudes. Needs no training."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dsp.loudness import audible_energy
from ..dsp.mel import LogMel
from ..dsp.stft import glide, overlap_add, ramp, window_sum
from ..values import Frames
from .phases import starting_phases


def griffin_lim(
    magnitude: Tensor, mel: LogMel, iterations: int = 8, momentum: float = 0.99, head: Tensor | None = None
) -> Tensor:
    """Invert STFT magnitudes (fast Griffin-Lim, Perraudin, Balazs, Sondergaard, WASPAA 2013).

    Args:
        magnitude: [B, n_fft // 2 + 1, T]; complex values say which phases to begin with.
        mel: the front-end that defines window, n_fft and hop.
        head: [B, K], samples at the start that are settled already, n_fft at least; the rest continues them.
    Returns:
        waveform [B, T * hop_length + 2 * mel.pad], `mel.pad` samples of context at either end included.
    """
    hop, window = mel.hop_length, mel.array("window", magnitude)
    weight = window_sum(magnitude.shape[-1], hop, window).reciprocal()

    def to_wave(spectrum: Tensor) -> Tensor:
        wave = overlap_add(torch.fft.irfft(spectrum, mel.n_fft), hop, window).mul_(weight)
        if head is not None:
            wave[:, : head.shape[1]] = head
        return wave

    # One frame after the other in memory, all along: transposing takes as long as a Fourier transform.
    if magnitude.is_complex():
        estimate, magnitude = magnitude.mT.contiguous(), magnitude.mT.abs()
    else:
        magnitude = magnitude.mT.contiguous()
        first = None if head is None else torch.fft.rfft(head[:, : mel.n_fft] * window).angle()
        estimate = torch.polar(magnitude, starting_phases(magnitude, hop, first))
    previous = torch.zeros_like(estimate)
    for _ in range(iterations):
        consistent = torch.fft.rfft(to_wave(estimate).unfold(1, mel.n_fft, hop) * window)
        # Real and imaginary parts as real numbers: several times faster than complex arithmetic, and than abs() by far.
        parts = torch.view_as_real(previous).lerp_(torch.view_as_real(consistent), 1 + momentum)
        squares = parts.square()
        scale = (squares[..., 0] + squares[..., 1]).clamp_(min=1e-32).rsqrt_().mul_(magnitude)
        estimate, previous = previous.mul_(scale), consistent
    return to_wave(estimate)


class GriffinLim:
    """Griffin-Lim over a stream of STFT magnitudes, in chunks that continue each other without a seam.

    Each chunk looks `LOOKAHEAD` frames further than it emits, and the next one keeps what was emitted fixed while
    it finds phases for what follows. A chunk of 10.24 s takes about 60 MB.
    """

    LOOKAHEAD = 16
    FADE = 48  # samples from what the last chunk had guessed to come next, to what this one finds: no click

    def __init__(self, mel: LogMel, iterations: int = 8):
        self.mel, self.iterations = mel, iterations
        self.overlap = -(-mel.n_fft // mel.hop_length)  # frames of settled samples; a window
        self._frames: Tensor | None = None  # [C, bins, T], not emitted yet, and `overlap` before them
        self._head: Tensor | None = None  # [C, samples], emitted, from the first of these frames on
        self._next: Tensor | None = None  # [C, FADE], guessed to follow
        self._gain: Tensor | None = None  # [C, 1], at the end of what was emitted

    def push(self, frames: Tensor) -> Tensor:
        """Take magnitudes [C, n_fft // 2 + 1, T], or complex values to begin at; return the settled waveform [C, N]."""
        self._frames = frames if self._frames is None else torch.cat([self._frames, frames], 2)
        count = self._frames.shape[2] - self.LOOKAHEAD
        if count <= self.overlap:
            return self._frames.new_zeros(len(frames), 0, dtype=torch.float32)
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
            size = magnitude.shape[2] * hop + 2 * pad
            wave = magnitude.new_zeros(len(magnitude), size, dtype=torch.float32)
        done = pad if self._head is None else self._head.shape[1]
        settled = count * hop + (pad if last else 0)
        if self._next is not None:
            fade = slice(done, done + self.FADE)
            wave[:, fade] = torch.lerp(self._next, wave[:, fade], ramp(self.FADE, wave))
        # Copies: parts of it would keep the whole in memory, for each channel
        self._next = wave[:, settled : settled + self.FADE].clone()
        drop = count - self.overlap
        self._frames = None if last else magnitude[:, :, drop:].clone()
        self._head = wave[:, drop * hop : settled].clone()
        # The estimate is inconsistent, so its waveform has too little energy; compensate, gliding to the new gain
        wanted, energy = audible_energy(magnitude.abs()), audible_energy(self.mel.spectrum(wave).abs())
        gain = (wanted / energy).clamp(0.25, 4).sqrt()[:, None]
        before, self._gain = self._gain, gain
        return glide(wave[:, done:settled], before, gain)


class GriffinLimRenderer(GriffinLim):
    """Griffin-Lim alone, as the renderer of a model."""

    def push(self, frames: Frames) -> Tensor:  # type: ignore[override]
        """Take frames with STFT magnitudes; return the waveform [C, N] that is settled by now."""
        return super().push(frames.magnitudes)
