"""Seams: `python -m aldm.bench.joins CLIPS...` codes the pieces of clips as files of their own and joins them.

It prints a Markdown table with a row for each kind of sound: how many seams there are; the log-mel error (mean absolute
difference of log10 mel magnitudes) within 32 ms of the seams, at the same places when the clip is coded as a whole, and
everywhere else in the joined clip; and the step from one sample to the next across a seam, relative to the root mean
square of such steps within 10 ms of it (about 0.8 without a seam, if steps are Gaussian; a click is far above 3).
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from .experiment import Experiment, codec_options, readable_errors, table_head, table_row
from .metrics import SAMPLE_RATE, Wave, log_mel

HOP = 160  # samples of a frame of the log-mel
NEAR = 3  # frames around a seam whose window of 64 ms contains it
COLUMNS = ("seams", "mel at seams", "mel there, coded whole", "mel elsewhere", "step", "largest step")


def seam_figures(original: Wave, joined: Wave, whole: Wave, seams: list[int]) -> tuple[list[float], list[float]]:
    """Log-mel errors at seams of the joined clip, there in the one coded whole, and elsewhere; a step for each seam.

    Args:
        original, joined, whole: [N].
        seams: samples at which a new piece begins.
    """
    mels = [log_mel(wave) for wave in (original, joined, whole)]
    errors = [np.abs(mel - mels[0]).mean(0) for mel in mels[1:]]
    frames = np.arange(len(errors[0]))
    near = np.any([np.abs(frames - seam / HOP) <= NEAR for seam in seams], 0)
    steps = []
    for seam in seams:
        around = np.diff(joined[max(0, seam - HOP) : seam + HOP])
        steps.append(float(abs(joined[seam] - joined[seam - 1]) / (np.sqrt(np.square(around).mean()) + 1e-9)))
    return [float(errors[0][near].mean()), float(errors[1][near].mean()), float(errors[0][~near].mean())], steps


@click.command()
@codec_options
@click.option("--piece", default=1.0, show_default=True, type=click.FloatRange(0.2), help="Seconds of a piece.")
def main(clips: tuple[Path, ...], spec: str, bitrate: float, piece: float) -> None:
    """Code each clip in pieces and as a whole, and compare the places where pieces meet."""
    rows: dict[str, list[list[float]]] = {}
    steps: dict[str, list[float]] = {}
    size = round(piece * SAMPLE_RATE)
    with readable_errors():
        experiment = Experiment(clips, spec, bitrate)
        for path, domain, original in experiment.originals():
            original = original[: len(original) // size * size]
            if len(original) < 2 * size:
                click.echo(f"{path} is shorter than two pieces", err=True)
                continue
            joined = np.concatenate([experiment.run(part) for part in np.split(original, len(original) // size)])
            seams = list(range(size, len(original), size))
            errors, found = seam_figures(original, joined, experiment.run(original), seams)
            rows.setdefault(domain, []).append(errors)
            steps.setdefault(domain, []).extend(found)
    print(table_head("", "clips", *COLUMNS))
    for domain, several in sorted(rows.items()):
        jumps = steps[domain]
        values = [*np.mean(several, 0), np.mean(jumps), np.max(jumps)]
        print(table_row(domain, len(several), len(jumps), *(f"{value:.3f}" for value in values)))


if __name__ == "__main__":
    main()
