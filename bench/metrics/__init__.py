"""Everything that is measured on decoded clips.

`FAMILIES` measure single clips at 16 kHz and mono, `FULLBAND_FAMILIES` at their own rate and in stereo, embeddings
sets of clips.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from . import fidelity, highband, identity, naturalness, stereo, texture, visqol_fullband
from .base import SAMPLE_RATE, AnyPair, Family, FullBandPair, Metric, Pair, Scores, Wave, absent
from .distribution import SPEECH, YAMNET, Embedding, embeddings, kad
from .fidelity import align, log_mel, stft_distance, waveform_metrics

__all__ = [
    "ALL_METRICS", "FAMILIES", "FULLBAND_FAMILIES", "FULLBAND_METRICS", "METRICS", "SAMPLE_RATE", "Embedding", "Family",
    "FullBandPair", "Metric", "Pair", "Scores", "Wave", "absent", "align", "applicable", "embeddings", "fit_channels",
    "fit_length", "kad", "log_mel", "score", "score_fullband", "stft_distance", "waveform_metrics",
]  # fmt: skip

FAMILIES = (*fidelity.FAMILIES, *identity.FAMILIES, *naturalness.FAMILIES, *texture.FAMILIES)
METRICS = (*(metric for family in FAMILIES for metric in family.metrics), SPEECH.metric, YAMNET)
FULLBAND_FAMILIES = (*visqol_fullband.FAMILIES, *highband.FAMILIES, *stereo.FAMILIES)
FULLBAND_METRICS = tuple(metric for family in FULLBAND_FAMILIES for metric in family.metrics)
ALL_METRICS = (*METRICS, *FULLBAND_METRICS)


def fit_length(decoded: Wave, length: int) -> Wave:
    """Cut or zero-padded at its end, and clipped to -1 and 1."""
    return np.pad(decoded[:length], (0, max(0, length - len(decoded)))).clip(-1, 1)


def fit_channels(decoded: Wave, channels: int, length: int) -> Wave:
    """[C, N] of so many channels and samples from [C, n] or mono [n], which all get: cut or zero-padded, clipped."""
    return np.stack([fit_length(each, length) for each in np.broadcast_to(decoded, (channels, decoded.shape[-1]))])


def applicable(
    families: Sequence[Family[AnyPair]], domain: str, seconds: float, only: Collection[str] | None = None
) -> list[Family[AnyPair]]:
    """Families that measure such clips here: their packages are installed and the clip is long enough.

    Args:
        only: names of metrics; families without any of them are left out.
    """
    return [
        family
        for family in families
        if (domain == "speech" or not family.speech_only)
        and seconds >= family.shortest
        and (only is None or any(metric.name in only for metric in family.metrics))
        and not absent(family.modules)
    ]


def score(reference: Wave, decoded: Wave, domain: str, only: Collection[str] | None = None) -> dict[str, float | None]:
    """Metrics of a 16 kHz clip, a value for each of `METRICS`; None where one is not defined for it.

    Args:
        domain: "speech" has metrics of its own, and ViSQOL's speech model.
        only: names of metrics, to save time; others are None, unless the same function gives them too.
    """
    fitted = fit_length(decoded, len(reference))
    pair = Pair(reference, fitted, align(reference, decoded), domain)
    out: Scores = {metric.name: None for metric in METRICS}
    for family in applicable(FAMILIES, domain, len(reference) / SAMPLE_RATE, only):
        out |= family.measure(pair)
    return defined(out)


def defined(scores: Scores) -> Scores:
    """With None in the place of what is not finite."""
    return {name: value if value is not None and np.isfinite(value) else None for name, value in scores.items()}


def score_fullband(pair: FullBandPair, only: Collection[str] | None = None) -> dict[str, float | None]:
    """Metrics of a full-band clip, a value for each of `FULLBAND_METRICS`; None where one is not defined for it.

    Args:
        only: names of metrics, as for `score`.
    """
    out: Scores = {metric.name: None for metric in FULLBAND_METRICS}
    for family in applicable(FULLBAND_FAMILIES, "", pair.reference.shape[1] / pair.rate, only):
        out |= family.measure(pair)
    return defined(out)
