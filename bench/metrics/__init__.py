"""Everything that is measured on decoded clips. `FAMILIES` measure single clips, embeddings sets of them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from . import fidelity, identity, naturalness, texture
from .base import SAMPLE_RATE, Family, Metric, Pair, Scores, Wave, absent
from .distribution import SPEECH, YAMNET, Embedding, embeddings, kad
from .fidelity import align, log_mel, stft_distance, waveform_metrics

__all__ = [
    "FAMILIES", "METRICS", "SAMPLE_RATE", "Embedding", "Family", "Metric", "Pair", "Scores", "Wave", "absent", "align",
    "applicable", "embeddings", "fit_length", "kad", "log_mel", "score", "stft_distance", "waveform_metrics",
]  # fmt: skip

FAMILIES = (*fidelity.FAMILIES, *identity.FAMILIES, *naturalness.FAMILIES, *texture.FAMILIES)
METRICS = (*(metric for family in FAMILIES for metric in family.metrics), SPEECH.metric, YAMNET)


def fit_length(decoded: Wave, length: int) -> Wave:
    """Cut or zero-padded at its end, and clipped to -1 and 1."""
    return np.pad(decoded[:length], (0, max(0, length - len(decoded)))).clip(-1, 1)


def applicable(domain: str, seconds: float, only: Collection[str] | None = None) -> list[Family]:
    """Families that measure such clips here: their packages are installed and the clip is long enough.

    Args:
        only: names of metrics; families without any of them are left out.
    """
    return [
        family
        for family in FAMILIES
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
    for family in applicable(domain, len(reference) / SAMPLE_RATE, only):
        out |= family.measure(pair)
    return {name: value if value is not None and np.isfinite(value) else None for name, value in out.items()}
