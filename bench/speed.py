"""How fast codecs are, side by side in one run: `python -m aldm.bench.speed CLIP`.

EnCodec, DAC and Mimi are built at the size that was published, with random weights: speed does not depend on them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..codec.audio import read_audio
from ..codec.codec import Codec
from .codecs import CHECKPOINTS, Missing, Opus, TransformersCodec

PUBLISHED: dict[str, dict[str, Any]] = {
    "encodec": {},  # transformers' defaults are facebook/encodec_24khz
    "dac": dict(sampling_rate=16000, n_codebooks=12, downsampling_ratios=[2, 4, 5, 8]),  # descript/dac_16khz
    "mimi": {},  # kyutai/mimi
}
SETTINGS = {"encodec": "6.0", "dac": "6.0", "mimi": "1.1"}  # kbit/s
Times = tuple[float, float]  # seconds to encode, to decode


class Untrained(TransformersCodec):
    """A codec of transformers at its published size, with random weights."""

    def __init__(self, kind: str):
        import transformers

        self.kind, self.name = CHECKPOINTS[kind], kind
        model = getattr(transformers, self.kind.classname)
        self.model = model(model.config_class(**PUBLISHED[kind])).eval()
        self.rates = self.kind.rates(self.model.config)


def candidates(wave: np.ndarray, folder: Path) -> dict[str, Callable[[], Times]]:
    """What to time, by name."""
    found: dict[str, Callable[[], Times]] = {}
    for vocoder in ("network", "griffin-lim"):
        codec = Codec.from_pretrained(vocoder=vocoder)
        for bitrate in (0.75, 1.5, 3.0, 6.0) if vocoder == "network" else (1.5,):

            def ours(codec: Codec = codec, bitrate: float = bitrate) -> Times:
                started = time.perf_counter()
                data = codec.encode(wave, 16000, bitrate=bitrate)
                done = time.perf_counter()
                codec.decode(data)
                return done - started, time.perf_counter() - done

            found[f"aldm, {bitrate:g} kbit/s" + ", --vocoder griffin-lim" * (vocoder != "network")] = ours
    others: dict[str, Any] = {}
    for kind in PUBLISHED:
        others[f"{kind}, {SETTINGS[kind]} kbit/s"] = (lambda kind=kind: Untrained(kind)), SETTINGS[kind]
    others["opus, 9 kbit/s"] = Opus, "9"
    for name, (make, setting) in others.items():
        try:
            codec = make()
        except (Missing, ImportError):
            continue

        def theirs(codec: Any = codec, setting: str = setting) -> Times:
            coded = codec.run(wave, setting, folder)
            return coded.encode_seconds, coded.decode_seconds

        found[name] = theirs
    return found


def stages(wave: np.ndarray) -> dict[str, float]:
    """Seconds of each stage of our own codec at 1.5 kbit/s, by what the profiler sees."""
    import cProfile
    import pstats

    codec = Codec.from_pretrained()
    codec.decode(codec.encode(wave, 16000))  # warm
    with cProfile.Profile() as profile:
        codec.decode(codec.encode(wave, 16000, bitrate=1.5))
    wanted = {
        ("encoder.py", "analyze_windows"): "encode: mel and autoencoder",
        ("encoder.py", "fit_bitrate"): "encode: search for the bitrate",
        ("encoder.py", "_pack"): "encode: quantise, loudness, entropy coding",
        ("entropy.py", "decode_indices"): "decode: entropy coding",
        ("model.py", "decode_mel"): "decode: autoencoder (also in the encoder's loudness)",
        ("model.py", "magnitudes"): "decode: magnitude network (also there)",
        ("griffin_lim.py", "_chunk"): "decode: Griffin-Lim",
    }
    found: dict[str, float] = {}
    for (path, _, function), (_, _, _, total, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if name := wanted.get((Path(path).name, function)):
            found[name] = found.get(name, 0) + total
    return {name: found[name] for name in wanted.values() if name in found}


@click.command()
@click.argument("clip", type=click.Path(exists=True))
@click.option("--seconds", default=30.0, show_default=True, help="Of the clip, repeated if it is shorter.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--threads", type=int, help="Of torch.")
def main(clip: str, seconds: float, repeats: int, threads: int | None) -> None:
    """Time encoding and decoding, as a fraction of the clip's duration: the median of some repeats."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    mono = read_audio(clip, 16000)[0]
    wave = np.resize(mono, round(seconds * 16000))
    with tempfile.TemporaryDirectory() as folder:
        jobs = candidates(wave, Path(folder))
        times: dict[str, list[Times]] = {name: [] for name in jobs}
        for turn in range(repeats + 1):  # in turns, so that a busy moment hits all alike; the first warms up
            for name, job in jobs.items():
                if turn:
                    times[name].append(job())
                else:
                    job()
    medians = {name: [statistics.median(t) / seconds for t in zip(*mine, strict=True)] for name, mine in times.items()}
    yardstick = next((sum(m) for name, m in medians.items() if name.startswith("encodec")), None)
    click.echo("| codec | encode | decode | both, EnCodec's = 1 |\n| --- | --- | --- | --- |")
    for name, (encode, decode) in medians.items():
        ratio = f"{(encode + decode) / yardstick:.2f}" if yardstick else ""
        click.echo(f"| {name} | {encode:.4f} | {decode:.4f} | {ratio} |")
    click.echo(f"\n{torch.get_num_threads()} threads, {seconds:g} s of sound, torch {torch.__version__}\n")
    for name, took in stages(wave).items():
        click.echo(f"| {name} | {took / seconds:.4f} |")


if __name__ == "__main__":
    main()
