"""The cost of short packets: `python -m aldm.bench.latency CLIPS...` prints latency, bits and scores by length."""

from __future__ import annotations

import io
from pathlib import Path

import click
import numpy as np

from ..codec.codec import Codec
from .experiment import clips_argument, clips_in, table_head, table_row
from .metrics import Wave, score
from .sources import load

PACKETS = (10.24, 2.08, 0.64, 0.32)  # seconds
METRICS = ("pesq", "stoi", "visqol", "mel")


def streamed(codec: Codec, wave: Wave, **rate: float) -> bytes:
    """The sound as a live encoder writes it."""
    encoder = codec.stream(codec.sample_rate, **rate)
    return encoder.push(wave) + encoder.flush()


def latency(packet: float, vocoder: str | None = None) -> float:
    """Seconds from a sample to its sound, computing apart: what the encoder waits for, and what the decoder does."""
    codec = Codec.from_pretrained(packet_seconds=packet, vocoder=vocoder)
    noise = np.random.default_rng(0).normal(0, 0.1, round(3 * packet * codec.sample_rate)).astype(np.float32)
    *_, last = codec.decoder(io.BytesIO(streamed(codec, noise, quality=0))).blocks()  # what no packet came after
    return codec.stream(codec.sample_rate).latency + last.shape[1] / codec.sample_rate


@click.command()
@clips_argument
@click.option("--bitrate", default=1.5, show_default=True, help="kbit/s at which scores are compared.")
def main(clips: tuple[Path, ...], bitrate: float) -> None:
    """Print means over clips of speech; bits are those of quality 24, relative to the longest packets."""
    waves, most = [load(path) for path in clips_in(clips)], 0
    print(table_head("packets, s", "latency, s", "with griffin-lim", "bits", "PESQ", "STOI", "ViSQOL", "mel"))
    for packet in PACKETS:
        codec = Codec.from_pretrained(packet_seconds=packet)
        size = sum(len(streamed(codec, wave, quality=24)) for wave in waves)
        most = most or size
        decoded = [codec.decode(streamed(codec, wave, bitrate=bitrate))[0] for wave in waves]
        scores = [score(*pair, "speech", METRICS) for pair in zip(waves, decoded, strict=True)]
        means = [np.mean([s[name] or np.nan for s in scores]) for name in METRICS]
        times = [latency(packet, vocoder) for vocoder in (None, "griffin-lim")]
        print(table_row(packet, *(f"{number:.3f}" for number in (*times, size / most, *means))), flush=True)


if __name__ == "__main__":
    main()
