"""Short-time spectra of streams, and the bands in them.

Frames of 20 ms every 5 ms, with bins every 50 Hz at any rate, so that those of the core at 16 kHz and those at 48 kHz
are the same up to 8 kHz. The power of a bin is that of white noise of equal density at 48 kHz.
"""

from __future__ import annotations

import functools

import numpy as np

CORE_RATE, FULL_RATE = 16000, 48000
FRAMES_PER_HOP = 2
FRAME_RATE = 200
OVERLAP = 4  # frames that a sample is in
CORE_BINS, FULL_BINS = 161, 401  # up to 8 and 20 kHz
# Bins. The high band begins where the core fades.
HIGH_EDGES = np.array([152, 180, 200, 225, 250, 280, 310, 350, 401])  # bins
STEREO_EDGES = np.array([0, 3, 6, 9, 13, 18, 24, 32, 43, 58, 78, 110, 160, 225, 401])
CORE_STEREO_BANDS = 12  # below 8 kHz


@functools.cache
def window(size: int) -> np.ndarray:
    """Periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def _scale(size: int) -> float:
    """What spectra of windows of a size are multiplied by: density is power per bin at FULL_RATE."""
    return float(np.sqrt(FULL_RATE / FRAME_RATE * OVERLAP / size / np.square(window(size)).sum()))


def band_sums(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Sums [..., bands] of values [..., bins] between edges."""
    return np.add.reduceat(values[..., : edges[-1]], edges[:-1], -1)


def power(spectra: np.ndarray) -> np.ndarray:
    """Squared magnitudes."""
    return spectra.real**2 + spectra.imag**2


class Analysis:
    """Samples [C, n] of a stream -> spectra complex64 [C, T, bins]; frame t is centred at (t - 1) * 5 ms."""

    def __init__(self, rate: int, channels: int):
        self._hop = rate // FRAME_RATE
        self.size = OVERLAP * self._hop
        self._held = np.zeros((channels, self.size // 2 + self._hop), np.float32)

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take samples; return the spectra that are complete by now."""
        held = np.concatenate([self._held, block], 1)
        count = max(0, (held.shape[1] - self.size) // self._hop + 1)
        self._held = held[:, count * self._hop :]
        if not count:
            return np.zeros((len(held), 0, self.size // 2 + 1), np.complex64)
        frames = np.lib.stride_tricks.sliding_window_view(held, self.size, 1)[:, : count * self._hop : self._hop]
        return np.fft.rfft(frames * (window(self.size) * np.float32(_scale(self.size))))

    def flush(self) -> np.ndarray:
        """The rest: as many frames as reach into the sound, and what `Synthesis` needs to end it."""
        return self.push(np.zeros((len(self._held), self.size), np.float32))


class Synthesis:
    """Inverse of `Analysis`, at any rate: spectra [C, T, bins] -> samples [C, n], 15 ms after their frame."""

    def __init__(self, rate: int, channels: int):
        self._hop = rate // FRAME_RATE
        self.size = OVERLAP * self._hop
        self._tail = np.zeros((channels, self.size - self._hop), np.float32)
        self._skip = self.size // 2 + self._hop  # samples before the stream

    def push(self, spectra: np.ndarray) -> np.ndarray:
        """Take spectra, whose missing bins are zero; return the samples that are complete by now."""
        channels, count, _ = spectra.shape
        if not count:
            return np.zeros((channels, 0), np.float32)
        scale = _scale(self.size) * OVERLAP * np.square(window(self.size)).mean()
        frames = np.fft.irfft(spectra, self.size) * (window(self.size) / np.float32(scale))
        out = np.zeros((channels, count + OVERLAP - 1, self._hop), np.float32)
        for part in range(OVERLAP):
            out[:, part : part + count] += frames[..., part * self._hop : (part + 1) * self._hop]
        out = out.reshape(channels, -1)
        out[:, : self._tail.shape[1]] += self._tail
        done, self._tail = out[:, : count * self._hop], out[:, count * self._hop :]
        skip = min(self._skip, done.shape[1])
        self._skip -= skip
        return done[:, skip:]


class Context:
    """Frames [C, T, bins] of a stream, each with so many before and after it; both ends are continued by zeros."""

    def __init__(self, before: int, after: int):
        self.before, self.after = before, after
        self._held: np.ndarray | None = None

    def push(self, frames: np.ndarray, last: bool = False) -> np.ndarray:
        """Take frames; return [C, before + n + after, bins]: those whose context is complete by now, and that."""
        channels, _, bins = frames.shape
        parts = [np.zeros((channels, self.before, bins), frames.dtype) if self._held is None else self._held, frames]
        if last:
            parts.append(np.zeros((channels, self.after, bins), frames.dtype))
        held = np.concatenate(parts, 1)
        self._held = held[:, max(0, held.shape[1] - self.before - self.after) :]
        return held


def moving_mean(values: np.ndarray, radius: int) -> np.ndarray:
    """Means [C, T - 2 radius, ...] of each 2 radius + 1 neighbours in time of [C, T, ...]."""
    total = np.cumsum(values, 1, dtype=np.complex128 if np.iscomplexobj(values) else np.float64)
    total = np.concatenate([np.zeros_like(total[:, :1]), total], 1)
    width = 2 * radius + 1
    return (total[:, width:] - total[:, :-width]) / width
