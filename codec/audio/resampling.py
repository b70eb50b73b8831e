"""Resampling of streams of blocks, through soxr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr


def length_at(samples: int, rate: int, new_rate: int) -> int:
    """How many samples a clip has after resampling: its duration, rounded up."""
    return -(-samples * new_rate // rate)


class Resampler:
    """Resamples a stream of blocks [C, n] of any size; the total length is `length_at` of theirs."""

    def __init__(self, rate: int, new_rate: int, channels: int):
        self.rate, self.new_rate, self.channels = rate, new_rate, channels
        same = rate == new_rate
        self._stream = None if same else soxr.ResampleStream(rate, new_rate, channels, dtype="float32")
        self._read = self._written = 0

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take samples, return those that are made by now."""
        if self._stream is None:
            return block
        self._read += block.shape[1]
        parts = [block[:, i : i + self.rate] for i in range(0, block.shape[1], self.rate)] or [block]
        out = np.concatenate([self._stream.resample_chunk(np.ascontiguousarray(p.T)).T for p in parts], 1)
        self._written += out.shape[1]
        return out

    def flush(self) -> np.ndarray:
        """The rest."""
        if self._stream is None:
            return np.zeros((self.channels, 0), np.float32)
        rest = self._stream.resample_chunk(np.zeros((0, self.channels), np.float32), last=True).T
        missing = max(0, length_at(self._read, self.rate, self.new_rate) - self._written)
        return np.pad(rest, ((0, 0), (0, max(0, missing - rest.shape[1]))))[:, :missing]


def resample(blocks: Iterable[np.ndarray], rate: int, new_rate: int, channels: int) -> Iterator[np.ndarray]:
    """Resample a stream of blocks [C, n], see `Resampler`."""
    resampler = Resampler(rate, new_rate, channels)
    for block in blocks:
        yield resampler.push(block)
    yield resampler.flush()
