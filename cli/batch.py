"""`aldm batch`: a library of audio in one command, in parallel; a stopped run goes on where it was."""

from __future__ import annotations

import errno
import glob
import importlib.util
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import click

from ..bench.pool import in_processes
from .files import output_file

SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"}
LOG, SUMMARY, PARQUET = "batch.jsonl", "summary.json", "summary.parquet"
SAY_EVERY = 30.0  # seconds, where there is no terminal
Row = dict[str, Any]  # one file: source, target, size and mtime of the source, options, and how it went

_codec: Any = None  # of a worker process


def find_sources(inputs: tuple[str, ...], manifest: Path | None) -> Iterator[tuple[Path, Path]]:
    """Audio files, and where each belongs below the output folder."""
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            yield from ((p, p.relative_to(path)) for p in files)
        elif glob.has_magic(name) and not path.exists():
            fixed = [part for part in path.parts[: next(i for i, p in enumerate(path.parts) if glob.has_magic(p))]]
            matches = sorted(p for p in map(Path, glob.iglob(name, recursive=True)) if p.is_file())
            yield from ((p, p.relative_to(Path(*fixed))) for p in matches)
        else:
            yield path, Path(path.name)
    for line in manifest.read_text().splitlines() if manifest else ():
        if line.strip():
            path = Path(line.strip())
            inside = not path.is_absolute() and ".." not in path.parts
            assert manifest is not None
            yield manifest.parent / path, path if inside else Path(path.name)


def plan(inputs: tuple[str, ...], manifest: Path | None, out: Path) -> dict[Path, list[Path]]:
    """Outputs, and the inputs that want each: `a.wav` becomes `a.aldm`, or `a.wav.aldm` if there is an `a.flac` too."""
    sources = dict.fromkeys(find_sources(inputs, manifest))
    shared = Counter(place.with_suffix("") for _, place in sources)
    wanted: dict[Path, list[Path]] = {}
    for source, place in sources:
        name = place.name if shared[place.with_suffix("")] > 1 else place.stem
        wanted.setdefault(out / place.with_name(name + ".aldm"), []).append(source)
    return wanted


def _start(model: str | None, threads: int) -> None:
    """Make a worker's codec, once."""
    global _codec
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; what runs may end
    import torch

    from ..codec.codec import Codec

    torch.set_num_threads(threads)
    _codec = Codec.from_pretrained(model)


def _encode(row: Row) -> Row:
    """Encode one file; what is wrong with it goes to `error`, and a full disk to `full`."""
    started = time.perf_counter()
    try:
        from ..codec.audio import AudioReader

        Path(row["target"]).parent.mkdir(parents=True, exist_ok=True)
        with output_file(row["target"], force=True) as out:
            reader = AudioReader(row["source"])
            options = {name: value for name, value in row["options"].items() if name != "model"}
            data = _codec.encode(reader, **options)
            out.write(data)
        seconds = reader.samples / reader.sample_rate
        row |= dict(seconds=seconds, channels=reader.channels, bytes=len(data), kbps=len(data) * 8e-3 / seconds)
    except click.ClickException as error:
        row["error"] = error.message
    except OSError as error:
        row |= dict(error=error.strerror or str(error), full=error.errno in (errno.ENOSPC, errno.EDQUOT))
    except (ValueError, RuntimeError, MemoryError) as error:
        row["error"] = " ".join(str(error).split()) or type(error).__name__
    return row | dict(took=time.perf_counter() - started)


def _read_log(path: Path) -> dict[str, Row]:
    """Rows by target, the latest counts; a line that a killed run left half-written does not."""
    rows: dict[str, Row] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            rows[row["target"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def _is_done(row: Row, before: Row | None) -> bool:
    """Whether the log says that this very file was coded with these options, and the result is still there."""
    same = before is not None and not before["error"] and all(row[k] == before.get(k) for k in row if k != "error")
    target = Path(row["target"])
    return same and target.is_file() and before is not None and target.stat().st_size == before["bytes"]


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option(
    "--manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a path on every line, relative to it.",
)  # fmt: skip
@click.option("--bitrate", "-b", type=click.FloatRange(min=0, min_open=True), metavar="KBPS", help="As for encode.")
@click.option("--quality", "-q", type=click.IntRange(min=0), metavar="Q", help="As for encode.")
@click.option("--model", "-m", metavar="M", help="Model in the package, or a model folder.")
@click.option("--jobs", "-j", type=click.IntRange(1), help="Processes.  [default: one per core]")
@click.option("--force", "-f", is_flag=True, help="Replace files that no run of this command wrote.")
def batch(
    inputs: tuple[str, ...],
    out: Path,
    manifest: Path | None,
    bitrate: float | None,
    quality: int | None,
    model: str | None,
    jobs: int | None,
    force: bool,
) -> None:
    """Encode files, folders, glob patterns or a manifest into --out, which mirrors their tree.

    What is done and unchanged is skipped, so that a stopped run goes on. A file that cannot be coded is a line of the
    report. Writes batch.jsonl, summary.json and, where pyarrow is installed, summary.parquet. Exit codes: 0 all coded,
    1 stopped, 2 wrong usage, 3 some could not be coded.
    """
    if not inputs and not manifest:
        raise click.UsageError("name files, folders or patterns, or a --manifest")
    if bitrate is not None and quality is not None:
        raise click.UsageError("give --bitrate or --quality, not both")
    wanted = plan(inputs, manifest, out)
    if not wanted:
        raise click.ClickException(f"no audio files in {', '.join(inputs) or manifest}")
    from ..codec.folder import find_model, fingerprint

    options = dict(bitrate=bitrate, quality=quality, model=fingerprint(find_model(model)).hex())
    out.mkdir(parents=True, exist_ok=True)
    log = _read_log(out / LOG)
    rows: list[Row] = []
    todo: list[Row] = []
    for target, sources in wanted.items():
        for source in sources:
            row: Row = dict(source=str(source), target=str(target), options=options, size=None, mtime=None, error=None)
            rows.append(row)
            if len(sources) > 1:
                row["error"] = f"{len(sources)} inputs would be written to {target}"
            elif not source.is_file():
                row["error"] = "No such file"
            else:
                row |= dict(size=source.stat().st_size, mtime=source.stat().st_mtime_ns)
                if _is_done(row, log.get(str(target))):
                    row |= log[str(target)] | dict(skipped=True)
                elif target.exists() and str(target) not in log and not force:
                    row["error"] = f"{target} exists; --force replaces it"
                else:
                    todo.append(row)
    with open(out / LOG, "a") as lines:  # so that a run after a kill knows whose files these are
        lines.writelines(json.dumps(row | dict(error="not done")) + "\n" for row in todo)
    started = time.monotonic()
    stopped = _run(todo, out / LOG, model, jobs or os.cpu_count() or 1)
    _report(rows, out, time.monotonic() - started, stopped)


def _run(todo: list[Row], log: Path, model: str | None, jobs: int) -> str:
    """Encode, and log each row when it is done. Returns why it stopped early, or ""."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    said, seconds, started = time.monotonic(), 0.0, time.monotonic()
    hidden = not sys.stderr.isatty()
    bar = click.progressbar(length=len(todo), label="encoding", file=sys.stderr, hidden=hidden, show_pos=True)
    with open(log, "a") as lines, bar:
        try:
            for row, result in in_processes(_encode, todo, jobs, _start, model, threads):
                row |= dict(error="its process died") if result is BrokenProcessPool else result
                lines.write(json.dumps(row) + "\n")
                lines.flush()
                seconds += row.get("seconds", 0)
                speed = seconds / (time.monotonic() - started)
                bar.label = f"{seconds / 3600:.2f} h at {speed:.0f} times real time"
                bar.update(1)
                if hidden and time.monotonic() - said > SAY_EVERY:
                    said = time.monotonic()
                    click.echo(f"{bar.pos} of {len(todo)} files, {bar.label}", err=True)
                if row.get("full"):
                    return f"{row['error']}, at {row['target']}"
        except KeyboardInterrupt:
            return "interrupted"
    return ""


def _report(rows: list[Row], out: Path, took: float, stopped: str) -> None:
    """Write the summary, say what happened, and leave with the exit code."""
    done = [row for row in rows if row.get("bytes") and not row["error"]]
    failed = [row for row in rows if row["error"]]
    skipped = sum(row.get("skipped", False) for row in rows)
    seconds, size = (sum(row[name] for row in done) for name in ("seconds", "bytes"))
    fresh = sum(row["seconds"] for row in done if not row.get("skipped"))
    summary = dict(files=len(rows), coded=len(done) - skipped, skipped=skipped, failed=len(failed), seconds=seconds)
    summary |= dict(bytes=size, kbps=size * 8e-3 / seconds if seconds else None, took=took, stopped=stopped or None)
    summary |= dict(times_real_time=fresh / took, errors=[{k: r[k] for k in ("source", "error")} for r in failed])
    with output_file(str(out / SUMMARY), force=True) as file:
        file.write(json.dumps(summary, indent=1).encode())
    if importlib.util.find_spec("pyarrow"):
        import pyarrow
        from pyarrow import parquet

        names = ("source", "target", "seconds", "channels", "bytes", "kbps", "took", "error")
        with output_file(str(out / PARQUET), force=True) as file:
            parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in names}), file)
    for row in failed[:20]:
        click.echo(f"{row['source']}: {row['error']}", err=True)
    click.echo(
        f"{summary['coded']} coded, {skipped} done before, {len(failed)} failed; {seconds / 3600:.2f} h in "
        f"{size / 1e6:.2f} MB; {fresh / took:.0f} times real time",
        err=True,
    )
    if stopped:
        raise click.ClickException(f"stopped: {stopped}. What is written is whole; the same command goes on")
    if failed:
        sys.exit(3)
