"""Generation loss: `python -m aldm.bench.generations CLIPS...` codes clips several times in a row.

It prints a Markdown table with a row for each kind of sound and generation: means over clips of the metrics in COLUMNS
against the original, and how much louder (dB) the clip has become. A cell is empty if its package is missing.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from .codecs import CodecError, Missing, make_codec
from .metrics import Wave, fit_length, score
from .sources import BenchError, domain_of, find_clips, load

COLUMNS = ("pesq", "stoi", "visqol", "mel", "distillmos", "speaker_similarity", "texture_high")


def level(wave: Wave) -> float:
    """Root mean square in dB."""
    return 10 * float(np.log10(np.square(wave, dtype=np.float64).mean() + 1e-12))


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--codec", "spec", default="aldm", show_default=True, help="As in `aldm bench`.")
@click.option("--bitrate", default=1.5, show_default=True, help="kbit/s.")
@click.option("--count", default=5, show_default=True, type=click.IntRange(1), help="Generations.")
def main(clips: tuple[Path, ...], spec: str, bitrate: float, count: int) -> None:
    """Encode each clip, encode what that decodes to, and so on; compare every generation with the original."""
    rows: dict[tuple[str, int], list[list[float]]] = {}
    try:
        codec, paths = make_codec(spec), find_clips(clips)
        setting = codec.settings([bitrate])[0]
        for path in paths:
            original = wave = load(path)
            domain = domain_of(path, "music")
            for generation in range(1, count + 1):
                with TemporaryDirectory() as folder:
                    wave = fit_length(codec.run(wave, setting, Path(folder)).decoded, len(original))
                scores = score(original, wave, domain, COLUMNS)
                values = [np.nan if (value := scores[name]) is None else value for name in COLUMNS]
                rows.setdefault((domain, generation), []).append([*values, level(wave) - level(original)])
    except (BenchError, Missing, CodecError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    print("| | generation | clips | " + " | ".join((*COLUMNS, "level, dB")) + " |")
    print("|---" * (len(COLUMNS) + 4) + "|")
    for (domain, generation), several in sorted(rows.items()):
        means = ["" if np.isnan(column).all() else f"{np.nanmean(column):.3f}" for column in np.transpose(several)]
        print(f"| {domain} | {generation} | {len(several)} | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
