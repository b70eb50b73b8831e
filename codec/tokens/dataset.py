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

    Whole shards go to processes, and of these to the workers of their DataLoader: every clip comes once in all. Have
    several times as many shards as workers; processes may get different numbers of clips.

    Args:
        source: a folder of shards, a glob pattern, or paths.
        shuffle: how many clips are held to pick the next one of, from shards in random order; 0: as written.
        seed: of the order, which is the same again for the same seed, epoch and number of processes and workers.
        rank, world_size: this process and how many share the shards.

    Raises:
        FileNotFoundError: no shards.
        ValueError: a rank outside the world; and while reading, what is not a shard, or shards that were made
            differently.
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
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that stay alive see it, too

    def set_epoch(self, epoch: int) -> None:
        """Another order for the next pass."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Dicts with `tokens`, int32 [C, N, groups] as of `Codec.tokens`; name, path, channels, frames, groups, samples
        and sample_rate of the original; model (fingerprint), codebook, and for the scalar one quality."""
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        shards, order = list(self.shards), f"{self.seed} {self._epoch.item()}"
        if self.shuffle:
            random.Random(order).shuffle(shards)
        mine = shards[self.rank * workers + number :: self.world_size * workers]
        clips = _read(mine)
        return _shuffled(clips, self.shuffle, random.Random(f"{order} {mine}")) if self.shuffle else clips


def _read(shards: list[str]) -> Iterator[dict[str, Any]]:
    first: tuple[str, dict[str, Any]] | None = None
    for shard in shards:
        for clip in read_shard(shard):
            facts = {name: clip.get(name) for name in ("model", "codebook", "vectors", "quality")}
            first = first or (shard, facts)
            if facts != first[1]:
                raise ValueError(f"{shard} was made with another model, codebook or quality than {first[0]}")
            yield clip | dict(tokens=torch.from_numpy(clip["tokens"].astype(np.int32)))


def _shuffled(clips: Iterator[Any], size: int, rng: random.Random) -> Iterator[Any]:
    held: list[Any] = []
    for clip in clips:
        held.append(clip)
        if len(held) >= size:
            place = rng.randrange(len(held))
            held[place], held[-1] = held[-1], held[place]
            yield held.pop()
    rng.shuffle(held)
    yield from held
