"""How fast codecs are, side by side in one run: `python -m aldm.bench.speed CLIP`; ours on a GPU: with `--device cuda`.

EnCodec, DAC and Mimi are built at the size that was published, with random weights: speed does not depend on them.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..codec.audio.reader import read_audio
from ..codec.codec import Codec
from ..codec.device import find_device
from .codecs.base import Missing
from .codecs.hub import CHECKPOINTS, TransformersCodec
from .codecs.opus import Opus

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


def candidates(wave: np.ndarray, folder: Path, device: str) -> dict[str, Callable[[], Times]]:
    """Systems to time, by name; other codecs on the CPU only."""
    found: dict[str, Callable[[], Times]] = {}
    for vocoder in ("network", "griffin-lim"):
        codec = Codec.from_pretrained(vocoder=vocoder, device=device)
        for bitrate in (0.75, 1.5, 3.0, 6.0) if vocoder == "network" else (1.5,):

            def ours(codec: Codec = codec, bitrate: float = bitrate) -> Times:
                started = time.perf_counter()
                data = codec.encode(wave, 16000, bitrate=bitrate)
                done = time.perf_counter()
                codec.decode(data)
                return done - started, time.perf_counter() - done

            found[f"aldm, {bitrate:g} kbit/s" + ", --vocoder griffin-lim" * (vocoder != "network")] = ours
    others: dict[str, Any] = {}
    if device != "cpu":
        return found
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


def hours(wave: np.ndarray, device: str, jobs: int, turns: int = 3) -> tuple[float, float]:
    """Hours of sound that so many processes encode, and decode, at 1.5 kbit/s in a minute, all at the same time.

    Each has the model loaded and has coded the sound once before.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _load, (wave, device, context.Barrier(jobs))) as pool:
        totals = []
        for side in (_encode, _decode):
            spans = pool.map(side, [turns] * jobs, 1)
            took = max(end for _, end in spans) - min(begin for begin, _ in spans)
            totals.append(jobs * turns * len(wave) / 16000 / 3600 / (took / 60))
    return totals[0], totals[1]


_job: tuple[Codec, np.ndarray, bytes, Any]


def _load(wave: np.ndarray, device: str, barrier: Any) -> None:
    global _job
    codec = Codec.from_pretrained(device=device)
    data = codec.encode(wave, 16000, bitrate=1.5)
    codec.decode(data)
    _job = codec, wave, data, barrier


def _encode(turns: int) -> Times:
    _job[3].wait()  # until every process has such a task
    begin = time.time()
    for _ in range(turns):
        _job[0].encode(_job[1], 16000, bitrate=1.5)
    return begin, time.time()


def _decode(turns: int) -> Times:
    _job[3].wait()  # until every process has such a task
    begin = time.time()
    for _ in range(turns):
        _job[0].decode(_job[2])
    return begin, time.time()


def stages(wave: np.ndarray) -> dict[str, float]:
    """Seconds of each stage of our own codec at 1.5 kbit/s, by what the profiler sees."""
    import cProfile
    import pstats

    codec = Codec.from_pretrained()
    codec.decode(codec.encode(wave, 16000))  # warm
    with cProfile.Profile() as profile:
        codec.decode(codec.encode(wave, 16000, bitrate=1.5))
    wanted = {
        ("analysis.py", "analyze_windows"): "encode: mel and autoencoder",
        ("rate_control.py", "search"): "encode: search for the bitrate",
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
@click.option(
    "--device", default="cpu", show_default=True, help="Where our codec runs; the others only run on the CPU."
)
@click.option("--jobs", type=click.IntRange(1), help="Also: hours in a minute of so many processes at once.")
def main(clip: str, seconds: float, repeats: int, threads: int | None, device: str, jobs: int | None) -> None:
    """Time encoding and decoding, as a fraction of the clip's duration: the median of some repeats."""
    import torch

    device = find_device(device)
    if threads:
        torch.set_num_threads(threads)
    mono = read_audio(clip, 16000)[0]
    wave = np.resize(mono, round(seconds * 16000))
    with tempfile.TemporaryDirectory() as folder:
        found = candidates(wave, Path(folder), device)
        times: dict[str, list[Times]] = {name: [] for name in found}
        for turn in range(repeats + 1):  # in turns, so that a busy moment hits all alike; the first warms up
            for name, job in found.items():
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
    chip = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    click.echo(f"\n{chip}, {torch.get_num_threads()} threads, {seconds:g} s of sound, torch {torch.__version__}\n")
    encode, decode = (1 / 60 / took for took in medians["aldm, 1.5 kbit/s"])
    click.echo(f"hours in a minute at 1.5 kbit/s: encode {encode:.2f}, decode {decode:.2f}")
    if jobs:
        encode, decode = hours(wave, device, jobs)
        click.echo(f"{jobs} processes at once: encode {encode:.2f}, decode {decode:.2f}")
    if device == "cpu":
        click.echo()
        for name, took in stages(wave).items():
            click.echo(f"| {name} | {took / seconds:.4f} |")


if __name__ == "__main__":
    main()
