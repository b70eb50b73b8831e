"""Random windows of training audio, augmented: the examples of a gradient step."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ...dsp.mel import LogMel
from .audio_cache import AudioCache, normalize
from .synthetic import synthesize


class Windows:
    """Random windows of audio: clips one after the other at levels of their own, tilted and mixed.

    Args:
        cache: its training clips are used.
        length: frames of the front-end; the waveforms have its `pad` in addition on either side.
        seed: of all random choices.
        synthetic: share of the examples that are tones, chirps, chords and clicks instead.
        held_out: use the held-out clips instead.

    Raises:
        ValueError: less audio than a window.
    """

    FADE = 160  # samples, where one clip follows another

    def __init__(
        self, cache: AudioCache, mel: LogMel, length: int, seed: int, synthetic: float = 0.0, held_out: bool = False
    ):
        self.cache, self.seed, self.pad, self.synthetic = cache, seed, mel.pad, synthetic
        self.sample_rate = mel.sample_rate
        self.samples = length * mel.hop_length + 2 * mel.pad
        clips = cache.part(held_out)
        self.starts = np.array([start for _, start, _ in clips])
        self.ends = np.cumsum([count for _, _, count in clips])
        if not clips or self.ends[-1] <= self.samples:
            seconds = (self.ends[-1] if clips else 0) / mel.sample_rate
            raise ValueError(f"{seconds:.1f} s of audio are too little for examples of {length} frames")

    def _stretch(self, rng: np.random.Generator) -> np.ndarray:
        """A random stretch of all clips together [samples], peak 1."""
        position = int(rng.integers(self.ends[-1] - self.samples))
        parts: list[np.ndarray] = []
        missing = self.samples
        clip = int(np.searchsorted(self.ends, position, "right"))
        ramp = np.linspace(0, 1, self.FADE, dtype=np.float32)
        while missing:
            offset = position - (self.ends[clip - 1] if clip else 0)
            count = min(missing, int(self.ends[clip]) - position)
            part = self.cache.crop(int(self.starts[clip] + offset), count)
            part = part / max(float(np.abs(part).max()), 1e-3)
            if parts:
                part *= np.exp(-rng.uniform(0, 1.6))  # down to -14 dB
                fade = min(self.FADE, count)
                part[:fade] *= ramp[:fade]
            missing -= count
            if missing:
                fade = min(self.FADE, count)
                part[count - fade :] *= ramp[:fade][::-1]
            parts.append(part)
            position += count
            clip += 1
        return np.concatenate(parts)

    def _example(self, rng: np.random.Generator) -> np.ndarray:
        if self.synthetic and rng.random() < self.synthetic:
            return synthesize(self.samples, self.sample_rate, rng)
        wave = self._stretch(rng)
        if rng.random() < 0.2:
            wave = wave + self._stretch(rng) * np.float32(np.exp(-rng.uniform(0.3, 2.5)))
        if rng.random() < 0.5:
            spectrum = np.fft.rfft(wave)
            hz = np.linspace(0, 1, len(spectrum))
            bands = math.pi * np.log1p(20 * hz) / math.log(21)  # about a mel scale
            tilt = sum(rng.normal(0, 0.25) * np.cos(k * bands) for k in (1, 2, 3))
            wave = np.fft.irfft(spectrum * np.exp(tilt), len(wave)).astype(np.float32)
        return wave

    def batch(self, step: int, size: int) -> Tensor:
        """[size, samples] float32; a function of seed and step alone, so that a resumed run sees the same data."""
        rng = np.random.default_rng([self.seed, step])
        return torch.stack([normalize(torch.from_numpy(self._example(rng)), self.pad) for _ in range(size)])
