"""Shards of tokens as a data set for PyTorch."""

from __future__ import annotations

import glob
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .shards import SUFFIXES, read_shard


class TokenDataset(IterableDataset[dict[str, Any]]):
    """Clips of the shards that `aldm batch --tokens` writes, Parquet or WebDataset.

    Whole shards are distributed over processes, and within a process over the workers of its DataLoader, so that every
    clip comes exactly once. Use several times as many shards as workers. Processes may get different numbers of clips.
    Shards from strangers are safe to read: what is not a shard is an error.

    Args:
        source: a folder of shards, a glob pattern, or paths.
        shuffle: size of the shuffle buffer, in clips; the shards are shuffled too. 0: in the order of the files.
        seed: of the shuffling. The same seed, epoch and number of processes and workers give the same order.
        rank, world_size: number of this process, and how many processes share the shards.

    Raises:
        FileNotFoundError: no shards.
        ValueError: `rank` is not below `world_size`. While reading: a file is not a shard, is damaged, or ends early;
            or shards were made with different models, codebooks or qualities.
    """

    def __init__(
        self, source: str | Path | Iterable[str | Path], *, shuffle: int = 0, seed: int = 0, rank: int = 0,
        world_size: int = 1,
    ):  # fmt: skip
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0 .. {world_size - 1}")
        if not isinstance(source, (str, Path)):
            self.shards = [str(path) for path in source]
        elif Path(source).is_dir():
            self.shards = sorted(str(p) for suffix in SUFFIXES.values() for p in Path(source).glob(f"tokens-*{suffix}"))
        else:
            self.shards = sorted(glob.glob(str(source), recursive=True))
        if not self.shards:
            raise FileNotFoundError(f"no shards of tokens in {source}")
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent workers see changes

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Dicts of a clip: `tokens`, int32 [C, N, groups], as `Codec.tokens` returns; its shape as channels, frames and
        groups; name, path, samples and sample_rate of the original; model (fingerprint), codebook, vectors and
        quality."""
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        shards, order = list(self.shards), f"{self.seed} {self._epoch.item()}"
        if self.shuffle:
            random.Random(order).shuffle(shards)
        mine = shards[self.rank * workers + number :: self.world_size * workers]
        clips = _read(mine)
        return _shuffle(clips, self.shuffle, random.Random(f"{order} {mine}")) if self.shuffle else clips


def _read(shards: list[str]) -> Iterator[dict[str, Any]]:
    first: tuple[str, dict[str, Any]] | None = None
    for shard in shards:
        for clip in read_shard(shard):
            facts = {name: clip.get(name) for name in ("model", "codebook", "vectors", "quality")}
            first = first or (shard, facts)
            if facts != first[1]:
                raise ValueError(f"{shard} was made with another model, codebook or quality than {first[0]}")
            yield clip | dict(tokens=torch.from_numpy(clip["tokens"].astype(np.int32)))


def _shuffle(clips: Iterator[Any], size: int, rng: random.Random) -> Iterator[Any]:
    """Clips in random order, from a buffer of that size."""
    buffer: list[Any] = []
    for clip in clips:
        buffer.append(clip)
        if len(buffer) >= size:
            place = rng.randrange(len(buffer))
            buffer[place], buffer[-1] = buffer[-1], buffer[place]
            yield buffer.pop()
    rng.shuffle(buffer)
    yield from buffer
