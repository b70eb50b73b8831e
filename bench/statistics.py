"""From rows to means with intervals, and rate savings between curves."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .metrics import ALL_METRICS, kad
from .metrics.distribution import MIN_CLIPS

Row = dict[str, Any]


def interval(values: list[float], resamples: int = 2000) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by the percentile bootstrap over clips (Efron, 1979)."""
    data = np.asarray(values, np.float64)
    picks = np.random.default_rng(0).integers(len(data), size=(resamples, len(data)))
    low, high = np.percentile(data[picks].mean(1), [2.5, 97.5])
    return float(data.mean()), float(low), float(high)


def summarize(rows: list[Row]) -> list[Row]:
    """One row per codec, setting and domain: how many clips, mean kbit/s, and every metric with its interval."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["error"] is None:
            groups[row["codec"], row["setting"], row["domain"]].append(row)
    out = []
    for (codec, setting, domain), members in groups.items():
        metrics = {}
        for metric in ALL_METRICS:
            values = [row[metric.name] for row in members if row.get(metric.name) is not None]
            if values:
                metrics[metric.name] = dict(zip(("mean", "low", "high"), interval(values), strict=True))
        rates = [row["kbps"] for row in members if row["kbps"] is not None]
        means = {
            key: float(np.mean([row[key] for row in members])) if rates else None
            for key in ("encode_rtf", "decode_rtf")
        }
        kbps = float(np.mean(rates)) if rates else None
        out.append(
            dict(codec=codec, setting=setting, domain=domain, n=len(members), kbps=kbps, **means, metrics=metrics)
        )
    return out


def add_distances(summary: list[Row], name: str, vectors: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    """Add to summary rows the distance between their clips and the originals as sets.

    Args:
        name: of the metric.
        vectors: by codec, setting and domain, of each clip [windows, size]; those of the codec "original" are what
            the others are compared with. Clips without a window do not count, nor do sets of fewer than 3 clips.
    """
    for row in summary:
        domain = row["domain"]
        originals = next((v for key, v in vectors.items() if key[0] == "original" and key[2] == domain), {})
        decoded = vectors.get((row["codec"], row["setting"], domain), {})
        clips = [clip for clip in decoded if clip in originals and len(originals[clip])]
        if row["codec"] != "original" and len(clips) >= MIN_CLIPS:
            value, low, high = kad([originals[clip] for clip in clips], [decoded[clip] for clip in clips])
            windows = sum(len(originals[clip]) for clip in clips)
            row["metrics"][name] = dict(mean=value, low=low, high=high, windows=windows)


def savings(summary: list[Row], anchor: str) -> list[Row]:
    """Bjontegaard rate difference in % of every codec to the anchor, by domain and metric (negative: fewer bits).

    Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001, with monotone cubic
    interpolation. None where two curves do not overlap in quality, or rise and fall.
    """
    import bjontegaard

    curves: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in summary:
        for metric in ALL_METRICS:
            if metric.name in row["metrics"] and row["kbps"] is not None and metric.better != "near 1":
                sign = 1 if metric.better == "higher" else -1
                point = (row["kbps"], sign * row["metrics"][metric.name]["mean"])
                curves[row["domain"], metric.name, row["codec"]].append(point)
    out = []
    for (domain, metric_name, codec), points in sorted(curves.items()):
        reference = curves.get((domain, metric_name, anchor))
        if codec == anchor or not reference:
            continue
        percent = None
        pairs = [np.array(sorted(p)).T for p in (reference, points)]
        if all(pair.shape[1] > 1 and (np.diff(pair) > 0).all() for pair in pairs):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of little overlap
                value = bjontegaard.bd_rate(*pairs[0], *pairs[1], method="pchip", require_matching_points=False)
            percent = float(value) if np.isfinite(value) else None
        out.append(dict(domain=domain, metric=metric_name, codec=codec, anchor=anchor, rate_percent=percent))
    return out


def read_ratings(files: Iterable[Path]) -> list[Row]:
    """Ratings that blind sessions of the report exported, each with its rater.

    Raises:
        ValueError: a file is not such an export.
    """
    out = []
    for file in files:
        try:
            content = json.loads(file.read_text())
            for rating in content["ratings"]:
                score = float(rating["score"])
                if not 0 <= score <= 100:
                    raise ValueError(f"a score of {score:g}")
                names = {key: str(rating[key]) for key in ("clip", "codec", "setting")}
                out.append(dict(rater=str(content["rater"]), **names, score=score))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{file} is not an export of a blind session: {error}") from error
    return out
