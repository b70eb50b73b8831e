"""The cost of the worst files: `python -m aldm.bench.worst` makes them, and decodes each with the command.

Section 10 of spec/aldm-format.md states bounds; this makes the figures again. Each file is the worst in one way: bytes
that are no sound, sound in few bytes, much silence in many channels at any rate, and enhancement layers with as many
steps and atoms as fit. CPU time, and peak memory, beyond those of the smallest file there is; on one thread.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from safetensors.numpy import load_file

from ..codec.model_folder import DENOISER_FILES, TABLES, find_model, fingerprint
from ..format.container import (
    COMMENT,
    END,
    GAIN_COPY,
    GAIN_SILENT,
    HOPS_PER_SECOND,
    LAYER,
    MAX_BODY,
    MAX_PACKET_HOPS,
    NO_BASE,
    PACKET,
    Header,
    Packet,
    pack_leb128,
    pack_record,
)
from ..format.entropy import Tables, encode_indices
from ..format.layer import MAX_ATOMS, MAX_BITS, MAX_STEPS, Layer

COMMAND = [sys.executable, "-m", "aldm.cli", "decode"]
LOUD = -2000  # gain
OUTPUT = 1 << 25  # samples of a file that becomes much sound


class File(NamedTuple):
    """One file, what it is the worst in, seconds of sound times coded channels, and options of the command."""

    name: str
    data: bytes
    seconds: float
    options: tuple[str, ...] = ()


class FileMaker:
    """Makes files for a model folder, without loading its networks: memory of this process would count for others.

    Args:
        scale: of their size; at 1, megabytes, or tens of seconds of sound.
    """

    def __init__(self, folder: Path, scale: float):
        self.fingerprint, self.denoiser, self.scale = fingerprint(folder), fingerprint(folder, DENOISER_FILES), scale
        self.patch = int(json.loads((folder / "vae/config.json").read_text())["patch"])
        arrays = load_file(folder / TABLES)
        self.tables = Tables(arrays["bank"], arrays["choice"], arrays["transitions"])
        self.finest = len(self.tables.choice) - 1

    def times(self, count: int) -> int:
        return max(1, round(count * self.scale))

    def header(self, hops: int = MAX_PACKET_HOPS, samples: int | None = None, channels: int = 1) -> Header:
        return Header(16000, channels, samples, self.finest, hops, self.fingerprint[:4], layers=True)

    def wild(self, hops: int, channels: int = 1) -> Packet:
        """A packet whose indices are as large as its quality's tables know, in all classes."""
        rng, (_, classes, size) = np.random.default_rng(0), self.tables.choice.shape
        vectors, limit = hops // self.patch, self.tables.limit
        streams = [
            (rng.integers(0, classes, vectors), rng.integers(-limit, limit + 1, (vectors, size)))
            for _ in range(channels)
        ]
        payload = encode_indices(streams, self.tables, self.finest)
        return Packet(hops, (LOUD,) * channels, payload)

    def silent(self, hops: int) -> Packet:
        return Packet(hops, (GAIN_SILENT,), b"")

    def smallest(self) -> File:
        head = self.header(self.patch).pack()
        return File("the smallest file", head + pack_record(PACKET, self.silent(self.patch).pack()), 0)

    def of_bytes(self) -> Iterator[File]:
        """Files of a few MB with almost no sound."""
        silent = pack_record(PACKET, self.silent(self.patch).pack())
        start = self.header(self.patch, self.patch * 160).pack() + silent
        size = self.times(1 << 22)
        yield File("records that end nowhere", start + b"P\xff\xff\x3f" * (size // 4), 0)
        yield File("records everywhere", start + b"P" * size, 0)
        claim = min(size // 2, MAX_BODY)
        bait = b"".join(
            pack_record(PACKET, self.silent(self.patch).pack(), n) + b"D" + pack_leb128(claim)
            for n in range(1, size // 36)
        )
        yield File("packets, each before a layer that is not whole", start + bait + bytes(claim), 0)
        yield File("packets of nothing, 63 missing before each",
                   start + b"".join(pack_record(PACKET, b"", 1 + 63 * n) for n in range(size // 24)), 0)  # fmt: skip
        yield File("empty comments", start + pack_record(COMMENT, b"") * (size // 24), 0)
        yield File(
            "ends that do not count",
            self.header(self.patch).pack() + silent + pack_record(END, bytes(5)) * (size // 44),
            0,
        )

    def of_sound(self) -> Iterator[File]:
        """Files of little more than what they must have for so much sound."""
        gap = self.times(16)
        lost = [pack_record(PACKET, self.silent(MAX_PACKET_HOPS).pack(), n) for n in (0, gap + 1)]
        yield File("packets that are missing", self.header().pack() + b"".join(lost), (gap + 2) * 10.24)
        for hops, count in ((MAX_PACKET_HOPS, 4), (self.patch, 128)):
            packet, count = self.wild(hops).pack(), self.times(count)
            body = b"".join(pack_record(PACKET, packet, n) for n in range(count))
            yield File(f"packets of {hops / 100:g} s", self.header(hops).pack() + body, count * hops / HOPS_PER_SECOND)
        packet, count = self.wild(self.patch).pack(), self.times(64)
        body = b"".join(pack_record(PACKET, packet, 2 * n) for n in range(count))
        seconds = (2 * count - 1) * self.patch / HOPS_PER_SECOND
        yield File("every other one of 0.16 s missing", self.header(self.patch).pack() + body, seconds)
        packet = pack_record(PACKET, self.wild(MAX_PACKET_HOPS).pack())
        head = replace(self.header(), sample_rate=768_000).pack()
        yield File("10.24 s for 768 kHz", head + packet, 10.24, ("--original-rate",))
        for channels, hops in ((255, self.patch), (64, 256)):
            packet = pack_record(PACKET, self.wild(hops, channels).pack())
            head = self.header(hops, None, channels).pack()
            yield File(f"{channels} channels of {hops / 100:g} s", head + packet, channels * hops / HOPS_PER_SECOND)

    def of_output(self) -> Iterator[File]:
        """Files of a few hundred bytes that become much sound: silence, and copies of one channel, at any rate."""
        for rate, channels in itertools.product((16_000, 96_000, 768_000), (1, 16, 255)):
            patches = self.times(OUTPUT) * HOPS_PER_SECOND // (rate * channels * self.patch)
            hops = min(MAX_PACKET_HOPS, max(1, patches) * self.patch)
            head = replace(self.header(hops, None, channels), sample_rate=rate).pack()
            coded = self.wild(hops)
            for kind, first, payload in (("silent", GAIN_SILENT, b""), ("equal", LOUD, coded.payload)):
                gains = (first, *[GAIN_SILENT if kind == "silent" else GAIN_COPY] * (channels - 1))
                packet = pack_record(PACKET, Packet(hops, gains, payload).pack())
                name = f"{channels} {kind} channels at {rate / 1000:g} kHz, {hops / 100:g} s"
                yield File(name, head + packet, hops / HOPS_PER_SECOND, ("--original-rate",))

    def of_layers(self) -> Iterator[File]:
        """Files whose packets have layers and nothing else."""
        for hops, count, span, bits, atoms in (
            (MAX_PACKET_HOPS, 1, 1, MAX_BITS, MAX_ATOMS),
            (MAX_PACKET_HOPS, 1, 64, MAX_BITS, MAX_ATOMS),
            (self.patch, 8, 1, 0, 1),
            (self.patch, 8, 64, MAX_BITS, MAX_ATOMS),
        ):
            layer = Layer(self.denoiser[:2], 0, 1000, 0, MAX_STEPS, span, bits, atoms, 0)
            picks = np.random.default_rng(0).integers(0, 2 << bits, layer.shape(1, hops // self.patch))
            body, count = layer.pack(picks), self.times(count)
            packet = Packet(hops, (LOUD,), b"").pack()
            records = (pack_record(PACKET, packet, n) + pack_record(LAYER, body, n) for n in range(count))
            head = replace(self.header(hops), quality=NO_BASE).pack()
            what = f"packets of {hops / 100:g} s, {MAX_STEPS} steps of {atoms} in {1 << bits} atoms for {span}"
            yield File(what, head + b"".join(records), count * hops / HOPS_PER_SECOND)


def decode(file: File, folder: Path) -> tuple[float, float]:
    """CPU seconds and peak megabytes of the command."""
    source, out = folder / "in.aldm", folder / "out.wav"
    source.write_bytes(file.data)
    command = [*COMMAND, str(source), str(out), "--force", *file.options]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):  # 3: there was damage
        raise click.ClickException(f"{file.name}: the command ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@click.command()
@click.option("--model", help="Default: that of the package.")
@click.option("--only", default="", help="Files whose names contain this.")
@click.option("--scale", default=1.0, show_default=True, help="Of the files' sizes.")
def main(model: str | None, only: str, scale: float) -> None:
    """Print a table."""
    maker = FileMaker(find_model(model), scale)
    with tempfile.TemporaryDirectory() as folder:
        started, least = decode(maker.smallest(), Path(folder))
        print(f"The smallest file takes {started:.2f} s and {least:.0f} MB. Beyond these:\n")
        print("| file | bytes | seconds of sound | CPU seconds | per MB | per second | MB |\n" + "|---" * 7 + "|")
        for file in itertools.chain(maker.of_bytes(), maker.of_sound(), maker.of_output(), maker.of_layers()):
            if only not in file.name:
                continue
            seconds, memory = decode(file, Path(folder))
            seconds, memory, size = max(0.0, seconds - started), max(0.0, memory - least), len(file.data)
            per = f"{seconds / file.seconds:.3f}" if file.seconds else ""
            rate = "" if file.seconds else f"{seconds / size * 1e6:.2f}"
            print(
                f"| {file.name} | {size} | {file.seconds:g} | {seconds:.2f} | {rate} | {per} | {memory:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
