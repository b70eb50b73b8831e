"""ViSQOL's audio model at 48 kHz against the full-band original."""

from __future__ import annotations

import numpy as np

from .base import Family, FullBandPair, Metric, Scores, Wave
from .fidelity import visqol_api

RATE = 48000  # the only one of the audio model


def visqol_48k(reference: Wave, decoded: Wave, rate: int) -> float:
    """MOS-LQO, 1 to 5, of one channel [N] (Chinen et al., ViSQOL v3, QoMEX 2020)."""
    import soxr

    a, b = (soxr.resample(wave.astype(np.float64), rate, RATE) for wave in (reference, decoded))
    return float(visqol_api("audio").measure_from_arrays(a, b, sample_rate=RATE).moslqo)


def visqol_fullband(pair: FullBandPair) -> Scores:
    """visqol_48k: of the mean of both channels, as ViSQOL's own program does it with stereo.

    visqol_channels: mean of the values of left and right, each against its own original; none for mono.
    """
    scores: Scores = {"visqol_48k": visqol_48k(pair.reference.mean(0), pair.decoded.mean(0), pair.rate)}
    if len(pair.reference) == 2:
        each = [visqol_48k(a, b, pair.rate) for a, b in zip(pair.reference, pair.decoded, strict=True)]
        scores["visqol_channels"] = sum(each) / 2
    return scores


FAMILIES = (
    Family(
        "visqol_fullband",
        (
            Metric(
                "visqol_48k", "ViSQOL 48 kHz", "MOS-LQO", "higher", "fidelity",
                "ViSQOL's audio model against the full-band original, of both channels' mean, 1 to 5.",
            ),
            Metric(
                "visqol_channels", "ViSQOL L, R", "MOS-LQO", "higher", "fidelity",
                "The same for left and right apart, mean of the two.",
            ),
        ),
        visqol_fullband,
        ("visqol",),
        shortest=1.0,
    ),
)  # fmt: skip
