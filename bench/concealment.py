"""Packet loss concealment: `python -m aldm.bench.concealment CLIPS...` compares it with simpler methods.

Every clip loses two packets, or one if it is short, from its middle, and is scored as a whole: nothing lost, silence in
their place, the packet before once more, and what the decoder makes of its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import soundfile as sf

from ..codec.codec import Codec
from ..format.container import HEADER_SIZE, HOPS_PER_SECOND, PACKET, Header, Record, read_records
from .experiment import clips_argument, clips_in, mean_cells, table_head, table_row
from .metrics import Wave, score

COLUMNS = ("pesq", "stoi", "visqol", "mel")
QUALITY = 24


def without(data: bytes, numbers: set[int]) -> bytes:
    """A file that lost these packets."""
    records = [r for r in read_records(data) if isinstance(r, Record) and not (r.kind == PACKET and r.index in numbers)]
    return data[:HEADER_SIZE] + b"".join(data[r.offset : r.offset + r.size] for r in records)


def replaced(wave: Wave, numbers: set[int], size: int, make: Callable[[Wave], Wave]) -> Wave:
    """The sound with something else in the place of these packets of `size` samples, made of the packet before."""
    out = wave.copy()
    for number in sorted(numbers):
        begin, end = number * size, min((number + 1) * size, len(wave))
        out[begin:end] = make(out[begin - size : begin])[: end - begin]
    return out


def systems(codec: Codec, wave: Wave) -> dict[str, Wave]:
    """Systems to compare; none for a clip that is too short to lose a packet in its middle."""
    data = codec.encode(wave, codec.sample_rate, quality=QUALITY)
    size = Header.parse(data).packet_hops * codec.sample_rate // HOPS_PER_SECOND
    count = -(-len(wave) // size)
    lost = {count // 3, 2 * count // 3} - {0, count - 1}
    if not lost:
        return {}
    whole = codec.decode(data)[0]
    return {
        "nothing lost": whole,
        "silence": replaced(whole, lost, size, np.zeros_like),
        "the packet before": replaced(whole, lost, size, lambda before: before),
        "concealed": codec.decode(without(data, lost))[0],
    }


@click.command()
@clips_argument
@click.option("--packet", default=1.28, show_default=True, help="Seconds of a packet.")
def main(clips: tuple[Path, ...], packet: float) -> None:
    """Print means for each kind of sound, which is what a clip's name begins with."""
    codec = Codec.from_pretrained(packet_seconds=packet)
    rows: dict[tuple[str, str], list[list[float]]] = {}
    for path in clips_in(clips):
        wave, rate = sf.read(path, dtype="float32")
        if rate != codec.sample_rate or wave.ndim > 1:
            raise click.ClickException(f"{path} is not a clip of 16 kHz, mono")
        domain, sounds = path.stem.split("_")[0], systems(codec, wave)
        if not sounds:
            click.echo(f"{path} is too short", err=True)
        for name, sound in sounds.items():
            scores = score(wave, sound, domain, COLUMNS)
            values = [scores[column] for column in COLUMNS]
            rows.setdefault((domain, name), []).append([np.nan if value is None else value for value in values])
    print(table_head("", "clips", *COLUMNS))
    for (domain, name), several in rows.items():
        print(table_row(f"{domain}, {name}", len(several), *mean_cells(several)))


if __name__ == "__main__":
    main()
