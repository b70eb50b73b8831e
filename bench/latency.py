"""What short packets cost: `python -m aldm.bench.latency CLIPS...` prints latency, bits and scores by packet length."""

from __future__ import annotations

import io
from pathlib import Path

import click
import numpy as np

from ..codec.audio.reader import read_audio
from ..codec.codec import Codec
from .metrics import Wave, score

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
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--bitrate", default=1.5, show_default=True, help="kbit/s at which scores are compared.")
def main(clips: tuple[Path, ...], bitrate: float) -> None:
    """Print means over clips of speech; bits are those of quality 24, relative to the longest packets."""
    found = [p for clip in clips for p in (sorted(clip.glob("*.flac")) if clip.is_dir() else [clip])]
    if not found:
        raise click.UsageError("no clips there")
    waves, most = [read_audio(path, 16000)[0] for path in found], 0
    print("| packets, s | latency, s | with griffin-lim | bits | PESQ | STOI | ViSQOL | mel |\n" + "|---" * 8 + "|")
    for packet in PACKETS:
        codec = Codec.from_pretrained(packet_seconds=packet)
        size = sum(len(streamed(codec, wave, quality=24)) for wave in waves)
        most = most or size
        decoded = [codec.decode(streamed(codec, wave, bitrate=bitrate))[0] for wave in waves]
        scores = [score(*pair, "speech", METRICS) for pair in zip(waves, decoded, strict=True)]
        means = [np.mean([s[name] or np.nan for s in scores]) for name in METRICS]
        times = [latency(packet, vocoder) for vocoder in (None, "griffin-lim")]
        numbers = [f"{number:.3f}" for number in (*times, size / most, *means)]
        print(f"| {packet} | " + " | ".join(numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
