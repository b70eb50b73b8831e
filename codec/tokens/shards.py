"""Shards of tokens: many clips in one Parquet file or WebDataset tar. Without torch."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

SUFFIXES = {"parquet": ".parquet", "webdataset": ".tar"}
COLUMNS = ("name", "path", "channels", "frames", "groups", "samples", "sample_rate", "tokens")
GROUP = 256  # clips that a reader of Parquet holds

Clip = dict[str, Any]


def write_shard(file: BinaryIO, kind: str, stem: str, clips: Sequence[Clip], facts: dict[str, Any]) -> None:
    """Write a shard. The same clips and versions of the libraries make the same bytes.

    Args:
        kind: a key of `SUFFIXES`.
        stem: of the names of the clips in a tar.
        clips: with name, path, samples, sample_rate and tokens [C, N, groups], integers.
        facts: strings and numbers that hold for all of them.
    """
    shapes = [dict(zip(("channels", "frames", "groups"), clip["tokens"].shape, strict=True)) for clip in clips]
    if kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        whole = [clip | shape | dict(tokens=clip["tokens"].ravel()) for clip, shape in zip(clips, shapes, strict=True)]
        listed = pa.list_(pa.from_numpy_dtype(clips[0]["tokens"].dtype))
        types = [pa.string(), pa.string(), pa.int32(), pa.int32(), pa.int32(), pa.int64(), pa.int32(), listed]
        schema = pa.schema(list(zip(COLUMNS, types, strict=True)), {"aldm": json.dumps(facts)})
        columns = [pa.array([clip[c] for clip in whole], t) for c, t in zip(COLUMNS, types, strict=True)]
        parquet.write_table(
            pa.Table.from_arrays(columns, schema=schema), file, compression="zstd", row_group_size=GROUP
        )
        return
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (clip, shape) in enumerate(zip(clips, shapes, strict=True)):
            array = io.BytesIO()
            np.save(array, clip["tokens"])
            told = {c: clip[c] for c in COLUMNS if c in clip and c != "tokens"} | shape | facts
            for suffix, data in (("json", json.dumps(told).encode()), ("npy", array.getvalue())):
                member = tarfile.TarInfo(f"{stem}-{number:06}.{suffix}")  # no dots but the last: they part a key
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def read_shard(path: str | Path) -> Iterator[Clip]:
    """Clips of a shard in order, with what `write_shard` was given, facts included, and channels, frames, groups.

    Raises:
        ValueError: not such a shard, or a damaged one.
    """
    try:
        yield from _read_parquet(path) if str(path).endswith(".parquet") else _read_tar(path)
    except (KeyError, ValueError, AttributeError, tarfile.TarError) as error:  # pyarrow's errors are ValueErrors
        raise ValueError(f"{path}: not a shard of tokens: {error}") from error


def _read_parquet(path: str | Path) -> Iterator[Clip]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        facts = json.loads((file.schema_arrow.metadata or {})[b"aldm"])
        for batch in file.iter_batches(GROUP):
            tokens = batch.column("tokens")
            rest = batch.select([c for c in COLUMNS if c != "tokens"]).to_pylist()
            for row, flat in zip(rest, tokens, strict=True):
                shape = (row["channels"], row["frames"], row["groups"])
                yield row | facts | dict(tokens=flat.values.to_numpy().reshape(shape))


def _read_tar(path: str | Path) -> Iterator[Clip]:
    told: dict[str, Clip] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, suffix = member.name.rpartition(".")
            handle = tar.extractfile(member)
            if handle is None or suffix not in ("json", "npy"):
                continue
            if suffix == "json":
                told = {key: json.loads(handle.read())}
            else:
                yield told[key] | dict(tokens=np.load(io.BytesIO(handle.read()), allow_pickle=False))
