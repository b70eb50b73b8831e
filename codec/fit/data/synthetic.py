"""Synthetic examples that recordings hardly contain: steady tones, chirps, chords and clicks."""

from __future__ import annotations

import numpy as np

MIN_PITCH = 60.0  # Hz; the highest partial is below 0.95 of half the sampling rate


def synthesize(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """One example [samples] float32 with a peak of 1: a tone, a chirp, a chord or clicks, often with a little noise."""
    time = np.arange(samples) / sample_rate
    highest = 0.95 * sample_rate / 2
    wave = (_tone, _chirp, _chord, _clicks)[rng.integers(4)](time, highest, rng)
    if rng.random() < 0.5:  # switched on and off, as a tone in a file begins and ends
        start, stop = np.sort(rng.uniform(0, time[-1], 2))
        if stop - start > 0.2:
            wave = wave * ((time >= start) & (time < stop))
    wave = wave / max(np.abs(wave).max(), 1e-3)
    if rng.random() < 0.5:
        wave = wave + 10 ** rng.uniform(-4, -2) * rng.standard_normal(samples)
    return (wave / max(np.abs(wave).max(), 1e-3)).astype(np.float32)


def _pitch(highest: float, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(MIN_PITCH), np.log(highest))))


def _tone(time: np.ndarray, highest: float, rng: np.random.Generator) -> np.ndarray:
    """A sine, or harmonics that fall by 3 to 12 dB an octave."""
    pitch = _pitch(highest, rng)
    slope = rng.uniform(0.5, 2)
    count = 1 if rng.random() < 0.5 else int(min(30, highest / pitch))
    wave = np.zeros(len(time))
    for k in range(1, count + 1):
        wave += k**-slope * np.sin(2 * np.pi * (k * pitch * time + rng.random()))
    return wave


def _chirp(time: np.ndarray, highest: float, rng: np.random.Generator) -> np.ndarray:
    """A sine that glides between two frequencies, exponentially."""
    first, last = _pitch(highest, rng), _pitch(highest, rng)
    octaves = np.log(last / first) / time[-1]
    if abs(octaves) < 1e-3:
        return np.sin(2 * np.pi * first * time)
    return np.sin(2 * np.pi * first * np.expm1(octaves * time) / octaves)


def _chord(time: np.ndarray, highest: float, rng: np.random.Generator) -> np.ndarray:
    """Two to five tones that decay, or not."""
    wave = np.zeros(len(time))
    for _ in range(rng.integers(2, 6)):
        wave += _tone(time, min(highest, 3000.0), rng) * np.exp(-time * rng.choice([0, 1, 4]))
    return wave


def _clicks(time: np.ndarray, highest: float, rng: np.random.Generator) -> np.ndarray:
    """Single samples, at random or at a steady rate."""
    wave = np.zeros(len(time))
    if rng.random() < 0.5:
        places = rng.integers(len(time), size=rng.integers(1, 12))
    else:
        places = np.arange(rng.integers(1000), len(time), rng.integers(400, 8000))
    wave[places] = rng.choice([-1, 1], len(places)) * rng.uniform(0.3, 1, len(places))
    return wave
