"""Perceptual bands of full-band spectra."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def erb_edges(low: float, high: float, step: float) -> NDArray[np.float64]:
    """Edges in Hz of bands of about `step` equivalent rectangular bandwidths (Glasberg and Moore, Hear. Res. 47, 1990).

    The width is rounded so that the bands fill `low` to `high` Hz.
    """
    first, last = (21.4 * math.log10(1 + 0.00437 * hertz) for hertz in (low, high))
    number = np.linspace(first, last, max(1, round((last - first) / step)) + 1)
    return (10 ** (number / 21.4) - 1) / 0.00437


def band_powers(
    values: NDArray[np.float64], hertz: NDArray[np.float64], edges: NDArray[np.float64], frames: int
) -> NDArray[np.float64]:
    """Sums of [..., F, T] over the bins of each band and over so many frames at a time: [..., bands, segments].

    A last, incomplete segment counts with the one before it. Bands without a bin are left out.
    """
    starts = np.unique(np.searchsorted(hertz, edges))
    values = np.add.reduceat(values[..., : starts[-1], :], starts[:-1], axis=-2)
    segments = np.arange(max(1, values.shape[-1] // frames)) * frames
    return np.add.reduceat(values, segments, axis=-1)
