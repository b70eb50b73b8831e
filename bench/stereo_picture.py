"""Spectrograms and goniometers of stereo files: `python -m aldm.bench.stereo_picture FILES... --out PICTURE`."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from .sources import BenchError, load_fullband


def draw(files: tuple[Path, ...], out: Path) -> None:
    """A row for each file: the spectrogram of each channel, and the goniometer.

    The goniometer shows how often (log scale) samples have a mid (up) and a side (left: more on the left): a vertical
    line is mono, a circle two unrelated channels, a horizontal line opposite phases.

    Raises:
        BenchError: a file that is not usable audio.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 2.6 * len(files)), layout="constrained")
    rows = figure.subplots(len(files), 3, squeeze=False, width_ratios=[3, 3, 1.2])
    for file, (*spectrograms, goniometer) in zip(files, rows, strict=True):
        wave, rate = load_fullband(file)
        left, right = np.broadcast_to(wave, (2, wave.shape[1]))
        for axis, channel, name in zip(spectrograms, (left, right), ("left", "right"), strict=True):
            hiss = 1e-7 * np.sin(np.arange(len(channel)))  # digital silence has no logarithm
            axis.specgram(
                channel + hiss, NFFT=1024, Fs=rate / 1000, noverlap=768, vmin=-110, vmax=-10, cmap="magma", scale="dB"
            )
            axis.set_xticks([])
            axis.set_title(f"{file.stem}, {name}, kHz", fontsize=8, loc="left")
            axis.tick_params(labelsize=7)
        size = 1.1 * max(float(np.abs(wave).max()), 1e-6)
        goniometer.hist2d(
            (right - left) / 2, (left + right) / 2, bins=120, range=[[-size, size]] * 2, norm="log", cmap="magma"
        )
        goniometer.set_title("side and mid", fontsize=8, loc="left")
        goniometer.set(aspect="equal", xticks=[], yticks=[], facecolor="black")
    figure.savefig(out, dpi=100)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="PNG or SVG.")
def main(files: tuple[Path, ...], out: Path) -> None:
    """Draw the spectrogram of both channels and the goniometer of each file, one below the other."""
    try:
        draw(files, out)
    except BenchError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
