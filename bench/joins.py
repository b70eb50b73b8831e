"""Seams: `python -m aldm.bench.joins CLIPS...` codes the pieces of clips as files of their own and joins them.

It prints a Markdown table with a row for each kind of sound: how many seams there are; the log-mel error (mean absolute
difference of log10 mel magnitudes) within 32 ms of the seams, at the same places when the clip is coded as a whole, and
everywhere else in the joined clip; and the step from one sample to the next across a seam, relative to the root mean
square of such steps within 10 ms of it (about 0.8 without a seam, if steps are Gaussian; a click is far above 3).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from .codecs import AudioCodec, CodecError, Missing, make_codec
from .metrics import SAMPLE_RATE, Wave, fit_length, log_mel
from .sources import BenchError, domain_of, find_clips, load

HOP = 160  # samples of a frame of the log-mel
NEAR = 3  # frames around a seam whose window of 64 ms contains it
COLUMNS = ("seams", "mel at seams", "mel there, coded whole", "mel elsewhere", "step", "largest step")


def coded(codec: AudioCodec, wave: Wave, setting: str) -> Wave:
    """A wave through the codec, as long as before."""
    with TemporaryDirectory() as folder:
        return fit_length(codec.run(wave, setting, Path(folder)).decoded, len(wave))


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
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--codec", "spec", default="aldm", show_default=True, help="As in `aldm bench`.")
@click.option("--bitrate", default=1.5, show_default=True, help="kbit/s.")
@click.option("--piece", default=1.0, show_default=True, type=click.FloatRange(0.2), help="Seconds of a piece.")
def main(clips: tuple[Path, ...], spec: str, bitrate: float, piece: float) -> None:
    """Code each clip in pieces and as a whole, and compare the places where pieces meet."""
    rows: dict[str, list[list[float]]] = {}
    steps: dict[str, list[float]] = {}
    size = round(piece * SAMPLE_RATE)
    try:
        codec, paths = make_codec(spec), find_clips(clips)
        setting = codec.settings([bitrate])[0]
        for path in paths:
            original, domain = load(path), domain_of(path, "music")
            original = original[: len(original) // size * size]
            if len(original) < 2 * size:
                click.echo(f"{path} is shorter than two pieces", err=True)
                continue
            joined = np.concatenate([coded(codec, part, setting) for part in np.split(original, len(original) // size)])
            seams = list(range(size, len(original), size))
            errors, found = seam_figures(original, joined, coded(codec, original, setting), seams)
            rows.setdefault(domain, []).append(errors)
            steps.setdefault(domain, []).extend(found)
    except (BenchError, Missing, CodecError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    print("| | clips | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 2) + "|")
    for domain, several in sorted(rows.items()):
        jumps = steps[domain]
        values = [*np.mean(several, 0), np.mean(jumps), np.max(jumps)]
        figures = " | ".join(f"{value:.3f}" for value in values)
        print(f"| {domain} | {len(several)} | {len(jumps)} | {figures} |")


if __name__ == "__main__":
    main()
