"""Where the bytes of short files go: `python -m aldm.bench.budget CLIPS...` prints the specification's table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from ..codec.audio.reader import read_audio
from ..codec.codec import Codec
from ..format.container import HEADER_SIZE
from ..format.entropy import decode_indices
from ..format.stream import read_stream
from .experiment import clips_argument, clips_in, table_head, table_row

COLUMNS = ("bytes", "header", "framing", "payload", "entropy")


def budget(codec: Codec, data: bytes) -> tuple[float, ...]:
    """Bytes of a mono file: all, header, framing, payload, and the entropy of its indices under the tables."""
    codebook, stream = codec.model.codebook, read_stream(data)
    payloads = [(packet.hops, packet.payload) for packet in stream.packets.values() if packet.payload]
    entropy = 0.0
    for hops, payload in payloads:
        vectors = codec.model.vectors_of(hops)
        for classes, indices in decode_indices(payload, 1, vectors, codebook.tables, stream.header.quality):
            entropy += codebook.bits(classes, indices, stream.header.quality) / 8
    coded = sum(len(payload) for _, payload in payloads)
    return len(data), HEADER_SIZE, len(data) - HEADER_SIZE - coded, coded, entropy


def measure(codec: Codec, clips: Sequence[Path], seconds: float, bitrate: float) -> Iterator[tuple[float, ...]]:
    """`budget` of the first seconds of every clip, which is repeated if it is shorter."""
    for clip in clips:
        wave = np.resize(read_audio(clip, codec.sample_rate).mean(0), round(seconds * codec.sample_rate))
        yield budget(codec, codec.encode(wave, codec.sample_rate, bitrate=bitrate))


@click.command()
@clips_argument
@click.option("--seconds", multiple=True, default=(10.0, 1.0), show_default=True, help="Of every clip.")
@click.option("--bitrate", multiple=True, default=(0.5, 1.5, 6.0), show_default=True, help="kbit/s.")
def main(clips: tuple[Path, ...], seconds: tuple[float, ...], bitrate: tuple[float, ...]) -> None:
    """Print means over clips, or all in these folders."""
    files, codec = clips_in(clips), Codec.from_pretrained()
    click.echo(table_head("clip", "kbit/s", *COLUMNS))
    for length in seconds:
        for rate in bitrate:
            means = np.mean(list(measure(codec, files, length, rate)), 0)
            click.echo(table_row(f"{length:g} s", f"{rate:g}", *(f"{mean:.0f}" for mean in means)))


if __name__ == "__main__":
    main()
