"""Metrics: their description, and the functions that measure them."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000
WINDOW, HOP = 2048, 512  # samples of full-band spectra, at 44.1 or 48 kHz
EXTRA = "pip install 'aldm[bench]'"
Wave = NDArray[np.float32]
Spectrum = NDArray[np.complex128]
Scores = dict[str, float | None]


@dataclass(frozen=True)
class Metric:
    """Facts of one number.

    Attributes:
        name: key in rows.
        label, unit: for people.
        better: "higher", "lower", or "near 1".
        group: "fidelity" (likeness to the original) or "naturalness" (likeness to real sound).
        meaning: one sentence for people who do not know the metric.
        pooled: it belongs to a set of clips and has no value for a single one.
    """

    name: str
    label: str
    unit: str
    better: str
    group: str
    meaning: str
    pooled: bool = False


@dataclass(frozen=True)
class Pair:
    """A clip and its decoded version at 16 kHz, both of the original's length [N].

    Attributes:
        decoded: cut or zero-padded at its end, otherwise as the codec returned it, within -1 and 1.
        aligned: `decoded` with the codec's delay removed.
    """

    reference: Wave
    decoded: Wave
    aligned: Wave
    domain: str


@dataclass(frozen=True)
class FullBandPair:
    """A clip and its decoded version, both float32 [C, N] at `rate` Hz, with one or two channels.

    Codecs return what is in time with the original; nothing is shifted here.
    """

    reference: Wave
    decoded: Wave
    rate: int

    @functools.cached_property
    def spectra(self) -> tuple[Spectrum, Spectrum]:
        """Of reference and decoded: [C, F, T], Hann windows of `WINDOW` samples, a full-scale sine about 0.5."""
        from scipy.signal import stft

        def transform(wave: Wave) -> Spectrum:
            return stft(wave.astype(np.float64), self.rate, nperseg=WINDOW, noverlap=WINDOW - HOP)[2]

        return transform(self.reference), transform(self.decoded)

    @functools.cached_property
    def hertz(self) -> NDArray[np.float64]:
        """Frequencies of the spectra's bins [F]."""
        return np.asarray(np.fft.rfftfreq(WINDOW, 1 / self.rate), np.float64)


AnyPair = TypeVar("AnyPair", Pair, FullBandPair)


@dataclass(frozen=True)
class Family(Generic[AnyPair]):
    """Metrics that one function computes together.

    Attributes:
        modules: what it imports beyond numpy and scipy.
        hint: how to install them.
        shortest: seconds below which its values mean nothing.
        speech_only: other sounds have no value.
        compares: it needs the original beside the decoded clip; what does not can rate the original as well.
    """

    name: str
    metrics: tuple[Metric, ...]
    measure: Callable[[AnyPair], Scores]
    modules: tuple[str, ...] = ()
    hint: str = EXTRA
    shortest: float = 0.0
    speech_only: bool = False
    compares: bool = True


def absent(modules: tuple[str, ...]) -> list[str]:
    """Those of the modules that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]
