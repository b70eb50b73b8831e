"""Whether memory grows: `python -m aldm.bench.endurance codec|live|batch` runs for minutes to hours and prints a table.

codec: many encodes and decodes of varied length in one process. live: hours of sound through an encoder of streams, a
pipe and a decoder, as fast as they go. batch: thousands of tiny clips by `aldm batch`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import soundfile as sf

from ..codec.audio.reader import read_audio
from ..codec.codec import Codec
from .metrics import SAMPLE_RATE, Wave

SECONDS = 0.2, 30.0  # of clips: shortest and longest
TINY = 0.1, 0.5
ROWS = 10
BLOCK = 1  # seconds of live sound that are pushed at once


def resident(process: int | str = "self") -> float:
    """Megabytes that a process holds; 0: it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("VmRSS:")[1].split()[0]) / 1024 if "VmRSS:" in status else 0.0


def children(process: int) -> list[int]:
    """Processes that a process has started, and so on."""
    try:
        own = [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
    return own + [grandchild for child in own for grandchild in children(child)]


def pieces(wave: Wave, count: int, seconds: tuple[float, float]) -> Iterator[Wave]:
    """Parts of a recording, from anywhere in it, of lengths between two."""
    rng = np.random.default_rng(0)
    for size in np.exp(rng.uniform(math.log(seconds[0]), math.log(seconds[1]), count)) * SAMPLE_RATE:
        yield np.resize(np.roll(wave, -int(rng.integers(len(wave)))), int(size))


def print_row(*values: float | str) -> None:
    print("| " + " | ".join(f"{value:.0f}" if isinstance(value, float) else str(value) for value in values) + " |",
          flush=True)  # fmt: skip


@click.group()
def main() -> None:
    """Print a table of memory over time."""


@main.command()
@click.argument("clip", type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=500, show_default=True, help="Encodes, and decodes.")
def codec(clip: Path, count: int) -> None:
    """Encode and decode parts of CLIP, of 0.2 to 30 s, in one process."""
    ours, wave, started, seconds = Codec.from_pretrained(), read_audio(clip, SAMPLE_RATE).mean(0), time.monotonic(), 0.0
    print("| clips | minutes of sound | MB | minutes |\n" + "|---" * 4 + "|")
    for number, part in enumerate(pieces(wave, count, SECONDS), 1):
        decoded = ours.decode(ours.encode(part, SAMPLE_RATE, bitrate=1.5))
        assert decoded.shape == (1, len(part))
        seconds += len(part) / SAMPLE_RATE
        if number == 1 or number % max(1, count // ROWS) == 0:
            print_row(str(number), seconds / 60, resident(), (time.monotonic() - started) / 60)


@main.command()
@click.argument("clip", type=click.Path(exists=True, path_type=Path))
@click.option("--hours", default=6.0, show_default=True)
@click.option("--vocoder", help="Of the decoder.")
def live(clip: Path, hours: float, vocoder: str | None) -> None:
    """Loop CLIP through an encoder of streams, a pipe and a decoder."""
    wave = np.roll(read_audio(clip, SAMPLE_RATE).mean(0), 1)
    encoder, decoder = Codec.from_pretrained().stream(SAMPLE_RATE, bitrate=1.5), Codec.from_pretrained(vocoder=vocoder)
    ends, total = os.pipe(), round(hours * 3600)

    def encode() -> None:
        with open(ends[1], "wb", buffering=0) as out:
            for second in range(0, total, BLOCK):
                at = second * SAMPLE_RATE + np.arange(BLOCK * SAMPLE_RATE)
                out.write(encoder.push(wave[at % len(wave)]))
            out.write(encoder.flush())

    thread = threading.Thread(target=encode)
    thread.start()
    print("| hours of sound | MB | minutes |\n" + "|---" * 3 + "|")
    started, samples, row = time.monotonic(), 0, 0
    with open(ends[0], "rb") as pipe:
        for block in decoder.decoder(pipe).blocks():
            samples += block.shape[1]
            if samples >= row * total * SAMPLE_RATE / ROWS / 2:
                row += 1
                print_row(f"{samples / SAMPLE_RATE / 3600:.2f}", resident(), (time.monotonic() - started) / 60)
    thread.join()
    print(f"\n{samples} of {total * SAMPLE_RATE} samples, {encoder.bytes} bytes")
    assert samples == total * SAMPLE_RATE


@main.command()
@click.argument("clip", type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=10_000, show_default=True, help="Clips.")
@click.option("--jobs", default=1, show_default=True, help="Processes.")
def batch(clip: Path, count: int, jobs: int) -> None:
    """Encode parts of CLIP, of 0.1 to 0.5 s, by the command."""
    wave = read_audio(clip, SAMPLE_RATE).mean(0)
    with tempfile.TemporaryDirectory() as folder:
        inputs, out = Path(folder, "in"), Path(folder, "out")
        inputs.mkdir()
        for number, part in enumerate(pieces(wave, count, TINY)):
            sf.write(inputs / f"{number:06}.wav", part, SAMPLE_RATE)
        command = [sys.executable, "-m", "aldm.cli", "batch", str(inputs), "--out", str(out), "--jobs", str(jobs)]
        started, row = time.monotonic(), 0
        print("| clips | MB of the command | MB of a process of it | minutes |\n" + "|---" * 4 + "|")
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                time.sleep(0.5)
                done = sum(1 for _ in out.glob("*.aldm")) if out.exists() else 0
                if done and done >= row * count / ROWS:
                    row += 1
                    workers = [resident(child) for child in children(process.pid)]
                    print_row(str(done), resident(process.pid), max(workers, default=0.0),
                              (time.monotonic() - started) / 60)  # fmt: skip
        done = len(list(out.glob("*.aldm")))
        print(f"\n{done} of {count} files in {(time.monotonic() - started) / 60:.1f} minutes")
        assert (process.returncode, done) == (0, count)


if __name__ == "__main__":
    main()
