"""Pictures: rate-quality curves and spectrograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .metrics import ALL_METRICS, SAMPLE_RATE, Wave

SHOWN = (
    "distillmos", "speaker_similarity", "pesq", "stoi", "visqol", "mel", "kad_yamnet",
    "visqol_48k", "level_high", "ild_error", "coherence_error",
)  # fmt: skip
MARKERS = "osD^vPX*"
COLUMNS = 4  # panels side by side


def plot_curves(results: dict[str, Any], out: Path) -> list[Path]:
    """Mean of the main metrics over kbit/s, with 95 % intervals, by domain: curves.svg and curves.png.

    Args:
        results: content of results.json.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    summary = results["summary"]
    domains = sorted({row["domain"] for row in summary}, reverse=True)
    codecs = list(dict.fromkeys(row["codec"] for row in summary))
    known = {m.name: m for m in ALL_METRICS}
    panels = [
        (domain, known[name])
        for domain in domains
        for name in SHOWN
        if any(row["domain"] == domain and name in row["metrics"] for row in summary)
    ]
    if not panels:
        return []
    height = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS + 1.6, 2.8 * height), layout="constrained")
    axes = figure.subplots(height, COLUMNS, squeeze=False).ravel()
    lines: dict[str, Any] = {}
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, (domain, metric) in zip(axes, panels, strict=False):
        for number, codec in enumerate(codecs):
            mine = [r for r in summary if (r["codec"], r["domain"]) == (codec, domain) and metric.name in r["metrics"]]
            points = sorted((r["kbps"], r["metrics"][metric.name]) for r in mine if r["kbps"] is not None)
            style = dict(color=f"C{number}", label=codec)
            if points:
                means = np.array([[m["mean"], m["mean"] - m["low"], m["high"] - m["mean"]] for _, m in points]).T
                rates = [rate for rate, _ in points]
                marker = MARKERS[number % 8]
                lines[codec] = axis.errorbar(rates, means[0], means[1:], marker=marker, ms=4, lw=1, **style)
            for ceiling in (r["metrics"][metric.name]["mean"] for r in mine if r["kbps"] is None):
                lines[codec] = axis.axhline(ceiling, ls=":", lw=1, **style)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(which="both", labelsize=7)
        axis.grid(alpha=0.3)
        axis.set_title(f"{domain}: {metric.label} ({metric.better} is better)", fontsize=7)
        axis.set_xlabel("kbit/s", fontsize=8)
    figure.legend(lines.values(), lines.keys(), loc="outside right upper", fontsize=8)
    paths = [out / "curves.svg", out / "curves.png"]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def plot_spectrograms(waves: dict[str, Wave], path: Path) -> None:
    """Log-magnitude spectrograms of 16 kHz waveforms, one above the other under their names."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.9 * len(waves)), layout="constrained")
    axes = figure.subplots(len(waves), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (name, wave) in zip(axes, waves.items(), strict=True):
        axis.specgram(
            wave + 1e-6 * np.sin(np.arange(len(wave))),
            1024,
            SAMPLE_RATE,
            noverlap=864,
            vmin=-130,
            vmax=-30,
            cmap="magma",
        )
        axis.set_title(name, fontsize=8, loc="left")
        axis.set_ylabel("Hz", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[-1].set_xlabel("s", fontsize=8)
    figure.savefig(path, dpi=110)
