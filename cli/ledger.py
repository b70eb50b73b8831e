"""The log of `aldm batch`: what was done before, what is to be done, and what came of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from .files import output_file
from .sources import Wanted

LOG, SUMMARY, PARQUET = "batch.jsonl", "summary.json", "summary.parquet"
NOT_DONE = "not done"  # the error of a row that waits

# One input: its name in the output; source, size and mtime; path below the input; target, below the output folder;
# options; error, and if there is none bytes of the target and what else the work says.
Row = dict[str, Any]


def read_log(out: Path) -> dict[str, Row]:
    """Rows by name, the latest counts; a line that a killed run left half-written does not."""
    rows: dict[str, Row] = {}
    path = out / LOG
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            rows[row["name"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def new_rows(wanted: Wanted, options: dict[str, Any]) -> list[Row]:
    """A row for every input, with an error where it is plain that it cannot be coded."""
    rows = []
    for name, pairs in wanted.items():
        for source, path in pairs:
            row: Row = dict(name=name, source=str(source), path=str(path), size=None, mtime=None)
            row |= dict(target=f"{name}.aldm", options=options, error=None)
            if len(pairs) > 1:
                row["error"] = f"{len(pairs)} inputs would be written to {row['target']}"
            elif not source.is_file():
                row["error"] = "A folder; name it as an INPUT" if source.is_dir() else "No such file"
            else:
                row |= dict(size=source.stat().st_size, mtime=source.stat().st_mtime_ns)
            rows.append(row)
    return rows


def choose(rows: list[Row], log: dict[str, Row], out: Path, force: bool) -> list[Row]:
    """The rows that are to be worked on. What is done becomes what the log says of it.

    A target is done if the log says of all who share it that these very files were coded with these options, and it is
    still there.
    """

    def is_done(row: Row) -> bool:
        before = log.get(row["name"])
        if before is None or before["error"] or any(row[k] != before.get(k) for k in row):
            return False
        target = out / row["target"]
        return target.is_file() and target.stat().st_size == before["bytes"]

    good = [row for row in rows if not row["error"]]
    left = {row["target"] for row in good if not is_done(row)}
    known = {row["target"] for row in log.values()}
    todo = []
    for row in good:
        target = out / row["target"]
        if row["target"] not in left:
            row |= log[row["name"]] | dict(skipped=True)
        elif target.exists() and row["target"] not in known and not force:
            row["error"] = f"{target} exists; --force replaces it"
        else:
            todo.append(row)
    with open(out / LOG, "a") as lines:  # so that a run after a kill knows whose files these are
        lines.write("\n" if lines.tell() else "")  # a killed run's last line may be half a one
        lines.writelines(json.dumps(row | dict(error=NOT_DONE)) + "\n" for row in todo)
    return todo


def write_summary(rows: list[Row], out: Path, took: float, stopped: str) -> dict[str, Any]:
    """Write summary.json, and summary.parquet where pyarrow is installed."""
    done = [row for row in rows if row.get("bytes") and not row["error"]]
    failed = [row for row in rows if row["error"]]
    skipped = sum(row.get("skipped", False) for row in rows)
    seconds = sum(row["seconds"] for row in done)
    size = sum({row["target"]: row["bytes"] for row in done}.values())
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
    return summary
