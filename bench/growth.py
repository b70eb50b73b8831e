"""Time and memory by length of a file and number of files: `python -m aldm.bench.growth CLIPS... --out FOLDER`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..codec.audio.reader import read_audio
from .codecs.commands import run_command
from .experiment import clips_argument, clips_in

COMMAND = [sys.executable, "-m", "aldm.cli"]
TIMEOUT = 6 * 3600  # seconds for one command
Row = dict[str, Any]


def lengths(clips: Sequence[Path], minutes: Sequence[float], folder: Path) -> list[Row]:
    """Encode and decode one file of each length, as a command."""
    import soundfile as sf

    sounds = [read_audio(clip, 16000)[0] for clip in clips]
    rows = []
    for length in minutes:
        left = round(length * 60 * 16000)
        source, bits, out = (str(folder / name) for name in ("in.flac", "x.aldm", "out.flac"))
        with sf.SoundFile(source, "w", 16000, 1) as file:
            while left > 0:
                for sound in sounds:
                    file.write(sound[:left])
                    left -= min(left, len(sound))
        encode, encode_memory = run_command([*COMMAND, "encode", source, bits, "--bitrate", "1.5", "--force"], TIMEOUT)
        decode, decode_memory = run_command([*COMMAND, "decode", bits, out, "--force"], TIMEOUT)
        row = dict(minutes=length, bytes=Path(bits).stat().st_size, encode_seconds=encode, decode_seconds=decode)
        rows.append(row | dict(encode_megabytes=encode_memory / 1e6, decode_megabytes=decode_memory / 1e6))
        click.echo(json.dumps(rows[-1]))
    return rows


def libraries(clips: Sequence[Path], numbers: Sequence[int], folder: Path, jobs: int) -> list[Row]:
    """`aldm batch` on so many files of one clip each."""
    rows = []
    for number in numbers:
        sources = folder / f"library-{number}"
        sources.mkdir()
        for i in range(number):
            (sources / f"{i}{clips[i % len(clips)].suffix}").symlink_to(clips[i % len(clips)].resolve())
        out = folder / f"coded-{number}"
        took, memory = run_command([*COMMAND, "batch", str(sources), "--out", str(out), "--jobs", str(jobs)], TIMEOUT)
        hours = sum(len(read_audio(clips[i % len(clips)], 16000)[0]) for i in range(number)) / 16000 / 3600
        rows.append(dict(files=number, hours=hours, seconds=took, parent_megabytes=memory / 1e6))
        click.echo(json.dumps(rows[-1]))
    return rows


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept of the best line; the slope is the constant of growth."""
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept)


def plot(files: list[Row], many: list[Row], out: Path) -> None:
    """Three pictures: seconds and memory over minutes, seconds over files."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    time_axis, memory_axis, file_axis = figure.subplots(1, 3)
    minutes = [row["minutes"] for row in files]
    for side in ("encode", "decode"):
        seconds = [row[f"{side}_seconds"] for row in files]
        slope, start = line(minutes, seconds)
        time_axis.plot(minutes, seconds, "o-", label=f"{side}: {start:.1f} s + {slope / 60:.4f} of the duration")
        memory_axis.plot(minutes, [row[f"{side}_megabytes"] for row in files], "o-", label=side)
    time_axis.set(xlabel="minutes of sound", ylabel="seconds")
    memory_axis.set(xlabel="minutes of sound", ylabel="peak memory, MB", ylim=(0, None))
    numbers, seconds = [row["files"] for row in many], [row["seconds"] for row in many]
    slope, start = line(numbers, seconds)
    file_axis.plot(numbers, seconds, "o-", label=f"batch: {start:.1f} s + {slope:.3f} s per file")
    file_axis.set(xlabel="files", ylabel="seconds")
    for axis in (time_axis, memory_axis, file_axis):
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(out / "growth.png", dpi=110)


@click.command()
@clips_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for growth.json and growth.png.")
@click.option("--minutes", default="1,10,60,180", show_default=True)
@click.option("--files", default="20,100,400", show_default=True)
@click.option("--jobs", default=2, show_default=True)
def main(clips: tuple[Path, ...], out: Path, minutes: str, files: str, jobs: int) -> None:
    """Measure and plot."""
    found = clips_in(clips)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        one = lengths(found, [float(m) for m in minutes.split(",")], Path(folder))
        many = libraries(found, [int(n) for n in files.split(",")], Path(folder), jobs)
    (out / "growth.json").write_text(json.dumps({"lengths": one, "libraries": many}, indent=1) + "\n")
    plot(one, many, out)


if __name__ == "__main__":
    main()
