"""Running codecs over clips: in parallel, resumable, with a row for every result and every failure."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ..codec.audio.suffixes import readable
from .codecs import CEILINGS, DIFFUSIONS, Commands, Missing
from .metrics import FAMILIES, FULLBAND_FAMILIES, Family, absent, embeddings
from .sources import BenchError, domain_of, find_clips
from .statistics import Row, add_distances, savings, summarize
from .tasks import ORIGINAL, Task, code, metrics_of, obtain, rate, run_all, usable

OURS = ("aldm", *DIFFUSIONS, "aldm-vq", *CEILINGS)
VERSIONS = (
    "aldm", "torch", "numpy", "soxr", "pesq", "pystoi", "visqol-python", "speechmos", "distillmos", "resemblyzer",
    "librosa", "onnxruntime", "ai-edge-litert", "pyopen-wakeword", "transformers", "diffusers",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of the packages that results depend on."""
    found = {}
    for package in VERSIONS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {"python": platform.python_version()} | found


def unavailable(kinds: set[str], yamnet: Path | None, fullband: bool) -> list[str]:
    """A line for everything that such clips will have no value for, and what to do about it."""
    families: Sequence[Family[Any]] = FULLBAND_FAMILIES if fullband else FAMILIES
    groups = [(family.metrics, family.speech_only, family.modules, family.hint) for family in families]
    if not fullband:
        groups += [((e.metric,), e.speech_only, e.modules, e.hint) for e in embeddings(yamnet)]
    lines = []
    for metrics, speech_only, modules, hint in groups:
        if ("speech" in kinds or not speech_only) and (lost := absent(modules)):
            labels = ", ".join(metric.label for metric in metrics)
            lines.append(f"skipped {labels}: not installed: {', '.join(lost)} ({hint})")
    if yamnet is None and not fullband:
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
    fullband: bool = False,
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
        fullband: code and measure clips at their own rate and in stereo, by `FULLBAND_METRICS`; codecs that cannot get
            them at 16 kHz and mono. The summary then has a domain "all" too.

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
        tasks += [
            Task(spec, name, clip, domains[clip], setting, out, yamnet, fullband)
            for setting in settings
            for clip in clips
        ]
    if names == [ORIGINAL] and ORIGINAL not in codecs:
        raise BenchError("none of these codecs can run here")
    if anchor is not None and anchor not in names:
        raise BenchError(f"the anchor {anchor} is not among the codecs that run: {', '.join(names)}")

    if len({task.path for task in tasks}) < len(tasks):
        raise BenchError(f"a codec is named twice with the same bitrate: {', '.join(names)}")
    for embedding in [] if fullband else usable(yamnet, "speech"):
        embedding.embed(np.zeros(0, np.float32))  # fails now rather than in every row
    for line in unavailable(set(domains.values()), yamnet, fullband):
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
    summary = summarize(found + ([row | {"domain": "all"} for row in found] if fullband else []))
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
        metrics=[asdict(metric) for metric in metrics_of(fullband)],
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
