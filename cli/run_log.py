"""The log of `aldm batch`: rows of earlier runs, rows to process, and results."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .files import output_file
from .inputs import Input, LeftOut
from .locks import try_lock
from .messages import printable

LOG, SUMMARY, PARQUET = "batch.jsonl", "summary.json", "summary.parquet"
COLUMNS = ("source", "target", "seconds", "channels", "bytes", "kbps", "took", "error")
NOT_COMPARED = ("source",)
NOT_DONE = "not done"  # the error of a waiting row

# One input: its name in the output; source, size and mtime; path below the input; target, below the output folder;
# options; error, and if there is none bytes of the target and other results.
Row = dict[str, Any]


@contextlib.contextmanager
def locked_log(out: Path) -> Iterator[None]:
    """Keeps other runs out of an output folder.

    Raises:
        click.ClickException: one is there.
    """
    with open(out / LOG, "ab") as file:
        if not try_lock(file):
            raise click.ClickException(f"{printable(str(out))}: another aldm batch is writing to this folder")
        yield


def read_log(out: Path) -> dict[str, Row]:
    """Rows by name, the latest counts; a line that a killed run left half-written does not."""
    rows: dict[str, Row] = {}
    path = out / LOG
    for line in path.read_text().split("\n") if path.exists() else ():
        try:
            row = json.loads(line)
            rows[row["name"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def new_rows(inputs: dict[str, Input], options: dict[str, Any]) -> list[Row]:
    """A row for every input, with an error where it cannot be coded."""
    rows = []
    for name, item in inputs.items():
        row: Row = dict(name=name, source=str(item.source), path=str(item.place), size=None, mtime=None)
        row |= dict(target=f"{name}.aldm", options=options, error=item.error or None)
        if not item.error:
            status = item.source.stat()
            row |= dict(size=status.st_size, mtime=status.st_mtime_ns)
        rows.append(row)
    return rows


def rows_to_do(rows: list[Row], log: dict[str, Row], out: Path, force: bool) -> list[Row]:
    """The rows to process. Finished rows are filled in from the log.

    A target is finished if it exists and the log has all rows that share it, with these options. A file is recognised
    by its name in the output, suffix, size and time, not by its path.
    """

    def is_done(row: Row) -> bool:
        before = log.get(row["name"])
        if before is None or before["error"] or any(row[k] != before.get(k) for k in row if k not in NOT_COMPARED):
            return False
        target = out / row["target"]
        return os.path.isfile(target) and target.stat().st_size == before["bytes"]

    good = [row for row in rows if not row["error"]]
    left = {row["target"] for row in good if not is_done(row)}
    known = {row["target"] for row in log.values()}
    todo = []
    for row in good:
        target = out / row["target"]
        if row["target"] not in left:
            row |= log[row["name"]] | dict(source=row["source"], skipped=True)
        elif os.path.exists(target) and row["target"] not in known and not force:
            row["error"] = f"{target} exists; --force replaces it"
        else:
            todo.append(row)
    with open(out / LOG, "a") as lines:  # so that a run after a killed one recognises its files
        lines.write("\n" if lines.tell() else "")  # a killed run's last line may be half a one
        lines.writelines(json.dumps(row | dict(error=NOT_DONE)) + "\n" for row in todo)
    return todo


def write_summary(rows: list[Row], left_out: list[LeftOut], out: Path, took: float, stopped: str) -> dict[str, Any]:
    """Write summary.json, and summary.parquet where pyarrow is installed."""
    done = [row for row in rows if row.get("bytes") and not row["error"]]
    failed = [row for row in rows if row["error"]]
    partial = [row for row in done if row.get("partial")]
    skipped = sum(row.get("skipped", False) for row in rows)
    seconds = sum(row["seconds"] for row in done)
    size = sum({row["target"]: row["bytes"] for row in done}.values())
    fresh = sum(row["seconds"] for row in done if not row.get("skipped"))
    summary = dict(files=len(rows), coded=len(done) - skipped, skipped=skipped, failed=len(failed), seconds=seconds)
    summary |= dict(partial=len(partial), not_audio=len(left_out), bytes=size)
    summary |= dict(kbps=size * 8e-3 / seconds if seconds else None, took=took, stopped=stopped or None)
    summary |= dict(times_real_time=fresh / took, errors=[{k: r[k] for k in ("source", "error")} for r in failed])
    noted = [row for row in done if row.get("warnings")]
    summary["warnings"] = [{k: row[k] for k in ("source", "warnings")} for row in noted]
    summary["left_out"] = [dict(source=str(item.source), reason=item.reason) for item in left_out]
    with output_file(str(out / SUMMARY), force=True) as file:
        file.write(json.dumps(summary, indent=1).encode())
    if importlib.util.find_spec("pyarrow"):
        import pyarrow
        from pyarrow import parquet

        table = {name: [row.get(name) for row in rows] for name in COLUMNS}
        for name in ("source", "target"):  # Parquet holds UTF-8 only
            table[name] = [printable(row[name]) for row in rows]
        with output_file(str(out / PARQUET), force=True) as file:
            parquet.write_table(pyarrow.table(table), file)
    return summary


def count_reasons(left_out: list[LeftOut]) -> str:
    """Such as "2 no audio: .jpg, 1 link to a folder above it"."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(item.reason for item in left_out).most_common())
