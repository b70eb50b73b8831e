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
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile as sf

from ..codec.audio.reader import read_audio
from ..codec.audio.suffixes import READABLE, readable
from ..codec.errors import AudioError
from ..codec.processes import in_processes
from .codecs import CEILINGS, DIFFUSIONS, AudioCodec, CodecError, Commands, Missing, make_codec
from .metrics import (
    FAMILIES,
    METRICS,
    SAMPLE_RATE,
    Embedding,
    Family,
    Wave,
    absent,
    applicable,
    embeddings,
    fit_length,
    score,
)
from .statistics import Row, add_distances, savings, summarize

DOMAINS = {"speech": "speech", "music": "music", "env": "environment", "environment": "environment"}
MAX_NAME = 200  # characters of a folder
SHORTEST = 0.5  # seconds; the metrics need some
ORIGINAL = "original"
OURS = ("aldm", *DIFFUSIONS, "aldm-vq", *CEILINGS)
VERSIONS = (
    "aldm", "torch", "numpy", "soxr", "pesq", "pystoi", "visqol-python", "speechmos", "distillmos", "resemblyzer",
    "librosa", "onnxruntime", "ai-edge-litert", "pyopen-wakeword", "transformers", "diffusers",
)  # fmt: skip


class BenchError(Exception):
    """The benchmark cannot run, and why."""


def find_clips(sources: Sequence[Path]) -> list[Path]:
    """Audio files given, and those in folders given (not deeper), sorted.

    Raises:
        BenchError: none, or two of the same name.
    """
    clips: list[Path] = []
    for source in sources:
        inside = sorted(p for p in source.iterdir() if p.suffix.lower() in READABLE) if source.is_dir() else [source]
        clips += inside
    if not clips:
        raise BenchError(f"no audio files in {', '.join(map(str, sources))}")
    names = [clip.stem for clip in clips]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BenchError(f"two clips are called {min(twice)}")
    return clips


def folder_name(clip: Path) -> str:
    """Name of a folder for a clip: its own, without what a file system or a link might not take."""
    name = quote(os.fsencode(clip.stem), "")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}-{zlib.crc32(name.encode()):08x}"


def domain_of(clip: Path, default: str) -> str:
    """Kind of sound, from the name up to the first "_" or "-" if that is one that we know."""
    return DOMAINS.get(clip.stem.replace("-", "_").split("_")[0].lower(), default)


def load(clip: Path) -> Wave:
    """A clip at 16 kHz and mono.

    Raises:
        BenchError: no audio, too short or silent.
    """
    if not clip.is_file():
        raise BenchError("no file")
    try:
        mono = read_audio(clip, SAMPLE_RATE).mean(0)
    except (OSError, AudioError) as error:
        raise BenchError(f"not readable audio: {error}") from error
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
    """One clip through one codec at one setting; its facts are in a file of their own, its sound beside it.

    Attributes:
        codec: name of the codec in rows.
        yamnet: file of that network, if there is one.
    """

    spec: str | Commands
    codec: str
    clip: Path
    domain: str
    setting: str
    out: Path
    yamnet: Path | None = None

    @property
    def path(self) -> Path:
        """The file of the facts."""
        return self.out / "audio" / folder_name(self.clip) / f"{quote(self.codec, '')}@{self.setting}.json"

    def vectors(self, embedding: Embedding) -> Path:
        """The file of the clip's vectors in an embedding."""
        return self.path.with_suffix(f".{embedding.name}.npy")

    def key(self) -> str:
        """Changes when the clip or the codec does; empty if the clip cannot be read."""
        try:
            if not self.clip.is_file():  # a pipe would be waited for
                return ""
            return f"{zlib.crc32(self.clip.read_bytes()):08x} {obtain(self.spec).identity}"
        except OSError:
            return ""

    def read(self) -> Row | None:
        """The stored facts, or None if there are none or the clip or codec has changed since."""
        try:
            row: Row = json.loads(self.path.read_text())
            return row if row["key"] == self.key() else None
        except (OSError, ValueError, KeyError):
            return None

    def write(self, **facts: Any) -> None:
        """Replace the stored facts atomically; what is not given is None."""
        empty = dict.fromkeys(("seconds", "bytes", "container_bytes", "kbps", "encode_rtf", "decode_rtf", "memory_mb"))
        empty |= dict.fromkeys(metric.name for metric in METRICS if not metric.pooled)
        names = dict(codec=self.codec, setting=self.setting, clip=readable(self.clip.stem), domain=self.domain)
        row = names | empty | dict(error=None, audio=None, scored=[]) | facts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".new")
        partial.write_text(json.dumps(row, indent=1))
        partial.replace(self.path)

    def unscored(self, row: Row) -> tuple[list[Family], list[Embedding]]:
        """What can be measured on it here and is not in the row yet."""
        families = [
            family
            for family in applicable(self.domain, row["seconds"])
            if family.name not in row["scored"] and not (family.compares and self.codec == ORIGINAL)
        ]
        return families, [e for e in usable(self.yamnet, self.domain) if e.name not in row["scored"]]


def usable(yamnet: Path | None, domain: str) -> list[Embedding]:
    """Embeddings for a kind of sound whose packages are installed."""
    return [e for e in embeddings(yamnet) if (domain == "speech" or not e.speech_only) and not absent(e.modules)]


def one_line(error: Exception) -> str:
    """What went wrong, for a row."""
    known = isinstance(error, BenchError | CodecError)
    first = (str(error).splitlines() or [""])[0]
    return first if known else f"{type(error).__name__}: {first}"


def code(task: Task) -> None:
    """Encode and decode; the metrics are left to `rate`, whose packages would count as the codec's memory."""
    facts = dict[str, Any](key=task.key())
    try:
        codec = obtain(task.spec)
        wave = load(task.clip)
        seconds = len(wave) / SAMPLE_RATE
        with tempfile.TemporaryDirectory() as temporary:
            peak_memory(reset=True)
            coded = codec.run(wave, task.setting, Path(temporary))
            memory = coded.memory or peak_memory()
        sound = task.path.with_suffix(".flac")
        sound.parent.mkdir(parents=True, exist_ok=True)
        sf.write(sound, coded.decoded.clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
        if coded.size is None:  # a ceiling costs nothing that a codec would
            memory = None
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
    """Add to what `code` wrote the metrics that are not there yet, and the vectors for pooled metrics."""
    row = json.loads(task.path.read_text())
    try:
        wave = load(task.clip)
        decoded = sf.read(task.out / row["audio"], dtype="float32")[0]
        families, spaces = task.unscored(row)
        names = [metric.name for family in families for metric in family.metrics]
        found = score(wave, decoded, task.domain, names)
        for space in spaces:
            np.save(task.vectors(space), space.embed(fit_length(decoded, len(wave))).astype(np.float16))
        row |= {name: found[name] for name in names}
        task.write(
            **row | dict(scored=row["scored"] + [family.name for family in families] + [space.name for space in spaces])
        )
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


def unavailable(kinds: set[str], yamnet: Path | None) -> list[str]:
    """A line for everything that such clips will have no value for, and what to do about it."""
    groups = [(family.metrics, family.speech_only, family.modules, family.hint) for family in FAMILIES]
    groups += [((e.metric,), e.speech_only, e.modules, e.hint) for e in embeddings(yamnet)]
    lines = []
    for metrics, speech_only, modules, hint in groups:
        if ("speech" in kinds or not speech_only) and (lost := absent(modules)):
            labels = ", ".join(metric.label for metric in metrics)
            lines.append(f"skipped {labels}: not installed: {', '.join(lost)} ({hint})")
    if yamnet is None:
        lines.append("skipped KAD, YAMNet: name its TFLite file with --yamnet")
    return lines


def machine() -> str:
    """Processor, number of cores and operating system."""
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
    yamnet: Path | None = None,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure, and write results.json and results.tsv into `out`.

    What a stopped run left there is not done again, but for what failed, and for metrics that were missing then.
    Every process uses one thread. The originals are among the codecs, for metrics that need no reference.

    Args:
        codecs: "NAME", "NAME:ARGUMENT", either with "@R1,R2" for bitrates of its own, and pairs of commands.
        bitrates: kbit/s; every codec takes those of its settings that are nearest.
        domain: of clips whose name does not tell.
        anchor: codec that rate savings are against; default: the first that is not `aldm`.
        listen: clips of each domain whose sound is kept for the report.
        yamnet: TFLite file of that network, for the distance between sets of any sounds.

    Returns:
        What results.json holds.

    Raises:
        BenchError: no clips, or no codec that can run.
        ValueError: a codec that does not exist, or a file that is not YAMNet.
    """
    clips = find_clips(sources)
    domains = {clip: domain_of(clip, domain) for clip in clips}
    tasks: list[Task] = []
    names: list[str] = []
    for spec in [*codecs, *([] if ORIGINAL in codecs else [ORIGINAL])]:
        own = list(bitrates)
        if isinstance(spec, str) and "@" in spec:
            spec, _, rates = spec.rpartition("@")
            try:
                own = [float(r) for r in rates.split(",")]
            except ValueError:
                raise BenchError(f"bitrates of {spec} must be numbers in kbit/s, like 6,9.5, not {rates!r}") from None
        try:
            settings = obtain(spec).settings(own)
        except Missing as reason:
            say(f"skipped {spec}: {reason}")
            continue
        name = obtain(spec).name
        names.append(name)
        tasks += [Task(spec, name, clip, domains[clip], setting, out, yamnet) for setting in settings for clip in clips]
    if names == [ORIGINAL] and ORIGINAL not in codecs:
        raise BenchError("none of these codecs can run here")
    if anchor is not None and anchor not in names:
        raise BenchError(f"the anchor {anchor} is not among the codecs that run: {', '.join(names)}")

    if len({task.path for task in tasks}) < len(tasks):
        raise BenchError(f"a codec is named twice with the same bitrate: {', '.join(names)}")
    for embedding in usable(yamnet, "speech"):
        embedding.embed(np.zeros(0, np.float32))  # fails now rather than in every row
    for line in unavailable(set(domains.values()), yamnet):
        say(line)

    count = 0

    def done() -> None:
        nonlocal count
        count += 1
        progress(count, 2 * len(tasks))

    def lacks_sound(task: Task, row: Row) -> bool:
        return any(task.unscored(row)) and not (row["audio"] and (out / row["audio"]).exists())

    rows = [task.read() for task in tasks]
    to_code = [
        task
        for task, row in zip(tasks, rows, strict=True)
        if row is None or row["error"] is not None or lacks_sound(task, row)
    ]
    count = len(tasks) - len(to_code)
    run_all(code, to_code, jobs, done)
    rows = [task.read() for task in tasks]
    to_rate = [
        task for task, row in zip(tasks, rows, strict=True) if row and row["error"] is None and any(task.unscored(row))
    ]
    count = 2 * len(tasks) - len(to_rate)
    run_all(rate, to_rate, jobs, done)

    pairs = [(task, row) for task in tasks if (row := task.read())]
    found = [row for _, row in pairs]
    summary = summarize(found)
    for embedding in embeddings(yamnet):
        vectors: dict[tuple[str, str, str], dict[str, Any]] = {}
        for task, row in pairs:
            if row["error"] is None and embedding.name in row["scored"]:
                group = vectors.setdefault((task.codec, task.setting, task.domain), {})
                group[row["clip"]] = np.load(task.vectors(embedding))
        add_distances(summary, embedding.name, vectors)
    for row in found:
        del row["key"], row["scored"]
    heard = {
        readable(clip.stem) for d in set(domains.values()) for clip in [c for c in clips if domains[c] == d][:listen]
    }
    originals = {row["clip"]: row["audio"] for row in found if row["codec"] == ORIGINAL and row["clip"] in heard}
    for row in found:
        if row["audio"] and row["clip"] not in heard:
            (out / row["audio"]).unlink(missing_ok=True)
        if row["codec"] == ORIGINAL or row["clip"] not in heard:
            row["audio"] = None
    if anchor is None:
        anchor = next((name for name in names if name.split(":")[0] not in OURS), names[0])
    results = dict(
        made=dict(date=date.today().isoformat(), machine=machine(), versions=versions(), command=command),
        metrics=[asdict(metric) for metric in METRICS],
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
