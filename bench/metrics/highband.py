"""Full-band spectra: the distance above 8 kHz, where the 16 kHz core ends, and spectral convergence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .bands import band_powers, erb_edges
from .base import Family, FullBandPair, Metric, Scores

LOW, HIGH = 8000, 20000  # Hz
RANGE_DB = 80  # below the original's loudest bin; what is quieter is not heard


def decibels(power: NDArray[np.float64], loudest: float) -> NDArray[np.float64]:
    """Level of powers in dB, not below the range under `loudest`."""
    return 10 * np.log10(np.maximum(power, loudest * 10 ** (-RANGE_DB / 10)))


def highband(pair: FullBandPair) -> Scores:
    """Three distances of spectra; no values for a silent original, and none above 8 kHz at rates of 16 kHz or less.

    lsd_high: log-spectral distance (Gray and Markel, IEEE Trans. ASSP 24, 1976) of 8 to 20 kHz in dB: the root mean
        square over bins, then the mean over frames and channels. Two noises of the same spectrum have about 7.6 dB.
    level_high: mean absolute difference in dB of power in bands of 1 ERB and of four frames (about 45 ms), 8 to
        20 kHz: the envelope alone. Two noises of the same spectrum have about 0.5 dB.
    convergence: norm of the difference of magnitudes relative to the original's (Arik et al., IEEE Signal Process.
        Lett. 26, 2019). 0: equal; 1: as far off as silence.
    """
    original, decoded = (np.abs(spectrum) for spectrum in pair.spectra)
    loudest = float((original**2).max())
    if not loudest:
        return {}
    scores: Scores = {"convergence": float(np.linalg.norm(original - decoded) / np.linalg.norm(original))}
    if pair.rate > 2 * LOW:
        inside = (pair.hertz >= LOW) & (pair.hertz < HIGH)
        a, b = (decibels(magnitudes[:, inside] ** 2, loudest) for magnitudes in (original, decoded))
        scores["lsd_high"] = float(np.sqrt(((a - b) ** 2).mean(1)).mean())
        edges = erb_edges(LOW, min(HIGH, pair.rate / 2), 1)
        a, b = (decibels(band_powers(m**2, pair.hertz, edges, 4), loudest) for m in (original, decoded))
        scores["level_high"] = float(np.abs(a - b).mean())
    return scores


FAMILIES = (
    Family(
        "highband",
        (
            Metric(
                "lsd_high", "LSD above 8 kHz", "dB", "lower", "fidelity",
                "Log-spectral distance of 8 to 20 kHz; two noises of the same spectrum have about 7.6.",
            ),
            Metric(
                "level_high", "level above 8 kHz", "dB", "lower", "fidelity",
                "Mean absolute difference of band levels, 8 to 20 kHz, 1 ERB and about 45 ms each.",
            ),
            Metric(
                "convergence", "spectral convergence", "", "lower", "fidelity",
                "Norm of the difference of full-band magnitudes, relative to the original's; silence has 1.",
            ),
        ),
        highband,
    ),
)  # fmt: skip
