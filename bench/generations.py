"""Generation loss: `python -m aldm.bench.generations CLIPS...` codes clips several times in a row.

It prints a Markdown table with a row for each kind of sound and generation: means over clips of the metrics in COLUMNS
against the original, and how much louder (dB) the clip has become. A cell is empty if its package is missing.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from .experiment import Experiment, codec_options, mean_cells, readable_errors, table_head, table_row
from .metrics import Wave, score

COLUMNS = ("pesq", "stoi", "visqol", "mel", "distillmos", "speaker_similarity", "texture_high")


def level(wave: Wave) -> float:
    """Root mean square in dB."""
    return 10 * float(np.log10(np.square(wave, dtype=np.float64).mean() + 1e-12))


@click.command()
@codec_options
@click.option("--count", default=5, show_default=True, type=click.IntRange(1), help="Generations.")
def main(clips: tuple[Path, ...], spec: str, bitrate: float, count: int) -> None:
    """Encode each clip, encode what that decodes to, and so on; compare every generation with the original."""
    rows: dict[tuple[str, int], list[list[float]]] = {}
    with readable_errors():
        experiment = Experiment(clips, spec, bitrate)
        for _, domain, original in experiment.originals():
            wave = original
            for generation in range(1, count + 1):
                wave = experiment.run(wave)
                scores = score(original, wave, domain, COLUMNS)
                values = [np.nan if (value := scores[name]) is None else value for name in COLUMNS]
                rows.setdefault((domain, generation), []).append([*values, level(wave) - level(original)])
    print(table_head("", "generation", "clips", *COLUMNS, "level, dB"))
    for (domain, generation), several in sorted(rows.items()):
        print(table_row(domain, generation, len(several), *mean_cells(several)))


if __name__ == "__main__":
    main()
