"""How lively the spectrum is from moment to moment, compared with the original."""

from __future__ import annotations

import numpy as np

from .base import SAMPLE_RATE, Family, Metric, Pair, Scores
from .fidelity import htk_mel_basis

BANDS, N_FFT, HOP = 48, 512, 160
TREND = 9  # frames; slower changes are dynamics, which every codec keeps
RANGE = 1e-3  # of the loudest band; what is 60 dB below is not heard
REGIONS = {"low": "below 0.9 kHz", "mid": "0.9 to 3.1 kHz", "high": "above 3.1 kHz"}


def texture(pair: Pair) -> Scores:
    """Variance in time of log-mel bands around their mean over 90 ms, relative to the original's, in thirds of the
    mel scale. 1: as lively as the original. Codecs that return a mean are below it, and so is steady noise.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import stft

    def mel(wave: np.ndarray) -> np.ndarray:
        return htk_mel_basis(BANDS, N_FFT) @ np.abs(stft(wave, SAMPLE_RATE, nperseg=N_FFT, noverlap=N_FFT - HOP)[2])

    bands = [mel(pair.reference), mel(pair.aligned)]
    floor = max(bands[0].max() * RANGE, 1e-9)
    levels = [np.log10(np.maximum(each, floor)) for each in bands]
    original, decoded = ((level - uniform_filter1d(level, TREND, axis=1)).var(1) for level in levels)
    parts = zip(REGIONS, np.split(original, 3), np.split(decoded, 3), strict=True)
    return {f"texture_{name}": float(b.sum() / a.sum()) if a.any() else None for name, a, b in parts}


FAMILIES = (
    Family(
        "texture",
        tuple(
            Metric(
                f"texture_{name}", f"texture {name}", "", "near 1", "naturalness",
                f"Variance in time of log-mel bands {hertz}, relative to the original; less: smeared, more: rough.",
            )
            for name, hertz in REGIONS.items()
        ),
        texture,
        shortest=0.5,
    ),
)  # fmt: skip
