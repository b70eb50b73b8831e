"""The stereo image: differences between channels by perceptual band, and what a mono listener gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bands import band_powers, erb_edges
from .base import Family, FullBandPair, Metric, Scores, Spectrum

LOW, HIGH = 50, 20000  # Hz
BAND_ERBS, SEGMENT_FRAMES = 2, 8  # a tile: 2 ERB and about 93 ms, enough bins and frames to estimate a coherence
RANGE_DB = 60  # below the original's loudest tile; what is quieter is not heard
MAX_LEVEL = 30.0  # dB; beyond, one channel is all that is heard


@dataclass(frozen=True)
class Image:
    """Stereo cues of tiles, each [bands, segments].

    Attributes:
        power: of both channels together.
        mono: power of the sum of both channels, halved.
        level: inter-channel level difference in dB, -30 to 30, positive if the first channel is louder.
        coherence: magnitude of the normalised cross spectrum, 0 to 1.
        correlation: its real part, -1 (opposite phases) to 1.
    """

    power: NDArray[np.float64]
    mono: NDArray[np.float64]
    level: NDArray[np.float64]
    coherence: NDArray[np.float64]
    correlation: NDArray[np.float64]


def stereo_image(spectrum: Spectrum, hertz: NDArray[np.float64], floor: float = 1e-20) -> Image:
    """Cues of a stereo spectrum [2, F, T], as parametric stereo defines them (Breebaart et al., EURASIP J. 2005:9).

    Args:
        floor: power that is added to each channel of a tile, so that a tile without sound is central and incoherent.
    """
    edges = erb_edges(LOW, min(HIGH, hertz[-1]), BAND_ERBS)
    left, right = spectrum

    def tiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return band_powers(values, hertz, edges, SEGMENT_FRAMES)

    powers = tiles(np.abs(spectrum) ** 2)
    product = left * right.conj()
    cross = tiles(product.real) + 1j * tiles(product.imag)
    a, b = powers + floor
    normal = np.sqrt(a * b)
    return Image(
        power=powers.sum(0),
        mono=tiles(np.abs(left + right) ** 2) / 4,
        level=(10 * np.log10(a / b)).clip(-MAX_LEVEL, MAX_LEVEL),
        coherence=np.abs(cross) / normal,
        correlation=cross.real / normal,
    )


def stereo(pair: FullBandPair) -> Scores:
    """Errors of the cues, means over the tiles that are heard in the original; no values for mono or silence.

    ild_error: of the level difference, dB, 0 to 60.
    coherence_error: of the coherence, 0 to 1. correlation_error: of the correlation, 0 to 2.
    mono_level: of the mono sum's level over the whole clip, mean over bands, dB; a band that is lost counts as 60 dB
        at most.
    mono_loss: of the mono sum's level relative to both channels' power over the whole clip, mean over bands that are
        there in both, dB: what adding up the channels costs, whatever the spectrum is.
    """
    if len(pair.reference) != 2 or not pair.reference.any():
        return {}
    loudest = float(stereo_image(pair.spectra[0], pair.hertz).power.max())
    floor = loudest * 10 ** (-RANGE_DB / 10)
    a, b = (stereo_image(spectrum, pair.hertz, floor / 10) for spectrum in pair.spectra)
    heard = a.power >= floor

    def error(name: str) -> float:
        return float(np.abs(getattr(a, name) - getattr(b, name))[heard].mean())

    def clip_level(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return 10 * np.log10(np.where(heard, values, 0).sum(1) + floor / 10)

    bands = heard.any(1)
    present = bands & (clip_level(b.power) > clip_level(a.power) - RANGE_DB / 2)
    mono = clip_level(b.mono) - clip_level(a.mono)
    loss = mono - (clip_level(b.power) - clip_level(a.power))
    return {
        "ild_error": error("level"),
        "coherence_error": error("coherence"),
        "correlation_error": error("correlation"),
        "mono_level": float(np.abs(mono[bands]).mean()),
        "mono_loss": float(np.abs(loss[present]).mean()) if present.any() else None,
    }


FAMILIES = (
    Family(
        "stereo",
        (
            Metric(
                "ild_error", "level difference error", "dB", "lower", "fidelity",
                "Mean absolute error of the level difference between the channels, in bands of 2 ERB and 93 ms.",
            ),
            Metric(
                "coherence_error", "coherence error", "", "lower", "fidelity",
                "Mean absolute error of the coherence between the channels, in the same bands, 0 to 1.",
            ),
            Metric(
                "correlation_error", "correlation error", "", "lower", "fidelity",
                "Mean absolute error of the correlation between the channels, which knows phases, 0 to 2.",
            ),
            Metric(
                "mono_level", "mono level error", "dB", "lower", "fidelity",
                "Mean absolute error by band of the level of the sum of both channels.",
            ),
            Metric(
                "mono_loss", "mono loss error", "dB", "lower", "fidelity",
                "The same relative to the power of both channels: what a sum to mono loses or gains by their phases.",
            ),
        ),
        stereo,
    ),
)  # fmt: skip
