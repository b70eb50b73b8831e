"""Shards of tokens: many clips in one Parquet file or WebDataset tar. Without torch."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

SUFFIXES = {"parquet": ".parquet", "webdataset": ".tar"}
SHAPE = ("channels", "frames", "groups")
COLUMNS = ("name", "path", *SHAPE, "samples", "sample_rate", "tokens")
COUNT = "clips"  # in the JSON of every clip of a tar: how many the shard has
GROUP = 256  # clips of a row group in Parquet, at most
MAX_IDS = 1 << 28  # of a clip, and of a row group: 1 GB as int32
MAX_JSON = 1 << 20  # bytes
INT32 = np.iinfo(np.int32)

Clip = dict[str, Any]


def write_shard(file: BinaryIO, kind: str, stem: str, clips: Sequence[Clip], facts: dict[str, Any]) -> None:
    """Write a shard. The same clips and versions of the libraries make the same bytes.

    Args:
        kind: a key of `SUFFIXES`.
        stem: start of the names of the members of a tar.
        clips: with name, path, samples, sample_rate and tokens [C, N, groups], integers.
        facts: strings and numbers that hold for all of them.

    Raises:
        ValueError: a clip with more than 2^28 ids.
    """
    shapes = [dict(zip(SHAPE, clip["tokens"].shape, strict=True)) for clip in clips]
    most = max(clip["tokens"].size for clip in clips)
    if most > MAX_IDS:
        raise ValueError(f"a clip has {most} tokens; a shard takes at most {MAX_IDS} of a clip")
    if kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        rows = [clip | shape | dict(tokens=clip["tokens"].ravel()) for clip, shape in zip(clips, shapes, strict=True)]
        ids = pa.list_(pa.from_numpy_dtype(clips[0]["tokens"].dtype))
        types = [pa.string(), pa.string(), pa.int32(), pa.int32(), pa.int32(), pa.int64(), pa.int32(), ids]
        schema = pa.schema(list(zip(COLUMNS, types, strict=True)), {"aldm": json.dumps(facts)})
        columns = [pa.array([row[c] for row in rows], t) for c, t in zip(COLUMNS, types, strict=True)]
        group = max(1, min(GROUP, MAX_IDS // max(1, most)))
        parquet.write_table(
            pa.Table.from_arrays(columns, schema=schema), file, compression="zstd", row_group_size=group
        )
        return
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (clip, shape) in enumerate(zip(clips, shapes, strict=True)):
            array = io.BytesIO()
            np.save(array, clip["tokens"])
            about = {c: clip[c] for c in COLUMNS if c in clip and c != "tokens"} | shape | facts | {COUNT: len(clips)}
            for suffix, data in (("json", json.dumps(about).encode()), ("npy", array.getvalue())):
                member = tarfile.TarInfo(f"{stem}-{number:06}.{suffix}")  # WebDataset splits names at the first dot
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def read_shard(path: str | Path) -> Iterator[Clip]:
    """Clips of a shard in order: what `write_shard` was given, facts included, and channels, frames, groups.

    A shard may come from anyone: nothing in it is executed or used as a path, a tar is read only if it is not
    compressed, and a clip takes no more memory than 2^28 ids do.

    Raises:
        OSError: the file cannot be opened.
        ValueError: not such a shard, a damaged one, or one that ends early.
    """
    with open(path, "rb") as file:
        clips = _read_parquet(file) if str(path).endswith(".parquet") else _read_tar(file)
        while True:
            try:
                clip = next(clips, None)
            except Exception as error:  # of the parsers of four libraries, whose errors for bad bytes are of any type
                reason = f"{error}" or type(error).__name__
                raise ValueError(f"{path}: not a shard of tokens: {reason}") from error
            if clip is None:
                return
            yield clip


def _read_parquet(file: BinaryIO) -> Iterator[Clip]:
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(file) as shard:
        facts = _facts(json.loads((shard.schema_arrow.metadata or {}).get(b"aldm", "null")))
        ids = shard.schema_arrow.field("tokens").type
        if not pa.types.is_list(ids) or not pa.types.is_integer(ids.value_type):
            raise ValueError("tokens are no lists of integers")
        footer = shard.metadata
        for group in range(shard.num_row_groups):
            columns = (footer.row_group(group).column(c) for c in range(footer.num_columns))
            if any(column.num_values > MAX_IDS for column in columns):
                raise ValueError(f"a row group with more than {MAX_IDS} tokens")
        for batch in shard.iter_batches(GROUP, columns=list(COLUMNS)):
            rows = batch.select([c for c in COLUMNS if c != "tokens"]).to_pylist()
            for row, flat in zip(rows, batch.column("tokens"), strict=True):
                if flat.values is None or flat.values.null_count:
                    raise ValueError("tokens that are null")
                yield _clip(row | facts, flat.values.to_numpy())


def _read_tar(file: BinaryIO) -> Iterator[Clip]:
    about: dict[str, Any] | None = None
    key, clips, count = "", 0, None
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            stem, _, suffix = member.name.rpartition(".")
            if suffix not in ("json", "npy"):
                continue
            handle = tar.extractfile(member) if member.isreg() and not member.issparse() else None
            if handle is None:
                raise ValueError(f"{member.name!r} is no regular file")
            if (suffix == "json") != (about is None) or (about is not None and stem != key):
                raise ValueError(f"{member.name!r} is not where it belongs")
            if suffix == "json":
                if member.size > MAX_JSON:
                    raise ValueError(f"{member.name!r} has {member.size} bytes")
                key, about = stem, json.loads(handle.read())
                if not isinstance(about, dict):
                    raise ValueError(f"{member.name!r} is no JSON object")
                count = about.pop(COUNT, count)
            elif about is not None:
                yield _clip(about, _read_array(handle, member.size))
                clips, about = clips + 1, None
    if about is not None or not clips or count not in (None, clips):  # shards of version 0.1.0 have no count
        raise ValueError(f"it ends after {clips} of {count or 'an unknown number of'} clips")


def _read_array(handle: IO[bytes], size: int) -> np.ndarray:
    """The integers of an .npy file of that many bytes."""
    if np.lib.format.read_magic(handle) != (1, 0):
        raise ValueError("an unknown version of .npy")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle)
    if dtype.kind not in "iu" or fortran:
        raise ValueError("tokens are no integers in C order")
    if math.prod(shape) > MAX_IDS or math.prod(shape) * dtype.itemsize != size - handle.tell():
        raise ValueError("tokens are not as many as their shape says")
    return np.frombuffer(handle.read(), dtype).reshape(shape)


def _facts(facts: Any) -> dict[str, Any]:
    if not isinstance(facts, dict) or not all(v is None or isinstance(v, (str, int, float)) for v in facts.values()):
        raise ValueError("its facts are no JSON object of strings and numbers")
    return facts


def _clip(about: dict[str, Any], tokens: np.ndarray) -> Clip:
    """A clip whose fields have the right types and whose ids fit 32 bits.

    Raises:
        ValueError: otherwise.
    """
    _facts(about)
    numbers = [about.get(name) for name in (*SHAPE, "samples", "sample_rate")]
    if not all(isinstance(about.get(name), str) for name in ("name", "path")):
        raise ValueError("a clip's name and path are strings")
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError(f"{', '.join(SHAPE)}, samples and sample_rate are positive integers")
    shape = tuple(about[name] for name in SHAPE)
    if math.prod(shape) != tokens.size or (tokens.ndim > 1 and tokens.shape != shape):
        raise ValueError(f"{about['name']!r} has tokens of shape {tokens.shape} instead of {shape}")
    if tokens.min() < INT32.min or tokens.max() > INT32.max:
        raise ValueError(f"{about['name']!r} has tokens that do not fit 32 bits")
    return about | dict(tokens=tokens.reshape(shape))
