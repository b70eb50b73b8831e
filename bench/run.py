"""Running codecs over clips: in parallel, resumable, with a row for every result and every failure."""

from __future__ import annotations

import csv
import json
import os
import platform
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile as sf

from .codecs import DIFFUSIONS, AudioCodec, CodecError, Commands, Missing, make_codec
from .metrics import METRICS, SAMPLE_RATE, Wave, score
from .pool import in_processes
from .statistics import Row, savings, summarize

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}
DOMAINS = {"speech": "speech", "music": "music", "env": "environment", "environment": "environment"}
SHORTEST = 0.5  # seconds; the metrics need some
OURS = ("aldm", *DIFFUSIONS, "aldm-vq", "exact-mel", "unquantized")
VERSIONS = ("aldm", "torch", "numpy", "soxr", "pesq", "pystoi", "visqol-python", "transformers", "diffusers")


class BenchError(Exception):
    """Nothing can be measured."""


def find_clips(sources: Sequence[Path]) -> list[Path]:
    """Audio files given, and those in folders given (not deeper), sorted.

    Raises:
        BenchError: none, or two of the same name.
    """
    clips: list[Path] = []
    for source in sources:
        inside = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES) if source.is_dir() else [source]
        clips += inside
    if not clips:
        raise BenchError(f"no audio files in {', '.join(map(str, sources))}")
    names = [clip.stem for clip in clips]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BenchError(f"two clips are called {min(twice)}")
    return clips


def domain_of(clip: Path, default: str) -> str:
    """Kind of sound, from the name up to the first "_" or "-" if that is one that we know."""
    return DOMAINS.get(clip.stem.replace("-", "_").split("_")[0].lower(), default)


def load(clip: Path) -> Wave:
    """A clip at 16 kHz and mono.

    Raises:
        BenchError: no audio, too short or silent.
    """
    import soxr

    try:
        wave, rate = sf.read(clip, dtype="float32", always_2d=True)
    except (OSError, sf.SoundFileError) as error:
        raise BenchError(f"not readable audio: {error}") from error
    mono = wave.mean(1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    if len(mono) < SHORTEST * SAMPLE_RATE or not np.isfinite(mono).all() or not np.abs(mono).max() > 1e-4:
        raise BenchError(f"shorter than {SHORTEST} s, silent, or not finite")
    return mono.astype(np.float32)


def peak_memory(reset: bool = False) -> int | None:
    """Peak resident bytes of this process since the last reset; None where the system does not tell (not Linux)."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


_codecs: dict[str, AudioCodec] = {}


def obtain(spec: str | Commands) -> AudioCodec:
    """The codec of a spec, one for each process. Raises Missing, ValueError."""
    if isinstance(spec, Commands):
        return spec
    if spec not in _codecs:
        import torch

        torch.set_num_threads(1)
        _codecs[spec] = make_codec(spec)
    return _codecs[spec]


@dataclass(frozen=True)
class Task:
    """One clip through one codec at one setting; its facts are in a file of their own, its sound beside it."""

    spec: str | Commands
    clip: Path
    domain: str
    setting: str
    out: Path

    @property
    def codec(self) -> str:
        """Name of the codec in rows."""
        return self.spec.name if isinstance(self.spec, Commands) else self.spec

    @property
    def path(self) -> Path:
        """The file of the facts."""
        return self.out / "audio" / quote(self.clip.stem, "") / f"{quote(self.codec, '')}@{self.setting}.json"

    def key(self) -> str:
        """Changes when the clip or the codec does."""
        return f"{zlib.crc32(self.clip.read_bytes()):08x} {obtain(self.spec).identity}"

    def read(self) -> Row | None:
        """The facts, if they are there and still true."""
        try:
            row: Row = json.loads(self.path.read_text())
            return row if row["key"] == self.key() else None
        except (OSError, ValueError, KeyError):
            return None

    def write(self, **facts: Any) -> None:
        """Write the facts, those of a failure unless told more, whole or not at all."""
        empty = dict.fromkeys(("seconds", "bytes", "container_bytes", "kbps", "encode_rtf", "decode_rtf", "memory_mb"))
        empty |= dict.fromkeys(metric.name for metric in METRICS)
        names = dict(codec=self.codec, setting=self.setting, clip=self.clip.stem, domain=self.domain)
        row = names | empty | dict(error=None, audio=None, scored=False) | facts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".new")
        partial.write_text(json.dumps(row, indent=1))
        partial.replace(self.path)


def one_line(error: Exception) -> str:
    """What went wrong, for a row."""
    known = isinstance(error, BenchError | CodecError)
    first = (str(error).splitlines() or [""])[0]
    return first if known else f"{type(error).__name__}: {first}"


def code(task: Task) -> None:
    """Encode and decode; the metrics are left to `rate`, whose packages would count as the codec's memory."""
    codec, facts = obtain(task.spec), dict[str, Any](key=task.key())
    try:
        wave = load(task.clip)
        seconds = len(wave) / SAMPLE_RATE
        with tempfile.TemporaryDirectory() as temporary:
            peak_memory(reset=True)
            coded = codec.run(wave, task.setting, Path(temporary))
            memory = coded.memory or peak_memory()
        sound = task.path.with_suffix(".flac")
        sound.parent.mkdir(parents=True, exist_ok=True)
        sf.write(sound, coded.decoded.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
        task.write(
            **facts,
            seconds=seconds,
            bytes=coded.size,
            container_bytes=coded.container_bytes,
            kbps=None if coded.size is None else coded.size * 8 / seconds / 1000,
            encode_rtf=coded.encode_seconds / seconds,
            decode_rtf=coded.decode_seconds / seconds,
            memory_mb=None if memory is None else memory / 1e6,
            audio=str(sound.relative_to(task.out)),
        )
    except Exception as error:  # another codec's library may raise anything
        task.write(**facts, error=one_line(error))


def rate(task: Task) -> None:
    """Add the metrics to what `code` wrote."""
    row = json.loads(task.path.read_text())
    try:
        decoded = sf.read(task.out / row["audio"], dtype="float32")[0]
        task.write(**row | score(load(task.clip), decoded, task.domain) | dict(scored=True))
    except Exception as error:  # so may a metric's
        task.write(**row | dict(error=one_line(error)))


def run_all(function: Callable[[Task], None], tasks: list[Task], jobs: int, done: Callable[[], None]) -> None:
    """Call the function in `jobs` processes. A task whose process dies gets a row that says so."""
    for task, result in in_processes(function, tasks, jobs):
        if result is BrokenProcessPool:
            task.write(key=task.key(), error="its process died")
        done()


def versions() -> dict[str, str]:
    """Of the packages that results depend on."""
    found = {}
    for package in VERSIONS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {"python": platform.python_version()} | found


def machine() -> str:
    """Processor, cores, system."""
    try:
        info = Path("/proc/cpuinfo").read_text()
        name = info.split("model name")[1].split(":", 1)[1].splitlines()[0].strip()
    except (OSError, IndexError):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def bench(
    sources: Sequence[Path],
    codecs: Sequence[str | Commands],
    bitrates: Sequence[float],
    out: Path,
    *,
    domain: str = "music",
    anchor: str | None = None,
    jobs: int = 1,
    listen: int = 3,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure, and write results.json and results.tsv into `out`.

    What a stopped run left there is not done again, but for what failed. Every process uses one thread.

    Args:
        codecs: "NAME", "NAME:ARGUMENT", either with "@R1,R2" for bitrates of its own, and pairs of commands.
        bitrates: kbit/s; every codec takes those of its settings that are nearest.
        domain: of clips whose name does not tell.
        anchor: codec that rate savings are against; default: the first that is not `aldm`.
        listen: clips of each domain whose sound is kept for the report.

    Returns:
        What results.json holds.

    Raises:
        BenchError: no clips, or no codec that can run.
        ValueError: a codec that does not exist.
    """
    clips = find_clips(sources)
    domains = {clip: domain_of(clip, domain) for clip in clips}
    tasks: list[Task] = []
    names: list[str] = []
    for spec in codecs:
        own = list(bitrates)
        if isinstance(spec, str) and "@" in spec:
            spec, _, rates = spec.rpartition("@")
            try:
                own = [float(r) for r in rates.split(",")]
            except ValueError:
                raise BenchError(f"{rates!r} are no bitrates for {spec}, like 6,9.5") from None
        try:
            settings = obtain(spec).settings(own)
        except Missing as reason:
            say(f"skipped {spec}: {reason}")
            continue
        planned = [Task(spec, clip, domains[clip], setting, out) for setting in settings for clip in clips]
        names.append(planned[0].codec)
        tasks += planned
    if not tasks:
        raise BenchError("no codec that can run here")
    if anchor is not None and anchor not in names:
        raise BenchError(f"the anchor {anchor} is not among the codecs that run: {', '.join(names)}")

    count = 0

    def done() -> None:
        nonlocal count
        count += 1
        progress(count, 2 * len(tasks))

    rows = [task.read() for task in tasks]
    to_code = [task for task, row in zip(tasks, rows, strict=True) if row is None or row["error"] is not None]
    count = len(tasks) - len(to_code)
    run_all(code, to_code, jobs, done)
    rows = [task.read() for task in tasks]
    to_rate = [t for t, row in zip(tasks, rows, strict=True) if row and not row["scored"] and row["error"] is None]
    count = 2 * len(tasks) - len(to_rate)
    run_all(rate, to_rate, jobs, done)

    found = [row for task in tasks if (row := task.read())]
    for row in found:
        del row["key"], row["scored"]
    heard = {clip for d in set(domains.values()) for clip in [c for c in clips if domains[c] == d][:listen]}
    originals = {clip.stem: _keep_original(clip, out) for clip in sorted(heard)}
    for row in found:
        if row["clip"] not in originals and row["audio"]:
            (out / row["audio"]).unlink(missing_ok=True)
            row["audio"] = None
    summary = summarize(found)
    if anchor is None:
        anchor = next((name for name in names if name.split(":")[0] not in OURS), names[0])
    results = dict(
        made=dict(date=date.today().isoformat(), machine=machine(), versions=versions(), command=command),
        metrics=[dict(name=m.name, label=m.label, unit=m.unit, better=m.better) for m in METRICS],
        rows=found,
        originals={name: path for name, path in originals.items() if path},
        summary=summary,
        savings=savings(summary, anchor),
        ratings=[],
    )
    (out / "results.json").write_text(json.dumps(results, indent=1))
    columns = [name for name in found[0] if name != "audio"]
    with open(out / "results.tsv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in found)
    return results


def _keep_original(clip: Path, out: Path) -> str | None:
    """Copy of a clip as it was coded, for listening; None if it is not readable."""
    try:
        wave = load(clip)
    except BenchError:
        return None
    path = out / "audio" / quote(clip.stem, "") / "original.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, wave.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
    return str(path.relative_to(out))
