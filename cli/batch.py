"""`aldm batch`: a library of audio in one command, in parallel; the same command resumes a stopped run."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from . import worker
from .checkpoint import DEVICE_HELP
from .inputs import LeftOut, find_inputs
from .messages import PARTIAL, printable, say, verbosity_options, warn
from .options import Command, rate_options
from .run_log import LOG, Row, count_reasons, locked_log, new_rows, read_log, rows_to_do, write_summary

INCOMPLETE = ".aldm-partial"  # folder of incomplete files; emptied when a run begins and ends
SAY_EVERY = 30.0  # seconds, where there is no terminal
SHOWN = 20  # lines about inputs; summary.json has them all
PER_GPU = 4  # processes: most of the work is the CPU's
FULL = (errno.ENOSPC, errno.EDQUOT)


GROUPS = {
    "Options": ("out", "bitrate", "quality", "manifest", "jobs", "force", "help"),
    "Tokens": ("tokens", "codebook", "shards", "shard_size"),
    "Running": ("model", "device", "engine", "address", "quiet", "verbose"),
}
EXAMPLES = """
aldm batch Recordings --out Coded --bitrate 1.5
aldm batch "Podcasts/**/*.mp3" --out Coded
find . -name "*.m4a" > list.txt; aldm batch --manifest list.txt --out Coded
aldm batch Recordings --out Tokens --tokens
"""


@click.command(cls=Command, groups=GROUPS, examples=EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option(
    "--manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a path on every line, relative to it.",
)  # fmt: skip
@rate_options
@click.option("--model", "-m", metavar="M", help="Model in the package, or a model folder.")
@click.option("--device", metavar="D", help=DEVICE_HELP)
@click.option(
    "--jobs", "-j", type=click.IntRange(1), help=f"Processes.  [default: one per core, or {PER_GPU} on a GPU]"
)
@click.option("--force", "-f", is_flag=True, help="Replace files that no run of this command wrote.")
@click.option("--tokens", is_flag=True, help="Write tokens, to shards, instead of .aldm files.")
@click.option("--codebook", type=click.Choice(["vq", "scalar"]), help="Codebook of the tokens.  [default: vq]")
@click.option("--shards", type=click.Choice(["parquet", "webdataset"]), help="Format of shards.  [default: parquet]")
@click.option("--shard-size", type=click.IntRange(1), metavar="N", help="Clips in a shard.  [default: 1000]")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Processes of this machine, or workers of a Ray cluster.",
)  # fmt: skip
@click.option(
    "--address", envvar="RAY_ADDRESS", help="Address of a Ray cluster.  [default: $RAY_ADDRESS, or one for this run]"
)
@verbosity_options
def batch(
    inputs: tuple[str, ...],
    out: Path,
    manifest: Path | None,
    bitrate: float | None,
    quality: int | None,
    model: str | None,
    device: str | None,
    jobs: int | None,
    force: bool,
    tokens: bool,
    codebook: str | None,
    shards: str | None,
    shard_size: int | None,
    engine: str,
    address: str | None,
) -> None:
    """Encode files, folders, glob patterns or a manifest into --out, which mirrors their tree.

    Finished, unchanged inputs are skipped: the same command resumes a stopped run. A file that cannot be encoded is a
    line of the report. Folders are searched for files with the suffix or the first bytes of audio or video; links are
    followed. Writes batch.jsonl, summary.json and, where pyarrow is installed, summary.parquet.

    With --tokens, writes tokens-000000.parquet or .tar and so on, which aldm.codec.TokenDataset reads. With --engine
    ray, files have the same paths on all machines of the cluster.

    Exit codes: 0 all coded, 1 stopped, 2 wrong usage, 3 some inputs failed, or were cut or damaged.
    """
    if not inputs and not manifest:
        raise click.UsageError("name files, folders or patterns, or a --manifest")
    if bitrate is not None and quality is not None:
        raise click.UsageError("give --bitrate or --quality, not both")
    if not tokens and (codebook or shards or shard_size):
        raise click.UsageError("--codebook, --shards and --shard-size are for --tokens")
    if tokens and (bitrate is not None or (quality is not None and codebook != "scalar")):
        raise click.UsageError("--tokens takes no --bitrate, and --quality with --codebook scalar")
    kind = shards or "parquet"
    if tokens and kind == "parquet" and not importlib.util.find_spec("pyarrow"):
        raise click.ClickException("Parquet needs pyarrow: pip install 'aldm[batch]'; or take --shards webdataset")
    wanted, left_out = find_inputs(inputs, manifest)
    if not wanted:
        others = f" ({count_reasons(left_out)})" if left_out else ""
        raise click.ClickException(f"no audio files in {', '.join(inputs) or manifest}{others}")
    from ..codec.model_folder import embedded_models, find_model, fingerprint

    folder = find_model(model)
    if model not in (None, *embedded_models()):
        model = os.path.abspath(folder)  # workers may be elsewhere
    if engine == "local" and device not in (None, "cpu"):
        from ..codec.device import find_device

        device = find_device(device)
    options: dict[str, Any] = dict(model=fingerprint(folder).hex())
    options |= _token_options(folder, codebook, quality) if tokens else dict(bitrate=bitrate, quality=quality)
    out.mkdir(parents=True, exist_ok=True)
    with locked_log(out):
        log = read_log(out)
        rows = new_rows(wanted, options)
        if tokens:
            from .shards import Shards, assign

            assign(rows, log, out, kind, shard_size or 1000, force)
        todo = rows_to_do(rows, log, out, force)
        started = time.monotonic()
        partial = Path(os.path.abspath(out)) / INCOMPLETE
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        running: contextlib.AbstractContextManager[Iterator[tuple[worker.Task, Any]]]
        try:
            keep = Shards(todo, out, kind, options, partial).add if tokens else lambda row: [row]
            tasks = [
                dict(
                    number=number,
                    source=os.path.abspath(row["source"]),
                    target=os.path.abspath(out / row["target"]),
                    partial=str(partial),
                    options=options,
                )
                for number, row in enumerate(todo)
            ]
            function = worker.tokenize if tokens else worker.encode
            if engine == "ray":
                from .ray_engine import on_ray

                initargs = (model, options["model"], 1, device)
                place: dict[str, Any] = dict(scratch=partial, address=address, per_gpu=PER_GPU, device=device)
                running = on_ray(function, tasks, jobs, worker.start, *initargs, **place)
            else:
                from ..codec.processes import in_processes

                cores = os.cpu_count() or 1
                jobs = jobs or (cores if device in (None, "cpu") else min(cores, PER_GPU))
                initargs = (model, options["model"], max(1, cores // jobs), device)
                running = contextlib.closing(in_processes(function, tasks, jobs, worker.start_process, *initargs))
            with running as results:
                stopped = _run(todo, results, out, keep)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _report(rows, left_out, out, time.monotonic() - started, stopped)


def _token_options(folder: Path, codebook: str | None, quality: int | None) -> dict[str, Any]:
    """Options that determine the tokens of a model."""
    from ..codec.errors import ModelError
    from ..codec.model_folder import VECTORS, fingerprint

    if codebook == "scalar":
        if quality is None:
            quality = json.loads((folder / "codec/config.json").read_text())["default_quality"]
        return dict(codebook="scalar", quality=quality)
    if not (folder / VECTORS).exists():
        raise ModelError(f"model {folder.name} has no vector codebook")
    return dict(codebook="vq", quality=None, vectors=fingerprint(folder, (VECTORS,)).hex())


def _run(
    todo: list[Row], results: Iterator[tuple[worker.Task, Any]], out: Path, keep: Callable[[Row], list[Row]]
) -> str:
    """Run the tasks and log the rows that `keep` returns. Returns the reason for an early stop, or ""."""
    said, seconds, started = time.monotonic(), 0.0, time.monotonic()
    hidden = not sys.stderr.isatty()
    bar = click.progressbar(length=len(todo), label="encoding", file=sys.stderr, hidden=hidden, show_pos=True)
    with open(out / LOG, "a") as lines, bar:
        try:
            for task, result in results:
                row = todo[task["number"]]
                row |= result if isinstance(result, dict) else dict(error="its process died")
                if row.pop("full", False):
                    return f"{row['error']}, at {out / row['target']}"
                for done in keep(row):
                    lines.write(json.dumps(done) + "\n")
                lines.flush()
                seconds += row.get("seconds", 0)
                speed = seconds / (time.monotonic() - started)
                bar.label = f"{seconds / 3600:.2f} h at {speed:.1f}x real time"
                bar.update(1)
                if hidden and time.monotonic() - said > SAY_EVERY:
                    said = time.monotonic()
                    say(f"{bar.pos} of {len(todo)} files, {bar.label}")
        except KeyboardInterrupt:
            return "interrupted"
        except OSError as error:
            if error.errno not in FULL:
                raise
            return f"{error.strerror}, in {out}"
    return ""


def _report(rows: list[Row], left_out: list[LeftOut], out: Path, took: float, stopped: str) -> None:
    """Write the summary, report, and exit with the exit code."""
    summary = write_summary(rows, left_out, out, took, stopped)
    for error in summary["errors"][:SHOWN]:
        click.echo(f"{printable(error['source'])}: {error['error']}", err=True)
    for warning in summary["warnings"][:SHOWN]:
        warn(f"{printable(warning['source'])}: {'; '.join(warning['warnings'])}")
    say(
        f"{summary['coded']} coded, {summary['skipped']} done before, {summary['failed']} failed; "
        f"{summary['seconds'] / 3600:.2f} h in {summary['bytes'] / 1e6:.2f} MB; "
        f"{summary['times_real_time']:.1f}x real time"
    )
    if summary["partial"]:
        warn(f"{summary['partial']} inputs were cut or damaged; what is there was coded")
    if left_out:
        say(f"{len(left_out)} files left out: {count_reasons(left_out)}; summary.json names them")
    if stopped:
        raise click.ClickException(f"stopped: {stopped}. Finished files are complete; the same command resumes")
    if summary["failed"] or summary["partial"]:
        sys.exit(PARTIAL)
