"""Shards of tokens for `aldm batch`: assigns clips to shards, and writes each when its clips are complete."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..codec.tokens.shards import SUFFIXES, write_shard
from .files import output_file
from .messages import printable
from .run_log import NOT_DONE, Row


def assign(rows: list[Row], log: dict[str, Row], out: Path, kind: str, size: int, force: bool) -> None:
    """Set the target of each row to its shard.

    A clip stays in the shard that the log has for it, so that a resumed run makes the same shards. New clips, and those
    that failed before, go to new shards, in order, `size` to a shard.

    Raises:
        click.ClickException: shards in `out` that were not written with these options; `force` removes them.
    """
    good = [row for row in rows if not row["error"]]
    same = {name: row for name, row in log.items() if rows[0]["options"] == row["options"]}
    ours = {row["target"] for row in same.values()}
    found = {path.name for suffix in SUFFIXES.values() for path in out.glob(f"tokens-*{suffix}")}
    if found - ours and not force:
        raise click.ClickException(
            f"{out / min(found - ours)} was made with other options; --force removes such shards"
        )
    for name in found - ours:
        (out / name).unlink()
    used = found & ours
    new = []
    for row in good:
        before = same.get(row["name"])
        if before and before["error"] in (None, NOT_DONE):
            row["target"] = before["target"]
            used.add(before["target"])
        else:
            new.append(row)
    first = 1 + max((int(Path(name).stem.split("-")[1]) for name in used), default=-1)
    for number, row in enumerate(new):
        row["target"] = f"tokens-{first + number // size:06}{SUFFIXES[kind]}"


class Shards:
    """Holds tokens until their shard is complete, and writes it.

    Args:
        rows: to process, whole shards of them, in order.
        facts: as of `write_shard`.
        partial: folder for incomplete files.
    """

    def __init__(self, rows: list[Row], out: Path, kind: str, facts: dict[str, Any], partial: Path):
        self._out, self._kind, self._facts, self._partial = out, kind, facts, partial
        self._members: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            self._members[row["target"]].append(row)
        self._waiting = {target: len(members) for target, members in self._members.items()}

    def add(self, row: Row) -> list[Row]:
        """Take a processed row; returns the rows of its shard if it was the last of them.

        Raises:
            OSError: the shard cannot be written.
        """
        if "tokens" in row and self._facts["codebook"] == "vq":
            row["tokens"] = row["tokens"].astype(np.int16)
        self._waiting[row["target"]] -= 1
        if self._waiting[row["target"]]:
            return []
        members, target = self._members.pop(row["target"]), self._out / row["target"]
        if clips := [member for member in members if not member["error"]]:
            named = [clip | {key: printable(clip[key]) for key in ("name", "path")} for clip in clips]
            with output_file(str(target), force=True, partial=self._partial) as file:
                write_shard(file, self._kind, target.stem, named, self._facts)
            for clip in clips:
                clip["bytes"] = target.stat().st_size
        for member in members:
            member.pop("tokens", None)
        return members
